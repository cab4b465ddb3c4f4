"""Replacing the heterogeneous convolutions of a model that exists: ``swap(model, config)``.

Vocabulary: a *layer* is a module of the model that swap can replace (HeteroConv, HGTConv or HANConv), its *widths* are the sizes
of its output rows per node type, a *plan* says what takes its place, a *trial* is one call of a copy of the model on data,
watched, and a *rehearsal* is one call of a copy of the swapped model. :mod:`~pyg_nsa.swapping.find` finds layers, :mod:`~pyg_nsa.swapping.layers` reads them, :mod:`~pyg_nsa.swapping.plan`
decides, :mod:`~pyg_nsa.swapping.replace` does it.
"""

from pyg_nsa.swapping.problems import SwapError
from pyg_nsa.swapping.replace import swap
from pyg_nsa.swapping.report import RelationRow, SwapReport, SwapRow
from pyg_nsa.swapping.swapped_conv import SwappedConv

__all__ = ["RelationRow", "SwapError", "SwapReport", "SwapRow", "SwappedConv", "swap"]

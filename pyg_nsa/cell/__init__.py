"""The perturbed cell: graphs of metabolic models, deletion labels, and the model trained on them.

Names are imported at first use: a configuration is checked without torch, and a graph is built without Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyg_nsa.lazy import lazy_names

_HOMES = {
    "pyg_nsa.cell.data.batch": ("PerturbationBatch", "PerturbationLoader"),
    "pyg_nsa.cell.models.build": ("build_model",),
    "pyg_nsa.cell.config": ("CellConfig",),
    "pyg_nsa.cell.data.dataset": ("PerturbationDataset",),
    "pyg_nsa.cell.labels.fba": ("GrowthSimulator",),
    "pyg_nsa.cell.network.graph": ("build_graph",),
    "pyg_nsa.cell.labels.table": ("LabelTable",),
    "pyg_nsa.cell.labels.measured": ("read_label_table",),
    "pyg_nsa.cell.network.metabolic_model": ("load_model",),
    "pyg_nsa.cell.models.model": ("HeteroCellNSA",),
    "pyg_nsa.cell.training.run": ("run_training",),
    "pyg_nsa.cell.labels.simulated": ("simulate_labels",),
    "pyg_nsa.cell.data.splits": ("split_by_gene",),
    "pyg_nsa.cell.network.transforms": ("DenseBoolMasks",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "CellConfig",
    "DenseBoolMasks",
    "GrowthSimulator",
    "HeteroCellNSA",
    "LabelTable",
    "PerturbationBatch",
    "PerturbationDataset",
    "PerturbationLoader",
    "build_graph",
    "build_model",
    "load_model",
    "read_label_table",
    "run_training",
    "simulate_labels",
    "split_by_gene",
]

if TYPE_CHECKING:
    from pyg_nsa.cell.config import CellConfig
    from pyg_nsa.cell.data.batch import PerturbationBatch, PerturbationLoader
    from pyg_nsa.cell.data.dataset import PerturbationDataset
    from pyg_nsa.cell.data.splits import split_by_gene
    from pyg_nsa.cell.labels.fba import GrowthSimulator
    from pyg_nsa.cell.labels.measured import read_label_table
    from pyg_nsa.cell.labels.simulated import simulate_labels
    from pyg_nsa.cell.labels.table import LabelTable
    from pyg_nsa.cell.models.build import build_model
    from pyg_nsa.cell.models.model import HeteroCellNSA
    from pyg_nsa.cell.network.graph import build_graph
    from pyg_nsa.cell.network.metabolic_model import load_model
    from pyg_nsa.cell.network.transforms import DenseBoolMasks
    from pyg_nsa.cell.training.run import run_training

"""The perturbed cell: graphs of metabolic models, deletion labels, and the model trained on them.

Names are imported at first use: a configuration is checked without torch, and a graph is built without Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyg_nsa.lazy import lazy_names

_HOMES = {
    "pyg_nsa.cell.batch": ("PerturbationBatch", "PerturbationLoader"),
    "pyg_nsa.cell.build": ("build_model",),
    "pyg_nsa.cell.config": ("CellConfig",),
    "pyg_nsa.cell.dataset": ("PerturbationDataset",),
    "pyg_nsa.cell.fba": ("GrowthSimulator",),
    "pyg_nsa.cell.graph": ("build_graph",),
    "pyg_nsa.cell.labels": ("LabelTable",),
    "pyg_nsa.cell.measured_labels": ("read_label_table",),
    "pyg_nsa.cell.metabolic_model": ("load_model",),
    "pyg_nsa.cell.model": ("HeteroCellNSA",),
    "pyg_nsa.cell.run": ("run_training",),
    "pyg_nsa.cell.simulated_labels": ("simulate_labels",),
    "pyg_nsa.cell.splits": ("split_by_gene",),
    "pyg_nsa.cell.transforms": ("DenseBoolMasks",),
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
    from pyg_nsa.cell.batch import PerturbationBatch, PerturbationLoader
    from pyg_nsa.cell.build import build_model
    from pyg_nsa.cell.config import CellConfig
    from pyg_nsa.cell.dataset import PerturbationDataset
    from pyg_nsa.cell.fba import GrowthSimulator
    from pyg_nsa.cell.graph import build_graph
    from pyg_nsa.cell.labels import LabelTable
    from pyg_nsa.cell.measured_labels import read_label_table
    from pyg_nsa.cell.metabolic_model import load_model
    from pyg_nsa.cell.model import HeteroCellNSA
    from pyg_nsa.cell.run import run_training
    from pyg_nsa.cell.simulated_labels import simulate_labels
    from pyg_nsa.cell.splits import split_by_gene
    from pyg_nsa.cell.transforms import DenseBoolMasks

"""A training of seconds on the textbook model, for tests of everything around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.load import load_config

TEXT = """\
# a training of seconds
version: 1
title: Tiny  # kept
data:
  model: textbook
  evaluation_pairs: 40
  features: [degree]
  proxies: false
operator:
  hidden_channels: 8
  heads: 2
  pattern: MSM
  dropout: 0.2
  sab: {node_types: [gene]}
  edges:
    - {edge_type: [gene, gpr, reaction], kind: incidence_mask}
    - {edge_type: [reaction, rev_gpr, gene], kind: incidence_mask}
    - {edge_type: [reaction, rmr, metabolite], kind: stoichiometry_bias}
    - {edge_type: [metabolite, rev_rmr, reaction], kind: stoichiometry_bias}
training:
  epochs: 2
  instances_per_epoch: 40
  batch_size: 16
baselines: [mean, product_of_singles, hetero_conv]
"""


def write_config(folder: Path) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(TEXT)
    return file


def tiny_config(folder: Path, *overrides: str, **training: Any) -> CellConfig:
    """The configuration, with values set as ``--set`` does, and fields of its training."""
    sets = [*overrides, *(f"training.{name}={_yaml(value)}" for name, value in training.items())]
    return load_config(write_config(folder), CellConfig, overrides=sets)


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value)

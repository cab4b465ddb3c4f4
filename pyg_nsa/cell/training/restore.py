"""A trained model from its checkpoint, or from the file of a batch that failed: the configuration is inside, and the graph is built again
and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch_geometric.data import HeteroData

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import Perturbation, PerturbationBatch, PerturbationCollate
from pyg_nsa.cell.data_files import found_near, labels_are_gone
from pyg_nsa.cell.files.cache import graph_options, open_dataset
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import ModelFileError, as_network, load_model
from pyg_nsa.cell.training.checkpoint import (
    CheckpointError,
    check_fits,
    feature_changes,
    graph_fingerprint,
    read_checkpoint,
    written_by,
)
from pyg_nsa.cell.training.experiment import builder_of
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.cell.training.trainer import run_once
from pyg_nsa.errors import path_text

__all__ = ["Restored", "load_failed_batch", "restore"]


@dataclass(frozen=True)
class Restored:
    """A trained model, ready to predict.

    Attributes:
        module: The model in evaluation mode, with its base graph.
        config: The configuration that it was trained with.
        name: Its name, such as ``hetero_nsa``.
        labels: The labels that the cache holds of this cell; ``None`` if it holds none, or the table that they came from is gone.
    """

    module: CellModule
    config: CellConfig
    name: str
    labels: LabelTable | None


def restore(path: str | Path, cache: Path | None = None) -> Restored:
    """The model of a checkpoint.

    Args:
        path: The checkpoint.
        cache: Where graphs and labels are kept between runs (default: :func:`pyg_nsa.cell.files.cache.cache_folder`). What it
            does not hold is built for this call, labels excepted.

    Raises:
        CheckpointError: The checkpoint cannot be read, another version wrote it, or the metabolic model or a gene table has changed
            or is gone.
    """
    state = read_checkpoint(path)
    config = _config(state, Path(path))
    graph, labels = _graph(config, state, Path(path), cache)
    return Restored(_module(state, config, graph, path), config, state["pyg_nsa"]["name"], labels)


def load_failed_batch(
    path: str | Path, cache: Path | None = None
) -> tuple[CellModule, PerturbationBatch]:
    """The module with the parameters that gave a loss that is not finite, and the batch.

    Args:
        path: The file that the error names.
        cache: Where graphs are kept between runs, as for training.

    Raises:
        CheckpointError: The file cannot be read, or the graph is another one now.
    """
    path = Path(path)
    state = read_checkpoint(path)
    config = _config(state, path)
    module = _module(state, config, _graph(config, state, path, cache)[0], path)
    items = [
        Perturbation(
            item["index"], torch.tensor(item["genes"], dtype=torch.long), torch.tensor(item["y"])
        )
        for item in state["instances"]
    ]
    return module, PerturbationCollate(module.graph)(items)


def _config(state: Mapping[str, Any], path: Path) -> CellConfig:
    try:
        config = CellConfig.model_validate(state["pyg_nsa_config"])
    except ValidationError as error:
        lines = "".join(
            f"\n    {path_text(one['loc']) or 'all of it'}: {one['msg']}" for one in error.errors()
        )
        raise CheckpointError(
            f"{path}: holds a configuration that is none of {written_by(state)}:{lines}\n"
            "Use the version and the plugins that it was trained with, or train anew."
        ) from error
    return found_near(config, path)


def _graph(
    config: CellConfig, state: Mapping[str, Any], path: Path, cache: Path | None
) -> tuple[HeteroData, LabelTable | None]:
    said = state["pyg_nsa"]
    try:
        graph, labels = _kept(config, cache)
        if graph is None:
            network = as_network(load_model(config.data.model))
            graph = build_graph(network, **graph_options(config))
    except (ModelFileError, TableError, OSError) as error:
        raise CheckpointError(
            f"{path}: the graph that it was trained on cannot be built again: {error}"
        ) from error
    changed = ""
    if graph_fingerprint(graph) != said["graph"]:
        changed = "genes, reactions, stoichiometry or relations"
    elif what := feature_changes(said["features"], {t: graph[t].x for t in said["features"]}):
        changed = what
    if changed:
        tables = "".join(f", {table}" for table in config.data.gene_tables.values())
        raise CheckpointError(
            f"{path}: was trained on another graph than the one that {config.data.model}{tables} gives now. The file has "
            f"changed since ({changed}); put the old one back, or train anew."
        )
    return graph, labels


def _kept(config: CellConfig, cache: Path | None) -> tuple[HeteroData | None, LabelTable | None]:
    """What the cache holds, under names that follow from the labels, too."""
    if labels_are_gone(config):
        return None, None  # a model predicts without them
    try:
        dataset = open_dataset(config, cache, progress=False, build=False)
    except FileNotFoundError:
        return None, None
    return dataset.graph, dataset.table


def _module(
    state: Mapping[str, Any], config: CellConfig, graph: HeteroData, path: str | Path
) -> CellModule:
    model = builder_of(state["pyg_nsa"]["name"], config)(config, graph)
    module = CellModule(model, graph, config.training, torch.zeros(2, 2), 1)
    nobody = Perturbation(0, torch.empty(0, dtype=torch.long), torch.zeros(2))
    run_once(module, [PerturbationCollate(graph)([nobody])])
    check_fits(state, module.state_dict(), path)
    module.load_state_dict(state["state_dict"])
    module.identity = {key: state[key] for key in ("pyg_nsa", "pyg_nsa_config")}
    return module.eval()

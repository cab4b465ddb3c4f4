"""The knockout that a report draws: which one, what it does, and where attention goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from pyg_nsa.cell.data.batch import PerturbationCollate
from pyg_nsa.cell.files.whole_files import write_csv, write_json
from pyg_nsa.cell.network.names import node_names
from pyg_nsa.cell.network.stopped import what_stops
from pyg_nsa.cell.report.attention_map import attention_around
from pyg_nsa.cell.report.files import read_facts
from pyg_nsa.cell.training.checkpoint import CheckpointError
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.cell.training.prediction import perturbations, predict_deletions
from pyg_nsa.cell.training.restore import restore
from pyg_nsa.cell.training.written_deletions import WrittenDeletions
from pyg_nsa.nn import HeteroNSA

__all__ = [
    "choose_knockout",
    "explain_knockout",
    "has_attention",
    "write_chosen_knockout",
]


def choose_knockout(predictions: pd.DataFrame, model: str) -> dict[str, Any]:
    """The held-out single deletion that takes more than half of growth and whose effect the model predicted best.

    Args:
        predictions: Rows of :func:`pyg_nsa.cell.training.experiment.prediction_rows`.
        model: Name of the model.

    Returns:
        ``genes``, ``fitness``, ``fitness_pred`` and ``chosen``, how it was found, as plain values.
    """
    own = predictions[(predictions["model"] == model) & (predictions["part"] == "test")]
    rows = own[own["size"] == 1]
    rows = own if rows.empty else rows
    known = rows[np.isfinite(rows["fitness"])]
    rows = rows if known.empty else known
    harmful = rows[rows["fitness"] < 0.5]
    how = "of the held-out deletions that take more than half of growth, the one whose effect the model predicted best"
    if harmful.empty:
        harmful = rows
        how = "of the held-out deletions, the one whose effect the model predicted best; none of them takes half of growth"
    error = (harmful["fitness"] - harmful["fitness_pred"]).abs().fillna(np.inf)
    row = harmful.loc[error.idxmin()]
    return {
        "genes": str(row["genes"]).split(";"),
        "fitness": float(row["fitness"]),
        "fitness_pred": float(row["fitness_pred"]),
        "chosen": how,
    }


def has_attention(module: CellModule) -> bool:
    """Whether there is attention to draw: the operator is HeteroNSA with a masked block."""
    operator = getattr(module.model, "operator", None)
    return isinstance(operator, HeteroNSA) and "M" in operator.pattern


def explain_knockout(
    module: CellModule,
    graph: HeteroData,
    genes: Sequence[str],
    model_file: str | Path,
    stops: Mapping[str, Sequence[str]],
) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """Attention around a knockout, and the names of what is there.

    Args:
        module: A trained model with attention (see :func:`has_attention`).
        graph: The base graph.
        genes: Ids of the deleted genes.
        model_file: The metabolic model, by name or file.
        stops: What :func:`~pyg_nsa.cell.network.stopped.what_stops` says of them.

    Returns:
        The table of :func:`~pyg_nsa.cell.report.attention_map.attention_around`, and the names of its nodes and of what stops.
    """
    batch = PerturbationCollate(graph)(perturbations(graph, [tuple(genes)]))
    table = attention_around(module.cpu().model, graph, batch)
    ends = [
        *zip(table["source_type"], table["source"], strict=True),
        *zip(table["target_type"], table["target"], strict=True),
        *(("gene", gene) for gene in genes),
        # What is blocked or missing may be far from the genes.
        *(
            ("metabolite" if key == "missing" else "reaction", stopped)
            for key, ids in stops.items()
            for stopped in ids
        ),
    ]
    return table, node_names(model_file, dict.fromkeys(ends))


def write_chosen_knockout(run: Path, knockout: WrittenDeletions, cache: Path | None = None) -> None:
    """Puts another knockout into a run's folder: into ``attention.csv`` and ``run.json``.

    Args:
        run: The folder of a run.
        knockout: The genes to delete, as one deletion.
        cache: Where graphs are kept between runs.

    Raises:
        CheckpointError: The run has no checkpoint of a model with attention.
        RunFolderError: A file of the run is missing or broken.
        UnknownGenesError: A gene is not in the graph.
    """
    facts = read_facts(run)
    name = str(facts.get("model") or "hetero_nsa")
    restored = restore(run / name / "best.ckpt", cache)
    if not has_attention(restored.module):
        raise CheckpointError(
            f"{run / name / 'best.ckpt'}: {name} has no attention of its own to draw; --knockout needs operator hetero_nsa"
        )
    graph = restored.module.graph
    (genes,) = knockout.deletions(set(graph["gene"].node_ids))
    row = predict_deletions(restored, [genes]).iloc[0]
    stops = what_stops(graph, genes)
    attention, names = explain_knockout(
        restored.module, graph, genes, restored.config.data.model, stops
    )
    write_csv(run / "attention.csv", attention)
    facts["knockout"] = {
        "genes": list(genes),
        "names": names,
        "fitness": float(row.get("fitness", np.nan)),
        "fitness_pred": float(row["fitness_pred"]),
        "chosen": "asked for; it may be a training gene",
        "stops": stops,
    }
    write_json(run / "run.json", facts)

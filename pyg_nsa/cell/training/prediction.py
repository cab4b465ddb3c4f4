"""Predictions for deletions that somebody names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData

from pyg_nsa.cell.data.batch import Perturbation, PerturbationCollate
from pyg_nsa.cell.files.tables import problem_list
from pyg_nsa.cell.labels.gene_cells import split_genes
from pyg_nsa.cell.labels.table import PAD, TARGETS, LabelTable
from pyg_nsa.cell.network.names import genes_by_name
from pyg_nsa.cell.training.restore import Restored
from pyg_nsa.cell.training.written_deletions import Deletion
from pyg_nsa.errors import nearest

__all__ = ["UnknownGenesError", "perturbations", "predict_deletions"]


class UnknownGenesError(ValueError):
    """Genes that the model's graph does not have.

    Attributes:
        genes: Their ids.
    """

    def __init__(self, message: str, genes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.genes = tuple(genes)


def perturbations(
    graph: HeteroData,
    deletions: Sequence[Deletion],
    model: str | Path | None = None,
    places: Sequence[str] = (),
) -> list[Perturbation]:
    """Instances without labels.

    Args:
        graph: The base graph.
        deletions: Which genes each deletes.
        model: The metabolic model, whose names of genes an error may suggest ids for.
        places: What an error calls each deletion, such as ``line 3``, if they come from a table.

    Raises:
        UnknownGenesError: Genes that the graph does not have; the message lists all of them.
    """
    index = {gene: i for i, gene in enumerate(graph["gene"].node_ids)}
    first: dict[str, int] = {}  # where an unknown gene stands first
    for i, genes in enumerate(deletions):
        for gene in genes:
            if gene not in index:
                first.setdefault(gene, i)
    if unknown := list(first):
        lines = []
        called = {} if model is None else genes_by_name(model)
        for gene, i in first.items():
            what = f"{places[i]}: {gene!r}" if places else repr(gene)
            named = called.get(gene.lower())
            parts = split_genes(gene, index)
            if named is None and len(parts) > 1:
                joined = "+".join(parts)
                lines.append(f"{what}: join genes that are deleted together with '+': {joined}")
                continue
            near = named or nearest(gene, index)
            lines.append(what + (f", did you mean {near!r}?" if near else ""))
        some = ", ".join(list(index)[:3])
        raise UnknownGenesError(
            f"{len(unknown)} gene{'s' if len(unknown) > 1 else ''} that the graph does not have (it has {len(index):,}, such as "
            f"{some}):\n{problem_list(lines)}",
            unknown,
        )
    missing = torch.full((2,), torch.nan)
    return [
        Perturbation(i, torch.tensor(sorted(index[g] for g in genes)), missing)
        for i, genes in enumerate(deletions)
    ]


@torch.no_grad()
def predict_deletions(
    restored: Restored,
    deletions: Sequence[Deletion],
    *,
    labels: bool = True,
    batch_size: int = 64,
    places: Sequence[str] = (),
) -> pd.DataFrame:
    """Predictions, beside the labels where they are known.

    Args:
        restored: The model.
        deletions: What to delete.
        labels: Add columns ``fitness`` and ``gene_interaction``, if the cache holds labels of this cell.
        batch_size: Deletions computed at once.
        places: What an error calls each deletion (see :func:`perturbations`).

    Returns:
        One row per deletion: ``genes`` (ids joined by ``+``), ``size``, ``fitness_pred``, ``gene_interaction_pred`` (NaN for
        a single gene), and the labels (NaN where unknown). Predictions of a target that was not trained are NaN.

    Raises:
        UnknownGenesError: Genes that the graph does not have.
    """
    module = restored.module
    items = perturbations(module.graph, deletions, restored.config.data.model, places)
    collate = PerturbationCollate(module.graph)
    out = [torch.empty(0, 2)]
    for start in range(0, len(items), batch_size):
        batch = collate(items[start : start + batch_size])
        out.append(module.predict_step(batch.to(module.device)).cpu())
    y_hat = torch.cat(out).double().numpy()
    sizes = np.array([len(genes) for genes in deletions], np.int64)
    table = pd.DataFrame(
        {
            "genes": ["+".join(genes) for genes in deletions],
            "size": sizes,
            "fitness_pred": y_hat[:, 0],
            "gene_interaction_pred": np.where(sizes >= 2, y_hat[:, 1], np.nan),
        }
    )
    if labels and restored.labels is not None:
        found = _positions(restored.labels, items)
        for name in TARGETS:
            values = np.append(getattr(restored.labels, name).astype(np.float64), np.nan)
            table[name] = values[found]  # -1, not found, is the last one
    return table


def _positions(table: LabelTable, items: Sequence[Perturbation]) -> np.ndarray:
    """Row of each deletion in the table; -1 where there is none."""
    width = max([table.genes.shape[1], *(len(item.genes) for item in items)])
    known = np.full((len(table), width), PAD, np.int64)
    known[:, : table.genes.shape[1]] = table.genes
    wanted = np.full((len(items), width), PAD, np.int64)
    for row, item in zip(wanted, items, strict=True):
        row[: len(item.genes)] = item.genes
    # Every set of genes has one row of a label table.
    return pd.MultiIndex.from_arrays(known.T).get_indexer(pd.MultiIndex.from_arrays(wanted.T))

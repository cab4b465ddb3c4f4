"""Predictions for deletions that somebody names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData

from pyg_nsa.cell.data.batch import Perturbation, PerturbationCollate
from pyg_nsa.cell.files.tables import (
    TableError,
    problem_list,
    read_rows,
    row_name,
    separator_hint,
)
from pyg_nsa.cell.labels.table import PAD, TARGETS, LabelTable
from pyg_nsa.cell.network.names import genes_by_name
from pyg_nsa.cell.training.restore import Restored
from pyg_nsa.errors import nearest

__all__ = [
    "Deletion",
    "UnknownGenesError",
    "parse_deletions",
    "perturbations",
    "predict_deletions",
    "read_deletions",
]

Deletion = tuple[str, ...]
"""Ids of the genes that are deleted together, each once."""

#: Of genes in a cell of a table; on a command line it is + alone.
_SEPARATORS = re.compile(r"[+,;|\s]+")


class UnknownGenesError(ValueError):
    """Genes that the model's graph does not have.

    Attributes:
        genes: Their ids.
    """

    def __init__(self, message: str, genes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.genes = tuple(genes)


def parse_deletions(words: Iterable[str]) -> list[Deletion]:
    """Deletions as they are written on a command line: ``b0001`` is one gene, ``b0001+b0002`` two together.

    Raises:
        ValueError: A word names no gene.
    """
    found = []
    for word in words:
        genes = tuple(dict.fromkeys(part.strip() for part in word.split("+")))
        if "" in genes:
            raise ValueError(
                f"{word!r}: expected a gene, or genes joined by '+' such as b0001+b0002"
            )
        found.append(genes)
    return found


def read_deletions(file: str | Path) -> list[Deletion]:
    """Deletions of a table with a column ``genes``, ids separated by ``+``, ``,``, ``;``, ``|`` or spaces.

    Args:
        file: CSV, TSV or Parquet.

    Raises:
        TableError: The file cannot be read, it has no such column, or a row names no gene.
    """
    rows, where, has_first_line = read_rows(file, "deletions")
    if has_first_line and len(rows):
        rows = rows.iloc[1:].set_axis(list(rows.iloc[0]), axis=1)
    if "genes" not in rows.columns:
        got = ", ".join(map(str, rows.columns)) or "an empty file"
        raise TableError(
            f"{where}: no column 'genes' in the header; got {got}.{separator_hint(file)}"
        )
    found = [tuple(dict.fromkeys(filter(None, _SEPARATORS.split(cell)))) for cell in rows["genes"]]
    empty = [
        f"{row_name(has_first_line)} {number}: no genes"
        for number, genes in zip(rows.index, found, strict=True)
        if not genes
    ]
    if empty:
        raise TableError(f"{where}: every row needs a gene:\n{problem_list(empty)}")
    return found


def perturbations(
    graph: HeteroData, deletions: Sequence[Deletion], model: str | Path | None = None
) -> list[Perturbation]:
    """Instances without labels.

    Args:
        graph: The base graph.
        deletions: Which genes each deletes.
        model: The metabolic model, whose names of genes an error may suggest ids for.

    Raises:
        UnknownGenesError: Genes that the graph does not have; the message lists all of them.
    """
    index = {gene: i for i, gene in enumerate(graph["gene"].node_ids)}
    unknown = list(dict.fromkeys(g for genes in deletions for g in genes if g not in index))
    if unknown:
        lines = []
        called = {} if model is None else genes_by_name(model)
        for gene in unknown:
            named = called.get(gene.lower())
            parts = [part for part in _SEPARATORS.split(gene) if part]
            if named is None and len(parts) > 1:
                joined = "+".join(parts)
                lines.append(f"{gene!r}: join genes that are deleted together with '+': {joined}")
                continue
            near = named or nearest(gene, index)
            lines.append(f"{gene!r}" + (f", did you mean {near!r}?" if near else ""))
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
    restored: Restored, deletions: Sequence[Deletion], *, labels: bool = True, batch_size: int = 64
) -> pd.DataFrame:
    """Predictions, beside the labels where they are known.

    Args:
        restored: The model.
        deletions: What to delete.
        labels: Add columns ``fitness`` and ``gene_interaction``, if the cache holds labels of this cell.
        batch_size: Deletions computed at once.

    Returns:
        One row per deletion: ``genes`` (ids joined by ``+``), ``size``, ``fitness_pred``, ``gene_interaction_pred`` (NaN for
        a single gene), and the labels (NaN where unknown). Predictions of a target that was not trained are NaN.

    Raises:
        UnknownGenesError: Genes that the graph does not have.
    """
    module = restored.module
    items = perturbations(module.graph, deletions, restored.config.data.model)
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

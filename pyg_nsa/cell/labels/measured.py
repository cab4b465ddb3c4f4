"""Tables of measurements, joined to a graph by gene id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from pyg_nsa.cell.files.tables import (
    TableError,
    problem_report,
    read_rows,
    row_name,
    separator_hint,
)
from pyg_nsa.cell.labels.doubts import (
    contradicted_interactions,
    doubtful_columns,
    doubtful_values,
    undefined_interactions,
    without_undefined_interactions,
)
from pyg_nsa.cell.labels.gene_cells import split_genes
from pyg_nsa.cell.labels.number_cells import cell_number
from pyg_nsa.cell.labels.table import NUMBERS, PAD, LabelTable
from pyg_nsa.cell.network.gene_tables import id_hint

__all__ = ["READER_VERSION", "UnknownRows", "read_label_table", "warn_of_labels"]

logger = logging.getLogger(__name__)

READER_VERSION = 3  # raised whenever read_label_table makes something else of the same table

UnknownRows = Literal["error", "skip"]
_CONTRADICTING, _REPEATED, _WRONG, _UNKNOWN = (
    "contradictions",
    "repeated rows",
    "rows with wrong cells",
    "rows with unknown genes",
)
_Problems = dict[str, list[tuple[int, str]]]  # by kind, the worst first: position and text


def read_label_table(
    path: str | Path | pd.DataFrame,
    graph: HeteroData,
    on_unknown: UnknownRows = "error",
    listing: Path | None = None,
    written: Mapping[str, str] | None = None,
) -> LabelTable:
    """Join a table of measurements to a graph.

    Columns, by name in the header: ``genes`` (ids separated by ``+``, ``,``, ``;``, ``|`` or spaces; an id that holds one of these
    is found whole) and ``fitness`` (relative to the wildtype), and optionally ``gene_interaction`` and ``fitness_std``; others are left alone, with a warning if their
    name is nearly one of these. An empty cell, ``NA`` or ``NaN`` is a missing value. Values that are hardly relative to the
    wildtype are a warning, too (:mod:`pyg_nsa.cell.labels.doubts`), and so are interactions that the table's own fitness
    contradicts, and a ``gene_interaction`` of a single deletion, which
    is left out.

    Args:
        path: A CSV, TSV or Parquet file, or a table in memory.
        graph: A graph of :func:`pyg_nsa.cell.network.graph.build_graph`, whose gene nodes the ids must name.
        on_unknown: What to do with rows that name a gene which the graph lacks: ``"error"``, or ``"skip"`` them with a
            warning that says which. Other problems are errors always.
        listing: The file for a list of all rows with problems, which is written if a message has no room for it; by
            default a new one in the folder for temporary files.
        written: Ids by what a table may write for them, in lower case
            (:func:`~pyg_nsa.cell.network.names.ids_as_written`), which messages about unknown genes name.

    Returns:
        One instance a row, in the table's order; ``provenance["left_out"]`` is the number of rows that were skipped, and
        ``provenance["left_out_report"]`` the text of the warning (empty if there are none); ``provenance["doubts"]`` are the
        other warnings.

    Raises:
        TableError: If the file cannot be read, a column is missing, or rows have unknown genes, numbers that are none,
            or the genes of an earlier row. The message names ten rows of each kind with their line numbers, rows that
            contradict another first, and the file that lists all of them if there are more.
        ValueError: For another ``on_unknown``.
    """
    if on_unknown not in ("error", "skip"):
        raise ValueError(f"on_unknown={on_unknown!r}: expected 'error' or 'skip'.")
    rows, where, has_first_line = read_rows(path, "measured labels")
    if has_first_line:
        header = list(rows.iloc[0]) if len(rows) else []
        rows = rows.iloc[1:].set_axis(header, axis=1)
    for name in ("genes", "fitness"):
        if list(rows.columns).count(name) != 1:
            raise TableError(
                f"{where}: expected one column {name!r}, got the columns {', '.join(map(repr, rows.columns))}. "
                "Needed: genes, fitness; optional: gene_interaction, fitness_std."
                f"{separator_hint(path)}"
            )
    if not len(rows):
        raise TableError(f"{where}: no rows below the header; every measured deletion needs one.")
    names: list[str] = graph["gene"].node_ids
    problems: _Problems = {_CONTRADICTING: [], _REPEATED: [], _WRONG: [], _UNKNOWN: []}
    numbers = {name: _numbers(rows, name, problems[_WRONG]) for name in NUMBERS}
    row = row_name(has_first_line)
    members = _members(rows, names, numbers, row, problems, written or {})

    def listed(found: _Problems) -> str:
        lines = {
            what: [f"{row} {rows.index[i]}: {text}" for i, text in sorted(of_kind)]
            for what, of_kind in found.items()
        }
        return problem_report(lines, listing)

    unknown = problems[_UNKNOWN] if on_unknown == "error" else problems.pop(_UNKNOWN)
    if count := sum(map(len, problems.values())):
        raise TableError(
            f"{where}: {count} problem{'s' * (count > 1)}. Genes are named as in the graph ({names[0]!r}, …), and every set of "
            f"genes has one row; average repeated measurements first:\n{listed(problems)}"
        )
    report = ""
    if unknown:
        share = f"{len(unknown)} of {len(rows)} rows"
        report = f"{where}: left out {share}:\n{listed({_UNKNOWN: unknown})}"
    kept = np.setdiff1d(np.arange(len(rows)), [i for i, _ in unknown]).astype(np.int64)
    width = max((len(members[i]) for i in kept), default=1)
    padded = np.full((len(kept), width), PAD, np.int32)
    for k, i in enumerate(kept):
        padded[k, : len(members[i])] = members[i]
    table = LabelTable(
        gene_ids=tuple(names),
        genes=padded,
        provenance={
            "source": "measured",
            "file": where,
            "model": graph.model_id,
            "left_out": len(unknown),
            "left_out_report": report,
        },
        fitness=numbers["fitness"][kept],
        gene_interaction=numbers["gene_interaction"][kept],
        fitness_std=numbers["fitness_std"][kept],
    )

    def place(i: int) -> str:
        return f"{row} {rows.index[kept[i]]}"

    doubts = doubtful_columns(list(rows.columns), ("genes", *NUMBERS))
    doubts += undefined_interactions(table, place)
    table = without_undefined_interactions(table)
    doubts += doubtful_values(table, place)
    doubts += contradicted_interactions(table, place)
    said = [f"{where}: {doubt}" for doubt in doubts]
    table = replace(table, provenance={**table.provenance, "doubts": said})
    warn_of_labels(table)
    return table


def warn_of_labels(table: LabelTable) -> None:
    """Log which rows of the user's table a label table lacks, and what in it is hardly meant."""
    if report := table.provenance.get("left_out_report"):
        logger.warning("%s", report)
    for doubt in table.provenance.get("doubts", ()):
        logger.warning("%s", doubt)


def _numbers(rows: pd.DataFrame, name: str, problems: list[tuple[int, str]]) -> NDArray[np.float32]:
    """[n] float32 of a column; all NaN without one."""
    values = np.full(len(rows), np.nan, np.float32)
    for i, cell in enumerate(rows[name] if name in rows.columns else ()):
        try:
            values[i] = cell_number(cell)
        except ValueError as error:
            problems.append((i, f"{name} {error}"))
    return values


def _members(
    rows: pd.DataFrame,
    names: list[str],
    numbers: dict[str, NDArray[np.float32]],
    row: str,
    problems: _Problems,
    written: Mapping[str, str],
) -> list[tuple[int, ...]]:
    """Gene indices of each row."""
    index = {gene: i for i, gene in enumerate(names)}
    members: list[tuple[int, ...]] = []
    first_seen: dict[tuple[int, ...], int] = {}
    for i, cell in enumerate(rows["genes"]):
        ids = split_genes(cell, index)
        missing = [gene for gene in dict.fromkeys(ids) if gene not in index]
        genes = tuple(sorted(index[gene] for gene in set(ids) & index.keys()))
        members.append(genes)
        if not ids:
            problems[_WRONG].append((i, "no genes"))
        elif missing:
            text = "unknown gene " + ", ".join(
                f"{gene!r}{id_hint(gene, written)}" for gene in missing
            )
            problems[_UNKNOWN].append((i, text))
        elif len(genes) < len(ids):
            problems[_WRONG].append((i, f"a gene twice in {cell!r}"))
        elif (j := first_seen.setdefault(genes, i)) != i:
            same = all(np.array_equal(v[i], v[j], equal_nan=True) for v in numbers.values())
            kind, verdict = (_REPEATED, "repeats") if same else (_CONTRADICTING, "contradicts")
            problems[kind].append((i, f"{verdict} {row} {rows.index[j]} ({cell})"))
    return members

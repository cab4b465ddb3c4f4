"""Gene–gene relations from a user's tables."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyg_nsa.cell.files.tables import (
    TableError,
    problem_list,
    read_rows,
    row_name,
    separator_hint,
)

__all__ = ["GenePairs", "UnknownGenes", "check_unknown", "id_hint", "read_gene_pairs"]

logger = logging.getLogger(__name__)

UnknownGenes = Literal["error", "skip", "add"]


@dataclass(frozen=True, eq=False)
class GenePairs:
    """What a table says.

    Attributes:
        pairs: [2, E] int64, unique (source, target) of gene indices, in the table's order.
        rows: Number of rows, a header not counted.
        unknown: One text for each row that names genes which the model lacks: its line, and the ids.
        unknown_ids: Those ids, each once.
        repeated: One text for each row whose pair stands in an earlier one, which makes no second edge.
        added: Ids that were added to the genes.
    """

    pairs: NDArray[np.int64]
    rows: int
    unknown: list[str] = field(default_factory=list)
    unknown_ids: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


def check_unknown(unknown: str) -> None:
    """Make sure that an option says what to do with unknown ids.

    Raises:
        ValueError: If it does not.
    """
    if unknown not in ("error", "skip", "add"):
        raise ValueError(f"unknown={unknown!r}: expected 'error', 'skip' or 'add'.")


def id_hint(gene: str, written: Mapping[str, str]) -> str:
    """What follows an unknown gene in a message: the id of the model that is meant, where ``written`` has it."""
    meant = written.get(gene.lower())
    return f" (the model's {meant!r})" if meant else ""


def _is_header(cells: list[str], index: Mapping[str, int]) -> bool:
    """Whether a first line holds names of columns: no gene of the model, nor two ids such as the model's, which are no columns' names."""
    if any(cell in index for cell in cells):
        return False
    known = {_shape(gene) for gene in index}
    return not all(any(map(str.isdigit, cell)) and _shape(cell) in known for cell in cells)


def _shape(gene: str) -> str:
    """An id with each letter as ``a`` or ``A``, and each digit as ``0``."""
    return re.sub(r"[0-9]", "0", re.sub(r"[A-Z]", "A", re.sub(r"[a-z]", "a", gene)))


def read_gene_pairs(
    name: str,
    table: str | Path | pd.DataFrame,
    gene_ids: list[str],
    unknown: UnknownGenes = "error",
    *,
    written: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> GenePairs:
    """Read one relation.

    Args:
        name: Its name, for messages.
        table: As for :func:`pyg_nsa.cell.network.graph.build_graph`.
        gene_ids: The genes; with ``unknown="add"`` new ones are appended.
        unknown: What to do with ids that are not among them: ``"error"``, ``"skip"`` their rows, or ``"add"`` them.
        written: Ids by what a table may write for them, in lower case
            (:func:`~pyg_nsa.cell.network.names.ids_as_written`); messages name these ids, and such genes are not added.
        quiet: Log no warning about rows that are skipped or repeated; the caller reports them.

    Returns:
        The pairs, and what was left out.

    Raises:
        TableError: If the table cannot be read, holds no pairs, or has unknown ids and ``unknown="error"``, or with ``unknown="add"``
            names of genes that are there by another id: added, they would be second nodes of those genes.
    """
    rows, where, has_first_line = read_rows(table, f"gene_tables[{name!r}]")
    if rows.shape[1] < 2:
        raise TableError(
            f"{where}: expected two columns of gene ids, got {rows.shape[1]}. "
            "Columns are separated by commas in .csv and by tabs in .tsv files."
            f"{separator_hint(table)}"
        )
    index = {gene: i for i, gene in enumerate(gene_ids)}
    cells = rows.iloc[:, :2]
    if has_first_line and len(cells) and _is_header(list(cells.iloc[0]), index):
        cells = cells.iloc[1:]
    if not len(cells):
        head = f" below the header {', '.join(map(repr, rows.iloc[0]))}" if len(rows) else ""
        raise TableError(
            f"{where}: no pairs of genes{head}. Fill the table, or take gene_tables[{name!r}] and its edge type out."
        )
    row = row_name(has_first_line)
    meant = written or {}
    found: dict[tuple[int, int], int] = {}
    result = GenePairs(np.empty((2, 0), np.int64), len(cells))
    for number, (source, target) in zip(cells.index, cells.itertuples(index=False), strict=True):
        missing = list(dict.fromkeys(gene for gene in (source, target) if gene not in index))
        known_otherwise = any(gene.lower() in meant for gene in missing)
        if unknown == "add" and "" not in missing and not known_otherwise:
            for gene in missing:
                index[gene] = len(gene_ids)
                gene_ids.append(gene)
                result.added.append(gene)
            missing = []
        if missing:
            what = ", ".join(
                f"{gene!r}{id_hint(gene, meant)}" if gene else "an empty cell" for gene in missing
            )
            result.unknown.append(f"{row} {number}: {what}")
            result.unknown_ids.extend(gene for gene in missing if gene)
        elif (first := found.setdefault((index[source], index[target]), number)) != number:
            result.repeated.append(f"{row} {number}: {source!r}, {target!r} as in {row} {first}")
    if result.unknown:
        share = f"in {len(result.unknown)} of {len(cells)} pairs"
        listed = problem_list(result.unknown)
        if unknown != "skip":
            mend = (
                ", or add the genes ('add' there)"
                if unknown == "error"
                else "; a gene that the model has by another id is not added, nor is an empty cell"
            )
            raise TableError(
                f"{where}: gene ids that the model does not have, {share}. "
                "Correct them, or leave those pairs out (data.unknown_genes: skip in a configuration, unknown='skip' in Python)"
                f"{mend}:\n{listed}"
            )
        if not quiet:
            logger.warning(
                "%s: left out gene ids that the model does not have, %s:\n%s", where, share, listed
            )
    if result.repeated and not quiet:
        logger.warning(
            "%s: %d of %d pairs stand in an earlier row, and make no second edge:\n%s",
            where,
            len(result.repeated),
            len(cells),
            problem_list(result.repeated),
        )
    if result.added and not quiet:
        logger.warning(
            "%s: added %d genes that the model does not have; no reaction needs them:\n%s",
            where,
            len(result.added),
            problem_list([repr(gene) for gene in result.added]),
        )
    pairs = np.ascontiguousarray(np.array(list(found), np.int64).reshape(-1, 2).T)
    unknown_ids = list(dict.fromkeys(result.unknown_ids))
    return GenePairs(pairs, result.rows, result.unknown, unknown_ids, result.repeated, result.added)

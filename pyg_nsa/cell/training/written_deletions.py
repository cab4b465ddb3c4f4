"""Deletions as somebody wrote them: words of a command line, or a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pyg_nsa.cell.files.tables import (
    TableError,
    problem_list,
    read_rows,
    row_name,
    separator_hint,
)
from pyg_nsa.cell.labels.gene_cells import SEPARATORS, split_genes

__all__ = ["Deletion", "WrittenDeletions", "deletion_table", "deletion_words"]

Deletion = tuple[str, ...]
"""Ids of the genes that are deleted together, each once."""


@dataclass(frozen=True)
class WrittenDeletions:
    """Deletions before it is known which genes there are; see :func:`deletion_words` and :func:`deletion_table`.

    Attributes:
        cells: What was written for each.
        places: Where each stands, such as ``line 3``; empty for words.
        separators: What stands between ids (a regular expression).
    """

    cells: tuple[str, ...]
    places: tuple[str, ...] = ()
    separators: str = SEPARATORS

    def deletions(self, known: Collection[str] = ()) -> list[Deletion]:
        """The genes of each.

        Args:
            known: Ids that there are; such an id is one gene even if it holds a separator.
        """
        split = (split_genes(cell, known, self.separators) for cell in self.cells)
        return [tuple(dict.fromkeys(genes)) for genes in split]


def deletion_words(words: Iterable[str]) -> WrittenDeletions:
    """Deletions as they are written on a command line: ``b0001`` is one gene, ``b0001+b0002`` two together.

    Raises:
        ValueError: A word names no gene.
    """
    words = tuple(words)
    for word in words:
        if not all(part.strip() for part in word.split("+")):
            raise ValueError(
                f"{word!r}: expected a gene, or genes joined by '+' such as b0001+b0002"
            )
    return WrittenDeletions(words, separators=r"\s*\+\s*")


def deletion_table(file: str | Path) -> WrittenDeletions:
    """Deletions of a table with a column ``genes``, ids separated by ``+``, ``,``, ``;``, ``|`` or spaces.

    Args:
        file: CSV, TSV or Parquet.

    Raises:
        TableError: The file cannot be read, it has no such column or two, no rows, or a row names no gene.
    """
    rows, where, has_first_line = read_rows(file, "deletions")
    if has_first_line and len(rows):
        rows = rows.iloc[1:].set_axis(list(rows.iloc[0]), axis=1)
    columns = list(rows.columns)
    if columns.count("genes") != 1:
        got = ", ".join(map(str, columns)) or "an empty file"
        what = "more than one" if "genes" in columns else "no"
        raise TableError(
            f"{where}: {what} column 'genes' in the header; got {got}.{separator_hint(file)}"
        )
    if not len(rows):
        raise TableError(f"{where}: no rows below the header; every deletion to predict needs one.")
    places = tuple(f"{row_name(has_first_line)} {number}" for number in rows.index)
    written = WrittenDeletions(tuple(rows["genes"]), places)
    empty = [
        f"{place}: no genes"
        for place, genes in zip(places, written.deletions(), strict=True)
        if not genes
    ]
    if empty:
        raise TableError(f"{where}: every row needs a gene:\n{problem_list(empty)}")
    return written

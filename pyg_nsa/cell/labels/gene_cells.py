"""Several genes in one cell of a table, or in one word of a command line."""

from __future__ import annotations

import re
from collections.abc import Collection

__all__ = ["SEPARATORS", "split_genes"]

SEPARATORS = r"[+,;|\s]+"
"""What stands between genes in a cell of a table (a regular expression)."""


def split_genes(cell: str, known: Collection[str] = (), separators: str = SEPARATORS) -> list[str]:
    """The ids in a cell.

    Ids may hold what separates others (``lcl|7``): of known ids the longest that fits is taken.

    Args:
        cell: What stands in the cell.
        known: Ids that there are; a set or a mapping, since many are looked up.
        separators: A regular expression.

    Returns:
        Ids in the cell's order, known or not; empty where there is none.
    """
    parts = re.split(f"({separators})", cell.strip())  # text and separators in turn
    found = []
    start = 0
    while start < len(parts):
        end = next(
            (e for e in range(len(parts), start + 1, -2) if "".join(parts[start:e]) in known),
            start + 1,
        )
        found.append("".join(parts[start:end]))
        start = end + 1
    return [gene for gene in found if gene]

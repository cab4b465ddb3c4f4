"""How commands show tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["print_table"]


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Prints a table, its cells wrapped where the screen ends; `[` and `]` in them are no markup."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    # In a file or a pipe there is no width to fit into; 80 columns would break every cell.
    Console(width=None if sys.stdout.isatty() else 120).print(table)

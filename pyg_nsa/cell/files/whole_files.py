"""Tables and facts that people read, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from pyg_nsa.cell.files.sealed_file import write_atomically

__all__ = ["write_csv", "write_json"]


def write_csv(path: Path, table: pd.DataFrame, separator: str = ",") -> None:
    """Write a table without its index.

    Args:
        path: The file; its folder exists.
        table: The table.
        separator: What stands between cells.

    Raises:
        OSError: See :func:`~pyg_nsa.cell.files.sealed_file.write_atomically`.
    """
    write_atomically(path, table.to_csv(index=False, sep=separator).encode())


def write_json(path: Path, facts: Any) -> None:
    """Write what JSON can hold.

    Args:
        path: The file; its folder exists.
        facts: Dictionaries, lists, texts and numbers.

    Raises:
        OSError: See :func:`~pyg_nsa.cell.files.sealed_file.write_atomically`.
    """
    write_atomically(path, json.dumps(facts, indent=2).encode())

"""Reading a user's tables, with the line numbers that an error needs.

CSV (``.csv``), TSV (``.tsv``, ``.tab``, ``.txt``), each also compressed (``.gz``, ``.bz2``), and Parquet (``.parquet``; needs
the package ``pyarrow``). Everything is read as text, so that gene ids such as ``007`` or ``NA`` stay what they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pyg_nsa.cell.files.file_kind import file_kind
from pyg_nsa.cell.files.table_faults import SEPARATORS, separator_hint, text_fault

__all__ = ["TableError", "read_rows", "separator_hint"]

SHOWN = 10
_LINE_BREAK = r"\r\n|\r|\n"


class TableError(ValueError):
    """A table given by the user could not be read, or says something impossible."""


def read_rows(table: str | Path | pd.DataFrame, what: str) -> tuple[pd.DataFrame, str, bool]:
    """Read a table as text, its first line included.

    Args:
        table: A file, or a table in memory.
        what: What the table is for, for errors about a table in memory.

    Returns:
        The cells (str; empty where missing), the table's name in messages, and whether the first line of the file is
        still in the table (``True`` for CSV and TSV) or already its header. The index holds the 1-based numbers of the
        lines in the file at which rows begin; for Parquet and tables in memory, 0-based row numbers.

    Raises:
        TableError: If the file is missing, cannot be read, or has an unknown ending.
    """
    if isinstance(table, pd.DataFrame):
        return _as_text(table), what, False
    path = Path(table).expanduser()
    if not path.is_file():
        raise TableError(f"{path}: no such file ({what}).")
    kind, compression = file_kind(path)
    try:
        if kind == ".parquet" and not compression:
            return _as_text(_parquet(path)), str(path), False
        if kind in SEPARATORS:
            # Blank lines are kept while reading, for they count in the line numbers.
            frame = pd.read_csv(
                path,
                sep=SEPARATORS[kind],
                header=None,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
                encoding="utf-8-sig",
            )
            frame = frame.fillna("")
            # A quoted cell may hold line breaks, so a row may take several lines.
            breaks = sum((frame[c].str.count(_LINE_BREAK) for c in frame), np.zeros(len(frame)))
            lines = 1 + np.asarray(breaks, np.int64)
            frame.index = pd.Index(1 + np.cumsum(lines) - lines)
            frame = frame.map(str.strip)
            filled = (frame != "").any(axis=1)
            return frame[filled], str(path), True
    except TableError:
        raise
    except (ValueError, OSError, EOFError) as error:  # of pandas and pyarrow, all ValueErrors
        fault = text_fault(path) if kind in SEPARATORS else ""
        if fault:
            raise TableError(f"{path}: {fault}") from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(f"{path}: cannot be read ({first}).{separator_hint(path)}") from error
    raise TableError(
        f"{path}: unknown ending {path.suffix!r} ({what}). Expected .csv, .tsv, .tab, .txt (these also with .gz or .bz2), .parquet."
    )


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise TableError(
            f"{path}: Parquet files need the package 'pyarrow': pip install pyarrow. "
            "Or give the table as .csv or .tsv."
        ) from error


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells as stripped text, missing ones empty, rows numbered from 0."""
    text = frame.reset_index(drop=True).astype(object)
    return text.where(text.notna(), "").map(lambda cell: str(cell).strip())


def row_name(numbered_lines: bool) -> str:
    """What a row's number means to the reader."""
    return "line" if numbered_lines else "row"


def problem_list(problems: Sequence[str], what: str = "") -> str:
    """Problems below one another, shortened after ten; ``what`` they are, for the number of the others."""
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN:,} more{what and ' ' + what}")
    return "\n".join(lines)


def problem_report(problems: Mapping[str, Sequence[str]], listing: Path | None = None) -> str:
    """Problems of several kinds, ten of each at most, and where all are listed if that leaves some out.

    Args:
        problems: By what they are, such as ``"contradictions"``, the worst first.
        listing: The file for all of them; by default a new one in the folder for temporary files.

    Returns:
        Lines of text.
    """
    lines = [problem_list(found, what) for what, found in problems.items() if found]
    if max(map(len, problems.values()), default=0) > SHOWN:
        everything = [problem for found in problems.values() for problem in found]
        if listing is None:
            with tempfile.NamedTemporaryFile(prefix="pyg-nsa-", suffix=".txt", delete=False) as new:
                listing = Path(new.name)
        listing.write_text("\n".join(everything) + "\n", encoding="utf-8")
        lines.append(f"All {len(everything):,} are listed in {listing}")
    return "\n".join(lines)

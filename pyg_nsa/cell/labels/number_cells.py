"""A number in a cell of a table, as a spreadsheet may have written it."""

from __future__ import annotations

import math
import re

__all__ = ["cell_number"]

_MISSING = ("", "na", "nan")
_MEANT_AS_MISSING = re.compile(
    r"#?n[./]?[ad][.!?]?|#[\w/]+[!?]?|<na>|null|none|-+|–|—|\.|\?", re.IGNORECASE
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_PERCENT = re.compile(r"[+-]?\d+(?:\.\d+)?\s*%")


def cell_number(cell: str) -> float:
    """The number that stands in a cell.

    Args:
        cell: Its text.

    Returns:
        The number; NaN for an empty cell, ``NA`` or ``NaN``.

    Raises:
        ValueError: It is no finite number; the message ends with how to mend it where what was meant can be told.
    """
    if cell.lower() in _MISSING:
        return math.nan
    try:
        if "_" in cell:  # Python reads 0_92 as 92
            raise ValueError
        value = float(cell)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise ValueError(f"{cell!r} is not a finite number{_mend(cell)}") from None
    return value


def _mend(cell: str) -> str:
    if _DECIMAL_COMMA.fullmatch(cell):
        return f"; with a decimal point it is {cell.replace(',', '.')}"
    if _PERCENT.fullmatch(cell):
        return "; divide percent by 100"
    if _MEANT_AS_MISSING.fullmatch(cell):
        return "; leave the cell empty if nothing was measured"
    return ""

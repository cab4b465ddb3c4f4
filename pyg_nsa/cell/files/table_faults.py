"""What is wrong with the text of a table that cannot be read, at which line, and how to mend it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from pyg_nsa.cell.files.file_kind import DECOMPRESS, file_kind

__all__ = ["SEPARATORS", "separator_hint", "text_fault"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_BREAK = re.compile(rb"\r\n|\r|\n")
_DECIMAL_COMMA = re.compile(r"(?:^|[;\t])\s*-?\d+,\d+\s*(?:[;\t]|$)", re.MULTILINE)


def text_fault(path: Path) -> str:
    """What is wrong with a CSV or TSV file; empty if nothing of what is looked for.

    Args:
        path: The file, which may be compressed.

    Returns:
        Sentences: another encoding than UTF-8, a row with more cells than the first, or a quote that is never closed.
    """
    try:
        content = _content(path)
    except (ValueError, OSError, EOFError):
        return ""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith(_UTF_16):
            return (
                "it is UTF-16 text, and tables are UTF-8: save it as UTF-8 (in Excel: 'CSV UTF-8')."
            )
        line = 1 + len(_LINE_BREAK.findall(content[: error.start]))
        return (
            f"line {line} is no UTF-8 text (byte 0x{content[error.start]:02x}): save the file as UTF-8 (in Excel: 'CSV "
            "UTF-8'), or convert it: iconv -f latin1 -t utf-8."
        )
    kind, _ = file_kind(path)
    return _fault_of_rows(text, SEPARATORS[kind], separator_hint(path))


def _fault_of_rows(text: str, separator: str, hint: str) -> str:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    cells, line = 0, 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            return (
                f"a double quote in line {line} is never closed, or text follows where it closes: close it, or write it twice "
                "where it is a part of the text."
            )
        if row is None:
            return ""
        if line == 1:
            cells = max(len(row), 1)
        if len(row) > cells:
            break
        line = rows.line_num + 1
    found = f"line {line} has {len(row)} cells, and line 1 has {cells}."
    if hint:
        return found + hint
    found += " No line may have more cells than the first: mend the line, or the first one"
    if separator == ",":
        found += "; put a cell that holds a comma in double quotes, and write numbers with a decimal point"
    return f"{found}."


def separator_hint(table: str | Path | pd.DataFrame) -> str:
    """A sentence on the separator of a file, if its first line has another than the ending says; else empty.

    Args:
        table: What :func:`~pyg_nsa.cell.files.tables.read_rows` was given.
    """
    if isinstance(table, pd.DataFrame):
        return ""
    path = Path(table).expanduser()
    kind, _ = file_kind(path)
    wanted = SEPARATORS.get(kind)
    try:
        text = _content(path).decode("utf-8-sig")
    except (ValueError, OSError, EOFError):  # it says nothing, then
        return ""
    first = text.partition("\n")[0]
    found = [one for one in _SEPARATOR_NAMES if one in first]
    if wanted is None or wanted in first or not found:
        return ""
    fits = [ending for ending, one in SEPARATORS.items() if one == found[0]]
    mend = f"call the file {fits[0]}, or write" if fits else "write"
    decimals = ""
    if _DECIMAL_COMMA.search(text):
        decimals = ", and its numbers with a decimal point (0.98, not 0,98)"
    return (
        f" Its first line is separated by {_SEPARATOR_NAMES[found[0]]}, and {kind} files by "
        f"{_SEPARATOR_NAMES[wanted]}: {mend} it with {_SEPARATOR_NAMES[wanted]}{decimals}."
    )


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    compression = file_kind(path)[1]
    return DECOMPRESS[compression](content) if compression else content

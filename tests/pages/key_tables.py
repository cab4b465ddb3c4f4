"""Tables of a configuration's keys, in pages that are otherwise written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pyg_nsa.cli.plugins.option_rows import OptionRow

HEAD = "| key | type | default | limits | |\n|---|---|---|---|---|"


def filled(page: Path, tables: Mapping[str, Callable[[], Iterable[str]]]) -> str:
    """The text of a page, with its tables as they should be.

    Args:
        page: It has a place for each: `<!-- NAME: written by … -->`, and `<!-- end -->`.
        tables: The lines of each, by name.
    """
    text = page.read_text()
    for name, lines in tables.items():
        region = re.compile(rf"(<!-- {name}: written by .*? -->\n).*?(<!-- end -->)", re.S)
        assert len(region.findall(text)) == 1, f"{page.name} has no place for the table of {name}"
        table = "\n".join(["", *lines(), "", ""])
        text = region.sub(lambda found, table=table: found[1] + table + found[2], text)
    return text


def line_of(row: OptionRow) -> str:
    """A key as the schema says it."""
    default = "required" if row.required else f"`{json.dumps(row.default)}`"
    if isinstance(row.default, dict) and row.default:
        default = ""  # its own keys say it
    return line([f"`{row.name}`", row.type, default, row.limits, row.description])


def line(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

"""docs/training.md: written by hand, but for the tables of keys."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from pages.key_tables import HEAD, filled, line_of
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cli.plugins.option_rows import rows_of_model
from pyg_nsa.registry import Registry
from pyg_nsa.schema import json_schema

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
PARTS = ("data", "readout", "training")  # the operator's keys are in docs/configuration.md


def training_page() -> str:
    """The text of the page, with its tables as they should be."""
    return filled(PAGE, {part: functools.partial(rows, part) for part in ("file", *PARTS)})


def rows(part: str) -> Iterator[str]:
    """The table of a part's keys, or with `file` of those at the top."""
    schema = json_schema(Registry(allow=["pyg-nsa"], disable=()), model=CellConfig)
    yield HEAD
    for row in rows_of_model(schema, schema["$defs"]):
        above = row.name.partition(".")[0] if "." in row.name else "file"
        if above == part:
            yield line_of(row)

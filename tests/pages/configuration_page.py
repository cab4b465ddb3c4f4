"""docs/configuration.md: written by hand, but for the tables of keys."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from pages.key_tables import HEAD, filled, line, line_of
from pyg_nsa.cli.plugins.option_rows import rows_of_model
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.registry import Registry
from pyg_nsa.schema import json_schema

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TABLES: dict[str, type[BaseModel]] = {"keys": HeteroNSAConfig, "edges": EdgeSpec}


def configuration_page() -> str:
    """The text of the page, with its tables as they should be."""
    return filled(PAGE, {name: functools.partial(rows, model) for name, model in TABLES.items()})


def rows(model: type[BaseModel]) -> Iterator[str]:
    """The table of a model's keys, those of models inside of it included."""
    schema = json_schema(Registry(allow=["pyg-nsa"], disable=()))
    part = schema if model is HeteroNSAConfig else schema["$defs"][model.__name__]
    yield HEAD
    for row in rows_of_model(part, schema["$defs"]):
        if row.name in ("$schema", "options", "kind", "operator", "operator_options"):
            # Their types and values are those of the installed plugins.
            default = {"operator": "`hetero_nsa`", "kind": "required"}.get(row.name, "")
            yield line([f"`{row.name}`", "", default, "", row.description])
        elif row.name == "edges" or row.name.startswith("edges."):
            if "." not in row.name:
                yield line(
                    ["`edges`", "list of entries", "required", "at least 1", row.description]
                )
        else:
            yield line_of(row)

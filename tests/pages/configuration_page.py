"""docs/configuration.md: written by hand, but for the tables of keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from pyg_nsa.cli.plugins.option_rows import rows_of_model
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.registry import Registry
from pyg_nsa.schema import json_schema

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TABLES: dict[str, type[BaseModel]] = {"keys": HeteroNSAConfig, "edges": EdgeSpec}


def configuration_page() -> str:
    """The text of the page, with its tables as they should be."""
    text = PAGE.read_text()
    for name, model in TABLES.items():
        region = re.compile(rf"(<!-- {name}: written by .*? -->\n).*?(<!-- end -->)", re.S)
        assert len(region.findall(text)) == 1, f"{PAGE.name} has no place for the table of {name}"
        table = "\n".join(["", *rows(model), "", ""])
        text = region.sub(lambda found, table=table: found[1] + table + found[2], text)
    return text


def rows(model: type[BaseModel]) -> Iterator[str]:
    """The table of a model's keys, those of models inside of it included."""
    schema = json_schema(Registry(allow=["pyg-nsa"], disable=()))
    part = schema if model is HeteroNSAConfig else schema["$defs"][model.__name__]
    yield "| key | type | default | limits | |\n|---|---|---|---|---|"
    for row in rows_of_model(part, schema["$defs"]):
        if row.name in ("$schema", "options", "kind", "operator", "operator_options"):
            # Their types and values are those of the installed plugins.
            default = {"operator": "`hetero_nsa`", "kind": "required"}.get(row.name, "")
            cells = [f"`{row.name}`", "", default, "", row.description]
        elif row.name == "edges" or row.name.startswith("edges."):
            if "." in row.name:
                continue
            cells = ["`edges`", "list of entries", "required", "at least 1", row.description]
        else:
            default = "required" if row.required else f"`{json.dumps(row.default)}`"
            if isinstance(row.default, dict) and row.default:
                default = ""  # its own keys say it
            cells = [f"`{row.name}`", row.type, default, row.limits, row.description]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

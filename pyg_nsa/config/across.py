"""Contradictions between the fields of a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from pydantic_core import InitErrorDetails, PydanticCustomError

from pyg_nsa.errors import nearest

__all__ = ["across", "get", "items"]


def across(data: Any) -> Iterator[InitErrorDetails]:
    """Finds contradictions between fields, in a valid configuration or in raw data that may have any shape."""
    first: dict[tuple[str, ...], int] = {}
    unreadable: set[str] = set()
    for index, entry in enumerate(items(get(data, "edges"))):
        edge_type = get(entry, "edge_type")
        if not _is_edge_type(edge_type):
            # A word of it may be the node type that is looked for below.
            unreadable |= set(re.findall(r"\w+", str(entry if edge_type is None else edge_type)))
            continue
        edge_type = tuple(edge_type)
        if edge_type in first:
            yield InitErrorDetails(
                type=PydanticCustomError(
                    "duplicate_edge_type",
                    "edge type ({edge_type}) is there already, in edges[{first}]; one entry per edge type: merge them, or "
                    "give the relations different names",
                    {"edge_type": ", ".join(edge_type), "first": first[edge_type]},
                ),
                loc=("edges", index, "edge_type"),
                input=edge_type,
            )
        first.setdefault(edge_type, index)
    known = sorted({name for source, _, target in first for name in (source, target)})
    wanted: list[tuple[tuple[str | int, ...], Any]] = [
        (("sab", "node_types", index), name)
        for index, name in enumerate(items(get(get(data, "sab"), "node_types")))
    ]
    for key in ("num_nodes", "in_channels"):
        by_type = get(data, key)
        if isinstance(by_type, Mapping):
            wanted += [((key, name), name) for name in by_type if isinstance(name, str)]
    for loc, name in wanted:
        if known and isinstance(name, str) and name not in known and name not in unreadable:
            context: dict[str, Any] = {"name": name, "allowed": known}
            suggestion = nearest(name, known)
            if suggestion is not None:
                context["suggestion"] = suggestion
            yield InitErrorDetails(
                type=PydanticCustomError(
                    "unknown_node_type", "no edge type in edges has the node type '{name}'", context
                ),
                loc=loc,
                input=name,
            )


def get(data: Any, key: str) -> Any:
    """A part of a configuration that may be a model or raw data; None where there is none."""
    return data.get(key) if isinstance(data, Mapping) else getattr(data, key, None)


def items(value: Any) -> Sequence[Any]:
    """The items of a list, and none of anything else."""
    return value if isinstance(value, list | tuple) else ()


def _is_edge_type(value: Any) -> TypeGuard[Sequence[str]]:
    return len(items(value)) == 3 and all(isinstance(name, str) for name in value)

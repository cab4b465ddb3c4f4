"""What the forward of a conv module has arguments for, and by which names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch_geometric.nn import CGConv, GENConv

from pyg_nsa.nn.call_fields import NODE_FIELDS

__all__ = [
    "EDGES",
    "Parameters",
    "by_place",
    "edge_attr_columns",
    "edge_places",
    "names_its_fields",
    "parameters",
    "read_fields",
    "takes",
]

Parameters = Mapping[str, inspect.Parameter]

#: Names of the edges, in the data and among the arguments of a forward.
EDGES = ("edge_index", "hyperedge_index")

_NO_FIELDS = ("x", "size")

#: Where convs keep the number of columns that they were built for; PyG's spellings.
_SIZES = ("edge_dim", "in_edge_channels")


def parameters(conv: nn.Module) -> Parameters:
    """The parameters of a conv's forward."""
    return inspect.signature(conv.forward).parameters


def read_fields(named: Parameters) -> tuple[str, ...]:
    """The names of fields that a forward has arguments for, in their order."""
    return tuple(
        name
        for name, p in named.items()
        if name not in _NO_FIELDS and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    )


def names_its_fields(named: Parameters) -> bool:
    """Whether a forward has a name for each argument that it takes."""
    return all(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in named.values())


def edge_places(named: Parameters) -> tuple[str, ...]:
    """The arguments that may be the edges, in their order: the one that has their name, or else those after the rows.

    HeteroConv's call by dictionaries, ``conv(x_dict, edge_index_dict)``, gives them to the next argument after the rows, and with
    dictionaries of node fields in between to a later one. None: the forward takes them among ``*args`` or ``**kwargs``.
    """
    for name in EDGES:
        if name in named:
            return (name,)
    names = [name for name, p in named.items() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    return tuple(name for name in names if name not in NODE_FIELDS)


def edge_attr_columns(conv: nn.Module, named: Parameters) -> int | None:
    """How many columns ``edge_attr`` must have for a conv that can do without.

    Returns:
        0: it was built without edge attributes and fails on them. None: any, or it can't be told.
    """
    parameter = named.get("edge_attr")
    if parameter is None or parameter.default is parameter.empty:
        return None
    sizes = [getattr(conv, name) for name in _SIZES if hasattr(conv, name)]
    if isinstance(conv, CGConv):
        sizes.append(conv.dim)
    if sizes:
        return None if sizes[0] else 0
    if isinstance(conv, GENConv) and not hasattr(conv, "lin_edge"):
        return conv.out_channels  # they are added to the messages as they are
    return 0 if getattr(conv, "lin_edge", conv) is None else None


def takes(named: Parameters, name: str) -> bool:
    """Whether a forward can be given an argument of this name."""
    return name in named or any(p.kind is p.VAR_KEYWORD for p in named.values())


def by_place(named: Parameters, kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments with rows and edges by place where the forward has no names for them, as in a call by dictionaries.

    Args:
        named: Parameters of the forward.
        kwargs: All arguments by name.

    Returns:
        Arguments by place and by name.
    """
    first: list[str] = [name for name in ("x", "edge_index") if name in kwargs]
    unnamed = [name for name in first if name not in named]
    if not unnamed:
        return [], kwargs
    kinds = {p.kind for p in named.values()}
    any_name = inspect.Parameter.VAR_KEYWORD in kinds
    placed: list[str] = []
    if inspect.Parameter.VAR_POSITIONAL in kinds and (not any_name or len(kwargs) == len(first)):
        placed = first
    elif "x" in unnamed and not any_name:
        placed = ["x"]
    args = [kwargs[name] for name in placed]
    return args, {name: value for name, value in kwargs.items() if name not in placed}

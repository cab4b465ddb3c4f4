"""How the baselines read a call in HeteroConv's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyg_nsa import EdgeSet

__all__ = ["EdgeType", "by_name", "edge_indices"]

EdgeType = tuple[str, str, str]

_POSITIONAL = ("x_dict", "edge_index_dict", "edge_attr_dict")
_DENSE = ("adj_mask", "inc_mask")


def by_name(
    owner: str, args_dict: Sequence[Mapping[Any, Any]], kwargs_dict: Mapping[str, Mapping[Any, Any]]
) -> dict[str, Mapping[Any, Any]]:
    """All dictionaries of a call by field name, without ``_dict``.

    Raises:
        ValueError: A keyword that does not end in ``_dict``, or node features without columns.
        TypeError: No node features, more positional dictionaries than have names, or an argument that is no dictionary.
    """
    for name in kwargs_dict:
        if not name.endswith("_dict"):
            raise ValueError(
                f"Keyword arguments in '{owner}' need to end with '_dict' (got '{name}')"
            )
    if len(args_dict) > len(_POSITIONAL):
        raise TypeError(
            f"'{owner}' takes {', '.join(_POSITIONAL)} by position; pass further dictionaries by keyword"
        )
    call = {**dict(zip(_POSITIONAL, args_dict, strict=False)), **kwargs_dict}
    for name, values in call.items():
        if not isinstance(values, Mapping):
            raise TypeError(
                f"'{owner}' takes {name} as a dictionary by edge type or node type, got {type(values).__name__}"
            )
    if "x_dict" not in call:
        raise TypeError(f"'{owner}' needs node features: pass x_dict first or by keyword")
    for node_type, x in call["x_dict"].items():
        if x.size(-1) == 0:
            raise ValueError(
                f"x of node type '{node_type}' has no columns, and operator '{owner}' learns no embeddings: give the nodes "
                "features, or take operator 'hetero_nsa' with num_nodes"
            )
    return {name.removesuffix("_dict"): values for name, values in call.items()}


def edge_indices(
    owner: str, call: Mapping[str, Mapping[Any, Any]], edge_types: Sequence[EdgeType]
) -> dict[EdgeType, Any]:
    """The edges of each edge type that the call has: ``edge_index``, or else ``hyperedge_index``.

    Raises:
        ValueError: An edge type that comes as a dense mask only.
    """
    out: dict[EdgeType, Any] = {}
    for edge_type in edge_types:
        found = (call.get(name, {}).get(edge_type) for name in ("edge_index", "hyperedge_index"))
        index = next((value for value in found if value is not None), None)
        if index is not None:
            out[edge_type] = index.edge_index() if isinstance(index, EdgeSet) else index
            continue
        dense = [name for name in _DENSE if call.get(name, {}).get(edge_type) is not None]
        if dense:
            raise ValueError(
                f"edge type {edge_type} has only a dense '{dense[0]}', but operator '{owner}' reads edge_index or "
                f"hyperedge_index; pass edge_index_dict={{{edge_type}: {dense[0]}.nonzero().t()}}"
            )
    return out

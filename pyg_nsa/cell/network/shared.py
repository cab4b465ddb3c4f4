"""What is derived from a graph, once for all who ask."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch_geometric.data import HeteroData

__all__ = ["once_per_graph"]

T = TypeVar("T")

# By identity: graphs have no hash.
_SHARED: dict[tuple[Callable[[HeteroData], Any], int], tuple[weakref.ref[HeteroData], Any]] = {}


def once_per_graph(make: Callable[[HeteroData], T], graph: HeteroData) -> T:
    """``make(graph)``, the same object for the same graph, for as long as the graph is there.

    Args:
        make: What derives it, such as a class; it may not keep the graph.
        graph: The graph, which must not change.
    """
    key = (make, id(graph))
    known = _SHARED.get(key)
    if known is None or known[0]() is not graph:
        kept = weakref.ref(graph, lambda _: _SHARED.pop(key, None))
        _SHARED[key] = known = (kept, make(graph))
    found: T = known[1]
    return found

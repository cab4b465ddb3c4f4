"""Whether the node types of a graph have the numbers of nodes and columns that a configuration says; for `HeteroNSAConfig.bind`.

Only what is bound to fail at the call is a problem: a graph may have fewer nodes than the base graph that `num_nodes` counts, and in
compact numbering (see `pyg_nsa.nn.numbering`) fewer nodes than rows. Like `pyg_nsa.bind` it is imported when there is a graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_nsa.bind import num_nodes, num_rows

__all__ = ["no_features", "no_nodes", "too_few_embeddings", "wrong_columns"]


def no_nodes(data: Any, node_type: str) -> str | None:
    """Says that nothing tells how many nodes there are of a type, if so."""
    if node_type in data.node_types:
        store = data[node_type]
        if store.get("x") is not None or num_rows(store) is not None:
            return None
        if num_nodes(data, node_type) is not None:
            return None
    spelled = f"data[{node_type!r}]"
    return (
        f"node type {node_type!r} of the graph has neither x nor num_nodes; set {spelled}.num_nodes, or {spelled}.x to its "
        "features"
    )


def no_features(data: Any, node_type: str, is_bare: bool = False) -> str | None:
    """Says that nothing tells the nodes of a type apart, if so.

    For a stack without learned embeddings of them, and for attention in a bare step, which has no embeddings.
    """
    if node_type not in data.node_types:
        return None
    store = data[node_type]
    x = store.get("x")
    if x is not None and not (isinstance(x, Tensor) and x.dim() >= 2 and x.size(-1) == 0):
        return None
    # Of a batch nothing says how many nodes the base graph has.
    count = num_rows(store) if store.get("ptr") is None else None
    what = "no x" if x is None else "an x without columns"
    embeddings = f"num_nodes: {{{node_type}: {count or '<nodes of the base graph>'}}}"
    if is_bare:
        return (
            f"node type {node_type!r} has {what}, so attention along this edge type has nothing to go by; set "
            f"data[{node_type!r}].x to its features, or use a stack, pattern: M (or another), with {embeddings}, which gives each "
            "node a learned embedding"
        )
    return (
        f"node type {node_type!r} has {what}, so its nodes cannot be told apart; add {embeddings}, which gives each a learned "
        "embedding"
    )


def too_few_embeddings(data: Any, node_type: str, embeddings: int) -> str | None:
    """Says that a graph has more nodes of a type than the base graph that `num_nodes` counts, if so."""
    if node_type not in data.node_types:
        return None
    found = _living(data[node_type])
    if found is None or found <= embeddings:
        return None
    return (
        f"num_nodes says that the base graph has {embeddings} nodes of type {node_type!r}, but the graph has {found}; set it to "
        f"the number of nodes of the base graph ({found}, if this is it)"
    )


def wrong_columns(data: Any, node_type: str, columns: int) -> str | None:
    """Says that `x` has other columns than `in_channels` says, if so."""
    if columns < 0 or node_type not in data.node_types:
        return None
    x = data[node_type].get("x")
    if x is None:
        found, what = 0, "it has no x"
    elif isinstance(x, Tensor) and x.dim() >= 2:
        found = x.size(-1)
        what = f"its x has {found}"
    else:
        return None
    if found == columns:
        return None
    return (
        f"in_channels says that x of node type {node_type!r} has {columns} columns, but {what}; set it to {found}, or to -1, "
        "which takes it from the first call"
    )


def _living(store: Any) -> int | None:
    """How many nodes of a type there are for certain in the largest graph."""
    ptr = store.get("ptr")
    if isinstance(ptr, Tensor):  # a batch
        return int(ptr.diff().max()) if ptr.numel() > 1 else None
    x, counts = store.get("x"), []
    if isinstance(x, Tensor):
        counts.append(x.size(-2) if x.dim() == 3 else x.size(0))  # [B, N, F]: copies of one graph
    if isinstance(store.get("num_nodes"), int):
        counts.append(store["num_nodes"])
    for name, living in (("mask", True), ("pert_mask", False)):
        mask = store.get(name)
        if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.dim() == 1:
            counts.append(int(mask.sum()) if living else int((~mask).sum()))
    return min(counts, default=None)

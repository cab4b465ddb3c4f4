"""What can be said of a graph's nodes and edges by looking at it once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.plain_index import plain_index

__all__ = ["edge_facts", "index_of", "node_facts", "rows_of"]

EdgeType = tuple[str, str, str]

_INDICES = ("edge_index", "hyperedge_index")
_MASKS = ("adj_mask", "inc_mask")


def rows_of(graph: Any, node_type: str) -> int | None:
    """Rows of a node type: of `x` or of the masks, else the number of nodes; None if nothing says it."""
    store = graph[node_type]
    for name in ("x", "mask", "pert_mask"):
        if isinstance(store.get(name), Tensor) and store[name].dim():
            return int(store[name].size(0))
    return _num_nodes(graph, node_type)


def _num_nodes(graph: Any, node_type: str) -> int | None:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # where PyG has only the edges to go by, their largest index will do here
        found = graph[node_type].num_nodes
    return None if found is None else int(found)


def index_of(store: Any) -> Tensor | None:
    """The edges of a relation, `[2, E]`, where they are there in a usable form."""
    for name in _INDICES:
        value = store.get(name)
        if (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and value.dim() == 2
            and value.size(0) == 2
            and not value.is_floating_point()
            and value.dtype != torch.bool
        ):
            return plain_index(value).long()
    for name in _MASKS:
        value = store.get(name)
        if isinstance(value, Tensor) and value.dtype == torch.bool and value.dim() == 2:
            return value.nonzero().t()
    return None


def node_facts(graph: Any) -> dict[str, str]:
    """A line for each node type: number of nodes, shape of `x`, and how many have no edge at all."""
    touched: dict[str, list[Tensor]] = {t: [] for t in graph.node_types}
    for edge_type in graph.edge_types:
        index = index_of(graph[edge_type])
        if index is not None:
            touched.setdefault(edge_type[0], []).append(index[0])
            touched.setdefault(edge_type[2], []).append(index[1])
    lines = {}
    for node_type in graph.node_types:
        store, nodes = graph[node_type], _num_nodes(graph, node_type)
        parts = ["number unknown: set num_nodes" if nodes is None else f"{nodes} nodes"]
        rows = rows_of(graph, node_type)
        if rows not in (None, nodes):
            parts.append(f"{rows} rows with padding")
        x = store.get("x")
        if isinstance(x, Tensor):
            parts.append(f"x {list(x.shape)}" + ("" if x.size(-1) else ", no features"))
        else:
            parts.append("no x")
        if nodes is not None:
            seen = torch.cat(touched[node_type]).unique().numel() if touched[node_type] else 0
            if seen < nodes:
                parts.append(f"{nodes - seen} without any edge")
        lines[node_type] = f"{node_type}: {', '.join(parts)}"
    return lines


def edge_facts(graph: Any, edge_type: EdgeType) -> list[str]:
    """Lines about a relation: number of edges, direction, isolated nodes; then the other fields with their shapes."""
    store = graph[edge_type]
    source, _, target = edge_type
    head = f"{source} -> {target}: "
    index = index_of(store)
    if index is None:
        parts = ["no edges in a form that is known here"]
    else:
        parts = [f"{index.size(1)} edges"]
        if index.size(1):
            parts += _shape_of_graph(graph, edge_type, index)
        else:
            parts.append("so it makes parameters and no messages")
    lines = [head + ", ".join(parts)]
    fields = [f"{name} {_shape(value)}" for name, value in store.items() if value is not None]
    if fields:
        lines.append(f"fields: {', '.join(fields)}")
    return lines


def _shape_of_graph(graph: Any, edge_type: EdgeType, index: Tensor) -> list[str]:
    source, _, target = edge_type
    parts = []
    size = int(index.max()) + 1
    codes = (index[0] * size + index[1]).unique()
    if codes.numel() < index.size(1):
        parts.append(f"{index.size(1) - codes.numel()} of them more than once")
    counts = [_num_nodes(graph, t) for t in (source, target)]
    if source == target:
        reverse = (index[1] * size + index[0]).unique()
        both = int(torch.isin(codes, reverse).sum())
        if both == codes.numel():
            parts.append("undirected")
        elif both == int((index[0] == index[1]).sum()):
            parts.append("directed (symmetrize: true if each undirected edge is stored once)")
        else:
            parts.append(f"directed ({both} of {codes.numel()} have their reverse)")
        loops = int((index[0] == index[1]).sum())
        if loops:
            parts.append(f"{loops} self-loops")
        ends: Sequence[tuple[str, Tensor, int | None]] = [("nodes", index.flatten(), counts[0])]
    else:
        ends = [("sources", index[0], counts[0]), ("targets", index[1], counts[1])]
    for what, rows, count in ends:
        if count is not None and (alone := count - rows.unique().numel()) > 0:
            parts.append(f"{alone} of {count} {what} isolated")
    return parts


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__

"""How many tiles a block-sparse attention kernel has to visit, before and after reordering the nodes.

A kernel that works in square tiles skips those that hold no pair, so its cost goes with the number of *occupied* tiles and
not with the number of pairs. Rows are queries (a relation's target type), columns are keys (its source type), as
everywhere in this package. The order of the nodes decides how many tiles the same pairs touch: reverse Cuthill–McKee
(George & Liu, *Computer Solution of Large Sparse Positive Definite Systems*, 1981) numbers neighbours close to each other.

The order is computed once, on the whole graph taken as one homogeneous undirected graph, and restricted to each node
type: one order per type then serves all its relations.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import LongTensor
from torch_geometric.data import HeteroData

__all__ = ["COLUMNS", "node_orders", "tile_occupancy"]

COLUMNS = ("relation", "rows", "cols", "pairs", "tiles", "natural", "reordered")


def node_orders(graph: HeteroData) -> dict[str, LongTensor]:
    """An order of each node type's nodes that brings neighbours together.

    Args:
        graph: A graph whose relations have ``edge_index`` or ``hyperedge_index``.

    Returns:
        Per node type [N] int64, a permutation: the node at position ``k`` of the new order is ``order[k]``.
    """
    sizes = _sizes(graph)
    offsets = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    total = sum(sizes.values())
    ends: list[NDArray[np.int64]] = [np.empty((2, 0), np.int64)]
    for (source, _, target), index in _relations(graph).items():
        ends.append(index + np.array([[offsets[source]], [offsets[target]]]))
    row, col = np.concatenate(ends, axis=1)
    if total:
        both = (np.concatenate([row, col]), np.concatenate([col, row]))
        adjacency = csr_array((np.ones(len(both[0]), np.int8), both), shape=(total, total))
        order = reverse_cuthill_mckee(adjacency, symmetric_mode=True).astype(np.int64)
    else:
        order = np.empty(0, np.int64)
    out: dict[str, LongTensor] = {}
    for node_type, size in sizes.items():
        start = offsets[node_type]
        own = order[(order >= start) & (order < start + size)] - start
        out[node_type] = torch.from_numpy(own)  # type: ignore[assignment]
    return out


def tile_occupancy(graph: HeteroData, tile: int = 128) -> pd.DataFrame:
    """Occupied tiles of each relation, in the natural order and after reordering.

    Args:
        graph: A graph whose relations have ``edge_index`` or ``hyperedge_index``.
        tile: Side of a tile.

    Returns:
        One row per relation: ``relation`` (``"source name target"``), ``rows`` and ``cols`` (numbers of queries and
        keys), ``pairs`` (different pairs), ``tiles`` (all tiles), ``natural`` and ``reordered`` (tiles with at least one
        pair, in the graph's own order and in that of :func:`node_orders`).

    Raises:
        ValueError: If ``tile`` is not positive.
    """
    if tile < 1:
        raise ValueError(f"tile={tile}: expected a positive number of nodes.")
    sizes = _sizes(graph)
    position = {}
    for node_type, order in node_orders(graph).items():
        inverse = np.empty(sizes[node_type], np.int64)
        inverse[order.numpy()] = np.arange(sizes[node_type])
        position[node_type] = inverse
    rows = []
    for (source, name, target), (key, query) in _relations(graph).items():
        n_query, n_key = sizes[target], sizes[source]
        pairs = len(np.unique(query * max(n_key, 1) + key))
        across = -(-n_key // tile)
        natural = _occupied(query, key, tile, across)
        reordered = _occupied(position[target][query], position[source][key], tile, across)
        tiles = -(-n_query // tile) * across
        rows.append((f"{source} {name} {target}", n_query, n_key, pairs, tiles, natural, reordered))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _occupied(query: NDArray[np.int64], key: NDArray[np.int64], tile: int, across: int) -> int:
    """Number of different tiles that the pairs fall into; ``across``: tiles side by side."""
    return len(np.unique(query // tile * max(across, 1) + key // tile))


def _sizes(graph: HeteroData) -> dict[str, int]:
    """Number of nodes of each type."""
    return {node_type: int(graph[node_type].num_nodes or 0) for node_type in graph.node_types}


def _relations(graph: HeteroData) -> dict[tuple[str, str, str], NDArray[np.int64]]:
    """Per relation [2, E], sources above targets; relations without an index are left out."""
    out = {}
    for edge_type in graph.edge_types:
        store = graph[edge_type]
        for field in ("edge_index", "hyperedge_index"):
            if field in store:
                out[edge_type] = store[field].cpu().numpy().astype(np.int64, copy=False)
                break
    return out

"""How many tiles a block-sparse attention kernel has to visit on a cell graph, before and after reordering the nodes.

See :mod:`pyg_nsa.nn.node_order` for what a tile and an order are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.attention.tiles import TILE
from pyg_nsa.nn import node_order
from pyg_nsa.nn.node_order import NodeOrder

__all__ = ["COLUMNS", "node_orders", "tile_occupancy"]

COLUMNS = ("relation", "rows", "cols", "pairs", "tiles", "natural", "reordered")


def node_orders(
    graph: HeteroData, method: NodeOrder = "packed", tile: int = TILE
) -> dict[str, Tensor]:
    """An order of each node type's nodes that leaves few tiles.

    Args:
        graph: A graph whose relations have ``edge_index`` or ``hyperedge_index``.
        method: As for :func:`pyg_nsa.nn.node_order.node_orders`.
        tile: Side of a tile.

    Returns:
        Per node type [N] int64, a permutation: the node at place ``k`` of the new order is ``order[k]``.
    """
    return node_order.node_orders(node_order.edge_indices(graph), _sizes(graph), method, tile)


def tile_occupancy(
    graph: HeteroData, tile: int = TILE, method: NodeOrder = "packed"
) -> pd.DataFrame:
    """Occupied tiles of each relation, in the natural order and after reordering.

    Args:
        graph: A graph whose relations have ``edge_index`` or ``hyperedge_index``.
        tile: Side of a tile.
        method: How the nodes are reordered; as for :func:`node_orders`.

    Returns:
        One row per relation: ``relation`` (``"source name target"``), ``rows`` and ``cols`` (numbers of queries and
        keys), ``pairs`` (different pairs), ``tiles`` (all tiles), ``natural`` and ``reordered`` (tiles with at least one
        pair, in the graph's own order and in the new one).

    Raises:
        ValueError: If ``tile`` is not positive.
    """
    sizes, relations = _sizes(graph), node_order.edge_indices(graph)
    orders = node_orders(graph, method, tile)
    natural = node_order.occupied_tiles(relations, sizes, None, tile)
    reordered = node_order.occupied_tiles(relations, sizes, orders, tile)
    rows = []
    for edge_type, index in relations.items():
        source, name, target = edge_type
        n_query, n_key = sizes[target], sizes[source]
        pairs = np.unique(index.cpu().numpy(), axis=1).shape[1]
        tiles = -(-n_query // tile) * -(-n_key // tile)
        counts = (pairs, tiles, natural[edge_type], reordered[edge_type])
        rows.append((f"{source} {name} {target}", n_query, n_key, *counts))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _sizes(graph: HeteroData) -> dict[str, int]:
    """Number of nodes of each type."""
    return {node_type: int(graph[node_type].num_nodes or 0) for node_type in graph.node_types}

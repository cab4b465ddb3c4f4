"""What represents the mask of a batch of perturbed copies of one graph, in bytes."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import HeteroData

from pyg_nsa import EdgeSet, edge_attention
from pyg_nsa.attention.tiles import edge_tiles

from .contenders import leaf, nbytes


def mask_state(graph: HeteroData, batch_sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for each batch size, summed over the graph's relations.

    Returns:
        ``dense_bool`` and ``bit_matrix``: one mask for each instance, as they are written today. ``edge_set`` (CPU) and
        ``tiles`` (GPU): of the base graph, for any batch size; ``alive``: which nodes live in each instance.
    """
    dense = bits = csr = tiles = 0
    for edge_type in graph.edge_types:
        source, target = (graph[t].num_nodes for t in (edge_type[0], edge_type[2]))
        dense += source * target
        bits += target * -(-source // 8)
        edges = EdgeSet.from_edge_index(graph[edge_type].edge_index, source, target)
        # A training step leaves all in the edge set that the CPU path derives from it.
        q, k, v = leaf(target, 1, 4), leaf(source, 1, 4), leaf(source, 1, 4)
        edge_attention(q, k, v, edges).sum().backward()
        csr += nbytes(edges)
        tiles += nbytes(edge_tiles(edges))
    nodes = sum(graph[t].num_nodes for t in graph.node_types)
    return [
        {
            "batch": b,
            "dense_bool": b * dense,
            "bit_matrix": b * bits,
            "edge_set": csr,
            "tiles": tiles,
            "alive": b * nodes,
        }
        for b in batch_sizes
    ]

"""What represents the mask of a batch of perturbed copies of one graph, in bytes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa import EdgeSet, edge_attention
from pyg_nsa.attention import flex
from pyg_nsa.attention.tiles import edge_tiles

from .contenders import leaf, nbytes


def mask_state(graph: HeteroData, batch_sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for each batch size, summed over the graph's relations.

    For each batch size the edge sets are built anew and a batch is attended to on them, so that whatever a route derives
    and keeps for a batch of that size is counted.

    Returns:
        ``dense_bool`` and ``bit_matrix``: one mask for each instance, as they are written today. ``edge_set``: what the
        edge sets hold after a training step on the CPU; ``tiles``: what they hold besides when the kernel of a GPU is
        called, and ``num_tiles``, how many of 128 x 128 have a pair; ``alive``: which nodes live in each instance.
    """
    return [_state(graph, b) for b in batch_sizes]


def _state(graph: HeteroData, batch: int) -> dict[str, Any]:
    alive = {t: _alive(batch, int(graph[t].num_nodes)) for t in graph.node_types}
    out = dict.fromkeys(("dense_bool", "bit_matrix", "edge_set", "tiles", "num_tiles"), 0)
    for edge_type in graph.edge_types:
        source, target = (graph[t].num_nodes for t in (edge_type[0], edge_type[2]))
        out["dense_bool"] += batch * source * target
        out["bit_matrix"] += batch * target * -(-source // 8)
        # A copy, since the edge set of a tensor that it has seen is looked up.
        edges = EdgeSet.from_edge_index(graph[edge_type].edge_index.clone(), source, target)
        q, k, v = (leaf(batch, n, 1, 4) for n in (target, source, source))
        masks = {"alive_queries": alive[edge_type[2]], "alive_keys": alive[edge_type[0]]}
        edge_attention(q, k, v, edges, **masks).sum().backward()
        on_cpu = nbytes(edges)
        # The route of a GPU up to its kernel needs none.
        with mock.patch.object(flex, "_run", lambda kernel, q, *_: q):
            flex.edge_attention(q, k, v, edges, **masks)
        out["edge_set"] += on_cpu
        out["tiles"] += nbytes(edges) - on_cpu
        out["num_tiles"] += int(edge_tiles(edges).blocks.kv_num_blocks.sum())
    return {"batch": batch, **out, "alive": nbytes(alive)}


def _alive(batch: int, nodes: int) -> Tensor:
    """Each instance lacks about one node in a hundred."""
    return torch.rand(batch, nodes, generator=torch.Generator().manual_seed(0)) < 0.99

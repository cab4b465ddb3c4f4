"""The same pairs under another numbering of queries and keys, and rows brought into it and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet

__all__ = ["permute_rows", "renumbered"]


def renumbered(
    edges: EdgeSet, query_place: Tensor | None = None, key_place: Tensor | None = None
) -> EdgeSet:
    """The pair set of renumbered queries and keys; it stands for the same input edges in the same order.

    Args:
        edges: The pair set.
        query_place: ``[num_queries]`` int64, the new number of each query; ``None``: as it was.
        key_place: ``[num_keys]`` int64, likewise.
    """
    query, key = _moved(query_place, edges.row), _moved(key_place, edges.col)
    out = EdgeSet.from_edge_index(torch.stack([key, query]), edges.num_keys, edges.num_queries)
    moved_to = out.pair_of  # of each old pair; pairs stay unique
    assert moved_to is not None
    if edges.pair_of is None or edges.edge_of is None:
        edge_of, pair_of = out.edge_of, moved_to
    else:
        edge_of, pair_of = edges.edge_of, moved_to[edges.pair_of]
    return EdgeSet(
        out.row,
        out.col,
        out.rowptr,
        edges.num_queries,
        edges.num_keys,
        edge_of,
        pair_of,
        edges.num_edges,
        _is_sound=True,
    )


def _moved(place: Tensor | None, index: Tensor) -> Tensor:
    if place is None:
        return index
    # Slots that no pair uses (in a compiled graph) hold the number of rows, and keep it.
    return torch.cat([place, place.new_full((1,), place.numel())])[index]


def permute_rows(x: Tensor, order: Tensor, place: Tensor) -> Tensor:
    """``x[..., order, :]``, whose gradient is a gather too, not a sum into places.

    Args:
        x: ``[*, N, C]``.
        order: ``[N]`` int64, a permutation.
        place: ``[N]`` int64, its inverse.
    """
    if x.dim() == 3 and x.size(0) > 1 and x.stride(0) == 0:  # copies of one tensor
        return permute_rows(x[:1], order, place).expand_as(x)
    out: Tensor = _PermuteRows.apply(x, order, place)
    return out


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(order, place)
        return x.index_select(-2, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, place = ctx.saved_tensors
        return permute_rows(grad, place, order), None, None

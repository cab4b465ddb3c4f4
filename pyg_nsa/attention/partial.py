"""Attention of which each pair's part in the sum is scaled: what explainers ask of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.attention.dispatch import edge_attention
from pyg_nsa.attention.edges import EdgeSet

__all__ = ["in_halves", "partial_edge_attention"]


def partial_edge_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edges: EdgeSet,
    parts: Tensor | None,
    bias: Tensor | None = None,
    *,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
) -> Tensor:
    r"""Attention whose weights are scaled after the softmax.

    .. math::
        \mathbf{o}_i^h = \sum_{j : (i, j) \in \mathcal{P}} m_{ij} \, \alpha_{ij}^h \mathbf{v}_j^h

    Backends never materialise the weights, so each pair is split in two: its key with the logit :math:`\log m_{ij}` more, and a copy
    of the key, whose value is zero, with :math:`\log (1 - m_{ij})` more. The softmax is what it was, and what goes to the copies is
    lost. So it is the same attention on every device, with gradients for ``parts``.

    Args:
        q: ``[*, N_q, H, D]``; see :func:`~pyg_nsa.attention.edge_attention`, as for all that is not named here.
        k: ``[*, N_k, H, D]``.
        v: Like ``k``.
        edges: The pairs.
        parts: ``[P]``, from 0 to 1, :math:`m_{ij}` of each pair; values are kept a little away from both ends. ``None``: all of
            each, the plain attention.
        bias: ``[P, H]``, added to the logits.
        alive_queries: bool ``[*, N_q]``.
        alive_keys: bool ``[*, N_k]``.

    Returns:
        Like ``q``.
    """
    if parts is None:
        return edge_attention(
            q, k, v, edges, bias, alive_queries=alive_queries, alive_keys=alive_keys
        )
    keys, values, halves, bias = in_halves(k, v, edges, parts, bias)
    if alive_keys is not None:
        alive_keys = torch.cat([alive_keys, alive_keys], dim=-1)
    return edge_attention(
        q, keys, values, halves, bias, alive_queries=alive_queries, alive_keys=alive_keys
    )


def in_halves(
    k: Tensor, v: Tensor, edges: EdgeSet, parts: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, EdgeSet, Tensor]:
    """Keys and values with their copies, and the split pairs with the bias of each half.

    Args:
        k: ``[*, N_k, H, D]``.
        v: Like ``k``.
        edges: The pairs.
        parts: ``[P]``, what the first half gets.
        bias: ``[P, H]``.

    Returns:
        ``[*, 2 N_k, H, D]`` twice, the pairs, and ``[2 P, H]``.
    """
    near = 8 * torch.finfo(parts.dtype).eps
    # The value is moved, the gradient is not: explainers start at exactly 0 or 1.
    parts = (parts + (parts.clamp(near, 1 - near) - parts).detach())[:, None].to(k.dtype)
    if bias is None:
        bias = k.new_zeros(edges.num_pairs, k.size(-2))
    halves = _halves(edges)
    logits = halves.coalesce(torch.cat([bias + parts.log(), bias + (1 - parts).log()]))
    return torch.cat([k, k], dim=-3), torch.cat([v, torch.zeros_like(v)], dim=-3), halves, logits


def _halves(edges: EdgeSet) -> EdgeSet:
    """Each pair twice, the second time with the copy of its key."""
    if "halves" not in edges.derived:
        key = torch.cat([edges.col, edges.col + edges.num_keys])
        index = torch.stack([key, edges.row.repeat(2)])
        edges.derived["halves"] = EdgeSet.from_edge_index(
            index, 2 * edges.num_keys, edges.num_queries
        )
    halves: EdgeSet = edges.derived["halves"]
    return halves

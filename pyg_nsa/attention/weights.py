"""Attention probabilities of the pairs, for looking at; training never calls this."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet

__all__ = ["attention_weights"]


def attention_weights(
    q: Tensor, k: Tensor, edges: EdgeSet, bias: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """The softmax weight of each pair, by gather and scatter, on any device.

    The attention itself (:func:`pyg_nsa.attention.edge_attention`) never materialises these.

    Args:
        q: ``[N_q, H, D]``.
        k: ``[N_k, H, D]``.
        edges: The pairs.
        bias: ``[P, H]`` or ``None``.
        scale: Factor of the logits (default ``1 / sqrt(D)``).

    Returns:
        ``[P, H]``; the weights of a query sum to one.
    """
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    row, col = edges.row, edges.col
    logits = (q[row] * k[col]).sum(-1) * scale
    if bias is not None:
        logits = logits + bias
    index = row[:, None].expand_as(logits)
    top = logits.new_full((edges.num_queries, logits.size(1)), -math.inf)
    top = top.scatter_reduce(0, index, logits.detach(), "amax")
    top = torch.where(top == -math.inf, 0.0, top)
    weight = (logits - top[row]).exp()
    total = torch.zeros_like(top).scatter_add(0, index, weight)
    return weight / total[row].clamp(min=torch.finfo(weight.dtype).tiny)

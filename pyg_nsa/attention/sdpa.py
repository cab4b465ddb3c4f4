"""Full attention on the CPU: ``scaled_dot_product_attention``, one call per graph or one for equal graphs.

In a PyG batch, rows of padding and of other graphs are left out before the call instead of masked inside it; in the
shared layout living keys are one row of a mask per instance. So no mask of size N² is built.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pyg_nsa.attention.segments import Segments

__all__ = ["full_attention"]


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """``[B, N_q, H, D]`` over ``[B, N_k, H, D]``; ``mask`` bool, broadcastable to ``[B, H, N_q, N_k]``."""
    if q.size(1) == 0 or k.size(1) == 0 or q.size(0) == 0:
        # No key: a zero message. Sums over no rows keep q, k and v in the graph, with zero gradients.
        return torch.zeros_like(q) + q[:0].sum() + k[:0].sum() + v[:0].sum()
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2)


def full_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_segments: Segments | None = None,
    key_segments: Segments | None = None,
    *,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """CPU implementation of :func:`pyg_nsa.attention.full_attention`, same arguments and result."""
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    if q.dim() == 4:
        return _shared_layout(q, k, v, alive_queries, alive_keys, scale)
    qs = query_segments or Segments.single(q.size(0), q.device)
    ks = key_segments or (qs if k.size(0) == q.size(0) else Segments.single(k.size(0), k.device))
    q, k, v = qs.gather(q), ks.gather(k), ks.gather(v)
    # Without a look at the length, which torch.export may not know.
    one = qs.num_graphs == ks.num_graphs == 1
    return qs.scatter(
        _attend(q[None], k[None], v[None], scale)[0] if one else _by_graph(q, k, v, qs, ks, scale)
    )


# A compiled graph ends before it and another begins after it: traced, it would hold for one batch's lengths.
@torch.compiler.disable(reason="the lengths of a batch's graphs are read")  # type: ignore[untyped-decorator]
def _by_graph(
    q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments, scale: float
) -> Tensor:
    """``[M_q, H, D]`` over ``[M_k, H, D]``, rows in the order of their segments."""
    q_lengths, k_lengths = queries.lengths, keys.lengths
    if len(set(q_lengths)) == 1 and len(set(k_lengths)) == 1:
        batch = len(q_lengths)
        shape = q.shape
        q, k, v = (x.reshape(batch, -1, *x.shape[1:]) if x.numel() else x[None] for x in (q, k, v))
        return _attend(q, k, v, scale).reshape(shape)
    parts = [
        _attend(a[None], b[None], c[None], scale)[0]
        for a, b, c in zip(q.split(q_lengths), k.split(k_lengths), v.split(k_lengths), strict=True)
    ]
    return torch.cat(parts)


def _shared_layout(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    scale: float,
) -> Tensor:
    keys = None if alive_keys is None or bool(alive_keys.all()) else alive_keys
    if keys is None or k.size(1) == 0:
        out = _attend(q, k, v, scale)
    else:
        # An instance without a living key would be a softmax over nothing: it attends to all and is zeroed below.
        has_key = keys.any(dim=1, keepdim=True)
        mask = (keys | ~has_key)[:, None, None, :]  # [B, 1, 1, N_k], broadcast by the kernel
        # What a dead row holds may be NaN, and zero times NaN is NaN.
        k, v = (x.masked_fill(~keys[..., None, None], 0.0) for x in (k, v))
        out = _attend(q, k, v, scale, mask)
        alive_queries = has_key if alive_queries is None else alive_queries & has_key
    if alive_queries is None:
        return out
    return out.masked_fill(~alive_queries[..., None, None], 0.0)

"""Dense masked attention, eager and obvious: it defines correctness and is meant for tests only.

It builds ``[N_q, N_k]`` matrices, so no path that a user runs may call it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments

__all__ = ["edge_attention", "full_attention"]


def _masked_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """q ``[N_q, H, D]``, k and v ``[N_k, H, D]``, mask ``[N_q, N_k]``, bias ``[H, N_q, N_k]``."""
    logits = torch.einsum("qhd,khd->hqk", q, k) * scale
    if bias is not None:
        logits = logits + bias
        mask = mask & (bias > -math.inf)
    logits = logits.masked_fill(~mask, -math.inf)
    top = logits.amax(-1, keepdim=True) if logits.size(-1) else logits.new_zeros(1)
    # A row without a key would be exp(-inf - -inf) = NaN.
    weight = (logits - top.detach().clamp(min=torch.finfo(logits.dtype).min)).exp()
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)
    return torch.einsum("hqk,khd->qhd", weight, v)


def edge_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edges: EdgeSet,
    bias: Tensor | None = None,
    *,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The meaning of :func:`pyg_nsa.attention.edge_attention`, same arguments."""
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    row, col = edges.row, edges.col
    mask = torch.zeros(edges.num_queries, edges.num_keys, dtype=torch.bool, device=q.device)
    mask[row, col] = True
    dense_bias = None
    if bias is not None:
        dense_bias = bias.new_zeros(bias.size(1), edges.num_queries, edges.num_keys)
        dense_bias = dense_bias.index_put(
            (torch.arange(bias.size(1))[:, None], row[None], col[None]), bias.t()
        )
    if q.dim() == 3:
        q, k, v = q[None], k[None], v[None]
        alive_queries = None if alive_queries is None else alive_queries[None]
        alive_keys = None if alive_keys is None else alive_keys[None]
        squeeze = True
    else:
        squeeze = False
    outs = []
    for b in range(q.size(0)):
        m = mask
        if alive_queries is not None:
            m = m & alive_queries[b][:, None]
        if alive_keys is not None:
            m = m & alive_keys[b][None, :]
        outs.append(_masked_attention(q[b], k[b], v[b], m, dense_bias, scale))
    return outs[0] if squeeze else torch.stack(outs)


def full_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_segments: Segments,
    key_segments: Segments | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """The meaning of :func:`pyg_nsa.attention.full_attention` in the layout ``[N, H, D]``."""
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    key_segments = query_segments if key_segments is None else key_segments

    def graph_of(segments: Segments) -> Tensor:
        graph = torch.full((segments.num_rows,), -1)
        rows = torch.arange(segments.num_rows) if segments.index is None else segments.index
        for b, (start, end) in enumerate(
            zip(segments.ptr[:-1].tolist(), segments.ptr[1:].tolist(), strict=True)
        ):
            graph[rows[start:end]] = b
        return graph

    gq, gk = graph_of(query_segments), graph_of(key_segments)
    mask = (gq[:, None] == gk[None, :]) & (gq[:, None] >= 0)
    return _masked_attention(q, k, v, mask, None, scale)

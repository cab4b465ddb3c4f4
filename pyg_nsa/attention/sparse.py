"""Masked attention on the CPU, on the CSR form of the pair set.

Two operators around the kernels of :mod:`pyg_nsa.attention.csr_kernels`, forward and backward, registered with torch, so
that ``torch.compile`` sees one node each and no graph break. Time is linear in the pairs; what is kept for the backward
pass is linear in the nodes: the output and one number per row and head.

Half precision is computed in float32; the result has the inputs' dtype.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.attention.csr_calls import CSR, Masks, attend, attend_backward, csr_tensors
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.operators import differentiable, operator
from pyg_nsa.compiled.sequence import in_one_go

__all__ = ["OPERATOR", "edge_attention"]


def _wide(x: Tensor) -> Tensor:
    """``[B, N, H, D]`` in a dtype that the kernels have, with each row in one piece; rows may be apart."""
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    dense_rows = x.stride(-1) == 1 and x.stride(-2) == x.size(-1)
    return x if dense_rows else x.contiguous()


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    row_t: Tensor,
    perm: Tensor,
    sizes: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Returns out ``[B, N_q, H, D]`` and the log-sum-exp of each row ``[B, N_q, H]`` (``inf`` for rows without a key)."""
    wide = _wide(q)
    masks = Masks(alive_queries, alive_keys).as_bytes()
    csr = CSR(rowptr, col, rowptr_t, row_t, perm, sizes)
    out, lse = attend(wide, _wide(k), _wide(v), _as(bias, wide), masks, csr, scale)
    return out.to(q.dtype), lse


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    out: Tensor,
    lse: Tensor,
    rowptr: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    row_t: Tensor,
    perm: Tensor,
    sizes: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of q, k, v and ``[P, H]`` of the bias (``[0, H]`` without one)."""
    wide = _wide(q)
    of_q, of_k, of_v = (empty(wide, *x.shape) for x in (q, k, v))
    masks = Masks(alive_queries, alive_keys).as_bytes()
    csr = CSR(rowptr, col, rowptr_t, row_t, perm, sizes)
    with in_one_go():
        grad_bias = attend_backward(
            _wide(grad),
            wide,
            _wide(k),
            _wide(v),
            _as(bias, wide),
            masks,
            _wide(out),
            lse,
            csr,
            scale,
            (of_q, of_k, of_v),
        )
    return of_q.to(q.dtype), of_k.to(k.dtype), of_v.to(v.dtype), grad_bias


def _as(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(like.dtype).contiguous()


def _fake(q, *rest):  # type: ignore[no-untyped-def]
    wide = q.dtype if q.dtype in (torch.float32, torch.float64) else torch.float32
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(q.shape[:3], dtype=wide)


def _fake_backward(grad, q, k, v, bias, alive_queries, alive_keys, out, lse, *rest):  # type: ignore[no-untyped-def]
    def like(x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    slots = 0 if bias is None else bias.size(0)
    return like(q), like(k), like(v), lse.new_empty(slots, q.size(2))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    out, lse = output
    *tensors, scale = inputs
    ctx.save_for_backward(*tensors[:6], out, lse, *tensors[6:])
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.scale = scale


def _gradients(backward: Any, ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:  # nothing depends on the output
        return (None,) * len(ctx.needs_input_grad)
    # Asked for once: activation checkpointing computes them again, and refuses a second time.
    saved = ctx.saved_tensors
    bias = saved[3]
    grad_q, grad_k, grad_v, grad_bias = backward(grad, *saved, ctx.scale)
    of_bias = None if bias is None else grad_bias.to(bias.dtype)
    return grad_q, grad_k, grad_v, of_bias, *([None] * 9)


# The number belongs to the name: torch keeps compiled graphs on disk by operator name, and would feed an operator whose
# outputs have changed to a graph that was compiled for the old ones.
OPERATOR = operator("pyg_nsa::csr_attention_v3", _forward, _fake)
_BACKWARD = operator("pyg_nsa::csr_attention_backward_v3", _backward, _fake_backward)
_call = differentiable((OPERATOR, _forward), (_BACKWARD, _backward), _setup_context, _gradients)


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
    """CPU implementation of :func:`pyg_nsa.attention.edge_attention`, same arguments and result.

    Time is linear in the number of pairs, memory in the number of nodes and pairs. The same inputs give the same bits,
    with any number of threads.
    """
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    single = q.dim() == 3
    if single:
        q, k, v = q[None], k[None], v[None]
        alive_queries = None if alive_queries is None else alive_queries[None]
        alive_keys = None if alive_keys is None else alive_keys[None]
    csr = csr_tensors(edges)
    out: Tensor = _call(q, k, v, bias, alive_queries, alive_keys, *csr, scale)[0]
    return out.squeeze(0) if single else out

"""Masked attention on the CPU, on the CSR form of the pair set.

Per head and instance the forward pass is a sampled dense-dense product (logits of the pairs only), a softmax over each
row's segment, and a sparse-dense product; the backward pass is the same two products on the pair set and its transpose.
The probabilities are kept unnormalised and the row sums are folded into ``[N, D]`` operands, as in FlashAttention's
backward pass (Dao et al. 2022, appendix B), so that nothing of size ``P`` is touched more often than necessary.

Both passes are registered as operators, so ``torch.compile`` sees one node and no graph break.

The two products are ``torch.sparse.sampled_addmm`` and ``torch.sparse.mm``, which need a torch build with MKL; elsewhere
(ARM laptops) gather and scatter give the same results. Neither computes in half precision on the CPU: float16 and
bfloat16 inputs are computed in float32 and the result has the inputs' dtype.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet

__all__ = ["HAS_SPARSE_KERNELS", "edge_attention"]

#: Whether this torch build has the sparse kernels; read once, so the choice never depends on a failure.
HAS_SPARSE_KERNELS: bool = torch.backends.mkl.is_available()

# torch prints it at the first CSR tensor of a process; only that text is silenced.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class _Csr:
    """A sparsity pattern and the two products on it."""

    def __init__(self, rowptr: Tensor, row: Tensor, col: Tensor, num_cols: int) -> None:
        self.rowptr, self.row, self.col = rowptr, row, col
        self.shape = (rowptr.numel() - 1, num_cols)

    def with_values(self, values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(
            self.rowptr, self.col, values, self.shape, check_invariants=False
        )

    def sampled_product(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        """``scale * (a @ b.T)`` at the pairs: ``[P]``."""
        if HAS_SPARSE_KERNELS:
            pattern = self.with_values(a.new_zeros(self.col.numel()))
            return torch.sparse.sampled_addmm(pattern, a, b.t(), beta=0.0, alpha=scale).values()
        return (a[self.row] * b[self.col]).sum(-1) * scale

    def product(self, values: Tensor, x: Tensor) -> Tensor:
        """The sparse matrix with these values times ``x``: ``[rows, D]``."""
        if HAS_SPARSE_KERNELS:
            return torch.sparse.mm(self.with_values(values), x)
        return x.new_zeros(self.shape[0], x.size(1)).index_add_(
            0, self.row, values[:, None] * x[self.col]
        )


def _heads_first(x: Tensor) -> Tensor:
    """``[B, N, H, D]`` to contiguous ``[B, H, N, D]`` in a dtype that the kernels have."""
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return x.to(dtype).permute(0, 2, 1, 3).contiguous()


@torch.library.custom_op("pyg_nsa::csr_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    rowptr: Tensor,
    row: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    row_t: Tensor,
    perm: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns out ``[B, N_q, H, D]``, unnormalised probabilities ``[B, H, P]``, inverse row sums ``[B, H, N_q]``."""
    batch, num_queries, heads, dim = q.shape
    num_keys, slots = k.size(1), row.numel()
    qh, kh, vh = _heads_first(q), _heads_first(k), _heads_first(v)
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    weights = qh.new_zeros(batch, heads, slots)
    inverse = qh.new_zeros(batch, heads, num_queries)
    used = int(rowptr[-1]) if slots else 0
    if used == 0:
        return out, weights, inverse
    row, col = row[:used], col[:used]
    csr = _Csr(rowptr, row, col, num_keys)
    bias_h = None if bias is None else bias[:used].t().to(qh.dtype).contiguous()
    ones = qh.new_ones(num_keys, 1)
    for b in range(batch):
        dead = _dead_pairs(alive_queries, alive_keys, b, row, col)
        for h in range(heads):
            logits = csr.sampled_product(qh[b, h], kh[b, h], scale)
            if bias_h is not None:
                logits = logits.add_(bias_h[h])
            if dead is not None:
                logits = logits.masked_fill_(dead, -math.inf)
            top = torch.segment_reduce(
                logits, "max", offsets=rowptr, initial=-math.inf, unsafe=True
            )
            # A row without a living pair has the maximum -inf, and -inf - -inf is NaN.
            top = top.masked_fill_(top == -math.inf, 0.0)
            weight = logits.sub_(top.index_select(0, row)).exp_()
            total = csr.product(weight, ones).view(-1)
            inv = torch.where(total > 0, 1.0 / total, 0.0)
            out[b, :, h] = (csr.product(weight, vh[b, h]) * inv[:, None]).to(out.dtype)
            weights[b, h, :used] = weight
            inverse[b, h] = inv
    return out, weights, inverse


def _dead_pairs(
    alive_queries: Tensor | None, alive_keys: Tensor | None, b: int, row: Tensor, col: Tensor
) -> Tensor | None:
    """``[P]`` bool: pairs of instance ``b`` with a dead end; ``None`` if there is no such pair."""
    alive = None
    if alive_queries is not None and not bool(alive_queries[b].all()):
        alive = alive_queries[b].index_select(0, row)
    if alive_keys is not None and not bool(alive_keys[b].all()):
        ends = alive_keys[b].index_select(0, col)
        alive = ends if alive is None else alive & ends
    return None if alive is None else ~alive


@torch.library.custom_op("pyg_nsa::csr_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    weights: Tensor,
    inverse: Tensor,
    rowptr: Tensor,
    row: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    row_t: Tensor,
    perm: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of q, k, v and ``[P, H]`` of the bias."""
    batch, num_queries, heads, dim = q.shape
    num_keys, slots = k.size(1), row.numel()
    grad_q = torch.zeros_like(q, memory_format=torch.contiguous_format)
    grad_k = torch.zeros_like(k, memory_format=torch.contiguous_format)
    grad_v = torch.zeros_like(v, memory_format=torch.contiguous_format)
    grad_bias = weights.new_zeros(slots, heads)
    used = int(rowptr[-1]) if slots else 0
    if used == 0:
        return grad_q, grad_k, grad_v, grad_bias
    perm = perm[:used]
    csr = _Csr(rowptr, row[:used], col[:used], num_keys)
    csr_t = _Csr(rowptr_t, col[:used].index_select(0, perm), row_t[:used], num_queries)
    qh, kh, vh = _heads_first(q), _heads_first(k), _heads_first(v)
    gh, oh = _heads_first(grad), _heads_first(out)
    gh = gh * inverse[..., None]
    # [g, -delta] . [v, 1] gives dP - delta at each pair in one sampled product.
    delta = (gh * oh).sum(-1, keepdim=True)
    g1 = torch.cat([gh, -delta], dim=-1)
    v1 = torch.cat([vh, vh.new_ones(*vh.shape[:-1], 1)], dim=-1)
    bias_sum = weights.new_zeros(heads, used)
    for b in range(batch):
        for h in range(heads):
            weight = weights[b, h, :used]
            grad_v[b, :, h] = csr_t.product(weight.index_select(0, perm), gh[b, h]).to(v.dtype)
            grad_logits = csr.sampled_product(g1[b, h], v1[b, h]).mul_(weight)
            bias_sum[h] += grad_logits
            grad_q[b, :, h] = (csr.product(grad_logits, kh[b, h]) * scale).to(q.dtype)
            grad_logits_t = grad_logits.index_select(0, perm)
            grad_k[b, :, h] = (csr_t.product(grad_logits_t, qh[b, h]) * scale).to(k.dtype)
    grad_bias[:used] = bias_sum.t()
    return grad_q, grad_k, grad_v, grad_bias


@_forward.register_fake
def _(q, k, v, bias, alive_queries, alive_keys, rowptr, row, col, rowptr_t, row_t, perm, scale):  # type: ignore[no-untyped-def]
    wide = q.dtype if q.dtype in (torch.float32, torch.float64) else torch.float32
    batch, num_queries, heads, _ = q.shape
    return (
        torch.empty_like(q, memory_format=torch.contiguous_format),
        q.new_empty((batch, heads, row.numel()), dtype=wide),
        q.new_empty((batch, heads, num_queries), dtype=wide),
    )


@_backward.register_fake
def _(grad, q, k, v, out, weights, inverse, rowptr, row, col, rowptr_t, row_t, perm, scale):  # type: ignore[no-untyped-def]
    def like(x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    return like(q), like(k), like(v), weights.new_empty(row.numel(), q.size(2))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, bias, _, _, *indices, scale = inputs
    ctx.save_for_backward(q, k, v, *output, *indices)
    ctx.mark_non_differentiable(*output[1:])
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.scale = scale


def _autograd_backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grad_q, grad_k, grad_v, grad_bias = _backward(grad, *ctx.saved_tensors, ctx.scale)
    bias = None if ctx.bias_dtype is None else grad_bias.to(ctx.bias_dtype)
    return grad_q, grad_k, grad_v, bias, *([None] * 9)


_forward.register_autograd(_autograd_backward, setup_context=_setup_context)


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

    Time and memory are linear in the number of pairs. The same inputs give the same bits.
    """
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    single = q.dim() == 3
    if single:
        q, k, v = q[None], k[None], v[None]
        alive_queries = None if alive_queries is None else alive_queries[None]
        alive_keys = None if alive_keys is None else alive_keys[None]
    out: Tensor = _forward(
        q,
        k,
        v,
        bias,
        alive_queries,
        alive_keys,
        edges.rowptr,
        edges.row,
        edges.col,
        *edges.transpose(),
        scale,
    )[0]
    return out[0] if single else out

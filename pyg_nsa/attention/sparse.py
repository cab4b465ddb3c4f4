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

# torch prints these at the first CSR tensor of a process; only these texts are silenced.
for _text in (
    "Sparse CSR tensor support is in beta state",
    "Sparse invariant checks are implicitly disabled",
):
    warnings.filterwarnings("ignore", message=_text)

#: Instances of a shared graph go through the products in blocks of about this many pairs: few calls for small graphs,
#: and values that stay in cache for large ones.
_PAIRS_PER_BLOCK = 1 << 16


class _Csr:
    """A sparsity pattern, repeated along the diagonal for ``copies`` instances, and the two products on it.

    Results go into given memory: in a loop over heads, allocating is dearer than computing.
    """

    def __init__(
        self, rowptr: Tensor, row: Tensor, col: Tensor, num_cols: int, copies: int
    ) -> None:
        num_rows, num_pairs = rowptr.numel() - 1, col.numel()
        if copies > 1:
            copy = torch.arange(copies, device=col.device, dtype=col.dtype)[:, None]
            starts = (rowptr[:-1] + copy * num_pairs).view(-1)
            rowptr = torch.cat([starts, rowptr.new_tensor([copies * num_pairs])])
            row = (row + copy * num_rows).view(-1)
            col = (col + copy * num_cols).view(-1)
        self.rowptr, self.row, self.col = rowptr, row, col
        self.shape = (num_rows * copies, num_cols * copies)

    def with_values(self, values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(
            self.rowptr, self.col, values, self.shape, check_invariants=False
        )

    def sampled_product(self, a: Tensor, b: Tensor, out: Tensor, scale: float = 1.0) -> None:
        """Writes ``scale * (a @ b.T)`` at the pairs into ``out`` ``[P]``."""
        if HAS_SPARSE_KERNELS:
            matrix = self.with_values(
                out.zero_()
            )  # beta = 0 does not keep what was there from being read
            torch.sparse.sampled_addmm(matrix, a, b.t(), beta=0.0, alpha=scale, out=matrix)
        else:
            out.copy_((a[self.row] * b[self.col]).sum(-1)).mul_(scale)

    def product(self, values: Tensor, x: Tensor, out: Tensor) -> None:
        """Writes the sparse matrix with these values times ``x`` into ``out`` ``[rows, D]``."""
        if HAS_SPARSE_KERNELS:
            torch.addmm(out, self.with_values(values), x, beta=0.0, out=out)
        else:
            out.zero_().index_add_(0, self.row, values[:, None] * x[self.col])


def _wide(x: Tensor) -> Tensor:
    """``[B, N, H, D]``, contiguous, in a dtype that the kernels have."""
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return x.to(dtype).contiguous()


def _rows(x: Tensor, block: slice, h: int) -> Tensor:
    """Rows of one head in a block of instances, ``[copies * N, D]``: a view, and the kernels take its row stride."""
    part = x[block, :, h]
    return part.view(part.size(0) * part.size(1), part.size(2))


def _blocks(batch: int, num_pairs: int) -> list[slice]:
    size = max(1, min(batch, _PAIRS_PER_BLOCK // max(num_pairs, 1)))
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]


# The number belongs to the name: torch keeps compiled graphs on disk by operator name, and would feed an operator whose
# outputs have changed to a graph that was compiled for the old ones.
@torch.library.custom_op("pyg_nsa::csr_attention_v1", mutates_args=())
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
    """Returns out ``[B, N_q, H, D]``, unnormalised probabilities ``[H, B, P]``, inverse row sums ``[B, N_q, H, 1]``."""
    batch, num_queries, heads, _ = q.shape
    num_keys, slots = k.size(1), row.numel()
    q_, k_, v_ = _wide(q), _wide(k), _wide(v)
    weights = q_.new_empty(heads, batch, slots)
    inverse = q_.new_zeros(batch, num_queries, heads, 1)
    used = int(rowptr[-1]) if slots else 0
    if used == 0:
        return torch.zeros_like(q, memory_format=torch.contiguous_format), weights, inverse
    row, col = row[:used], col[:used]
    packed = _packed(weights, used)
    bias_h = None if bias is None else bias[:used].t().to(q_.dtype).contiguous()
    out = q_.new_empty(batch, num_queries, heads, v.size(-1))
    for block in _blocks(batch, used):
        copies = block.stop - block.start
        csr = _Csr(rowptr, row, col, num_keys, copies)
        dead = _dead_pairs(alive_queries, alive_keys, block, row, col)
        ones = q_.new_ones(copies * num_keys, 1)
        total = q_.new_empty(copies * num_queries, 1)
        spread = q_.new_empty(copies * used)
        for h in range(heads):
            weight = packed[h, block].view(-1)  # logits first, probabilities in the end
            csr.sampled_product(_rows(q_, block, h), _rows(k_, block, h), weight, scale)
            if bias_h is not None:
                weight.view(copies, used).add_(bias_h[h])
            if dead is not None:
                weight.masked_fill_(dead, -math.inf)
            top = torch.segment_reduce(
                weight, "max", offsets=csr.rowptr, initial=-math.inf, unsafe=True
            )
            # A row without a living pair has the maximum -inf, and -inf - -inf is NaN.
            top.masked_fill_(top == -math.inf, 0.0)
            weight.sub_(torch.index_select(top, 0, csr.row, out=spread)).exp_()
            csr.product(weight, ones, total)
            inv = torch.where(total > 0, 1.0 / total, 0.0)
            message = _rows(out, block, h)
            csr.product(weight, _rows(v_, block, h), message)
            message.mul_(inv)
            _rows(inverse, block, h).copy_(inv)
    return out.to(q.dtype), weights, inverse


def _packed(weights: Tensor, used: int) -> Tensor:
    """``[H, B, slots]`` memory as ``[H, B, used]``, contiguous; the two differ under ``torch.compile`` only."""
    heads, batch, _ = weights.shape
    return weights.view(-1)[: heads * batch * used].view(heads, batch, used)


def _dead_pairs(
    alive_queries: Tensor | None, alive_keys: Tensor | None, block: slice, row: Tensor, col: Tensor
) -> Tensor | None:
    """bool, pairs of a block's instances with a dead end; ``None`` if there is no such pair."""
    alive = None
    if alive_queries is not None and not bool(alive_queries[block].all()):
        alive = alive_queries[block].index_select(1, row)
    if alive_keys is not None and not bool(alive_keys[block].all()):
        ends = alive_keys[block].index_select(1, col)
        alive = ends if alive is None else alive & ends
    return None if alive is None else ~alive.view(-1)


@torch.library.custom_op("pyg_nsa::csr_attention_backward_v1", mutates_args=())
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
    batch, num_queries, heads, _ = q.shape
    num_keys, slots = k.size(1), row.numel()
    grad_bias = weights.new_zeros(heads, slots)
    used = int(rowptr[-1]) if slots else 0
    if used == 0:
        zeros = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        return (*zeros, grad_bias.t().contiguous())  # type: ignore[return-value]
    row, col, row_t, perm = row[:used], col[:used], row_t[:used], perm[:used]
    packed = _packed(weights, used)
    q_, k_, v_ = _wide(q), _wide(k), _wide(v)
    # [g, -delta] . [v, 1] gives dP - delta at each pair in one sampled product.
    g1 = q_.new_empty(*grad.shape[:-1], grad.size(-1) + 1)
    g = torch.mul(_wide(grad), inverse, out=g1[..., :-1])
    torch.sum(g * _wide(out), -1, keepdim=True, out=g1[..., -1:]).neg_()
    v1 = torch.cat([v_, v_.new_ones(*v_.shape[:-1], 1)], dim=-1)
    grad_q, grad_k, grad_v = torch.empty_like(q_), torch.empty_like(k_), torch.empty_like(v_)
    for block in _blocks(batch, used):
        copies = block.stop - block.start
        csr = _Csr(rowptr, row, col, num_keys, copies)
        csr_t = _Csr(rowptr_t, col.index_select(0, perm), row_t, num_queries, copies)
        grad_logits, transposed = weights.new_empty(2, copies * used)
        for h in range(heads):
            weight = packed[h, block]
            torch.index_select(weight, 1, perm, out=transposed.view(copies, used))
            csr_t.product(transposed, _rows(g, block, h), _rows(grad_v, block, h))
            csr.sampled_product(_rows(g1, block, h), _rows(v1, block, h), grad_logits)
            by_copy = grad_logits.view(copies, used).mul_(weight)
            grad_bias[h, :used] += by_copy.sum(0)
            csr.product(grad_logits, _rows(k_, block, h), _rows(grad_q, block, h))
            torch.index_select(by_copy, 1, perm, out=transposed.view(copies, used))
            csr_t.product(transposed, _rows(q_, block, h), _rows(grad_k, block, h))
    return (
        grad_q.mul_(scale).to(q.dtype),
        grad_k.mul_(scale).to(k.dtype),
        grad_v.to(v.dtype),
        grad_bias.t().contiguous(),
    )


@_forward.register_fake
def _(q, k, v, bias, alive_queries, alive_keys, rowptr, row, col, rowptr_t, row_t, perm, scale):  # type: ignore[no-untyped-def]
    wide = q.dtype if q.dtype in (torch.float32, torch.float64) else torch.float32
    batch, num_queries, heads, _ = q.shape
    return (
        torch.empty_like(q, memory_format=torch.contiguous_format),
        q.new_empty((heads, batch, row.numel()), dtype=wide),
        q.new_empty((batch, num_queries, heads, 1), dtype=wide),
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
    indices = _indices(edges)
    out: Tensor = _forward(q, k, v, bias, alive_queries, alive_keys, *indices, scale)[0]
    return out[0] if single else out


def _indices(edges: EdgeSet) -> tuple[Tensor, ...]:
    """CSR and its transpose as int32 where they fit: MKL's own width, to which torch would convert at each product."""
    known = edges.derived.get("csr")
    if known is None:
        known = (edges.rowptr, edges.row, edges.col, *edges.transpose())
        if max(edges.num_pairs, edges.num_queries, edges.num_keys) < 2**31 - 1:
            known = tuple(t.int() for t in known)
        edges.derived["csr"] = known
    return known

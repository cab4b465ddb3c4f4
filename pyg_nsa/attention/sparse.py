"""Masked attention on the CPU, on the CSR form of the pair set.

Two operators around the kernels of :mod:`pyg_nsa.attention.csr_kernels`, forward and backward, registered with torch, so
that ``torch.compile`` sees one node each and no graph break. Time is linear in the pairs; what is kept for the backward
pass is linear in the nodes: the output and one number per row and head.

Half precision is computed in float32; the result has the inputs' dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet, kept_tensors
from pyg_nsa.attention.threads import run_on_threads

__all__ = ["edge_attention"]

#: The backward pass keeps two numbers per pair and head for a block of instances of a shared graph; blocks have about
#: this many pairs, so that the numbers stay in cache and few calls are made for small graphs.
_PAIRS_PER_BLOCK = 1 << 16

#: Threads take rows in portions of about this many pairs: enough portions to share hubs evenly.
_PAIRS_PER_TASK = 1 << 10

#: Below this many multiplications waking threads costs more than they save.
_MIN_PARALLEL = 1 << 15


def _wide(x: Tensor) -> Tensor:
    """``[B, N, H, D]`` in a dtype that the kernels have, with each row in one piece; rows may be apart."""
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    dense_rows = x.stride(-1) == 1 and x.stride(-2) == x.size(-1)
    return x if dense_rows else x.contiguous()


class _Call:
    """Arguments of a kernel, gathered one by one; keeps the tensors behind the addresses alive."""

    def __init__(
        self, pattern: tuple[Tensor, Tensor], largest: int, copies: int, heads: int, size: int
    ) -> None:
        from pyg_nsa.attention.csr_kernels import Words  # compiles nothing, but imports Numba

        self.words_of = Words
        self.rowptr, col = pattern
        self.largest = largest
        self.copies, self.heads, self.size = copies, heads, size
        self.pairs = col.numel()
        self.words = np.zeros(len(Words), dtype=np.int64)
        self.kept: list[Any] = []
        self.put(ROWPTR=self.rowptr, COL=col)
        self.set(COPIES=copies, NUM_PAIRS=self.pairs, HEADS=heads)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.words[self.words_of[name]] = value

    def put(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            if tensor is not None:
                self.kept.append(tensor)
                self.set(**{name: tensor.data_ptr()})

    def put_rows(self, **tensors: Tensor) -> None:
        """Rows ``[copies, N, H, D]`` with their strides."""
        for name, tensor in tensors.items():
            self.put(**{name: tensor})
            self.set(**{f"{name}_ROW": tensor.stride(1), f"{name}_COPY": tensor.stride(0)})

    def run(self, name: str, like: Tensor, scale: float, parts: int) -> None:
        from pyg_nsa.attention import csr_kernels

        real = np.float32 if like.dtype == torch.float32 else np.float64
        index = np.int32 if self.rowptr.dtype == torch.int32 else np.int64
        group = csr_kernels.heads_at_once(self.heads, self.size, real)
        kernel = getattr(csr_kernels, name)(group, self.size, real, index)
        num_rows = self.rowptr.numel() - 1
        work = self.copies * self.pairs * self.heads * self.size
        threads = torch.get_num_threads() if work >= _MIN_PARALLEL else 1
        step = max(1, min(_PAIRS_PER_TASK * num_rows // self.pairs, num_rows // (8 * threads)))
        # One vector more than the largest row has, and whole cache lines, so that threads do not write into each other's.
        part = (self.largest * self.heads // csr_kernels.LANES + 1) * csr_kernels.LANES
        scratch_size = -(-(2 * self.heads + parts * part) // 32) * 32
        counters = np.zeros(2, dtype=np.int64)
        factor = np.array([scale], dtype=np.float64)
        self.put(SCRATCH=like.new_empty(threads * scratch_size))
        self.set(
            ROWS_PER_TASK=step,
            SCRATCH_SIZE=scratch_size,
            SCRATCH_PART=part,
            COUNTERS=counters.ctypes.data,
            SCALE=factor.ctypes.data,
        )
        run_on_threads(kernel, self.words.ctypes.data, threads)


# The number belongs to the name: torch keeps compiled graphs on disk by operator name, and would feed an operator whose
# outputs have changed to a graph that was compiled for the old ones.
@torch.library.custom_op("pyg_nsa::csr_attention_v3", mutates_args=())
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
    copies, queries, heads, size = q.shape
    q_, k_, v_ = _wide(q), _wide(k), _wide(v)
    used, largest, _ = sizes.tolist()
    if used == 0 or copies * heads * size == 0:
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        return out, q_.new_full((copies, queries, heads), math.inf)
    out, lse = q_.new_empty(q.shape), q_.new_empty(copies, queries, heads)
    call = _Call((rowptr, col[:used]), largest, copies, heads, size)
    call.set(NUM_QUERIES=queries, NUM_KEYS=k.size(1))
    call.put_rows(Q=q_, K=k_, V=v_)
    call.put(
        OUT=out,
        LSE=lse,
        BIAS=_as(bias, q_),
        ALIVE_QUERIES=_bytes(alive_queries),
        ALIVE_KEYS=_bytes(alive_keys),
    )
    call.run("forward", q_, scale, 1)
    return out.to(q.dtype), lse


@torch.library.custom_op("pyg_nsa::csr_attention_backward_v3", mutates_args=())
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
    copies, queries, heads, size = q.shape
    keys = k.size(1)
    grad_bias = lse.new_zeros(0 if bias is None else bias.size(0), heads)
    used, largest, largest_t = sizes.tolist()
    if used == 0 or copies * heads * size == 0:
        zeros = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        return (*zeros, grad_bias)  # type: ignore[return-value]
    q_, k_, v_, g_ = _wide(q), _wide(k), _wide(v), _wide(grad)
    out_ = _wide(out)
    grad_q, grad_k, grad_v = (x.new_empty(y.shape) for x, y in ((q_, q), (k_, k), (v_, v)))
    bias_ = _as(bias, q_)
    dead_queries, dead_keys = _bytes(alive_queries), _bytes(alive_keys)
    block_size = max(1, min(copies, _PAIRS_PER_BLOCK // used))
    per_pair = q_.new_empty(block_size * used * 2 * heads)
    for start in range(0, copies, block_size):
        block = slice(start, min(start + block_size, copies))
        shared = dict(Q=q_[block], GRAD=g_[block])
        call = _Call((rowptr, col[:used]), largest, block.stop - start, heads, size)
        call.set(NUM_QUERIES=queries, NUM_KEYS=keys)
        call.put_rows(K=k_[block], V=v_[block], **shared)
        call.put(
            PAIRS=per_pair,
            OUT=out_[block],
            LSE=lse[block],
            BIAS=bias_,
            ALIVE_KEYS=None if dead_keys is None else dead_keys[block],
            GRAD_Q=grad_q[block],
            GRAD_BIAS=grad_bias,
        )
        call.run("backward_queries", q_, scale, 2)
        call = _Call((rowptr_t, row_t[:used]), largest_t, block.stop - start, heads, size)
        call.set(NUM_QUERIES=queries, NUM_KEYS=keys)
        call.put_rows(**shared)
        call.put(
            PAIRS=per_pair,
            PERM=perm[:used],
            ALIVE_QUERIES=None if dead_queries is None else dead_queries[block],
            GRAD_K=grad_k[block],
            GRAD_V=grad_v[block],
        )
        call.run("backward_keys", q_, scale, 0)
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), grad_bias


def _as(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(like.dtype).contiguous()


def _bytes(alive: Tensor | None) -> Tensor | None:
    """A mask's bytes, or nothing if all rows are alive."""
    return None if alive is None or bool(alive.all()) else alive.contiguous().view(torch.uint8)


@_forward.register_fake
def _(q, k, v, bias, alive_queries, alive_keys, rowptr, col, rowptr_t, row_t, perm, sizes, scale):  # type: ignore[no-untyped-def]
    wide = q.dtype if q.dtype in (torch.float32, torch.float64) else torch.float32
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(q.shape[:3], dtype=wide)


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad,
    q,
    k,
    v,
    bias,
    alive_queries,
    alive_keys,
    out,
    lse,
    rowptr,
    col,
    rowptr_t,
    row_t,
    perm,
    sizes,
    scale,
):
    def like(x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    slots = 0 if bias is None else bias.size(0)
    return like(q), like(k), like(v), lse.new_empty(slots, q.size(2))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    out, lse = output
    *tensors, scale = inputs
    ctx.save_for_backward(*tensors[:6], out, lse, *tensors[6:])
    ctx.mark_non_differentiable(lse)
    ctx.scale = scale


def _autograd_backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    bias = ctx.saved_tensors[3]
    grad_q, grad_k, grad_v, grad_bias = _backward(grad, *ctx.saved_tensors, ctx.scale)
    of_bias = None if bias is None else grad_bias.to(bias.dtype)
    return grad_q, grad_k, grad_v, of_bias, *([None] * 9)


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

    Time is linear in the number of pairs, memory in the number of nodes and pairs. The same inputs give the same bits,
    with any number of threads.
    """
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    single = q.dim() == 3
    if single:
        q, k, v = q[None], k[None], v[None]
        alive_queries = None if alive_queries is None else alive_queries[None]
        alive_keys = None if alive_keys is None else alive_keys[None]
    indices = _indices(edges)
    out: Tensor = _forward(q, k, v, bias, alive_queries, alive_keys, *indices, scale)[0]
    return out.squeeze(0) if single else out


def _indices(edges: EdgeSet) -> tuple[Tensor, ...]:
    """CSR and its transpose, as int32 where they fit: half the bytes to read; then [3] int64: number of pairs, largest row of each."""
    known = edges.derived.get("csr")
    if known is None:
        known = (edges.rowptr, edges.col, *edges.transpose())
        with kept_tensors():
            largest = [_largest_row(known[0]), _largest_row(known[2])]
            sizes = torch.stack([known[0][-1], *largest])
            if max(edges.num_pairs, edges.num_queries, edges.num_keys) < 2**31 - 1:
                known = tuple(t.int() for t in known)
        known = (*known, sizes)
        edges.derived["csr"] = known
    return known


def _largest_row(rowptr: Tensor) -> Tensor:
    return rowptr.diff().max() if rowptr.numel() > 1 else rowptr.new_zeros(())

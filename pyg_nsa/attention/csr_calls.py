"""The CPU kernels as functions of tensors, without autograd; operators are made of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet, kept_tensors
from pyg_nsa.compiled.calls import KernelCall, threads_for
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.sequence import borrowed

__all__ = ["CSR", "Masks", "Paired", "attend", "attend_backward", "csr_tensors", "paired_rows"]

#: The backward pass keeps a number per pair and head for a block of instances of a shared graph; blocks have about
#: this many pairs, so that the numbers stay in cache and few calls are made for small graphs.
_PAIRS_PER_BLOCK = 1 << 17

#: Threads take rows in portions of about this many pairs: enough portions to share hubs evenly.
_PAIRS_PER_TASK = 1 << 10

#: Rows are taken one by one from this share on downwards: to pick them costs less than a twentieth of projecting them.
_NEARLY_ALL = 0.95


class CSR(NamedTuple):
    """Pairs by query and by key, as int32 where they fit: half the bytes to read."""

    rowptr: Tensor  # [N_q + 1]
    col: Tensor  # [P], or more
    rowptr_t: Tensor  # [N_k + 1]
    row_t: Tensor
    perm: Tensor  # of each pair by key its place by query
    sizes: Tensor  # [3] int64: number of pairs, largest row of each pattern


class Paired(NamedTuple):
    """int64 numbers of the rows that have pairs, in order; nothing if nearly all of them do."""

    queries: Tensor | None
    keys: Tensor | None  # the same tensor if they are the same rows

    @property
    def are_same(self) -> bool:
        """Whether queries and keys of one node type can be projected together."""
        return self.queries is self.keys


class Masks(NamedTuple):
    """``[B, N]`` bool, or nothing if all rows are alive."""

    queries: Tensor | None
    keys: Tensor | None

    def as_bytes(self) -> Masks:
        """What the kernels read."""
        return Masks(
            *(
                None if a is None or bool(a.all()) else a.contiguous().view(torch.uint8)
                for a in self
            )
        )


def csr_tensors(edges: EdgeSet) -> CSR:
    """Of an edge set, made once."""
    known: CSR | None = edges.derived.get("csr")
    if known is None:
        tensors: tuple[Tensor, ...] = (edges.rowptr, edges.col, *edges.transpose())
        with kept_tensors():
            largest = [_largest_row(tensors[0]), _largest_row(tensors[2])]
            sizes = torch.stack([tensors[0][-1], *largest])
            # One by one: max() would guard a traced graph by which of the three is the largest.
            sizes_of = (edges.num_pairs, edges.num_queries, edges.num_keys)
            if all(size < 2**31 - 1 for size in sizes_of):
                tensors = tuple(t.int() for t in tensors)
        known = CSR(*tensors, sizes)  # type: ignore[call-arg]
        edges.derived["csr"] = known
    return known


def paired_rows(edges: EdgeSet) -> Paired:
    """Of an edge set, found once. A graph that is being compiled gets none: their number depends on data."""
    known: Paired | None = edges.derived.get("paired")
    if known is None:
        if torch.compiler.is_compiling():
            return Paired(None, None)
        with kept_tensors():
            csr = csr_tensors(edges)
            queries, keys = (_in_pairs(rowptr) for rowptr in (csr.rowptr, csr.rowptr_t))
        if queries is not None and keys is not None and torch.equal(queries, keys):
            keys = queries
        known = edges.derived["paired"] = Paired(queries, keys)
    return known


def _in_pairs(rowptr: Tensor) -> Tensor | None:
    has_pairs = rowptr.diff() > 0
    if int(has_pairs.sum()) > _NEARLY_ALL * has_pairs.numel():
        return None
    return has_pairs.nonzero().flatten()


def _largest_row(rowptr: Tensor) -> Tensor:
    return rowptr.diff().max() if rowptr.numel() > 1 else rowptr.new_zeros(())


class _Call(KernelCall):
    """A kernel's call.

    Args:
        copies: B.
        pairs: P.
        heads: H.
        size: D.
    """

    def __init__(self, copies: int, pairs: int, heads: int, size: int) -> None:
        from pyg_nsa.attention.csr_kernels import Words  # compiles nothing, but imports Numba

        super().__init__(Words)
        self.copies, self.pairs, self.heads, self.size = copies, pairs, heads, size
        self.set(COPIES=copies, NUM_PAIRS=pairs, HEADS=heads)

    def put_pattern(self, rowptr: Tensor, col: Tensor, largest: int) -> None:
        """One of the two patterns, and the pairs of its largest row; ``col`` may be longer."""
        self.rowptr, self.largest = rowptr, largest
        self.put(ROWPTR=rowptr, COL=col)

    def put_rows(self, **tensors: Tensor) -> None:
        """Rows ``[copies, N, H, D]`` with their strides."""
        self.put(**tensors)
        for name, tensor in tensors.items():
            copy, row, *_ = tensor.stride()
            self.set(**{f"{name}_ROW": row, f"{name}_COPY": copy})

    def attend(self, name: str, like: Tensor, scale: float) -> None:
        """Runs the kernel of this name."""
        from pyg_nsa.attention import csr_kernels

        real = np.float32 if like.dtype == torch.float32 else np.float64
        index = np.int32 if self.rowptr.dtype == torch.int32 else np.int64
        group = csr_kernels.heads_at_once(self.heads, self.size, real)
        kernel = getattr(csr_kernels, name)(group, self.size, real, index)
        num_rows = self.rowptr.numel() - 1
        threads = threads_for(self.copies * self.pairs * self.heads * self.size)
        step = max(1, min(_PAIRS_PER_TASK * num_rows // self.pairs, num_rows // (8 * threads)))
        scratch_size = csr_kernels.scratch_size(name, self.heads, self.largest)
        self.set(ROWS_PER_TASK=step, SCRATCH_SIZE=scratch_size)
        self.put_number(SCALE=scale)
        self.run(kernel, threads, borrowed("threads", like, threads * scratch_size))


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, masks: Masks, csr: CSR, scale: float
) -> tuple[Tensor, Tensor]:
    """Output ``[B, N_q, H, D]`` and the log-sum-exp of each row ``[B, N_q, H]`` (``inf`` for rows without a key).

    Args:
        q: ``[B, N_q, H, D]`` in float32 or float64, each row in one piece.
        k: ``[B, N_k, H, D]``.
        v: Like ``k``.
        bias: ``[P, H]``.
        masks: As bytes.
        csr: The pairs.
        scale: Factor of the logits.
    """
    copies, queries, heads, size = q.shape
    used, largest, _ = csr.sizes.tolist()
    if used == 0 or copies * heads * size == 0:
        return q.new_zeros(q.shape), q.new_full((copies, queries, heads), math.inf)
    out, lse = empty(q, *q.shape), empty(q, copies, queries, heads)
    call = _Call(copies, used, heads, size)
    call.put_pattern(csr.rowptr, csr.col, largest)
    call.set(NUM_QUERIES=queries, NUM_KEYS=k.size(1))
    call.put_rows(Q=q, K=k, V=v)
    call.put(OUT=out, LSE=lse, BIAS=bias, ALIVE_QUERIES=masks.queries, ALIVE_KEYS=masks.keys)
    call.attend("forward", q, scale)
    return out, lse


def attend_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    masks: Masks,
    out: Tensor,
    lse: Tensor,
    csr: CSR,
    scale: float,
    grads: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Writes the gradients of q, k and v to ``grads``; returns that of the bias ``[P, H]`` (``[0, H]`` without one)."""
    copies, queries, heads, size = q.shape
    keys = k.size(1)
    grad_bias = lse.new_zeros(0 if bias is None else bias.size(0), heads)
    used, largest, largest_t = csr.sizes.tolist()
    if used == 0 or copies * heads * size == 0:
        for g in grads:
            g.zero_()
        return grad_bias
    block_size = max(1, min(copies, _PAIRS_PER_BLOCK // used))
    per_pair = borrowed("pairs", q, block_size * used * heads)
    norms = borrowed("norms", q, block_size * queries * 2 * heads)
    for start in range(0, copies, block_size):
        block = slice(start, min(start + block_size, copies))

        def part(t: Any, block: slice = block) -> Any:
            return t if t is None or block_size == copies else t[block]

        by_query = _Call(block.stop - start, used, heads, size)
        names = ("Q", "K", "V", "GRAD", "GRAD_Q", "GRAD_K", "GRAD_V")
        by_query.put_rows(
            **{n: part(t) for n, t in zip(names, (q, k, v, grad, *grads), strict=True)}
        )
        by_query.set(NUM_QUERIES=queries, NUM_KEYS=keys)
        by_query.put(PAIRS=per_pair, NORMS=norms, BIAS=bias, GRAD_BIAS=grad_bias)
        by_query.put(OUT=part(out), LSE=part(lse))
        by_query.put(ALIVE_QUERIES=part(masks.queries), ALIVE_KEYS=part(masks.keys))
        by_key = by_query.copy()
        by_query.put_pattern(csr.rowptr, csr.col, largest)
        by_key.put_pattern(csr.rowptr_t, csr.row_t, largest_t)
        by_key.put(PERM=csr.perm)
        by_query.attend("row_norms", q, scale)
        by_key.attend("backward_keys", q, scale)
        by_query.attend("backward_queries", q, scale)
    return grad_bias

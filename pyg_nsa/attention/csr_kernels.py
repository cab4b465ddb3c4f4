"""Masked attention on the CPU, compiled: one pass over the pairs forward, two backward, all heads at once.

FlashAttention's scheme (Dao et al. 2022) on a CSR pattern. The forward pass keeps the output and one log-sum-exp per row
and head; the backward pass computes the probabilities again. So nothing of size ``pairs x channels`` exists, and nothing
of size ``pairs`` outlives a call. A pair reads one row of keys and one of values for all heads: these reads are the cost
on a CPU, so they are asked for a few pairs ahead.

* :func:`forward`: queries pull keys and values.
* :func:`backward_keys`: on the transposed pattern, keys pull queries and output gradients; writes the gradients of key and value,
  and one number per pair and head, the gradient of the logit.
* :func:`backward_queries`: queries pull keys again, with those numbers, for their own gradient.

Each row is computed by one thread in a fixed order: the number of threads does not change a bit of the result.

The kernels are compiled by Numba at first use, one for each head size and dtype, and kept on disk. They take one pointer,
to the int64 words of :class:`Words`, because that is what OpenMP's threads can be given (:mod:`pyg_nsa.compiled.threads`).
"""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import functools
import math
from enum import IntEnum
from typing import Any

import numpy as np
from numba import carray

from pyg_nsa.compiled.compiling import kernel_address
from pyg_nsa.compiled.lanes import (
    EXPONENTIALS,
    each_head,
    exp_row,
    filled,
    finite,
    larger,
    load,
    minus,
    plus,
    pointer,
    power_of_two,
    prefetch,
    store,
    sum_heads,
    take,
    times,
)

__all__ = [
    "Words",
    "backward_keys",
    "backward_queries",
    "forward",
    "heads_at_once",
    "row_norms",
    "scratch_size",
]

#: How many pairs ahead rows are asked for; 4 to 12 measure alike.
_AHEAD = 6

#: Bytes of a row that stay in vector registers while a kernel goes through the row's pairs: some are left for what is read.
_REGISTERS = 256

#: Pairs of a key that the backward pass goes through twice before it goes on: 32 rows of 64 float32 of two tensors fit into half of
#: an L1 cache.
_CHUNK = 32


class Words(IntEnum):
    """Positions of a kernel's arguments: addresses (0: absent), then sizes and strides in elements."""

    COUNTERS = 0  # two int64: next task, next thread's scratch
    SCALE = 1  # one float64
    SCRATCH = 2  # [threads, scratch size]
    ROWPTR = 3
    COL = 4
    PERM = 5
    BIAS = 6  # [pairs, H]
    ALIVE_QUERIES = 7  # bytes [copies, queries]
    ALIVE_KEYS = 8
    Q = 9
    K = 10
    V = 11
    GRAD = 12  # of the output
    OUT = 13
    LSE = 14  # [copies, queries, H]; +inf for rows without a key, so that their probabilities come out as 0
    PAIRS = 15  # [copies * pairs, H]: gradients of the logits
    GRAD_Q = 16
    GRAD_K = 17
    GRAD_V = 18
    GRAD_BIAS = 19  # [pairs, H], added to
    COPIES = 20
    NUM_QUERIES = 21
    NUM_KEYS = 22
    NUM_PAIRS = 23
    HEADS = 24
    ROWS_PER_TASK = 25
    SCRATCH_SIZE = 26  # of one thread
    Q_ROW = 27
    Q_COPY = 28
    K_ROW = 29
    K_COPY = 30
    V_ROW = 31
    V_COPY = 32
    GRAD_ROW = 33
    GRAD_COPY = 34
    NORMS = 35  # [copies, queries, 2 H]: LSE, and the sum of the output times its gradient
    GRAD_Q_ROW = 36
    GRAD_Q_COPY = 37
    GRAD_K_ROW = 38
    GRAD_K_COPY = 39
    GRAD_V_ROW = 40
    GRAD_V_COPY = 41


_NUM_WORDS = len(Words)
# Numba folds module-level integers into the code, but not members of an enumeration.
(
    _COUNTERS,
    _SCALE,
    _SCRATCH,
    _ROWPTR,
    _COL,
    _PERM,
    _BIAS,
    _ALIVE_QUERIES,
    _ALIVE_KEYS,
    _Q,
    _K,
    _V,
    _GRAD,
    _OUT,
    _LSE,
    _PAIRS,
    _GRAD_Q,
    _GRAD_K,
    _GRAD_V,
    _GRAD_BIAS,
    _COPIES,
    _NUM_QUERIES,
    _NUM_KEYS,
    _NUM_PAIRS,
    _HEADS,
    _ROWS_PER_TASK,
    _SCRATCH_SIZE,
    _Q_ROW,
    _Q_COPY,
    _K_ROW,
    _K_COPY,
    _V_ROW,
    _V_COPY,
    _GRAD_ROW,
    _GRAD_COPY,
    _NORMS,
    _GRAD_Q_ROW,
    _GRAD_Q_COPY,
    _GRAD_K_ROW,
    _GRAD_K_COPY,
    _GRAD_V_ROW,
    _GRAD_V_COPY,
) = (int(word) for word in Words)


# ---- the kernels ---------------------------------------------------------------------------------------------------------


@functools.cache
def heads_at_once(heads: int, size: int, real: type[np.floating]) -> int:
    """How many heads a kernel computes in one pass over a row's pairs: as many as fit into :data:`_REGISTERS` bytes."""
    fitting = [n for n in range(1, heads + 1) if heads % n == 0]
    bytes_ = power_of_two(size) * np.dtype(real).itemsize
    fitting = [n for n in fitting if n * bytes_ <= _REGISTERS]
    return max(fitting, default=1)


def scratch_size(kernel: str, heads: int, largest: int) -> int:
    """Numbers that a thread of a kernel keeps for itself.

    Args:
        kernel: Its name.
        heads: Number of heads.
        largest: Pairs of the largest row.
    """
    # One vector more than what is used, and whole cache lines, so that threads do not write into each other's.
    numbers = {
        "forward": 2 * heads + largest * heads + EXPONENTIALS,
        "backward_keys": 2 * _CHUNK * heads + EXPONENTIALS,
    }
    return -(-numbers.get(kernel, 0) // 32) * 32


@functools.cache
def forward(group: int, size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the forward kernel: writes ``OUT`` and ``LSE``.

    Args:
        group: Heads that are computed at once (:func:`heads_at_once`).
        size: Of a head.
        real: ``np.float32`` or ``np.float64``.
        index: ``np.int32`` or ``np.int64``, of the pattern.
    """
    item = np.dtype(real).itemsize
    line = 64 // item
    span = group * size  # numbers of a row; in registers each head is filled up
    padded = power_of_two(size)
    lanes = group * padded

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        scale = real(carray(pointer(w[_SCALE]), 1, dtype=np.float64)[0])
        copies, queries, keys, heads = w[_COPIES], w[_NUM_QUERIES], w[_NUM_KEYS], w[_HEADS]
        pairs, step = w[_NUM_PAIRS], w[_ROWS_PER_TASK]
        width = heads * size
        rowptr = carray(pointer(w[_ROWPTR]), queries + 1, dtype=index)
        col = carray(pointer(w[_COL]), pairs, dtype=index)
        q_row, k_row, v_row = w[_Q_ROW], w[_K_ROW], w[_V_ROW]
        q = carray(pointer(w[_Q]), 1, dtype=real)
        k = carray(pointer(w[_K]), 1, dtype=real)
        v = carray(pointer(w[_V]), 1, dtype=real)
        out = carray(pointer(w[_OUT]), 1, dtype=real)
        lse = carray(pointer(w[_LSE]), 1, dtype=real)
        has_bias = w[_BIAS] != 0
        bias = carray(pointer(w[_BIAS]), 1, dtype=real)
        has_dead_queries, has_dead_keys = w[_ALIVE_QUERIES] != 0, w[_ALIVE_KEYS] != 0
        alive_queries = carray(pointer(w[_ALIVE_QUERIES]), 1, dtype=np.uint8)
        alive_keys = carray(pointer(w[_ALIVE_KEYS]), 1, dtype=np.uint8)
        slot = w[_SCRATCH] + take(counters, 1) * w[_SCRATCH_SIZE] * item
        scratch = carray(pointer(slot), w[_SCRATCH_SIZE], dtype=real)
        top, total, weight = scratch, scratch[heads:], scratch[2 * heads :]
        tasks_per_copy = (queries + step - 1) // step
        factor, nothing = filled(scale, lanes), filled(real(0), lanes)
        while True:
            task = take(counters, 0)
            if task >= tasks_per_copy * copies:
                break
            copy = task // tasks_per_copy
            start = (task - copy * tasks_per_copy) * step
            q_start, k_start, v_start = copy * w[_Q_COPY], copy * w[_K_COPY], copy * w[_V_COPY]
            for i in range(start, min(start + step, queries)):
                query = copy * queries + i
                first, last = np.int64(rowptr[i]), np.int64(rowptr[i + 1])
                is_dead = has_dead_queries and alive_queries[query] == 0
                if first == last or is_dead:
                    for h in range(heads):
                        lse[query * heads + h] = np.inf
                    for h in range(0, heads, group):
                        store(out, query * width + h * size, nothing, size)
                    continue
                for head in range(0, heads, group):
                    column = head * size
                    scaled = times(load(q, q_start + i * q_row + column, group, size), factor)
                    largest = filled(real(-np.inf), group)
                    for p in range(first, last):
                        ahead = k_start + np.int64(col[min(p + _AHEAD, pairs - 1)]) * k_row + column
                        for c in range(0, span, line):
                            prefetch(k, ahead + c)
                        j = np.int64(col[p])
                        logit = filled(real(-np.inf), group)
                        if not has_dead_keys or alive_keys[copy * keys + j] != 0:
                            key = load(k, k_start + j * k_row + column, group, size)
                            logit = sum_heads(times(scaled, key), padded)
                            if has_bias:
                                logit = plus(logit, load(bias, p * heads + head, group, 1))
                        largest = larger(largest, logit)
                        store(weight, (p - first) * group, logit, 1)
                    # A row without a living pair has the maximum -inf, and -inf - -inf is NaN.
                    largest = finite(largest)
                    for p in range(last - first):
                        store(
                            weight,
                            p * group,
                            minus(load(weight, p * group, group, 1), largest),
                            1,
                        )
                    exp_row(weight, (last - first) * group)
                    summed, mixed = filled(real(0), group), nothing
                    for p in range(first, last):
                        ahead = v_start + np.int64(col[min(p + _AHEAD, pairs - 1)]) * v_row + column
                        for c in range(0, span, line):
                            prefetch(v, ahead + c)
                        j = np.int64(col[p])
                        # What a dead row holds must not matter, and 0 * NaN would.
                        if has_dead_keys and alive_keys[copy * keys + j] == 0:
                            continue
                        share = load(weight, (p - first) * group, group, 1)
                        summed = plus(summed, share)
                        value = load(v, v_start + j * v_row + column, group, size)
                        mixed = plus(mixed, times(each_head(share, padded), value))
                    store(top, 0, largest, 1)
                    store(total, 0, summed, 1)
                    for h in range(group):
                        if total[h] == 0:
                            lse[query * heads + head + h] = np.inf
                        else:
                            lse[query * heads + head + h] = top[h] + math.log(total[h])
                            total[h] = real(1) / total[h]
                    share = each_head(load(total, 0, group, 1), padded)
                    store(out, query * width + column, times(mixed, share), size)

    return kernel_address(kernel)


@functools.cache
def row_norms(group: int, size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the kernel that writes ``NORMS``: of each row and head what the backward pass takes off the logits and their
    gradients."""
    padded = power_of_two(size)

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        copies, queries, heads, step = w[_COPIES], w[_NUM_QUERIES], w[_HEADS], w[_ROWS_PER_TASK]
        width = heads * size
        grad = carray(pointer(w[_GRAD]), 1, dtype=real)
        out = carray(pointer(w[_OUT]), 1, dtype=real)
        lse = carray(pointer(w[_LSE]), 1, dtype=real)
        norms = carray(pointer(w[_NORMS]), 1, dtype=real)
        tasks_per_copy = (queries + step - 1) // step
        while True:
            task = take(counters, 0)
            if task >= tasks_per_copy * copies:
                break
            copy = task // tasks_per_copy
            start = (task - copy * tasks_per_copy) * step
            for i in range(start, min(start + step, queries)):
                query = copy * queries + i
                grad_start = copy * w[_GRAD_COPY] + i * w[_GRAD_ROW]
                for head in range(0, heads, group):
                    column = head * size
                    gradient = load(grad, grad_start + column, group, size)
                    value = load(out, query * width + column, group, size)
                    at = query * 2 * heads + head
                    store(norms, at, load(lse, query * heads + head, group, 1), 1)
                    store(norms, at + heads, sum_heads(times(gradient, value), padded), 1)

    return kernel_address(kernel)


@functools.cache
def backward_keys(group: int, size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the kernel that writes ``GRAD_K``, ``GRAD_V`` and ``PAIRS``.

    Here ``ROWPTR`` and ``COL`` are those of the transposed pattern, and ``PERM`` leads to the pair in ``BIAS`` and ``PAIRS``.
    """
    item = np.dtype(real).itemsize
    line = 64 // item
    span = group * size  # numbers of a row; in registers each head is filled up
    padded = power_of_two(size)
    lanes = group * padded

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        scale = real(carray(pointer(w[_SCALE]), 1, dtype=np.float64)[0])
        copies, queries, keys, heads = w[_COPIES], w[_NUM_QUERIES], w[_NUM_KEYS], w[_HEADS]
        pairs, step = w[_NUM_PAIRS], w[_ROWS_PER_TASK]
        rowptr = carray(pointer(w[_ROWPTR]), keys + 1, dtype=index)
        row = carray(pointer(w[_COL]), pairs, dtype=index)
        perm = carray(pointer(w[_PERM]), pairs, dtype=index)
        q_row, grad_row = w[_Q_ROW], w[_GRAD_ROW]
        q = carray(pointer(w[_Q]), 1, dtype=real)
        k = carray(pointer(w[_K]), 1, dtype=real)
        v = carray(pointer(w[_V]), 1, dtype=real)
        grad = carray(pointer(w[_GRAD]), 1, dtype=real)
        norms = carray(pointer(w[_NORMS]), 1, dtype=real)
        per_pair = carray(pointer(w[_PAIRS]), 1, dtype=real)
        grad_k = carray(pointer(w[_GRAD_K]), 1, dtype=real)
        grad_v = carray(pointer(w[_GRAD_V]), 1, dtype=real)
        has_bias = w[_BIAS] != 0
        bias = carray(pointer(w[_BIAS]), 1, dtype=real)
        has_dead_queries, has_dead_keys = w[_ALIVE_QUERIES] != 0, w[_ALIVE_KEYS] != 0
        alive_queries = carray(pointer(w[_ALIVE_QUERIES]), 1, dtype=np.uint8)
        alive_keys = carray(pointer(w[_ALIVE_KEYS]), 1, dtype=np.uint8)
        slot = w[_SCRATCH] + take(counters, 1) * w[_SCRATCH_SIZE] * item
        scratch = carray(pointer(slot), w[_SCRATCH_SIZE], dtype=real)
        weight, grad_logit = scratch, scratch[_CHUNK * heads :]
        tasks_per_copy = (keys + step - 1) // step
        factor, nothing, none = (
            filled(scale, lanes),
            filled(real(0), lanes),
            filled(real(0), group),
        )
        while True:
            task = take(counters, 0)
            if task >= tasks_per_copy * copies:
                break
            copy = task // tasks_per_copy
            start = (task - copy * tasks_per_copy) * step
            q_start, grad_start = copy * w[_Q_COPY], copy * w[_GRAD_COPY]
            query_start, pair_start = copy * queries, copy * pairs
            for j in range(start, min(start + step, keys)):
                first, last = np.int64(rowptr[j]), np.int64(rowptr[j + 1])
                is_dead = has_dead_keys and alive_keys[copy * keys + j] == 0
                for head in range(0, heads, group):
                    column = head * size
                    to_k = copy * w[_GRAD_K_COPY] + j * w[_GRAD_K_ROW] + column
                    to_v = copy * w[_GRAD_V_COPY] + j * w[_GRAD_V_ROW] + column
                    if is_dead:  # what its rows hold must not matter, and 0 * NaN would
                        for t in range(first, last):
                            at = (pair_start + np.int64(perm[t])) * heads + head
                            store(per_pair, at, none, 1)
                        store(grad_k, to_k, nothing, size)
                        store(grad_v, to_v, nothing, size)
                        continue
                    key = load(k, copy * w[_K_COPY] + j * w[_K_ROW] + column, group, size)
                    key = times(key, factor)
                    value = load(v, copy * w[_V_COPY] + j * w[_V_ROW] + column, group, size)
                    of_key, of_value = nothing, nothing
                    # Rows are read twice, in portions that stay in the L1 cache in between.
                    for begin in range(first, last, _CHUNK):
                        end = min(begin + _CHUNK, last)
                        for t in range(begin, end):
                            ahead = np.int64(row[min(t + _AHEAD, pairs - 1)])
                            for c in range(column, column + span, line):
                                prefetch(q, q_start + ahead * q_row + c)
                                prefetch(grad, grad_start + ahead * grad_row + c)
                            prefetch(norms, (query_start + ahead) * 2 * heads + head)
                            # What is written anywhere waits for its line, too.
                            place = pair_start + np.int64(perm[min(t + _AHEAD, pairs - 1)])
                            prefetch(per_pair, place * heads + head)
                            i = np.int64(row[t])
                            logit, change = filled(real(-np.inf), group), none
                            if not has_dead_queries or alive_queries[query_start + i] != 0:
                                query = load(q, q_start + i * q_row + column, group, size)
                                gradient = load(
                                    grad, grad_start + i * grad_row + column, group, size
                                )
                                norm = (query_start + i) * 2 * heads + head
                                logit = minus(
                                    sum_heads(times(key, query), padded),
                                    load(norms, norm, group, 1),
                                )
                                change = minus(
                                    sum_heads(times(value, gradient), padded),
                                    load(norms, norm + heads, group, 1),
                                )
                                if has_bias:
                                    at = np.int64(perm[t]) * heads + head
                                    logit = plus(logit, load(bias, at, group, 1))
                            store(weight, (t - begin) * group, logit, 1)
                            store(grad_logit, (t - begin) * group, change, 1)
                        exp_row(weight, (end - begin) * group)
                        for t in range(begin, end):
                            share = load(weight, (t - begin) * group, group, 1)
                            change = times(share, load(grad_logit, (t - begin) * group, group, 1))
                            at = (pair_start + np.int64(perm[t])) * heads + head
                            store(per_pair, at, change, 1)
                            i = np.int64(row[t])
                            if has_dead_queries and alive_queries[query_start + i] == 0:
                                continue
                            query = load(q, q_start + i * q_row + column, group, size)
                            gradient = load(grad, grad_start + i * grad_row + column, group, size)
                            of_key = plus(of_key, times(each_head(change, padded), query))
                            of_value = plus(of_value, times(each_head(share, padded), gradient))
                    store(grad_k, to_k, times(of_key, factor), size)
                    store(grad_v, to_v, of_value, size)

    return kernel_address(kernel)


@functools.cache
def backward_queries(
    group: int, size: int, real: type[np.floating], index: type[np.integer]
) -> int:
    """Address of the kernel that writes ``GRAD_Q`` and adds to ``GRAD_BIAS``, both from ``PAIRS``."""
    line = 64 // np.dtype(real).itemsize
    span = group * size  # numbers of a row; in registers each head is filled up
    padded = power_of_two(size)
    lanes = group * padded

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        scale = real(carray(pointer(w[_SCALE]), 1, dtype=np.float64)[0])
        copies, queries, keys, heads = w[_COPIES], w[_NUM_QUERIES], w[_NUM_KEYS], w[_HEADS]
        pairs, step = w[_NUM_PAIRS], w[_ROWS_PER_TASK]
        rowptr = carray(pointer(w[_ROWPTR]), queries + 1, dtype=index)
        col = carray(pointer(w[_COL]), pairs, dtype=index)
        k_row = w[_K_ROW]
        k = carray(pointer(w[_K]), 1, dtype=real)
        per_pair = carray(pointer(w[_PAIRS]), 1, dtype=real)
        grad_q = carray(pointer(w[_GRAD_Q]), 1, dtype=real)
        grad_bias = carray(pointer(w[_GRAD_BIAS]), 1, dtype=real)
        has_bias = w[_BIAS] != 0
        has_dead_keys = w[_ALIVE_KEYS] != 0
        alive_keys = carray(pointer(w[_ALIVE_KEYS]), 1, dtype=np.uint8)
        factor, nothing = filled(scale, lanes), filled(real(0), lanes)
        while True:
            # The copies of a row stay in one thread: they add to the same gradient of the bias.
            start = take(counters, 0) * step
            if start >= queries:
                break
            for copy in range(copies):
                k_start = copy * w[_K_COPY]
                for i in range(start, min(start + step, queries)):
                    first, last = np.int64(rowptr[i]), np.int64(rowptr[i + 1])
                    to = copy * w[_GRAD_Q_COPY] + i * w[_GRAD_Q_ROW]
                    for head in range(0, heads, group):
                        column = head * size
                        mixed = nothing
                        for p in range(first, last):
                            ahead = np.int64(col[min(p + _AHEAD, pairs - 1)])
                            for c in range(column, column + span, line):
                                prefetch(k, k_start + ahead * k_row + c)
                            j = np.int64(col[p])
                            # What a dead row holds must not matter, and 0 * NaN would.
                            if has_dead_keys and alive_keys[copy * keys + j] == 0:
                                continue
                            change = load(per_pair, (copy * pairs + p) * heads + head, group, 1)
                            if has_bias:
                                at = p * heads + head
                                store(grad_bias, at, plus(load(grad_bias, at, group, 1), change), 1)
                            key = load(k, k_start + j * k_row + column, group, size)
                            mixed = plus(mixed, times(each_head(change, padded), key))
                        store(grad_q, to + column, times(mixed, factor), size)

    return kernel_address(kernel)

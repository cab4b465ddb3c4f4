"""Masked attention on the CPU, compiled: one pass over the pairs forward, two backward, all heads at once.

FlashAttention's scheme (Dao et al. 2022) on a CSR pattern. The forward pass keeps the output and one log-sum-exp per row
and head; the backward pass computes the probabilities again. So nothing of size ``pairs x channels`` exists, and nothing
of size ``pairs`` outlives a call. A pair reads one row of keys and one of values for all heads: these reads are the cost
on a CPU, so they are asked for a few pairs ahead.

* :func:`forward`: queries pull keys and values.
* :func:`backward_queries`: queries pull again; writes the query's gradient, and probability and logit gradient per pair.
* :func:`backward_keys`: on the transposed pattern, keys pull queries and output gradients with those two numbers.

Each row is computed by one thread in a fixed order: the number of threads does not change a bit of the result.

The kernels are compiled by Numba at first use, one for each head size and dtype, and kept on disk. They take one pointer,
to the int64 words of :class:`Words`, because that is what OpenMP's threads can be given (:mod:`pyg_nsa.attention.threads`).
"""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from pyg_nsa.attention.compiling import kept_on_disk

__all__ = ["LANES", "Words", "backward_keys", "backward_queries", "forward"]

# Sums may be reordered, so that they vectorise. Infinities and NaN must keep their meaning: -inf is "no pair".
_FLAGS = ("contract", "nsz", "reassoc")
_FASTMATH = set(_FLAGS)

#: How many pairs ahead rows are asked for; 4 to 12 measure alike.
_AHEAD = 6

#: Exponentials computed at once; a row's last vector is filled up with whatever is there. LLVM would make a loop of several
#: vectors with a scalar remainder, and most rows of most graphs are all remainder.
LANES = 16


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
    PAIRS = 15  # [copies * pairs, 2 H]: probabilities, gradients of the logits
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
    SCRATCH_SIZE = 26  # of one thread: 2 H, then one or two parts
    Q_ROW = 27
    Q_COPY = 28
    K_ROW = 29
    K_COPY = 30
    V_ROW = 31
    V_COPY = 32
    GRAD_ROW = 33
    GRAD_COPY = 34
    SCRATCH_PART = 35  # H for each pair of the largest row, rounded up to whole vectors


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
    _SCRATCH_PART,
) = (int(word) for word in Words)


# ---- what Numba has no word for ------------------------------------------------------------------------------------------


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An int64 as ``void*``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def _take(typing: Any, counters: Any, i: Any) -> Any:
    """``counters[i]++``, atomically; the value before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), one, "monotonic")

    return types.int64(counters, types.intp), generate


def _vector(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, size: int
) -> tuple[Any, Any]:
    """Pointer to ``array[offset : offset + size]`` as a vector, and the elements' type."""
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype)
    start = builder.gep(data, [offset])
    return builder.bitcast(start, ir.VectorType(element, size).as_pointer()), element


@intrinsic(prefer_literal=True)
def _dot(typing: Any, a: Any, i: Any, b: Any, j: Any, size: Any) -> Any:
    """``a[i : i + size] @ b[j : j + size]``, ``size`` known when compiling."""
    n = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, element = _vector(context, builder, signature.args[0], args[0], args[1], n)
        y, _ = _vector(context, builder, signature.args[2], args[2], args[3], n)
        bytes_ = signature.args[0].dtype.bitwidth // 8
        product = builder.fmul(
            builder.load(x, align=bytes_), builder.load(y, align=bytes_), flags=_FLAGS
        )
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(element, [element, product.type]),
            f"llvm.vector.reduce.fadd.v{n}f{8 * bytes_}",
        )
        return builder.call(function, [ir.Constant(element, 0.0), product], fastmath=_FLAGS)

    return a.dtype(a, types.intp, b, types.intp, size), generate


@intrinsic(prefer_literal=True)
def _axpy(typing: Any, y: Any, i: Any, a: Any, x: Any, j: Any, size: Any) -> Any:
    """``y[i : i + size] += a * x[j : j + size]``, ``size`` known when compiling.

    As a loop this would be guarded by checks that the arrays do not overlap, at every pair.
    """
    n = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, element = _vector(context, builder, signature.args[0], args[0], args[1], n)
        source, _ = _vector(context, builder, signature.args[3], args[3], args[4], n)
        bytes_ = signature.args[0].dtype.bitwidth // 8
        vector, lane = ir.VectorType(element, n), ir.IntType(32)
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, args[2], ir.Constant(lane, 0))
        factor = builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(lane, n), [0] * n)
        )
        product = builder.fmul(factor, builder.load(source, align=bytes_), flags=_FLAGS)
        total = builder.fadd(builder.load(to, align=bytes_), product, flags=_FLAGS)
        builder.store(total, to, align=bytes_)
        return context.get_dummy_value()

    return types.void(y, types.intp, y.dtype, x, types.intp, size), generate


@intrinsic
def _prefetch(typing: Any, x: Any, i: Any) -> Any:
    """Asks for the cache line of ``x[i]``; the address need not be valid."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        int32 = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, int32, int32, int32]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [pointer, int32(0), int32(3), int32(1)])
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


@intrinsic
def _exp_lanes(typing: Any, x: Any, i: Any) -> Any:
    """``x[i : i + LANES] = exp(...)`` of float32, exactly 0 for ``-inf``, NaN for NaN.

    Cephes' expf (Moshier): a power of two times a polynomial. Relative error 2e-7 for arguments up to 88.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, element = _vector(context, builder, signature.args[0], args[0], args[1], LANES)
        floats = ir.VectorType(element, LANES)
        ints = ir.VectorType(ir.IntType(32), LANES)

        def constant(value: float) -> Any:
            return ir.Constant(floats, [value] * LANES)

        def times_plus(a: Any, b: Any, c: Any) -> Any:
            return builder.fadd(builder.fmul(a, b, flags=_FLAGS), c, flags=_FLAGS)

        given = builder.load(pointer, align=4)
        low, high = constant(-87.0), constant(88.0)
        limited = builder.select(builder.fcmp_ordered(">", given, low), given, low)
        limited = builder.select(builder.fcmp_ordered("<", limited, high), limited, high)
        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(floats, [floats]), f"llvm.floor.v{LANES}f32"
        )
        power = builder.call(floor, [times_plus(limited, constant(1.44269504), constant(0.5))])
        rest = times_plus(power, constant(-0.693359375), limited)
        rest = times_plus(power, constant(2.12194440e-4), rest)
        series = constant(1.9875691500e-4)
        for coefficient in _EXP_COEFFICIENTS:
            series = times_plus(series, rest, constant(coefficient))
        square = builder.fmul(rest, rest, flags=_FLAGS)
        series = times_plus(series, square, builder.fadd(rest, constant(1.0), flags=_FLAGS))
        exponent = builder.add(builder.fptosi(power, ints), ir.Constant(ints, [127] * LANES))
        factor = builder.bitcast(builder.shl(exponent, ir.Constant(ints, [23] * LANES)), floats)
        # 0 * x is there for NaN, which must not become a number.
        value = builder.fadd(builder.fmul(series, factor), builder.fmul(constant(0.0), given))
        value = builder.select(builder.fcmp_ordered("<", given, low), constant(0.0), value)
        builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


_EXP_COEFFICIENTS = (
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def _exp_row(x: Any, count: Any) -> Any:
    """Exponentials of ``x[:count]`` in place; in float32 what follows, up to a whole vector, is overwritten too."""
    raise NotImplementedError


@overload(_exp_row, jit_options={"fastmath": _FASTMATH})
def _exp_row_overload(x: Any, count: Any) -> Any:
    def exp64(x: Any, count: Any) -> Any:
        for i in range(count):
            x[i] = math.exp(x[i])

    def exp32(x: Any, count: Any) -> Any:
        for block in range((count + LANES - 1) // LANES):
            _exp_lanes(x, block * LANES)

    return exp64 if x.dtype == types.float64 else exp32


# ---- the kernels ---------------------------------------------------------------------------------------------------------


#: Compiled functions: their code lives as long as they do.
_compiled: list[Any] = []


def _compile(kernel: Callable[[Any], None]) -> int:
    signature = types.void(types.voidptr)
    compiled = kept_on_disk(cfunc, signature, fastmath=_FASTMATH, error_model="numpy")(kernel)
    _compiled.append(compiled)
    address: int = compiled.address
    return address


@functools.cache
def forward(size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the forward kernel: writes ``OUT`` and ``LSE``.

    Args:
        size: Of a head.
        real: ``np.float32`` or ``np.float64``.
        index: ``np.int32`` or ``np.int64``, of the pattern.
    """
    item = np.dtype(real).itemsize
    line = 64 // item

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(_pointer(w[_COUNTERS]), 2, dtype=np.int64)
        scale = real(carray(_pointer(w[_SCALE]), 1, dtype=np.float64)[0])
        copies, queries, keys, heads = w[_COPIES], w[_NUM_QUERIES], w[_NUM_KEYS], w[_HEADS]
        pairs, step = w[_NUM_PAIRS], w[_ROWS_PER_TASK]
        width = heads * size
        rowptr = carray(_pointer(w[_ROWPTR]), queries + 1, dtype=index)
        col = carray(_pointer(w[_COL]), pairs, dtype=index)
        q_row, k_row, v_row = w[_Q_ROW], w[_K_ROW], w[_V_ROW]
        q = carray(_pointer(w[_Q]), 1, dtype=real)
        k = carray(_pointer(w[_K]), 1, dtype=real)
        v = carray(_pointer(w[_V]), 1, dtype=real)
        out = carray(_pointer(w[_OUT]), 1, dtype=real)
        lse = carray(_pointer(w[_LSE]), 1, dtype=real)
        has_bias = w[_BIAS] != 0
        bias = carray(_pointer(w[_BIAS]), 1, dtype=real)
        has_dead_queries, has_dead_keys = w[_ALIVE_QUERIES] != 0, w[_ALIVE_KEYS] != 0
        alive_queries = carray(_pointer(w[_ALIVE_QUERIES]), 1, dtype=np.uint8)
        alive_keys = carray(_pointer(w[_ALIVE_KEYS]), 1, dtype=np.uint8)
        slot = w[_SCRATCH] + _take(counters, 1) * w[_SCRATCH_SIZE] * item
        scratch = carray(_pointer(slot), w[_SCRATCH_SIZE], dtype=real)
        top, total, weight = scratch, scratch[heads:], scratch[2 * heads :]
        tasks_per_copy = (queries + step - 1) // step
        while True:
            task = _take(counters, 0)
            if task >= tasks_per_copy * copies:
                break
            copy = task // tasks_per_copy
            start = (task - copy * tasks_per_copy) * step
            q_start, k_start, v_start = copy * w[_Q_COPY], copy * w[_K_COPY], copy * w[_V_COPY]
            for i in range(start, min(start + step, queries)):
                query = copy * queries + i
                to = query * width
                for c in range(width):
                    out[to + c] = 0
                for h in range(heads):
                    lse[query * heads + h] = np.inf
                if has_dead_queries and alive_queries[query] == 0:
                    continue
                first, last = np.int64(rowptr[i]), np.int64(rowptr[i + 1])
                if first == last:
                    continue
                for h in range(heads):
                    top[h] = -np.inf
                    total[h] = 0
                for p in range(first, last):
                    ahead = k_start + np.int64(col[min(p + _AHEAD, pairs - 1)]) * k_row
                    for c in range(0, width, line):
                        _prefetch(k, ahead + c)
                    key = k_start + np.int64(col[p]) * k_row
                    at = (p - first) * heads
                    for h in range(heads):
                        product = _dot(q, q_start + i * q_row + h * size, k, key + h * size, size)
                        weight[at + h] = product * scale
                    if has_bias:
                        for h in range(heads):
                            weight[at + h] += bias[p * heads + h]
                    if has_dead_keys and alive_keys[copy * keys + np.int64(col[p])] == 0:
                        for h in range(heads):
                            weight[at + h] = -np.inf
                    for h in range(heads):
                        top[h] = max(top[h], weight[at + h])
                for h in range(heads):
                    # A row without a living pair has the maximum -inf, and -inf - -inf is NaN.
                    top[h] = real(0) if top[h] == -np.inf else top[h]
                for p in range(last - first):
                    for h in range(heads):
                        weight[p * heads + h] -= top[h]
                _exp_row(weight, (last - first) * heads)
                for p in range(first, last):
                    ahead = v_start + np.int64(col[min(p + _AHEAD, pairs - 1)]) * v_row
                    for c in range(0, width, line):
                        _prefetch(v, ahead + c)
                    # What a dead row holds must not matter, and 0 * NaN would.
                    if has_dead_keys and alive_keys[copy * keys + np.int64(col[p])] == 0:
                        continue
                    value = v_start + np.int64(col[p]) * v_row
                    for h in range(heads):
                        share = weight[(p - first) * heads + h]
                        total[h] += share
                        _axpy(out, to + h * size, share, v, value + h * size, size)
                for h in range(heads):
                    if total[h] != 0:
                        lse[query * heads + h] = top[h] + math.log(total[h])
                        inverse = real(1) / total[h]
                        for c in range(size):
                            out[to + h * size + c] *= inverse

    return _compile(kernel)


@functools.cache
def backward_queries(size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the kernel that writes ``GRAD_Q`` and ``PAIRS`` and adds to ``GRAD_BIAS``."""
    item = np.dtype(real).itemsize
    line = 64 // item

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(_pointer(w[_COUNTERS]), 2, dtype=np.int64)
        scale = real(carray(_pointer(w[_SCALE]), 1, dtype=np.float64)[0])
        copies, queries, keys, heads = w[_COPIES], w[_NUM_QUERIES], w[_NUM_KEYS], w[_HEADS]
        pairs, step = w[_NUM_PAIRS], w[_ROWS_PER_TASK]
        width = heads * size
        rowptr = carray(_pointer(w[_ROWPTR]), queries + 1, dtype=index)
        col = carray(_pointer(w[_COL]), pairs, dtype=index)
        q_row, k_row, v_row, grad_row = w[_Q_ROW], w[_K_ROW], w[_V_ROW], w[_GRAD_ROW]
        q = carray(_pointer(w[_Q]), 1, dtype=real)
        k = carray(_pointer(w[_K]), 1, dtype=real)
        v = carray(_pointer(w[_V]), 1, dtype=real)
        grad = carray(_pointer(w[_GRAD]), 1, dtype=real)
        out = carray(_pointer(w[_OUT]), 1, dtype=real)
        lse = carray(_pointer(w[_LSE]), 1, dtype=real)
        per_pair = carray(_pointer(w[_PAIRS]), 1, dtype=real)
        grad_q = carray(_pointer(w[_GRAD_Q]), 1, dtype=real)
        grad_bias = carray(_pointer(w[_GRAD_BIAS]), 1, dtype=real)
        bias = carray(_pointer(w[_BIAS]), 1, dtype=real)
        has_bias = w[_BIAS] != 0
        has_dead_keys = w[_ALIVE_KEYS] != 0
        alive_keys = carray(_pointer(w[_ALIVE_KEYS]), 1, dtype=np.uint8)
        slot = w[_SCRATCH] + _take(counters, 1) * w[_SCRATCH_SIZE] * item
        scratch = carray(_pointer(slot), w[_SCRATCH_SIZE], dtype=real)
        part = w[_SCRATCH_PART]
        delta, norm = scratch, scratch[heads:]
        weight, grad_logit = scratch[2 * heads :], scratch[2 * heads + part :]
        while True:
            # The copies of a row stay in one thread: they add to the same gradient of the bias.
            start = _take(counters, 0) * step
            if start >= queries:
                break
            for copy in range(copies):
                k_start, v_start = copy * w[_K_COPY], copy * w[_V_COPY]
                for i in range(start, min(start + step, queries)):
                    query = copy * queries + i
                    to = query * width
                    from_q = copy * w[_Q_COPY] + i * q_row
                    from_grad = copy * w[_GRAD_COPY] + i * grad_row
                    first, last = np.int64(rowptr[i]), np.int64(rowptr[i + 1])
                    count = last - first
                    for c in range(width):
                        grad_q[to + c] = 0
                    living = False
                    for h in range(heads):
                        norm[h] = lse[query * heads + h]
                        living = living or norm[h] != np.inf
                        delta[h] = _dot(grad, from_grad + h * size, out, to + h * size, size)
                    store = (copy * pairs + first) * 2 * heads
                    if not living:
                        for x in range(count * 2 * heads):
                            per_pair[store + x] = 0
                        continue
                    for p in range(first, last):
                        ahead = np.int64(col[min(p + _AHEAD, pairs - 1)])
                        for c in range(0, width, line):
                            _prefetch(k, k_start + ahead * k_row + c)
                            _prefetch(v, v_start + ahead * v_row + c)
                        j = np.int64(col[p])
                        key, value, at = (
                            k_start + j * k_row,
                            v_start + j * v_row,
                            (p - first) * heads,
                        )
                        if has_dead_keys and alive_keys[copy * keys + j] == 0:
                            for h in range(heads):
                                weight[at + h] = -np.inf
                                grad_logit[at + h] = 0
                            continue
                        for h in range(heads):
                            weight[at + h] = scale * _dot(
                                q, from_q + h * size, k, key + h * size, size
                            )
                        for h in range(heads):
                            grad_logit[at + h] = _dot(
                                grad, from_grad + h * size, v, value + h * size, size
                            )
                        if has_bias:
                            for h in range(heads):
                                weight[at + h] += bias[p * heads + h]
                    for p in range(count):
                        for h in range(heads):
                            weight[p * heads + h] -= norm[h]
                    _exp_row(weight, count * heads)
                    for p in range(count):
                        for h in range(heads):
                            x = p * heads + h
                            grad_logit[x] = weight[x] * (grad_logit[x] - delta[h])
                    if has_bias:
                        for x in range(count * heads):
                            grad_bias[first * heads + x] += grad_logit[x]
                    for p in range(count):
                        for h in range(heads):
                            per_pair[store + p * 2 * heads + h] = weight[p * heads + h]
                        for h in range(heads):
                            per_pair[store + (2 * p + 1) * heads + h] = grad_logit[p * heads + h]
                    for p in range(first, last):
                        j = np.int64(col[p])
                        if has_dead_keys and alive_keys[copy * keys + j] == 0:
                            continue
                        key, at = k_start + j * k_row, (p - first) * heads
                        for h in range(heads):
                            _axpy(
                                grad_q, to + h * size, grad_logit[at + h], k, key + h * size, size
                            )
                    for c in range(width):
                        grad_q[to + c] *= scale

    return _compile(kernel)


@functools.cache
def backward_keys(size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the kernel that writes ``GRAD_K`` and ``GRAD_V``.

    Here ``ROWPTR`` and ``COL`` are those of the transposed pattern, and ``PERM`` leads to the pair in ``PAIRS``.
    """
    line = 64 // np.dtype(real).itemsize

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(_pointer(w[_COUNTERS]), 2, dtype=np.int64)
        scale = real(carray(_pointer(w[_SCALE]), 1, dtype=np.float64)[0])
        copies, keys, heads = w[_COPIES], w[_NUM_KEYS], w[_HEADS]
        pairs, step = w[_NUM_PAIRS], w[_ROWS_PER_TASK]
        width = heads * size
        rowptr = carray(_pointer(w[_ROWPTR]), keys + 1, dtype=index)
        row = carray(_pointer(w[_COL]), pairs, dtype=index)
        perm = carray(_pointer(w[_PERM]), pairs, dtype=index)
        q_row, grad_row = w[_Q_ROW], w[_GRAD_ROW]
        q = carray(_pointer(w[_Q]), 1, dtype=real)
        grad = carray(_pointer(w[_GRAD]), 1, dtype=real)
        per_pair = carray(_pointer(w[_PAIRS]), 1, dtype=real)
        grad_k = carray(_pointer(w[_GRAD_K]), 1, dtype=real)
        grad_v = carray(_pointer(w[_GRAD_V]), 1, dtype=real)
        has_dead_queries = w[_ALIVE_QUERIES] != 0
        alive_queries = carray(_pointer(w[_ALIVE_QUERIES]), 1, dtype=np.uint8)
        queries = w[_NUM_QUERIES]
        tasks_per_copy = (keys + step - 1) // step
        while True:
            task = _take(counters, 0)
            if task >= tasks_per_copy * copies:
                break
            copy = task // tasks_per_copy
            start = (task - copy * tasks_per_copy) * step
            q_start, grad_start = copy * w[_Q_COPY], copy * w[_GRAD_COPY]
            pair_start = copy * pairs
            for j in range(start, min(start + step, keys)):
                to = (copy * keys + j) * width
                for c in range(width):
                    grad_k[to + c] = 0
                    grad_v[to + c] = 0
                for t in range(np.int64(rowptr[j]), np.int64(rowptr[j + 1])):
                    ahead = min(t + _AHEAD, pairs - 1)
                    _prefetch(per_pair, (pair_start + np.int64(perm[ahead])) * 2 * heads)
                    next_row = np.int64(row[ahead])
                    for c in range(0, width, line):
                        _prefetch(q, q_start + next_row * q_row + c)
                        _prefetch(grad, grad_start + next_row * grad_row + c)
                    i = np.int64(row[t])
                    if has_dead_queries and alive_queries[copy * queries + i] == 0:
                        continue
                    at = (pair_start + np.int64(perm[t])) * 2 * heads
                    query, gradient = q_start + i * q_row, grad_start + i * grad_row
                    for h in range(heads):
                        column = h * size
                        _axpy(
                            grad_k, to + column, per_pair[at + heads + h], q, query + column, size
                        )
                        _axpy(grad_v, to + column, per_pair[at + h], grad, gradient + column, size)
                for c in range(width):
                    grad_k[to + c] *= scale

    return _compile(kernel)

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

What Numba has no word for stands in this file too: what is kept on disk is compiled again when this file changes, and not when
another does.
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
from numba.extending import intrinsic, models, overload, register_model

from pyg_nsa.attention.compiling import kept_on_disk

__all__ = ["LANES", "Words", "backward_keys", "backward_queries", "forward", "heads_at_once"]

# Sums may be reordered, so that they vectorise. Infinities and NaN must keep their meaning: -inf is "no pair".
_FLAGS = ("contract", "nsz", "reassoc")
_FASTMATH = set(_FLAGS)

#: How many pairs ahead rows are asked for; 4 to 12 measure alike.
_AHEAD = 6

#: Bytes of a row that stay in vector registers while a kernel goes through the row's pairs: some are left for what is read.
_REGISTERS = 256

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


class _Lanes(types.Type):
    """A vector of ``count`` numbers that lives in registers."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Any) -> None:
        element = manager.lookup(lanes.dtype).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))


def _vector(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, size: int
) -> tuple[Any, Any]:
    """Pointer to ``array[offset : offset + size]`` as a vector, and the elements' type."""
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype)
    start = builder.gep(data, [offset])
    return builder.bitcast(start, ir.VectorType(element, size).as_pointer()), element


def _picked(builder: Any, value: Any, mask: list[int]) -> Any:
    """The elements of a vector that ``mask`` names, as a vector."""
    return _picked_of_two(builder, value, ir.Constant(value.type, ir.Undefined), mask)


def _picked_of_two(builder: Any, first: Any, second: Any, mask: list[int]) -> Any:
    """The same of two vectors of one size, numbered on from the first to the second."""
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask)
    return builder.shuffle_vector(first, second, lanes)


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Vectors of one size, one after the other."""
    total = parts[0]
    for part in parts[1:]:
        have, more = total.type.count, part.type.count
        wider = _picked(builder, part, [min(c, more - 1) for c in range(have)])
        total = _picked_of_two(builder, total, wider, list(range(have + more)))
    return total


def _power_of_two(size: int) -> int:
    """The next one: sums over the lanes of a head halve it again and again."""
    return 1 << (size - 1).bit_length()


@intrinsic(prefer_literal=True)
def _load(typing: Any, x: Any, i: Any, heads: Any, size: Any) -> Any:
    """``x[i : i + heads * size]``, both known when compiling; each head is filled up with zeros to a power of two."""
    count, n = heads.literal_value, size.literal_value
    padded = _power_of_two(n)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, bytes_ = signature.args[0], signature.args[0].dtype.bitwidth // 8
        if padded == n:
            pointer, _ = _vector(context, builder, array, args[0], args[1], count * n)
            return builder.load(pointer, align=bytes_)
        parts = []
        for h in range(count):
            at = builder.add(args[1], args[1].type(h * n))
            pointer, _ = _vector(context, builder, array, args[0], at, n)
            part = builder.load(pointer, align=bytes_)
            zeros = ir.Constant(part.type, [0.0] * n)
            mask = [min(c, n) for c in range(padded)]
            parts.append(_picked_of_two(builder, part, zeros, mask))
        return _joined(builder, parts)

    return _Lanes(x.dtype, count * padded)(x, types.intp, heads, size), generate


@intrinsic(prefer_literal=True)
def _store(typing: Any, x: Any, i: Any, lanes: Any, size: Any) -> Any:
    """``x[i : i + heads * size] = lanes``, without what heads were filled up with.

    In a loop over elements every store would be guarded by checks that arrays do not overlap.
    """
    n = size.literal_value
    padded = _power_of_two(n)
    count = lanes.count // padded

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, bytes_ = signature.args[0], signature.args[0].dtype.bitwidth // 8
        whole = padded == n
        for h in range(1 if whole else count):
            width = count * n if whole else n
            part = _picked(builder, args[2], [h * padded + c for c in range(width)])
            at = builder.add(args[1], args[1].type(h * n))
            pointer, _ = _vector(context, builder, array, args[0], at, width)
            builder.store(part, pointer, align=bytes_)
        return context.get_dummy_value()

    return types.void(x, types.intp, lanes, size), generate


@intrinsic(prefer_literal=True)
def _filled(typing: Any, value: Any, count: Any) -> Any:
    """``count`` times ``value``."""
    n = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_data_type(signature.args[0])
        one = ir.Constant(ir.VectorType(element, 1), ir.Undefined)
        return _picked(builder, builder.insert_element(one, args[0], ir.IntType(32)(0)), [0] * n)

    return _Lanes(value, n)(value, count), generate


@intrinsic
def _plus(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fadd(*args, flags=_FLAGS)


@intrinsic
def _minus(typing: Any, a: Any, b: Any) -> Any:
    """``a - b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fsub(*args, flags=_FLAGS)


@intrinsic
def _times(typing: Any, a: Any, b: Any) -> Any:
    """``a * b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fmul(*args, flags=_FLAGS)


@intrinsic
def _larger(typing: Any, a: Any, b: Any) -> Any:
    """``b`` where it is larger, ``a`` elsewhere, also where ``b`` is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    return a(a, b), generate


@intrinsic
def _finite(typing: Any, a: Any) -> Any:
    """``a``, and 0 where it is -inf."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lowest = ir.Constant(args[0].type, [float("-inf")] * a.count)
        zero = ir.Constant(args[0].type, [0.0] * a.count)
        return builder.select(builder.fcmp_ordered("==", args[0], lowest), zero, args[0])

    return a(a), generate


@intrinsic(prefer_literal=True)
def _each_head(typing: Any, lanes: Any, size: Any) -> Any:
    """``[heads]`` to ``[heads * size]``: each number ``size`` times."""
    n = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _picked(builder, args[0], [h for h in range(lanes.count) for _ in range(n)])

    return _Lanes(lanes.dtype, lanes.count * n)(lanes, size), generate


@intrinsic(prefer_literal=True)
def _sum_heads(typing: Any, lanes: Any, size: Any) -> Any:
    """``[heads * size]`` to the sums ``[heads]``, of all heads at once; ``size`` is a power of two."""
    heads = lanes.count // size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, n = args[0], size.literal_value
        while n > 1:  # the halves of all heads onto each other
            half = [h * n + c for h in range(heads) for c in range(n // 2)]
            other = [c + n // 2 for c in half]
            parts = _picked(builder, value, half), _picked(builder, value, other)
            value, n = builder.fadd(*parts, flags=_FLAGS), n // 2
        return value

    return _Lanes(lanes.dtype, heads)(lanes, size), generate


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


def heads_at_once(heads: int, size: int, real: type[np.floating]) -> int:
    """How many heads a kernel computes in one pass over a row's pairs: as many as fit into :data:`_REGISTERS` bytes."""
    fitting = [n for n in range(1, heads + 1) if heads % n == 0]
    bytes_ = _power_of_two(size) * np.dtype(real).itemsize
    fitting = [n for n in fitting if n * bytes_ <= _REGISTERS]
    return max(fitting, default=1)


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
    padded = _power_of_two(size)
    lanes = group * padded

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
        factor, nothing = _filled(scale, lanes), _filled(real(0), lanes)
        while True:
            task = _take(counters, 0)
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
                        _store(out, query * width + h * size, nothing, size)
                    continue
                for head in range(0, heads, group):
                    column = head * size
                    scaled = _times(_load(q, q_start + i * q_row + column, group, size), factor)
                    largest = _filled(real(-np.inf), group)
                    for p in range(first, last):
                        ahead = k_start + np.int64(col[min(p + _AHEAD, pairs - 1)]) * k_row + column
                        for c in range(0, span, line):
                            _prefetch(k, ahead + c)
                        j = np.int64(col[p])
                        logit = _filled(real(-np.inf), group)
                        if not has_dead_keys or alive_keys[copy * keys + j] != 0:
                            key = _load(k, k_start + j * k_row + column, group, size)
                            logit = _sum_heads(_times(scaled, key), padded)
                            if has_bias:
                                logit = _plus(logit, _load(bias, p * heads + head, group, 1))
                        largest = _larger(largest, logit)
                        _store(weight, (p - first) * group, logit, 1)
                    # A row without a living pair has the maximum -inf, and -inf - -inf is NaN.
                    largest = _finite(largest)
                    for p in range(last - first):
                        _store(
                            weight,
                            p * group,
                            _minus(_load(weight, p * group, group, 1), largest),
                            1,
                        )
                    _exp_row(weight, (last - first) * group)
                    summed, mixed = _filled(real(0), group), nothing
                    for p in range(first, last):
                        ahead = v_start + np.int64(col[min(p + _AHEAD, pairs - 1)]) * v_row + column
                        for c in range(0, span, line):
                            _prefetch(v, ahead + c)
                        j = np.int64(col[p])
                        # What a dead row holds must not matter, and 0 * NaN would.
                        if has_dead_keys and alive_keys[copy * keys + j] == 0:
                            continue
                        share = _load(weight, (p - first) * group, group, 1)
                        summed = _plus(summed, share)
                        value = _load(v, v_start + j * v_row + column, group, size)
                        mixed = _plus(mixed, _times(_each_head(share, padded), value))
                    _store(top, 0, largest, 1)
                    _store(total, 0, summed, 1)
                    for h in range(group):
                        if total[h] == 0:
                            lse[query * heads + head + h] = np.inf
                        else:
                            lse[query * heads + head + h] = top[h] + math.log(total[h])
                            total[h] = real(1) / total[h]
                    share = _each_head(_load(total, 0, group, 1), padded)
                    _store(out, query * width + column, _times(mixed, share), size)

    return _compile(kernel)


@functools.cache
def backward_queries(
    group: int, size: int, real: type[np.floating], index: type[np.integer]
) -> int:
    """Address of the kernel that writes ``GRAD_Q`` and ``PAIRS`` and adds to ``GRAD_BIAS``."""
    item = np.dtype(real).itemsize
    line = 64 // item
    span = group * size  # numbers of a row; in registers each head is filled up
    padded = _power_of_two(size)
    lanes = group * padded

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
        weight, grad_logit = scratch[2 * heads :], scratch[2 * heads + part :]
        factor, nothing = _filled(scale, lanes), _filled(real(0), lanes)
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
                    first, last = np.int64(rowptr[i]), np.int64(rowptr[i + 1])
                    living = False
                    for h in range(heads):
                        living = living or lse[query * heads + h] != np.inf
                    if not living:
                        for h in range(0, heads, group):
                            _store(grad_q, to + h * size, nothing, size)
                        for x in range((last - first) * 2 * heads):
                            per_pair[(copy * pairs + first) * 2 * heads + x] = 0
                        continue
                    for head in range(0, heads, group):
                        column = head * size
                        gradient = _load(
                            grad, copy * w[_GRAD_COPY] + i * grad_row + column, group, size
                        )
                        scaled = _times(
                            _load(q, copy * w[_Q_COPY] + i * q_row + column, group, size), factor
                        )
                        delta = _sum_heads(
                            _times(gradient, _load(out, to + column, group, size)), padded
                        )
                        norm = _load(lse, query * heads + head, group, 1)
                        for p in range(first, last):
                            ahead = np.int64(col[min(p + _AHEAD, pairs - 1)])
                            for c in range(column, column + span, line):
                                _prefetch(k, k_start + ahead * k_row + c)
                                _prefetch(v, v_start + ahead * v_row + c)
                            j = np.int64(col[p])
                            logit, change = _filled(real(-np.inf), group), _filled(real(0), group)
                            if not has_dead_keys or alive_keys[copy * keys + j] != 0:
                                key = _load(k, k_start + j * k_row + column, group, size)
                                value = _load(v, v_start + j * v_row + column, group, size)
                                logit = _minus(_sum_heads(_times(scaled, key), padded), norm)
                                change = _minus(_sum_heads(_times(gradient, value), padded), delta)
                                if has_bias:
                                    logit = _plus(logit, _load(bias, p * heads + head, group, 1))
                            _store(weight, (p - first) * group, logit, 1)
                            _store(grad_logit, (p - first) * group, change, 1)
                        _exp_row(weight, (last - first) * group)
                        mixed = nothing
                        for p in range(first, last):
                            share = _load(weight, (p - first) * group, group, 1)
                            change = _times(share, _load(grad_logit, (p - first) * group, group, 1))
                            store = (copy * pairs + p) * 2 * heads + head
                            _store(per_pair, store, share, 1)
                            _store(per_pair, store + heads, change, 1)
                            j = np.int64(col[p])
                            if has_dead_keys and alive_keys[copy * keys + j] == 0:
                                continue
                            if has_bias:
                                at = p * heads + head
                                _store(
                                    grad_bias, at, _plus(_load(grad_bias, at, group, 1), change), 1
                                )
                            key = _load(k, k_start + j * k_row + column, group, size)
                            mixed = _plus(mixed, _times(_each_head(change, padded), key))
                        _store(grad_q, to + column, _times(mixed, factor), size)

    return _compile(kernel)


@functools.cache
def backward_keys(group: int, size: int, real: type[np.floating], index: type[np.integer]) -> int:
    """Address of the kernel that writes ``GRAD_K`` and ``GRAD_V``.

    Here ``ROWPTR`` and ``COL`` are those of the transposed pattern, and ``PERM`` leads to the pair in ``PAIRS``.
    """
    line = 64 // np.dtype(real).itemsize
    span = group * size  # numbers of a row; in registers each head is filled up
    padded = _power_of_two(size)
    lanes = group * padded

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
        factor, nothing = _filled(scale, lanes), _filled(real(0), lanes)
        while True:
            task = _take(counters, 0)
            if task >= tasks_per_copy * copies:
                break
            copy = task // tasks_per_copy
            start = (task - copy * tasks_per_copy) * step
            q_start, grad_start = copy * w[_Q_COPY], copy * w[_GRAD_COPY]
            pair_start = copy * pairs
            for j in range(start, min(start + step, keys)):
                first, last = np.int64(rowptr[j]), np.int64(rowptr[j + 1])
                for head in range(0, heads, group):
                    column = head * size
                    of_key, of_value = nothing, nothing
                    for t in range(first, last):
                        ahead = min(t + _AHEAD, pairs - 1)
                        _prefetch(per_pair, (pair_start + np.int64(perm[ahead])) * 2 * heads + head)
                        next_row = np.int64(row[ahead])
                        for c in range(column, column + span, line):
                            _prefetch(q, q_start + next_row * q_row + c)
                            _prefetch(grad, grad_start + next_row * grad_row + c)
                        i = np.int64(row[t])
                        if has_dead_queries and alive_queries[copy * queries + i] == 0:
                            continue
                        at = (pair_start + np.int64(perm[t])) * 2 * heads + head
                        share = _each_head(_load(per_pair, at, group, 1), padded)
                        change = _each_head(_load(per_pair, at + heads, group, 1), padded)
                        query = _load(q, q_start + i * q_row + column, group, size)
                        gradient = _load(grad, grad_start + i * grad_row + column, group, size)
                        of_key = _plus(of_key, _times(change, query))
                        of_value = _plus(of_value, _times(share, gradient))
                    to = (copy * keys + j) * width + column
                    _store(grad_k, to, _times(of_key, factor), size)
                    _store(grad_v, to, of_value, size)

    return _compile(kernel)

"""What Numba has no word for, and kernels need: vectors of numbers that stay in registers, prefetches, atomic counters.

Each name is an intrinsic: a function that compiled code calls and for which LLVM instructions are written here.
"""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "EXPONENTIALS",
    "FASTMATH",
    "FLAGS",
    "each_head",
    "exp_row",
    "exponential",
    "filled",
    "finite",
    "larger",
    "load",
    "minus",
    "plus",
    "pointer",
    "polynomial",
    "power_of_two",
    "prefetch",
    "store",
    "sum_heads",
    "take",
    "times",
    "times_plus",
]

# Sums may be reordered, so that they vectorise. Infinities and NaN must keep their meaning: -inf is "no pair".
FLAGS = ("contract", "nsz", "reassoc")
FASTMATH = set(FLAGS)

#: Exponentials computed at once; a row's last vector is filled up with whatever is there. LLVM would make a loop of several
#: vectors with a scalar remainder, and most rows of most graphs are all remainder.
EXPONENTIALS = 16


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """An int64 as ``void*``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def take(typing: Any, counters: Any, i: Any) -> Any:
    """``counters[i]++``, atomically; the value before. What a thread wrote before, others see that count after it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), one, "acq_rel")

    return types.int64(counters, types.intp), generate


class Lanes(types.Type):
    """A vector of ``count`` numbers that lives in registers."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Any) -> None:
        element = manager.lookup(lanes.dtype).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))


def vector(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, size: int
) -> tuple[Any, Any]:
    """Pointer to ``array[offset : offset + size]`` as a vector, and the elements' type."""
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype)
    start = builder.gep(data, [offset])
    return builder.bitcast(start, ir.VectorType(element, size).as_pointer()), element


def picked(builder: Any, value: Any, mask: list[int]) -> Any:
    """The elements of a vector that ``mask`` names, as a vector."""
    return picked_of_two(builder, value, ir.Constant(value.type, ir.Undefined), mask)


def picked_of_two(builder: Any, first: Any, second: Any, mask: list[int]) -> Any:
    """The same of two vectors of one size, numbered on from the first to the second."""
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask)
    return builder.shuffle_vector(first, second, lanes)


def joined(builder: Any, parts: list[Any]) -> Any:
    """Vectors of one size, one after the other."""
    total = parts[0]
    for part in parts[1:]:
        have, more = total.type.count, part.type.count
        wider = picked(builder, part, [min(c, more - 1) for c in range(have)])
        total = picked_of_two(builder, total, wider, list(range(have + more)))
    return total


def power_of_two(size: int) -> int:
    """The next one: sums over the lanes of a head halve it again and again."""
    return 1 << (size - 1).bit_length()


@intrinsic(prefer_literal=True)
def load(typing: Any, x: Any, i: Any, heads: Any, size: Any) -> Any:
    """``x[i : i + heads * size]``, both known when compiling; each head is filled up with zeros to a power of two."""
    count, n = heads.literal_value, size.literal_value
    padded = power_of_two(n)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, bytes_ = signature.args[0], signature.args[0].dtype.bitwidth // 8
        if padded == n:
            pointer, _ = vector(context, builder, array, args[0], args[1], count * n)
            return builder.load(pointer, align=bytes_)
        parts = []
        for h in range(count):
            at = builder.add(args[1], args[1].type(h * n))
            pointer, _ = vector(context, builder, array, args[0], at, n)
            part = builder.load(pointer, align=bytes_)
            zeros = ir.Constant(part.type, [0.0] * n)
            mask = [min(c, n) for c in range(padded)]
            parts.append(picked_of_two(builder, part, zeros, mask))
        return joined(builder, parts)

    return Lanes(x.dtype, count * padded)(x, types.intp, heads, size), generate


@intrinsic(prefer_literal=True)
def store(typing: Any, x: Any, i: Any, lanes: Any, size: Any) -> Any:
    """``x[i : i + heads * size] = lanes``, without what heads were filled up with.

    In a loop over elements every store would be guarded by checks that arrays do not overlap.
    """
    n = size.literal_value
    padded = power_of_two(n)
    count = lanes.count // padded

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, bytes_ = signature.args[0], signature.args[0].dtype.bitwidth // 8
        whole = padded == n
        for h in range(1 if whole else count):
            width = count * n if whole else n
            part = picked(builder, args[2], [h * padded + c for c in range(width)])
            at = builder.add(args[1], args[1].type(h * n))
            pointer, _ = vector(context, builder, array, args[0], at, width)
            builder.store(part, pointer, align=bytes_)
        return context.get_dummy_value()

    return types.void(x, types.intp, lanes, size), generate


@intrinsic(prefer_literal=True)
def filled(typing: Any, value: Any, count: Any) -> Any:
    """``count`` times ``value``."""
    n = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_data_type(signature.args[0])
        one = ir.Constant(ir.VectorType(element, 1), ir.Undefined)
        return picked(builder, builder.insert_element(one, args[0], ir.IntType(32)(0)), [0] * n)

    return Lanes(value, n)(value, count), generate


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fadd(*args, flags=FLAGS)


@intrinsic
def minus(typing: Any, a: Any, b: Any) -> Any:
    """``a - b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fsub(*args, flags=FLAGS)


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """``a * b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fmul(*args, flags=FLAGS)


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """``b`` where it is larger, ``a`` elsewhere, also where ``b`` is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    return a(a, b), generate


@intrinsic
def finite(typing: Any, a: Any) -> Any:
    """``a``, and 0 where it is -inf."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lowest = ir.Constant(args[0].type, [float("-inf")] * a.count)
        zero = ir.Constant(args[0].type, [0.0] * a.count)
        return builder.select(builder.fcmp_ordered("==", args[0], lowest), zero, args[0])

    return a(a), generate


@intrinsic(prefer_literal=True)
def each_head(typing: Any, lanes: Any, size: Any) -> Any:
    """``[heads]`` to ``[heads * size]``: each number ``size`` times."""
    n = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return picked(builder, args[0], [h for h in range(lanes.count) for _ in range(n)])

    return Lanes(lanes.dtype, lanes.count * n)(lanes, size), generate


@intrinsic(prefer_literal=True)
def sum_heads(typing: Any, lanes: Any, size: Any) -> Any:
    """``[heads * size]`` to the sums ``[heads]``, of all heads at once; ``size`` is a power of two."""
    heads = lanes.count // size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, n = args[0], size.literal_value
        while n > 1:  # the halves of all heads onto each other
            half = [h * n + c for h in range(heads) for c in range(n // 2)]
            other = [c + n // 2 for c in half]
            parts = picked(builder, value, half), picked(builder, value, other)
            value, n = builder.fadd(*parts, flags=FLAGS), n // 2
        return value

    return Lanes(lanes.dtype, heads)(lanes, size), generate


@intrinsic
def prefetch(typing: Any, x: Any, i: Any) -> Any:
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


def exponential(builder: Any, given: Any) -> Any:
    """``exp`` of a vector of float32 numbers, exactly 0 for ``-inf``, NaN for NaN.

    Cephes' expf (Moshier): a power of two times a polynomial. Relative error 2e-7 for arguments up to 88.
    """
    floats, count = given.type, given.type.count
    ints = ir.VectorType(ir.IntType(32), count)

    def constant(value: float) -> Any:
        return ir.Constant(floats, [value] * count)

    low, high = constant(-87.0), constant(88.0)
    limited = builder.select(builder.fcmp_ordered(">", given, low), given, low)
    limited = builder.select(builder.fcmp_ordered("<", limited, high), limited, high)
    floor = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(floats, [floats]), f"llvm.floor.v{count}f32"
    )
    scaled = times_plus(builder, limited, constant(1.44269504), constant(0.5))
    power = builder.call(floor, [scaled])
    rest = times_plus(builder, power, constant(-0.693359375), limited)
    rest = times_plus(builder, power, constant(2.12194440e-4), rest)
    series = polynomial(builder, rest, EXP_COEFFICIENTS)
    square = builder.fmul(rest, rest, flags=FLAGS)
    series = times_plus(builder, series, square, builder.fadd(rest, constant(1.0), flags=FLAGS))
    exponent = builder.add(builder.fptosi(power, ints), ir.Constant(ints, [127] * count))
    factor = builder.bitcast(builder.shl(exponent, ir.Constant(ints, [23] * count)), floats)
    # 0 * x is there for NaN, which must not become a number.
    value = builder.fadd(builder.fmul(series, factor), builder.fmul(constant(0.0), given))
    return builder.select(builder.fcmp_ordered("<", given, low), constant(0.0), value)


def times_plus(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``."""
    return builder.fadd(builder.fmul(a, b, flags=FLAGS), c, flags=FLAGS)


def polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """Of a vector, by Horner's scheme, the highest power first."""
    value = ir.Constant(x.type, [coefficients[0]] * x.type.count)
    for coefficient in coefficients[1:]:
        value = times_plus(builder, value, x, ir.Constant(x.type, [coefficient] * x.type.count))
    return value


EXP_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


@intrinsic
def exp_lanes(typing: Any, x: Any, i: Any) -> Any:
    """``x[i : i + EXPONENTIALS] = exp(...)`` of float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at, _ = vector(context, builder, signature.args[0], args[0], args[1], EXPONENTIALS)
        builder.store(exponential(builder, builder.load(at, align=4)), at, align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


def exp_row(x: Any, count: Any) -> Any:
    """Exponentials of ``x[:count]`` in place; in float32 what follows, up to a whole vector, is overwritten too."""
    raise NotImplementedError


@overload(exp_row, jit_options={"fastmath": FASTMATH})
def _exp_row_overload(x: Any, count: Any) -> Any:
    def exp64(x: Any, count: Any) -> Any:
        for i in range(count):
            x[i] = math.exp(x[i])

    def exp32(x: Any, count: Any) -> Any:
        for block in range((count + EXPONENTIALS - 1) // EXPONENTIALS):
            exp_lanes(x, block * EXPONENTIALS)

    return exp64 if x.dtype == types.float64 else exp32

"""Products of small matrices inside of kernels: rows of one tensor times a matrix that stays in cache.

The operands of a layer are a few rows that were just computed and a weight of some kilobytes, so nothing is copied into panels
but the weight (Goto & van de Geijn, *ACM TOMS* 34, 2008, without their outer loops): a tile of the result stays in vector
registers, one number of the left side after the other is spread over a vector, and meets the weight's row.

Addresses are int64, strides count float32 numbers.
"""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import platform
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from pyg_nsa.compiled.compiling import kept_on_disk
from pyg_nsa.compiled.lanes import take

__all__ = ["COLUMNS", "add_parts", "add_rows", "get", "matmul", "pack", "put"]


def _registers() -> tuple[int, int, int]:
    """Numbers in a vector, and rows and vectors of a tile: so many sums fit into the registers, with a row of the right side and one
    number of the left. Two units that multiply and add in four cycles are busy with eight sums, and with some more if one is late."""
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    if "+avx512f" in features:
        return 16, 8, 2
    if "+avx" in features:
        return 8, 4, 3
    return 4, 8 if platform.machine().lower() in ("arm64", "aarch64") else 4, 2


LANES, ROWS, VECTORS = _registers()

#: Widths have to be multiples of it.
COLUMNS = 16

_STRIP = VECTORS * LANES
_LESS = VECTORS - 1
_BYTES = 4


@intrinsic(prefer_literal=True)
def _tile(
    typing: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_row: Any,
    a_col: Any,
    b: Any,
    b_row: Any,
    start: Any,
    start_row: Any,
    bias: Any,
    depth: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """``c[:rows, :vectors * LANES] = start + bias + a[:rows, :depth] @ b``; ``depth`` is at least 1."""
    num_rows, num_vectors = rows.literal_value, vectors.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        c, c_row, a, a_row, a_col, b, b_row, start, start_row, bias, depth = args[:11]
        word, number = ir.IntType(64), ir.FloatType()
        lanes = ir.VectorType(number, LANES)

        def at(address: Any, elements: Any) -> Any:
            return builder.add(address, builder.mul(elements, word(_BYTES)))

        def vector(address: Any, v: int) -> Any:
            moved = builder.add(address, word(v * LANES * _BYTES))
            return builder.inttoptr(moved, lanes.as_pointer())

        def each_tile(function: Any) -> list[list[Any]]:
            return [[function(r, v) for v in range(num_vectors)] for r in range(num_rows)]

        nothing = ir.Constant(lanes, [0.0] * LANES)

        def where_given(address: Any, function: Any) -> list[list[Any]]:
            """Vectors of each tile, and zeros where the address is 0."""
            with builder.if_else(builder.icmp_signed("!=", address, word(0))) as (then, otherwise):
                with then:
                    loaded = each_tile(lambda r, v: builder.load(function(r, v), align=4))
                    given = builder.basic_block
                with otherwise:
                    absent = builder.basic_block
            values = each_tile(lambda r, v: builder.phi(lanes))
            for r in range(num_rows):
                for v in range(num_vectors):
                    values[r][v].add_incoming(loaded[r][v], given)
                    values[r][v].add_incoming(nothing, absent)
            return values

        biases = where_given(bias, lambda r, v: vector(bias, v))
        starts = where_given(
            start, lambda r, v: vector(at(start, builder.mul(start_row, word(r))), v)
        )
        sums = each_tile(lambda r, v: builder.fadd(starts[r][v], biases[r][v]))
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes] * 3), f"llvm.fma.v{LANES}f32"
        )
        a_rows = [at(a, builder.mul(a_row, word(r))) for r in range(num_rows)]
        entry = builder.basic_block
        loop, done = builder.append_basic_block("depth"), builder.append_basic_block("tile")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(word)
        k.add_incoming(word(0), entry)
        total = each_tile(lambda r, v: builder.phi(lanes))
        b_k = at(b, builder.mul(k, b_row))
        right = [builder.load(vector(b_k, v), align=4) for v in range(num_vectors)]
        a_k = builder.mul(k, builder.mul(a_col, word(_BYTES)))
        undefined = ir.Constant(lanes, ir.Undefined)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        new: list[list[Any]] = []
        for r in range(num_rows):
            pointer = builder.inttoptr(builder.add(a_rows[r], a_k), number.as_pointer())
            one = builder.insert_element(
                undefined, builder.load(pointer, align=4), ir.IntType(32)(0)
            )
            left = builder.shuffle_vector(one, undefined, spread)
            new.append(
                [builder.call(fma, [left, right[v], total[r][v]]) for v in range(num_vectors)]
            )
        following = builder.add(k, word(1))
        k.add_incoming(following, loop)
        for r in range(num_rows):
            for v in range(num_vectors):
                total[r][v].add_incoming(sums[r][v], entry)
                total[r][v].add_incoming(new[r][v], loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
        builder.position_at_end(done)
        for r in range(num_rows):
            to = at(c, builder.mul(c_row, word(r)))
            for v in range(num_vectors):
                builder.store(new[r][v], vector(to, v), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11, rows, vectors), generate


@intrinsic
def get(typing: Any, address: Any) -> Any:
    """The float32 number at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.FloatType().as_pointer()), align=4)

    return types.float32(types.int64), generate


@intrinsic
def put(typing: Any, address: Any, value: Any) -> Any:
    """Writes a float32 number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], ir.FloatType().as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@kept_on_disk(numba.njit, nogil=True)
def _strips(cols):  # type: ignore[no-untyped-def]
    """How a matrix is cut into strips as wide as a tile or one vector less: how many there are, and how many are wide."""
    vectors = cols // LANES
    wide = vectors // VECTORS
    rest = vectors - wide * VECTORS
    if rest == 0:
        return wide, wide
    # One vector of three is too few to be busy with; two strips of two take four.
    if VECTORS == 3 and rest == 1:
        return wide + 1, wide - 1
    return wide + 1, wide


@kept_on_disk(numba.njit, nogil=True)
def _strip(number, wide):  # type: ignore[no-untyped-def]
    """First column of a strip, and its width."""
    if number < wide:
        return number * _STRIP, _STRIP
    narrow = _STRIP - LANES
    return wide * _STRIP + (number - wide) * narrow, narrow


@kept_on_disk(numba.njit, nogil=True)
def _block(c, c_row, a, a_row, a_col, b, b_row, start, start_row, bias, count, width, depth):  # type: ignore[no-untyped-def]
    """One tile, or a row of one, at these addresses."""
    if count == 1:
        if width == _STRIP:
            _tile(c, c_row, a, a_row, a_col, b, b_row, start, start_row, bias, depth, 1, VECTORS)
        else:
            _tile(c, c_row, a, a_row, a_col, b, b_row, start, start_row, bias, depth, 1, _LESS)
    elif width == _STRIP:
        _tile(c, c_row, a, a_row, a_col, b, b_row, start, start_row, bias, depth, ROWS, VECTORS)
    else:
        _tile(c, c_row, a, a_row, a_col, b, b_row, start, start_row, bias, depth, ROWS, _LESS)


@kept_on_disk(numba.njit, nogil=True)
def matmul(result, left, right, start, bias, shape):  # type: ignore[no-untyped-def]
    """``c = start + bias + a @ b`` for ``c [rows, cols]``, ``a [rows, depth]``, ``b [depth, cols]``.

    Each number of the result is one sum in the order of ``depth``, wherever its tile begins.

    Args:
        result: Address of ``c`` and its row stride.
        left: Address of ``a``, its row stride and its column stride: a transposed matrix needs no copy.
        right: Address of ``b`` and its row stride; 0: it is packed.
        start: Address of what the sums start with and its row stride; address 0: zeros.
        bias: Address of ``[cols]``, added to each row; 0: none.
        shape: ``rows``, any number; ``cols``, a multiple of :data:`COLUMNS`; ``depth``, at least 1.
    """
    (c, c_row), (a, a_row, a_col), (b, b_row) = result, left, right
    (begin, begin_row), (rows, cols, depth) = start, shape
    strips, wide = _strips(cols)
    whole = rows // ROWS
    blocks = whole + rows % ROWS
    for t in range(strips * blocks):
        # A strip of a packed matrix stays in the L1 cache for all rows; otherwise some rows do for all strips.
        if b_row == 0:
            strip = t // blocks
            block = t - strip * blocks
        else:
            block = t // strips
            strip = t - block * strips
        count = ROWS if block < whole else 1
        row = block * ROWS if block < whole else whole * ROWS + block - whole
        col, width = _strip(strip, wide)
        _block(
            c + _BYTES * (row * c_row + col),
            c_row,
            a + _BYTES * row * a_row,
            a_row,
            a_col,
            b + _BYTES * (col if b_row else col * depth),
            b_row if b_row else width,
            begin + _BYTES * (row * begin_row + col) if begin else 0,
            begin_row,
            bias + _BYTES * col if bias else 0,
            count,
            width,
            depth,
        )


@kept_on_disk(numba.njit, nogil=True)
def add_rows(total, start, b, b_row, one, rows, cols):  # type: ignore[no-untyped-def]
    """``total [cols]``: ``start`` (0: zeros) and the rows of ``b [rows, cols]``; ``one`` is the address of a 1."""
    matmul((total, 0), (one, 0, 0), (b, b_row), (start, 0), 0, (1, cols, rows))


@kept_on_disk(numba.njit, nogil=True)
def add_parts(total, part_sums, one, parts, size, counters):  # type: ignore[no-untyped-def]
    """To be called once for each part that is done: the last one adds up ``part_sums [parts, size]`` to ``total [size]``.

    ``counters[2]`` counts them.
    """
    if take(counters, 2) == parts - 1:
        add_rows(total, 0, part_sums, size, one, parts, size)


@kept_on_disk(numba.njit, nogil=True)
def pack(to, b, b_row, b_col, depth, cols):  # type: ignore[no-untyped-def]
    """Copies ``b [depth, cols]`` into strips as wide as a tile, each in one piece; with its strides swapped, its transpose."""
    strips, wide = _strips(cols)
    for strip in range(strips):
        col, width = _strip(strip, wide)
        for k in range(depth):
            for c in range(width):
                put(
                    to + _BYTES * (col * depth + k * width + c),
                    get(b + _BYTES * (k * b_row + (col + c) * b_col)),
                )

"""A linear layer, compiled: rows times a weight, and the three gradients in one pass over the rows.

Rows are dealt out in tiles that stay in the L1 and L2 caches. The gradients of weight and bias are summed over parts of the rows whose
number depends on nothing but the number of rows, so the number of threads does not change a bit of the result.
"""

# mypy: disable-error-code="attr-defined, call-arg, no-any-return, no-untyped-def"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import functools
from enum import IntEnum
from typing import Any

import numba
import numpy as np
from numba import carray

from pyg_nsa.compiled.compiling import kept_on_disk, kernel_address
from pyg_nsa.compiled.lanes import load, pointer, store, take
from pyg_nsa.compiled.matmul import COLUMNS, add_parts, add_rows, matmul, pack

__all__ = ["TILE", "Words", "backward", "forward"]

#: Rows of a tile.
TILE = 64


class Words(IntEnum):
    """Positions of a kernel's arguments: addresses (0: absent), then sizes and strides in elements."""

    COUNTERS = 0  # three int64: next task, next thread's scratch, parts that are done
    SCRATCH = 1  # [threads, SCRATCH_SIZE]: the packed weight; if there are ROWS, TILE rows of X, Y and GRAD_X
    X = 2  # [rows, depth]
    WEIGHT = 3  # [width, depth]
    BIAS = 4  # [width]
    Y = 5  # [rows, width]
    GRAD = 6  # of Y
    GRAD_X = 7  # [rows, depth]
    PART_SUMS = 8  # [parts, width * (depth + 1)] for GRADS
    GRADS = 9  # [width * depth] of WEIGHT, then, if HAS_BIAS, [width] of BIAS
    NUM_ROWS = 10
    DEPTH = 11
    WIDTH = 12
    X_ROW = 13
    Y_ROW = 14
    GRAD_ROW = 15
    GRAD_X_ROW = 16
    ADDS = 17  # 1: to what GRAD_X holds
    ROWS_PER_PART = 18
    START = 19  # [rows, width]: what the sums of Y start with
    START_ROW = 20
    ONE = 21  # a float32 1
    HAS_BIAS = 22
    SCRATCH_SIZE = 23  # of one thread
    ROWS = 24  # int64 [LISTED]: rows of each copy that are read and written, 0: all; NUM_ROWS counts those of all copies
    LISTED = 25
    COPY = 26  # rows of a copy


_NUM_WORDS = len(Words)
# Numba folds module-level integers into the code, but not members of an enumeration.
(
    _COUNTERS,
    _SCRATCH,
    _X,
    _WEIGHT,
    _BIAS,
    _Y,
    _GRAD,
    _GRAD_X,
    _PART_SUMS,
    _GRADS,
    _NUM_ROWS,
    _DEPTH,
    _WIDTH,
    _X_ROW,
    _Y_ROW,
    _GRAD_ROW,
    _GRAD_X_ROW,
    _ADDS,
    _ROWS_PER_PART,
    _START,
    _START_ROW,
    _ONE,
    _HAS_BIAS,
    _SCRATCH_SIZE,
    _ROWS,
    _LISTED,
    _COPY,
) = (int(word) for word in Words)


@kept_on_disk(numba.njit, nogil=True)
def _row(rows, copy, n):
    """The ``n``-th of the listed rows of all copies, each of which has ``copy`` rows."""
    done = n // len(rows)
    return done * copy + rows[n - done * len(rows)]


@kept_on_disk(numba.njit, nogil=True)
def _gather(to, source, source_row, rows, copy, first, count, cols):
    """``to [count, cols]``: the listed rows ``first`` and following of ``source``, whose copies have ``copy`` rows."""
    packed, data = (
        carray(pointer(to), 1, dtype=np.float32),
        carray(pointer(source), 1, dtype=np.float32),
    )
    for i in range(count):
        at = _row(rows, copy, first + i) * source_row
        for c in range(0, cols, COLUMNS):
            store(packed, i * cols + c, load(data, at + c, 1, COLUMNS), COLUMNS)


@kept_on_disk(numba.njit, nogil=True)
def _scatter(to, to_row, source, rows, copy, first, count, cols):
    """The other way: rows of ``source [count, cols]`` to the listed rows of ``to``."""
    packed, data = (
        carray(pointer(source), 1, dtype=np.float32),
        carray(pointer(to), 1, dtype=np.float32),
    )
    for i in range(count):
        at = _row(rows, copy, first + i) * to_row
        for c in range(0, cols, COLUMNS):
            store(data, at + c, load(packed, i * cols + c, 1, COLUMNS), COLUMNS)


@functools.cache
def forward() -> int:
    """Address of the kernel that writes ``Y``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        rows, depth, width = w[_NUM_ROWS], w[_DEPTH], w[_WIDTH]
        packed = w[_SCRATCH] + 4 * take(counters, 1) * w[_SCRATCH_SIZE]
        pack(packed, w[_WEIGHT], 1, depth, depth, width)
        is_listed, copy = w[_ROWS] != 0, w[_COPY]
        listed = carray(pointer(w[_ROWS]), w[_LISTED], dtype=np.int64)
        own_x = packed + 4 * depth * width
        own_y = own_x + 4 * TILE * depth
        while True:
            first = take(counters, 0) * TILE
            if first >= rows:
                break
            count = min(TILE, rows - first)
            if is_listed:
                x, x_row, y, y_row, start, start_row = own_x, depth, own_y, width, 0, width
                _gather(x, w[_X], w[_X_ROW], listed, copy, first, count, depth)
                if w[_START]:
                    start = own_y
                    _gather(start, w[_START], w[_START_ROW], listed, copy, first, count, width)
            else:
                x_row, y_row, start_row = w[_X_ROW], w[_Y_ROW], w[_START_ROW]
                x, y = w[_X] + 4 * first * x_row, w[_Y] + 4 * first * y_row
                start = w[_START] + 4 * first * start_row if w[_START] else 0
            matmul(
                (y, y_row),
                (x, x_row, 1),
                (packed, 0),
                (start, start_row),
                w[_BIAS],
                (count, width, depth),
            )
            if is_listed:
                _scatter(w[_Y], w[_Y_ROW], y, listed, copy, first, count, width)

    return kernel_address(kernel)


@functools.cache
def backward() -> int:
    """Address of the kernel that writes ``GRAD_X`` where it is asked for, and ``GRADS``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 3, dtype=np.int64)
        rows, depth, width, part_rows = w[_NUM_ROWS], w[_DEPTH], w[_WIDTH], w[_ROWS_PER_PART]
        is_listed, copy = w[_ROWS] != 0, w[_COPY]
        listed = carray(pointer(w[_ROWS]), w[_LISTED], dtype=np.int64)
        parts = (rows + part_rows - 1) // part_rows
        size = width * (depth + w[_HAS_BIAS])
        packed = w[_SCRATCH] + 4 * take(counters, 1) * w[_SCRATCH_SIZE]
        own_x = packed + 4 * depth * width
        own_grad = own_x + 4 * TILE * depth
        own_grad_x = own_grad + 4 * TILE * width
        if w[_GRAD_X] != 0:
            pack(packed, w[_WEIGHT], depth, 1, width, depth)
        while True:
            part = take(counters, 0)
            if part * part_rows >= rows:
                break
            grad_weight = w[_PART_SUMS] + 4 * part * size
            end = min((part + 1) * part_rows, rows)
            for first in range(part * part_rows, end, TILE):
                count = min(TILE, end - first)
                if is_listed:
                    x, x_row, grad, grad_row = own_x, depth, own_grad, width
                    to, to_row = own_grad_x, depth
                    _gather(x, w[_X], w[_X_ROW], listed, copy, first, count, depth)
                    _gather(grad, w[_GRAD], w[_GRAD_ROW], listed, copy, first, count, width)
                else:
                    x_row, grad_row, to_row = w[_X_ROW], w[_GRAD_ROW], w[_GRAD_X_ROW]
                    x, grad = w[_X] + 4 * first * x_row, w[_GRAD] + 4 * first * grad_row
                    to = w[_GRAD_X] + 4 * first * to_row
                if w[_GRAD_X] != 0:
                    if is_listed and w[_ADDS]:
                        _gather(to, w[_GRAD_X], w[_GRAD_X_ROW], listed, copy, first, count, depth)
                    matmul(
                        (to, to_row),
                        (grad, grad_row, 1),
                        (packed, 0),
                        (to if w[_ADDS] else 0, to_row),
                        0,
                        (count, depth, width),
                    )
                    if is_listed:
                        _scatter(w[_GRAD_X], w[_GRAD_X_ROW], to, listed, copy, first, count, depth)
                is_first = first == part * part_rows  # finds nothing to add to
                matmul(
                    (grad_weight, depth),
                    (grad, 1, grad_row),
                    (x, x_row),
                    (0 if is_first else grad_weight, depth),
                    0,
                    (width, depth, count),
                )
                if w[_HAS_BIAS]:
                    total = grad_weight + 4 * width * depth
                    start = 0 if is_first else total
                    add_rows(total, start, grad, grad_row, w[_ONE], count, width)
            add_parts(w[_GRADS], w[_PART_SUMS], w[_ONE], parts, size, counters)

    return kernel_address(kernel)

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

import numpy as np
from numba import carray

from pyg_nsa.compiled.compiling import kernel_address
from pyg_nsa.compiled.lanes import pointer, take
from pyg_nsa.compiled.matmul import add_parts, add_rows, matmul, pack

__all__ = ["TILE", "Words", "backward", "forward"]

#: Rows of a tile.
TILE = 64


class Words(IntEnum):
    """Positions of a kernel's arguments: addresses (0: absent), then sizes and strides in elements."""

    COUNTERS = 0  # three int64: next task, next thread's scratch, parts that are done
    SCRATCH = 1  # [threads, depth * width]: the packed weight
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
) = (int(word) for word in Words)


@functools.cache
def forward() -> int:
    """Address of the kernel that writes ``Y``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        rows, depth, width = w[_NUM_ROWS], w[_DEPTH], w[_WIDTH]
        packed = w[_SCRATCH] + 4 * take(counters, 1) * depth * width
        pack(packed, w[_WEIGHT], 1, depth, depth, width)
        while True:
            first = take(counters, 0) * TILE
            if first >= rows:
                break
            start = w[_START] + 4 * first * w[_START_ROW] if w[_START] else 0
            matmul(
                (w[_Y] + 4 * first * w[_Y_ROW], w[_Y_ROW]),
                (w[_X] + 4 * first * w[_X_ROW], w[_X_ROW], 1),
                (packed, 0),
                (start, w[_START_ROW]),
                w[_BIAS],
                (min(TILE, rows - first), width, depth),
            )

    return kernel_address(kernel)


@functools.cache
def backward() -> int:
    """Address of the kernel that writes ``GRAD_X`` where it is asked for, and ``GRADS``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 3, dtype=np.int64)
        rows, depth, width, part_rows = w[_NUM_ROWS], w[_DEPTH], w[_WIDTH], w[_ROWS_PER_PART]
        grad_row = w[_GRAD_ROW]
        parts = (rows + part_rows - 1) // part_rows
        size = width * (depth + w[_HAS_BIAS])
        packed = w[_SCRATCH] + 4 * take(counters, 1) * depth * width
        if w[_GRAD_X] != 0:
            pack(packed, w[_WEIGHT], depth, 1, width, depth)
        while True:
            part = take(counters, 0)
            if part * part_rows >= rows:
                break
            grad_weight = w[_PART_SUMS] + 4 * part * size
            end = min((part + 1) * part_rows, rows)
            for first in range(part * part_rows, end, TILE):
                last = min(first + TILE, end)
                grad = w[_GRAD] + 4 * first * grad_row
                count = last - first
                if w[_GRAD_X] != 0:
                    to = w[_GRAD_X] + 4 * first * w[_GRAD_X_ROW]
                    start = to if w[_ADDS] else 0
                    matmul(
                        (to, w[_GRAD_X_ROW]),
                        (grad, grad_row, 1),
                        (packed, 0),
                        (start, w[_GRAD_X_ROW]),
                        0,
                        (count, depth, width),
                    )
                is_first = first == part * part_rows  # finds nothing to add to
                matmul(
                    (grad_weight, depth),
                    (grad, 1, grad_row),
                    (w[_X] + 4 * first * w[_X_ROW], w[_X_ROW]),
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

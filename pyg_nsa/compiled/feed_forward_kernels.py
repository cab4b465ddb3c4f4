"""The residual MLP of a block, compiled: norm, two layers and what is between them, tile by tile.

A tile of rows goes through the whole computation while it is in cache; nothing but the result is written. The backward pass
computes the tile again, so nothing but the input is kept for it.
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
from pyg_nsa.compiled.gelu import gelu, gelu_backward
from pyg_nsa.compiled.lanes import pointer, take
from pyg_nsa.compiled.layer_norm import normalise, normalise_backward
from pyg_nsa.compiled.matmul import add_parts, add_rows, matmul, pack, put

__all__ = ["TILE", "Words", "backward", "forward", "scratch_size"]

#: Rows of a tile.
TILE = 64


class Words(IntEnum):
    """Positions of a kernel's arguments: addresses (0: absent), then sizes; all rows are in one piece."""

    COUNTERS = 0  # three int64: next task, next thread's scratch, parts that are done
    EPS = 1  # one float64
    SCRATCH = 2
    X = 3  # [rows, channels]
    NORM_WEIGHT = 4  # [channels]
    NORM_BIAS = 5
    WEIGHT_1 = 6  # [hidden, channels]
    BIAS_1 = 7
    WEIGHT_2 = 8  # [channels, hidden]
    BIAS_2 = 9
    Y = 10
    GRAD = 11
    GRAD_X = 12
    GRADS = 13  # [parameters], of WEIGHT_1, WEIGHT_2, BIAS_1, BIAS_2, NORM_WEIGHT, NORM_BIAS
    NUM_ROWS = 14
    CHANNELS = 15
    HIDDEN = 16
    ROWS_PER_PART = 17
    SCRATCH_SIZE = 18
    PART_SUMS = 19  # [parts, parameters] for GRADS


_NUM_WORDS = len(Words)
# Numba folds module-level integers into the code, but not members of an enumeration.
(
    _COUNTERS,
    _EPS,
    _SCRATCH,
    _X,
    _NORM_WEIGHT,
    _NORM_BIAS,
    _WEIGHT_1,
    _BIAS_1,
    _WEIGHT_2,
    _BIAS_2,
    _Y,
    _GRAD,
    _GRAD_X,
    _GRADS,
    _NUM_ROWS,
    _CHANNELS,
    _HIDDEN,
    _ROWS_PER_PART,
    _SCRATCH_SIZE,
    _PART_SUMS,
) = (int(word) for word in Words)


def scratch_size(channels: int, hidden: int, *, is_backward: bool) -> int:
    """Numbers that a thread of a kernel keeps for itself."""
    weights, tile = channels * hidden, TILE * (channels + hidden)
    numbers = 3 * weights + 2 * tile + 1 if is_backward else 2 * weights + tile
    return -(-numbers // 32) * 32


@functools.cache
def forward() -> int:
    """Address of the kernel that writes ``Y``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        eps = np.float32(carray(pointer(w[_EPS]), 1, dtype=np.float64)[0])
        rows, channels, hidden = w[_NUM_ROWS], w[_CHANNELS], w[_HIDDEN]
        x = carray(pointer(w[_X]), rows * channels, dtype=np.float32)
        norm_weight = carray(pointer(w[_NORM_WEIGHT]), channels, dtype=np.float32)
        norm_bias = carray(pointer(w[_NORM_BIAS]), channels, dtype=np.float32)
        weight_1 = w[_SCRATCH] + 4 * take(counters, 1) * w[_SCRATCH_SIZE]
        weight_2 = weight_1 + 4 * channels * hidden
        at_normed = weight_2 + 4 * channels * hidden
        at_units = at_normed + 4 * TILE * channels
        normed = carray(pointer(at_normed), TILE * channels, dtype=np.float32)
        pack(weight_1, w[_WEIGHT_1], 1, channels, channels, hidden)
        pack(weight_2, w[_WEIGHT_2], 1, hidden, hidden, channels)
        while True:
            first = take(counters, 0) * TILE
            if first >= rows:
                break
            count = min(TILE, rows - first)
            start = w[_X] + 4 * first * channels, channels
            for i in range(count):
                normalise(
                    normed,
                    i * channels,
                    x,
                    (first + i) * channels,
                    norm_weight,
                    norm_bias,
                    channels,
                    eps,
                )
            matmul(
                (at_units, hidden),
                (at_normed, channels, 1),
                (weight_1, 0),
                (0, 0),
                w[_BIAS_1],
                (count, hidden, channels),
            )
            gelu(at_units, count * hidden)
            matmul(
                (w[_Y] + 4 * first * channels, channels),
                (at_units, hidden, 1),
                (weight_2, 0),
                start,
                w[_BIAS_2],
                (count, channels, hidden),
            )

    return kernel_address(kernel)


@functools.cache
def backward() -> int:
    """Address of the kernel that writes ``GRAD_X`` and ``GRADS``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 3, dtype=np.int64)
        eps = np.float32(carray(pointer(w[_EPS]), 1, dtype=np.float64)[0])
        rows, channels, hidden, part_rows = (
            w[_NUM_ROWS],
            w[_CHANNELS],
            w[_HIDDEN],
            w[_ROWS_PER_PART],
        )
        size = channels * hidden
        x = carray(pointer(w[_X]), rows * channels, dtype=np.float32)
        grad = carray(pointer(w[_GRAD]), rows * channels, dtype=np.float32)
        grad_x = carray(pointer(w[_GRAD_X]), rows * channels, dtype=np.float32)
        norm_weight = carray(pointer(w[_NORM_WEIGHT]), channels, dtype=np.float32)
        norm_bias = carray(pointer(w[_NORM_BIAS]), channels, dtype=np.float32)
        to_units = w[_SCRATCH] + 4 * take(counters, 1) * w[_SCRATCH_SIZE]
        back_2 = to_units + 4 * size
        back_1 = back_2 + 4 * size
        at_normed = back_1 + 4 * size
        at_moved = at_normed + 4 * TILE * channels
        at_units = at_moved + 4 * TILE * channels
        at_change = at_units + 4 * TILE * hidden
        normed = carray(pointer(at_normed), TILE * channels, dtype=np.float32)
        moved = carray(pointer(at_moved), TILE * channels, dtype=np.float32)
        at_one = at_change + 4 * TILE * hidden
        put(at_one, np.float32(1))
        pack(to_units, w[_WEIGHT_1], 1, channels, channels, hidden)
        pack(back_2, w[_WEIGHT_2], hidden, 1, channels, hidden)
        pack(back_1, w[_WEIGHT_1], channels, 1, hidden, channels)
        parameters = 2 * size + hidden + 3 * channels
        parts = (rows + part_rows - 1) // part_rows
        while True:
            part = take(counters, 0)
            if part * part_rows >= rows:
                break
            grad_1 = w[_PART_SUMS] + 4 * part * parameters
            grad_2 = grad_1 + 4 * size
            bias_1 = grad_2 + 4 * size
            bias_2 = bias_1 + 4 * hidden
            of_weight = bias_2 + 4 * channels
            of_bias = of_weight + 4 * channels
            end = min((part + 1) * part_rows, rows)
            for first in range(part * part_rows, end, TILE):
                count = min(TILE, end - first)
                adds = (
                    0 if first == part * part_rows else 1
                )  # the first tile finds nothing to add to
                at_grad = w[_GRAD] + 4 * first * channels
                for i in range(count):
                    to = (first + i) * channels
                    normalise(normed, i * channels, x, to, norm_weight, norm_bias, channels, eps)
                into_units = count, hidden, channels
                matmul(
                    (at_units, hidden),
                    (at_normed, channels, 1),
                    (to_units, 0),
                    (0, 0),
                    w[_BIAS_1],
                    into_units,
                )
                matmul(
                    (at_change, hidden), (at_grad, channels, 1), (back_2, 0), (0, 0), 0, into_units
                )
                gelu_backward(at_units, at_change, count * hidden)
                add_rows(bias_1, adds * bias_1, at_change, hidden, at_one, count, hidden)
                add_rows(bias_2, adds * bias_2, at_grad, channels, at_one, count, channels)
                matmul(
                    (grad_2, hidden),
                    (at_grad, 1, channels),
                    (at_units, hidden),
                    (adds * grad_2, hidden),
                    0,
                    (channels, hidden, count),
                )
                matmul(
                    (grad_1, channels),
                    (at_change, 1, hidden),
                    (at_normed, channels),
                    (adds * grad_1, channels),
                    0,
                    (hidden, channels, count),
                )
                matmul(
                    (at_moved, channels),
                    (at_change, hidden, 1),
                    (back_1, 0),
                    (0, 0),
                    0,
                    (count, channels, hidden),
                )
                for i in range(count):
                    at, to = i * channels, (first + i) * channels
                    normalise_backward(
                        grad_x, x, grad, True, to, moved, at, normed, at, norm_weight, channels, eps
                    )
                add_rows(of_weight, adds * of_weight, at_normed, channels, at_one, count, channels)
                add_rows(of_bias, adds * of_bias, at_moved, channels, at_one, count, channels)
            add_parts(w[_GRADS], w[_PART_SUMS], at_one, parts, parameters, counters)

    return kernel_address(kernel)

"""Layer norm of one row and its gradient (Ba, Kiros & Hinton 2016), for kernels, and kernels of nothing else."""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return, no-untyped-def, var-annotated"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import functools
from enum import IntEnum
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import cgutils
from numba.extending import intrinsic

from pyg_nsa.compiled.compiling import kept_on_disk, kernel_address
from pyg_nsa.compiled.lanes import (
    FASTMATH,
    each_head,
    filled,
    load,
    minus,
    plus,
    pointer,
    store,
    sum_heads,
    take,
    times,
)
from pyg_nsa.compiled.matmul import add_parts, add_rows, put

__all__ = ["LANES", "TILE", "Words", "backward", "forward", "normalise", "normalise_backward"]

#: Numbers computed at once; the row's width is a multiple of it.
LANES = 16

#: Rows of a tile.
TILE = 64


@intrinsic
def _inverse_root(typing: Any, lanes: Any) -> Any:
    """``1 / sqrt(lanes)``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        root = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]), f"llvm.sqrt.v{vector.count}f32"
        )
        one = ir.Constant(vector, [1.0] * vector.count)
        return builder.fdiv(one, builder.call(root, [args[0]]))

    return lanes(lanes), generate


@kept_on_disk(numba.njit, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _mean(total, channels):
    """The mean of a row in each lane, from its sums."""
    share = filled(np.float32(1) / np.float32(channels), LANES)
    return times(each_head(sum_heads(total, LANES), LANES), share)


@kept_on_disk(numba.njit, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _moments(x, at, channels, eps):
    """Mean of a row and the inverse of its standard deviation, in each lane."""
    total = filled(np.float32(0), LANES)
    for c in range(0, channels, LANES):
        total = plus(total, load(x, at + c, 1, LANES))
    mean = _mean(total, channels)
    square = filled(np.float32(0), LANES)
    for c in range(0, channels, LANES):
        apart = minus(load(x, at + c, 1, LANES), mean)
        square = plus(square, times(apart, apart))
    return mean, _inverse_root(plus(_mean(square, channels), filled(eps, LANES)))


@kept_on_disk(numba.njit, nogil=True, fastmath=FASTMATH, error_model="numpy")
def normalise(to, to_at, x, at, weight, bias, channels, eps):
    """Writes the norm of the row ``x[at : at + channels]`` to ``to[to_at : ...]``; all float32."""
    mean, inverse = _moments(x, at, channels, eps)
    for c in range(0, channels, LANES):
        unit = times(minus(load(x, at + c, 1, LANES), mean), inverse)
        scaled = times(unit, load(weight, c, 1, LANES))
        store(to, to_at + c, plus(scaled, load(bias, c, 1, LANES)), LANES)


@kept_on_disk(numba.njit, nogil=True, fastmath=FASTMATH, error_model="numpy")
def normalise_backward(
    grad_x, x, grad, passes, at, of_norm, of_norm_at, products, products_at, weight, channels, eps
):
    """Gradient of a row that is normed on one branch and, perhaps, passed on as it is on another.

    Args:
        grad_x: Written at ``at``.
        x: The row, at ``at``.
        grad: Gradient of what is passed on, at ``at``.
        passes: Whether there is one.
        at: Place of the row.
        of_norm: Gradient of the norm,
        of_norm_at: and its place.
        products: It times the row before scaling, the row's part of the gradient of ``weight``, is written here,
        products_at: at this place.
        weight: Of the norm.
        channels: Width.
        eps: Of the norm.
    """
    mean, inverse = _moments(x, at, channels, eps)
    across, along = filled(np.float32(0), LANES), filled(np.float32(0), LANES)
    for c in range(0, channels, LANES):
        unit = times(minus(load(x, at + c, 1, LANES), mean), inverse)
        given = load(of_norm, of_norm_at + c, 1, LANES)
        store(products, products_at + c, times(given, unit), LANES)
        scaled = times(given, load(weight, c, 1, LANES))
        across = plus(across, scaled)
        along = plus(along, times(scaled, unit))
    across, along = _mean(across, channels), _mean(along, channels)
    for c in range(0, channels, LANES):
        unit = times(minus(load(x, at + c, 1, LANES), mean), inverse)
        scaled = times(load(of_norm, of_norm_at + c, 1, LANES), load(weight, c, 1, LANES))
        changed = times(inverse, minus(minus(scaled, across), times(unit, along)))
        if passes:
            changed = plus(load(grad, at + c, 1, LANES), changed)
        store(grad_x, at + c, changed, LANES)


class Words(IntEnum):
    """Positions of a kernel's arguments: addresses, then sizes; all rows are in one piece."""

    COUNTERS = 0  # three int64: next task, next thread's scratch, parts that are done
    EPS = 1  # one float64
    SCRATCH = 2  # [threads, TILE * channels + 16]
    X = 3  # [rows, channels]
    WEIGHT = 4  # [channels]
    BIAS = 5
    Y = 6
    GRAD = 7  # of Y
    GRAD_X = 8
    GRADS = 9  # [2 * channels]: of WEIGHT, BIAS
    NUM_ROWS = 10
    CHANNELS = 11
    ROWS_PER_PART = 12
    PART_SUMS = 13  # [parts, 2 * channels] for GRADS
    PASSED = 14  # gradient of rows that are also passed on as they are; 0: they are not


_NUM_WORDS = len(Words)
# Numba folds module-level integers into the code, but not members of an enumeration.
(
    _COUNTERS,
    _EPS,
    _SCRATCH,
    _X,
    _WEIGHT,
    _BIAS,
    _Y,
    _GRAD,
    _GRAD_X,
    _GRADS,
    _NUM_ROWS,
    _CHANNELS,
    _ROWS_PER_PART,
    _PART_SUMS,
    _PASSED,
) = (int(word) for word in Words)


@functools.cache
def forward() -> int:
    """Address of the kernel that writes ``Y``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 2, dtype=np.int64)
        eps = np.float32(carray(pointer(w[_EPS]), 1, dtype=np.float64)[0])
        rows, channels = w[_NUM_ROWS], w[_CHANNELS]
        x = carray(pointer(w[_X]), rows * channels, dtype=np.float32)
        y = carray(pointer(w[_Y]), rows * channels, dtype=np.float32)
        weight = carray(pointer(w[_WEIGHT]), channels, dtype=np.float32)
        bias = carray(pointer(w[_BIAS]), channels, dtype=np.float32)
        while True:
            first = take(counters, 0) * TILE
            if first >= rows:
                break
            for i in range(first, min(first + TILE, rows)):
                normalise(y, i * channels, x, i * channels, weight, bias, channels, eps)

    return kernel_address(kernel)


@functools.cache
def backward() -> int:
    """Address of the kernel that writes ``GRAD_X`` and ``GRADS``."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 3, dtype=np.int64)
        eps = np.float32(carray(pointer(w[_EPS]), 1, dtype=np.float64)[0])
        rows, channels, part_rows = w[_NUM_ROWS], w[_CHANNELS], w[_ROWS_PER_PART]
        x = carray(pointer(w[_X]), rows * channels, dtype=np.float32)
        grad = carray(pointer(w[_GRAD]), rows * channels, dtype=np.float32)
        grad_x = carray(pointer(w[_GRAD_X]), rows * channels, dtype=np.float32)
        passed = carray(pointer(w[_PASSED]), rows * channels, dtype=np.float32)
        weight = carray(pointer(w[_WEIGHT]), channels, dtype=np.float32)
        at_products = w[_SCRATCH] + 4 * take(counters, 1) * (TILE * channels + 16)
        products = carray(pointer(at_products), TILE * channels, dtype=np.float32)
        one = at_products + 4 * TILE * channels
        put(one, np.float32(1))
        parts = (rows + part_rows - 1) // part_rows
        while True:
            part = take(counters, 0)
            if part * part_rows >= rows:
                break
            of_weight = w[_PART_SUMS] + 8 * part * channels
            of_bias = of_weight + 4 * channels
            end = min((part + 1) * part_rows, rows)
            for first in range(part * part_rows, end, TILE):
                count = min(TILE, end - first)
                adds = (
                    0 if first == part * part_rows else 1
                )  # the first tile finds nothing to add to
                for i in range(count):
                    at = (first + i) * channels
                    normalise_backward(
                        grad_x,
                        x,
                        passed,
                        w[_PASSED] != 0,
                        at,
                        grad,
                        at,
                        products,
                        i * channels,
                        weight,
                        channels,
                        eps,
                    )
                at_grad = w[_GRAD] + 4 * first * channels
                add_rows(of_weight, adds * of_weight, at_products, channels, one, count, channels)
                add_rows(of_bias, adds * of_bias, at_grad, channels, one, count, channels)
            add_parts(w[_GRADS], w[_PART_SUMS], one, parts, 2 * channels, counters)

    return kernel_address(kernel)

"""Layer norm of one row, and its gradient, inside of kernels (Ba, Kiros & Hinton 2016)."""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return, no-untyped-def, var-annotated"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from pyg_nsa.compiled.compiling import kept_on_disk
from pyg_nsa.compiled.lanes import (
    FASTMATH,
    each_head,
    filled,
    load,
    minus,
    plus,
    store,
    sum_heads,
    times,
)

__all__ = ["LANES", "normalise", "normalise_backward"]

#: Numbers computed at once; the row's width is a multiple of it.
LANES = 16


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
def normalise_backward(grad_x, x, grad, at, of_norm, products, norm_at, weight, channels, eps):
    """Gradient of a row that is normed on one branch and passed on as it is on the other.

    Args:
        grad_x: Written at ``at``.
        x: The row, at ``at``.
        grad: Gradient of what is passed on, at ``at``.
        at: Place of the row.
        of_norm: Gradient of the norm, at ``norm_at``.
        products: Written there: it times the row before scaling, the row's part of the gradient of ``weight``.
        norm_at: Place of these two.
        weight: Of the norm.
        channels: Width.
        eps: Of the norm.
    """
    mean, inverse = _moments(x, at, channels, eps)
    across, along = filled(np.float32(0), LANES), filled(np.float32(0), LANES)
    for c in range(0, channels, LANES):
        unit = times(minus(load(x, at + c, 1, LANES), mean), inverse)
        given = load(of_norm, norm_at + c, 1, LANES)
        store(products, norm_at + c, times(given, unit), LANES)
        scaled = times(given, load(weight, c, 1, LANES))
        across = plus(across, scaled)
        along = plus(along, times(scaled, unit))
    across, along = _mean(across, channels), _mean(along, channels)
    for c in range(0, channels, LANES):
        unit = times(minus(load(x, at + c, 1, LANES), mean), inverse)
        scaled = times(load(of_norm, norm_at + c, 1, LANES), load(weight, c, 1, LANES))
        changed = times(inverse, minus(minus(scaled, across), times(unit, along)))
        store(grad_x, at + c, plus(load(grad, at + c, 1, LANES), changed), LANES)

"""GELU and its derivative in vectors, the exact ones (Hendrycks & Gimpel 2016): ``x Phi(x)`` and ``Phi(x) + x phi(x)``.

The error function is ``x`` times a quotient of two polynomials in ``x²``, the minimax one of Eigen's ``erf`` for float32: relative
error some 2e-7.
"""

# mypy: disable-error-code="attr-defined, call-arg, assignment, no-any-return, no-untyped-def"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import math
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pyg_nsa.compiled.compiling import kept_on_disk
from pyg_nsa.compiled.lanes import FLAGS, exponential, polynomial, times_plus

__all__ = ["LANES", "gelu", "gelu_backward"]

#: Numbers computed at once.
LANES = 16

_OVER = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_UNDER = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def _constant(x: Any, value: float) -> Any:
    return ir.Constant(x.type, [value] * x.type.count)


def _below(builder: Any, x: Any) -> Any:
    """The normal distribution's function ``Phi(x)``."""
    half = builder.fmul(x, _constant(x, math.sqrt(0.5)), flags=FLAGS)
    # Beyond 4 the error function is 1 in float32; comparisons are such that NaN passes.
    for sign, limit in ((">", _constant(x, 4.0)), ("<", _constant(x, -4.0))):
        half = builder.select(builder.fcmp_ordered(sign, half, limit), limit, half)
    square = builder.fmul(half, half, flags=FLAGS)
    over = builder.fmul(half, polynomial(builder, square, _OVER), flags=FLAGS)
    erf = builder.fdiv(over, polynomial(builder, square, _UNDER))
    return times_plus(builder, erf, _constant(x, 0.5), _constant(x, 0.5))


def _vector_at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.VectorType(ir.FloatType(), LANES).as_pointer())


@intrinsic
def _gelu(typing: Any, address: Any) -> Any:
    """GELU of the vector at an address, in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _vector_at(builder, args[0])
        x = builder.load(at, align=4)
        builder.store(builder.fmul(x, _below(builder, x), flags=FLAGS), at, align=4)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _gelu_backward(typing: Any, address: Any, change: Any) -> Any:
    """GELU of the vector at an address, in place, and its derivative times the vector at ``change``, in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at, to = (_vector_at(builder, a) for a in args)
        x = builder.load(at, align=4)
        below = _below(builder, x)
        square = builder.fmul(x, x, flags=FLAGS)
        density = exponential(builder, builder.fmul(square, _constant(x, -0.5), flags=FLAGS))
        density = builder.fmul(density, _constant(x, 1 / math.sqrt(2 * math.pi)), flags=FLAGS)
        derivative = times_plus(builder, x, density, below)
        builder.store(builder.fmul(x, below, flags=FLAGS), at, align=4)
        given = builder.load(to, align=4)
        builder.store(builder.fmul(given, derivative, flags=FLAGS), to, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@kept_on_disk(numba.njit, nogil=True)
def gelu(at, count):
    """GELU of ``count`` float32 numbers at an address, in place; ``count`` is a multiple of :data:`LANES`."""
    for i in range(0, 4 * count, 4 * LANES):
        _gelu(at + i)


@kept_on_disk(numba.njit, nogil=True)
def gelu_backward(at, change, count):
    """The same, and its derivative times the numbers at ``change``, in place."""
    for i in range(0, 4 * count, 4 * LANES):
        _gelu_backward(at + i, change + i)

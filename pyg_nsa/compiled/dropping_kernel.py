"""Zeros where draws are below a limit."""

# mypy: disable-error-code="attr-defined, call-arg"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import functools
from enum import IntEnum
from typing import Any

import numpy as np
from numba import carray

from pyg_nsa.compiled.compiling import kernel_address
from pyg_nsa.compiled.lanes import pointer, take

__all__ = ["Words", "zeros"]

#: Elements that a thread takes at a time.
_PORTION = 1 << 14


class Words(IntEnum):
    """Positions of the kernel's arguments: addresses, then numbers."""

    COUNTERS = 0  # int64: next portion
    X = 1  # float32
    DRAWS = 2  # int16
    SIZE = 3
    LIMIT = 4


_NUM_WORDS = len(Words)
# Numba folds module-level integers into the code, but not members of an enumeration.
_COUNTERS, _X, _DRAWS, _SIZE, _LIMIT = (int(word) for word in Words)


@functools.cache
def zeros() -> int:
    """Address of the kernel."""

    def kernel(data: Any) -> None:
        w = carray(data, _NUM_WORDS, dtype=np.int64)
        counters = carray(pointer(w[_COUNTERS]), 1, dtype=np.int64)
        size, limit = w[_SIZE], np.int16(w[_LIMIT])
        x = carray(pointer(w[_X]), size, dtype=np.float32)
        draws = carray(pointer(w[_DRAWS]), size, dtype=np.int16)
        while True:
            first = take(counters, 0) * _PORTION
            if first >= size:
                break
            last = min(first + _PORTION, size)
            # Slices, so that the compiler knows that no index is negative, and takes vectors.
            some, drawn = x[first:last], draws[first:last]
            for i in range(last - first):
                some[i] = some[i] if drawn[i] >= limit else np.float32(0)

    return kernel_address(kernel)

"""How a compiled kernel gets its arguments: addresses and sizes by name, in one array of words."""

from __future__ import annotations

import functools
from copy import copy
from enum import IntEnum
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pyg_nsa.compiled.sequence import Step, run_step

__all__ = ["KernelCall", "threads_for"]

#: Below this many multiplications waking threads costs more than they save.
_MIN_PARALLEL = 1 << 15


def threads_for(work: int) -> int:
    """Threads for so many multiplications."""
    return torch.get_num_threads() if work >= _MIN_PARALLEL else 1


@functools.lru_cache(maxsize=64)
def _held(number: float) -> tuple[Any, int]:
    """A float64 number in memory, and its address."""
    held = np.array([number], dtype=np.float64)
    return held, held.ctypes.data


class KernelCall:
    """Arguments of a kernel, gathered one by one; keeps the tensors behind the addresses alive.

    Args:
        words: Their positions. ``COUNTERS`` and ``SCRATCH`` are filled in here.
    """

    def __init__(self, words: type[IntEnum]) -> None:
        self._position = words.__members__
        self._words = [0] * len(words)
        self._kept: list[Any] = []

    def set(self, **values: int) -> None:
        """Sizes and strides."""
        for name, value in values.items():
            self._words[self._position[name]] = value

    def put(self, **tensors: Tensor | None) -> None:
        """Addresses; a missing tensor's is 0."""
        for name, tensor in tensors.items():
            self._kept.append(tensor)
            self._words[self._position[name]] = 0 if tensor is None else tensor.data_ptr()

    def put_number(self, **numbers: float) -> None:
        """Addresses of float64 numbers."""
        for name, number in numbers.items():
            held, address = _held(number)
            self._kept.append(held)
            self._words[self._position[name]] = address

    def copy(self) -> Self:
        """Another kernel's call with the same arguments so far."""
        other = copy(self)
        other._words, other._kept = list(self._words), list(self._kept)
        return other

    def run(self, kernel: int, threads: int, scratch: Tensor | None = None) -> None:
        """Runs the kernel and waits for it; inside of :func:`~pyg_nsa.compiled.sequence.in_one_go` later.

        Args:
            kernel: Its address.
            threads: In how many threads.
            scratch: What threads keep for themselves, one after the other.
        """
        if scratch is not None:
            self.put(SCRATCH=scratch)
        counters = self._position["COUNTERS"]
        # A copy: another kernel may get the same arguments but one.
        run_step(Step(kernel, threads, list(self._words), counters, self._kept))

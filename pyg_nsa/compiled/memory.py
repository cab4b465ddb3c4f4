"""New memory for results, in huge pages where the system has them.

A large tensor is new memory in every step: the system hands it over page by page, and a page of 4 KiB costs more than writing it.
Rows that are read in a random order also miss fewer entries of the page table's cache. NumPy does the same for its arrays. Smaller
tensors come from malloc's heap, which is kept from one step to the next.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["empty"]

#: Smaller tensors hold no whole huge page, or hardly one.
_SMALLEST = 1 << 22

_HUGE_PAGE = 1 << 21
_MADV_HUGEPAGE = 14

#: 32 MiB, less what malloc adds to a block.
_LARGEST_MAPPED = (1 << 25) - (1 << 16)


def empty(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor of the dtype and device of ``like``."""
    _keep_heap()
    tensor = like.new_empty(*shape)
    size = tensor.numel() * tensor.element_size()
    advise = _madvise() if size >= _SMALLEST and tensor.device.type == "cpu" else None
    if advise is not None and type(tensor) is Tensor:
        begin = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        end = (tensor.data_ptr() + size) // _HUGE_PAGE * _HUGE_PAGE
        # It is advice: what comes back does not matter.
        advise(begin, end - begin, _MADV_HUGEPAGE)
    return tensor


@functools.cache
def _keep_heap() -> None:
    """Makes glibc keep up to 64 MiB of freed memory for the next step, once in a process.

    It gives back what is free at the heap's end beyond twice the largest block that it has mapped and freed so far (mallopt(3),
    ``M_MMAP_THRESHOLD``), and a step's smaller tensors would come back page by page. The largest block that counts is 32 MiB; nothing is
    written to it. Where malloc is another one, or was told its thresholds, nothing changes.
    """
    if sys.platform.startswith("linux"):
        torch.empty(_LARGEST_MAPPED, dtype=torch.uint8)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system's, on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function

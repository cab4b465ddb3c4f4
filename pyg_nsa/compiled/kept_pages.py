"""Memory for large tensors that stays with the process when a tensor dies, and is written again by the next one.

A tensor of some megabytes is new memory in every step: malloc maps it from the system, which hands it over page by page, filled with
zeros, and takes it back at once. For layers that write each number once that costs up to as much as computing them, more where other
programs use the machine: the system then has no huge pages at hand (2 MiB, by one fault instead of 512), or looks for them first.

Here a block that nobody reads any more is kept for the next tensor of about its size. The system is told that it may take the pages back
when it runs short of memory (``MADV_FREE``, madvise(2)), and more than the process ever used at a time is given back.

Linux only; the pages of a block are huge where the system has them, which also helps to read rows in a random order.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import weakref

import numpy as np
import torch
from torch import Tensor

from pyg_nsa.compiled.unaliased import unaliased

__all__ = ["give_back", "kept_bytes", "on_kept_pages"]

_HUGE_PAGE = 1 << 21

#: A block may be so many times as large as what it is used for: graphs of a batch differ a little.
_SLACK = 1.25


class _Block:
    """Memory of the process's own, in whole pages, that begins with a huge one."""

    def __init__(self, size: int) -> None:
        self.size = size
        # One huge page more, since not every kernel begins large mappings at a huge page; what is not written costs nothing.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._pages = mmap.mmap(-1, size + _HUGE_PAGE, flags=flags)
        everything = np.frombuffer(self._pages, dtype=np.uint8)
        self._begin = -everything.ctypes.data % _HUGE_PAGE
        self.numbers = everything[self._begin : self._begin + size]
        self._advise("MADV_HUGEPAGE")

    def may_be_taken(self) -> None:
        """Tells the system so, until it is written again."""
        self._advise("MADV_FREE")

    def _advise(self, name: str) -> None:
        advice = getattr(mmap, name, None)
        if advice is not None:
            with contextlib.suppress(OSError):  # a kernel without it
                self._pages.madvise(advice, self._begin, self.size)


class _Pages:
    """Blocks of a process.

    Tensors die in any thread, and in the middle of anything, so there is no lock: each step is one operation of a list or a dictionary.
    """

    def __init__(self) -> None:
        self.free: list[_Block] = []
        self._lent: dict[int, int] = {}  # sizes by identity
        self._most = 0  # bytes that tensors held at a time

    def lend(self, count: int, dtype: torch.dtype) -> Tensor:
        """``[count]`` of this dtype; the block comes back when nothing refers to the tensor's storage any more."""
        size = -(-count * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        block = self._found(size) or _Block(size)
        self._lent[id(block)] = block.size
        self._most = max(self._most, self._used())
        # An array of its own: it lives as long as the storage that is made of it.
        numbers = block.numbers[: count * dtype.itemsize]
        weakref.finalize(numbers, self._comes_back, block).atexit = False
        return torch.frombuffer(numbers, dtype=dtype, count=count)

    def kept(self) -> int:
        """Bytes that no tensor holds."""
        return sum(block.size for block in tuple(self.free))

    def give_back(self) -> None:
        self.free.clear()
        self._most = self._used()

    def _used(self) -> int:
        return sum(tuple(self._lent.values()))

    def _found(self, size: int) -> _Block | None:
        fitting = [b for b in tuple(self.free) if size <= b.size <= size * _SLACK]
        for block in sorted(fitting, key=lambda b: b.size):
            with contextlib.suppress(ValueError):  # another thread took it
                self.free.remove(block)
                return block
        return None

    def _comes_back(self, block: _Block) -> None:
        del self._lent[id(block)]
        block.may_be_taken()
        self.free.append(block)
        while self.free and self.kept() + self._used() > self._most:
            with contextlib.suppress(IndexError):
                self.free.pop(0)


_pages = _Pages()


def on_kept_pages(like: Tensor, *shape: int) -> Tensor | None:
    """An uninitialised tensor of the dtype of ``like``; ``None`` where there are no such pages.

    Args:
        like: On the CPU.
        *shape: Its shape, of at least one number.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        return unaliased(_pages.lend(math.prod(shape), like.dtype), shape)
    except OSError:  # no memory, or too many mappings: malloc has the better words for it
        return None


def kept_bytes() -> int:
    """Bytes that are kept for later tensors, and hold none now."""
    return _pages.kept()


def give_back() -> None:
    """Gives all memory that holds no tensor back to the system, and forgets how much was in use."""
    _pages.give_back()

"""Several kernels, one after the other, for the price of waking threads once.

Waking a thread that sleeps takes as long as a layer's kernel on a small graph, and a pass over some relations has dozens of kernels.
Inside of :func:`in_one_go` calls are noted down, and run at its end: threads go through all kernels together, and wait for each other
in between. What only some kernels in a row need is in memory that the next ones get again (:func:`borrowed`).
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.threads import run_on_threads

__all__ = ["Step", "borrowed", "in_one_go", "run_step"]


class Step(NamedTuple):
    """One kernel."""

    kernel: int  # its address
    threads: int  # at most
    words: list[int]  # its argument; COUNTERS is filled in here
    counters: int  # position of COUNTERS
    kept: list[object]  # what the addresses lead to


_COUNTERS = 3  # of a kernel, behind its words
_WORD = 8


class _Noted(threading.local):
    """What a thread has noted down inside of :func:`in_one_go`."""

    steps: list[Step] | None = None
    memory: dict[str, Tensor] | None = None


_noted = _Noted()


@contextmanager
def in_one_go() -> Iterator[None]:
    """Kernels that are called inside run when the block ends; what they write is there only then.

    If an error ends it, none of them runs. Blocks inside of a block belong to the outer one.
    """
    if _noted.steps is not None:
        yield
        return
    steps: list[Step] = []
    _noted.steps, _noted.memory = steps, {}
    try:
        yield
    finally:
        _noted.steps = _noted.memory = None
    _run(steps)


def borrowed(name: str, like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor for the next kernels, until another call of this name; outside of :func:`in_one_go` a new one.

    Args:
        name: Of what it is for: what one kernel needs at a time has different names.
        like: Of the same dtype and device.
        *shape: Its shape; a single number is how many numbers it has at least.
    """
    memory = _noted.memory
    if memory is None:
        return empty(like, *shape)
    size = math.prod(shape)
    held = memory.get(name)
    if held is None or held.numel() < size or held.dtype != like.dtype:
        held = memory[name] = empty(like, size)
    return held if len(shape) == 1 else held[:size].view(shape)


def run_step(step: Step) -> None:
    """Runs a kernel and waits for it; inside of :func:`in_one_go` later."""
    if _noted.steps is None:
        _run([step])
    else:
        _noted.steps.append(step)


def _run(steps: list[Step]) -> None:
    if not steps:
        return
    from pyg_nsa.compiled.sequence_kernel import STEP_WORDS, run_steps  # imports Numba

    head = [len(steps), _yield_address()]
    at = len(head) + STEP_WORDS * len(steps)
    base = np.zeros(at + sum(len(s.words) + _COUNTERS for s in steps), dtype=np.int64)
    address = base.ctypes.data
    words: list[int] = []
    for step in steps:
        own = at + len(words)
        step.words[step.counters] = address + _WORD * (own + len(step.words))
        head += [step.kernel, address + _WORD * own, step.threads, 0, 0]
        words += step.words
        words += [0] * _COUNTERS
    base[:] = head + words
    if len(steps) == 1:  # needs nobody to go through them
        run_on_threads(steps[0].kernel, address + _WORD * at, steps[0].threads)
        return
    run_on_threads(run_steps(), address, max(step.threads for step in steps))


@functools.cache
def _yield_address() -> int:
    """Of the system's function that lets other threads have a core; 0: none."""
    if sys.platform not in ("linux", "darwin"):
        return 0
    return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0

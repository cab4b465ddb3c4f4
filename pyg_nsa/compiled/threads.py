"""Runs a compiled kernel on torch's own CPU threads.

torch's operators on a CPU run on an OpenMP runtime that the wheel brings along. Its threads stay awake for a while after
each operator, so a second set of threads would fight with them for the cores. Kernels here are therefore handed to that
runtime, through ``GOMP_parallel``, the entry point that compilers use (libgomp manual, "Implementing PARALLEL
construct"). Where torch has no such runtime (macOS, Windows) Python threads do it; the kernel releases the GIL.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

__all__ = ["run_on_threads"]

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run_on_threads(kernel: int, data: int, num_threads: int) -> None:
    """Calls ``kernel(data)`` once in each of ``num_threads`` threads and waits for all.

    Args:
        kernel: Address of a C function that takes one pointer; it divides the work by an atomic counter.
        data: The pointer.
        num_threads: 1 calls it here.
    """
    if num_threads == 1:
        _KERNEL(kernel)(data)
        return
    parallel = _gomp_parallel()
    if parallel is not None:
        parallel(kernel, data, num_threads, 0)
        return
    function = _KERNEL(kernel)
    others = [
        _pool(os.getpid(), num_threads).submit(function, data) for _ in range(num_threads - 1)
    ]
    function(data)
    for other in others:
        other.result()


@functools.cache
def _gomp_parallel() -> Callable[..., Any] | None:
    """``GOMP_parallel(function, data, num_threads, flags)`` of the runtime that torch has loaded."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        # torch has loaded it already, so this gives the same copy and not a second one.
        function = ctypes.CDLL(str(path)).GOMP_parallel
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


@functools.cache
def _pool(process: int, num_threads: int) -> ThreadPoolExecutor:
    # One for each process: threads do not survive a fork.
    return ThreadPoolExecutor(num_threads - 1, thread_name_prefix="pyg_nsa")

"""Compilation by Numba, kept on disk where that is possible."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["kept_on_disk", "kernel_address"]

#: Compiled functions: their code lives as long as they do.
_compiled: list[Any] = []


def kept_on_disk(compiler: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    """A decorator that compiles a function and keeps the result for other processes.

    Args:
        compiler: ``numba.njit`` or ``numba.cfunc``.
        *args: Its arguments, and
        **options: its options.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return _saved_if_possible(compiler(*args, cache=True, **options)(function))
        except OSError:  # the disk is full, and this one was compiled at once
            return compiler(*args, **options)(function)
        except RuntimeError as error:
            if "no locator" not in str(error):
                raise
            # Neither the package's folder nor the user's cache can be written: compile in each process.
            return compiler(*args, **options)(function)

    return decorate


def _saved_if_possible(compiled: Any) -> Any:
    """Lets what is compiled at a later call do without being kept where the disk is full; Numba raises that to the caller."""
    cache = getattr(compiled, "_cache", None)
    save = getattr(cache, "save_overload", None)
    if cache is None or save is None:
        return compiled

    def save_if_possible(*args: Any) -> None:
        with contextlib.suppress(OSError):
            save(*args)

    cache.save_overload = save_if_possible
    return compiled


def kernel_address(kernel: Callable[[Any], None]) -> int:
    """Compiles a kernel, a function of one pointer, and returns its address for
    :func:`pyg_nsa.compiled.threads.run_on_threads`."""
    from numba import cfunc, types

    from pyg_nsa.compiled.lanes import FASTMATH

    # Numba compiles again what it kept on disk when the kernel's own file changes, but not when a file does that the kernel
    # calls into; the name under which it is kept tells these apart.
    kernel.__qualname__ += f"_{_version()}"
    signature = types.void(types.voidptr)
    compiled = kept_on_disk(cfunc, signature, fastmath=FASTMATH, error_model="numpy")(kernel)
    _compiled.append(compiled)
    address: int = compiled.address
    return address


@functools.cache
def _version() -> str:
    """A hash of this folder's sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]

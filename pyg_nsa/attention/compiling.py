"""Compilation by Numba, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["kept_on_disk"]


def kept_on_disk(compiler: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    """A decorator that compiles a function and keeps the result for other processes.

    Args:
        compiler: ``numba.njit`` or ``numba.cfunc``.
        *args: Its arguments, and
        **options: its options.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return compiler(*args, cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator" not in str(error):
                raise
            # Neither the package's folder nor the user's cache can be written: compile in each process.
            return compiler(*args, **options)(function)

    return decorate

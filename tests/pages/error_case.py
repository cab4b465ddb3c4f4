"""What an entry of the error catalogue is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "raised"]


@dataclass(frozen=True)
class Case:
    """One entry.

    Attributes:
        name: The code of a problem, or the class of an exception; else what it is about, and `error` is the class.
        what: What is wrong.
        provoke: Makes it happen in an empty working directory, and returns the exception or warning.
        mend: What to do.
        error: The class of an exception that has neither a code nor a class of its own.
    """

    name: str
    what: str
    provoke: Callable[[Path], BaseException]
    mend: str
    error: str = ""


def raised(function: Callable[[], object]) -> BaseException:
    """What a call raises."""
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")

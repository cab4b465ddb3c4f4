"""Which metabolites have to be there for a network to run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["fewest_given"]

_Mask = NDArray[np.bool_]


def fewest_given(expand: Callable[[_Mask], tuple[bool, _Mask]], degree: NDArray[np.int64]) -> _Mask:
    """Gives what has the most reactions of all that is missing, until enough runs; then takes back what is not needed.

    Args:
        expand: From ``[M]``, what is given, to whether all runs that has to, and ``[M]``, what is there.
        degree: ``[M]``, reactions of each metabolite that may run; what one of them lacks has some.

    Returns:
        ``[M]`` bool.
    """
    given = np.zeros(degree.size, np.bool_)
    order = []
    while True:
        done, there = expand(given)
        if done:
            break
        best = int(np.where(there, -1, degree).argmax())
        given[best] = True
        order.append(best)
    for one in reversed(order):
        given[one] = False
        given[one] = not expand(given)[0]
    return given

"""The loops of :class:`pyg_nsa.cell.network.scope.Scope`, compiled by Numba at first use and kept on disk.

A ``network`` is a tuple of arrays: ``need [R]``, the number of substrates of each reaction node; ``start_u [M + 1]``, the range of
each metabolite in ``users [S]`` (the reaction nodes that use it); ``start_p [R + 1]``, the range of each node in ``products [P]``.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.compiled.compiling import kept_on_disk

__all__ = ["Network", "expand", "expand_each"]

_Index = NDArray[np.int64]
Network = tuple[_Index, _Index, _Index, _Index, _Index]


@kept_on_disk(numba.njit, nogil=True)
def _run(
    v: int,
    runs: NDArray[np.bool_],
    there: NDArray[np.bool_],
    stack: _Index,
    length: int,
    network: Network,
) -> int:
    """Lets a node run, and stacks what it is first to make; returns the length of the stack."""
    _, _, _, start_p, products = network
    runs[v] = True
    for e in range(start_p[v], start_p[v + 1]):
        m = products[e]
        if not there[m]:
            there[m] = True
            stack[length] = m
            length += 1
    return length


@kept_on_disk(numba.njit, nogil=True)
def expand(
    alive: NDArray[np.bool_],
    seeds: NDArray[np.bool_],
    runs: NDArray[np.bool_],
    there: NDArray[np.bool_],
    network: Network,
) -> None:
    """Lets every node run that has its substrates, until nothing more follows.

    Args:
        alive: ``[R]``, nodes that may run.
        seeds: ``[M]``, metabolites that are there from the start.
        runs: ``[R]``, takes the nodes that run.
        there: ``[M]``, takes the metabolites that are there.
        network: See the module.
    """
    need, start_u, users, _, _ = network
    missing = need.copy()
    stack = np.empty(seeds.size, np.int64)
    length = 0
    runs[:] = False
    there[:] = seeds
    for m in range(seeds.size):
        if seeds[m]:
            stack[length] = m
            length += 1
    for v in range(need.size):
        if alive[v] and not need[v]:
            length = _run(v, runs, there, stack, length, network)
    while length:
        length -= 1
        m = stack[length]
        for e in range(start_u[m], start_u[m + 1]):
            v = users[e]
            missing[v] -= 1
            if not missing[v] and alive[v]:
                length = _run(v, runs, there, stack, length, network)


@kept_on_disk(numba.njit, nogil=True)
def expand_each(
    instance: _Index,
    node: _Index,
    is_open: NDArray[np.bool_],
    seeds: NDArray[np.bool_],
    runs: NDArray[np.bool_],
    there: NDArray[np.bool_],
    network: Network,
) -> None:
    """Expands once for each instance.

    Args:
        instance: ``[D]``, ascending, the instance of each removed node, and
        node: ``[D]``, which it is.
        is_open: ``[R]``, nodes that may run without any removal.
        seeds: ``[M]``, metabolites that are there from the start.
        runs: ``[B, R]``, takes the nodes that run; rows of instances without a removed node are left alone, and
        there: ``[B, M]``, takes the metabolites that are there.
        network: See the module.
    """
    alive = is_open.copy()
    first = 0
    while first < instance.size:
        last = first
        while last < instance.size and instance[last] == instance[first]:
            alive[node[last]] = False
            last += 1
        row = instance[first]
        expand(alive, seeds, runs[row], there[row], network)
        for k in range(first, last):
            alive[node[k]] = is_open[node[k]]
        first = last

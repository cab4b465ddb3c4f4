"""The loops of :class:`pyg_nsa.cell.network.blocked.BlockedReactions`, compiled by Numba at first use and kept on disk.

The network is given as arrays: ``start_m [M + 1]``, the range of each metabolite in ``nodes [E]`` (the reaction nodes that make or
use it) and ``makes [E]`` (which of the two); ``start_n [R + 1]``, the range of each node in ``metabolites [E]``; and
``reaction [R]``, the reaction that each node is a direction (and a clause) of.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.attention.compiling import kept_on_disk

__all__ = ["spread", "spread_each"]

_Index = NDArray[np.int64]


@kept_on_disk(numba.njit, nogil=True)
def spread(
    alive: NDArray[np.uint8],
    queue: _Index,
    waiting: NDArray[np.uint8],
    length: int,
    found: _Index,
    start_m: _Index,
    nodes: _Index,
    makes: NDArray[np.bool_],
    start_n: _Index,
    metabolites: _Index,
    reaction: _Index,
) -> int:
    """Blocks until nothing more follows.

    Args:
        alive: ``[R]``, nodes that may carry flux; changed in place.
        queue: ``[M]``, a ring; its first ``length`` entries are the metabolites to look at.
        waiting: ``[M]``, which metabolites are in the queue; all 0 at the end.
        length: How many are.
        found: Takes the nodes that are blocked.
        start_m, nodes, makes, start_n, metabolites, reaction: The network.

    Returns:
        How many nodes were blocked.
    """
    head, count = 0, 0
    while length:
        m = queue[head]
        head = (head + 1) % queue.size
        length -= 1
        waiting[m] = 0
        # Of the reactions that make it, and of those that use it, one and another one; -1 is none.
        maker, other_maker, user, other_user = -1, -1, -1, -1
        for e in range(start_m[m], start_m[m + 1]):
            if alive[nodes[e]]:
                r = reaction[nodes[e]]
                if makes[e]:
                    if maker < 0:
                        maker = r
                    elif r != maker:
                        other_maker = r
                elif user < 0:
                    user = r
                elif r != user:
                    other_user = r
                if other_maker >= 0 and other_user >= 0:
                    break
        if other_maker >= 0 and other_user >= 0:
            continue  # Nothing is blocked by this one; hubs such as water have a thousand reactions.
        for e in range(start_m[m], start_m[m + 1]):
            v = nodes[e]
            if not alive[v]:
                continue
            if makes[e]:
                blocked = user < 0 or (user == reaction[v] and other_user < 0)
            else:
                blocked = maker < 0 or (maker == reaction[v] and other_maker < 0)
            if blocked:
                alive[v] = 0
                found[count] = v
                count += 1
                for f in range(start_n[v], start_n[v + 1]):
                    neighbour = metabolites[f]
                    if not waiting[neighbour]:
                        waiting[neighbour] = 1
                        queue[(head + length) % queue.size] = neighbour
                        length += 1
    return count


@kept_on_disk(numba.njit, nogil=True)
def spread_each(
    instance: _Index,
    node: _Index,
    is_open: NDArray[np.uint8],
    out: NDArray[np.bool_],
    start_m: _Index,
    nodes: _Index,
    makes: NDArray[np.bool_],
    start_n: _Index,
    metabolites: _Index,
    reaction: _Index,
) -> None:
    """Blocks what follows from the removed nodes of each instance.

    Args:
        instance: ``[D]``, ascending, the instance of each removed node, and
        node: ``[D]``, which it is.
        is_open: ``[R]``, nodes that may carry flux without any removal.
        out: ``[B, R]``, set where a node of ``is_open`` is removed or blocked.
        start_m, nodes, makes, start_n, metabolites, reaction: The network.
    """
    alive = is_open.copy()
    queue = np.empty(start_m.size - 1, np.int64)
    waiting = np.zeros(start_m.size - 1, np.uint8)
    found = np.empty(alive.size, np.int64)
    first = 0
    while first < instance.size:
        count, length, last = 0, 0, first
        while last < instance.size and instance[last] == instance[first]:
            v = node[last]
            last += 1
            if alive[v]:
                alive[v] = 0
                found[count] = v
                count += 1
                for e in range(start_n[v], start_n[v + 1]):
                    if not waiting[metabolites[e]]:
                        waiting[metabolites[e]] = 1
                        queue[length] = metabolites[e]
                        length += 1
        count += spread(
            alive,
            queue,
            waiting,
            length,
            found[count:],
            start_m,
            nodes,
            makes,
            start_n,
            metabolites,
            reaction,
        )
        for k in range(count):
            out[instance[first], found[k]] = True
            alive[found[k]] = 1
        first = last

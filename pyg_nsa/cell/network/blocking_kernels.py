"""The loops of :class:`pyg_nsa.cell.network.blocked.BlockedReactions`, compiled by Numba at first use and kept on disk.

A ``network`` is a tuple of arrays: ``start_m [M + 1]``, the range of each metabolite in ``nodes [E]`` (the reaction nodes that make
or use it) and ``makes [E]`` (which of the two); ``start_n [R + 1]``, the range of each node in ``metabolites [E]``; and
``reaction [R]``, the reaction that each node is a direction (and a clause) of.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.compiled.compiling import kept_on_disk

__all__ = ["Network", "spread", "spread_each"]

_Index = NDArray[np.int64]
Network = tuple[_Index, _Index, NDArray[np.bool_], _Index, _Index, _Index]


@kept_on_disk(numba.njit, nogil=True)
def _lose(
    v: int,
    alive: NDArray[np.uint8],
    queue: _Index,
    waiting: NDArray[np.uint8],
    head: int,
    length: int,
    network: Network,
) -> int:
    """Takes a node away, and queues its metabolites; returns the length of the queue."""
    _, _, _, start_n, metabolites, _ = network
    alive[v] = 0
    for e in range(start_n[v], start_n[v + 1]):
        m = metabolites[e]
        if not waiting[m]:
            waiting[m] = 1
            queue[(head + length) % queue.size] = m
            length += 1
    return length


@kept_on_disk(numba.njit, nogil=True)
def spread(
    alive: NDArray[np.uint8],
    queue: _Index,
    waiting: NDArray[np.uint8],
    length: int,
    found: _Index,
    network: Network,
) -> int:
    """Blocks until nothing more follows.

    Args:
        alive: ``[R]``, nodes that may carry flux; changed in place.
        queue: ``[M]``, a ring; its first ``length`` entries are the metabolites to look at.
        waiting: ``[M]``, which metabolites are in the queue; all 0 at the end.
        length: How many are.
        found: Takes the nodes that are blocked.
        network: See the module.

    Returns:
        How many nodes were blocked.
    """
    start_m, nodes, makes, _, _, reaction = network
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
                    break  # Hubs such as water have a thousand reactions.
        if other_maker >= 0 and other_user >= 0:
            continue  # Nothing is blocked by this one.
        for e in range(start_m[m], start_m[m + 1]):
            v = nodes[e]
            if not alive[v]:
                continue
            if makes[e]:
                blocked = user < 0 or (user == reaction[v] and other_user < 0)
            else:
                blocked = maker < 0 or (maker == reaction[v] and other_maker < 0)
            if blocked:
                length = _lose(v, alive, queue, waiting, head, length, network)
                found[count] = v
                count += 1
    return count


@kept_on_disk(numba.njit, nogil=True)
def spread_each(
    instance: _Index,
    node: _Index,
    is_open: NDArray[np.uint8],
    out: NDArray[np.bool_],
    network: Network,
) -> None:
    """Blocks what follows from the removed nodes of each instance.

    Args:
        instance: ``[D]``, ascending, the instance of each removed node, and
        node: ``[D]``, which it is.
        is_open: ``[R]``, nodes that may carry flux without any removal.
        out: ``[B, R]``, set where a node of ``is_open`` is removed or blocked.
        network: See the module.
    """
    alive = is_open.copy()
    metabolites = network[0].size - 1
    queue = np.empty(metabolites, np.int64)
    waiting = np.zeros(metabolites, np.uint8)
    found = np.empty(alive.size, np.int64)
    first = 0
    while first < instance.size:
        count, length, last = 0, 0, first
        while last < instance.size and instance[last] == instance[first]:
            v = node[last]
            last += 1
            if alive[v]:
                length = _lose(v, alive, queue, waiting, 0, length, network)
                found[count] = v
                count += 1
        count += spread(alive, queue, waiting, length, found[count:], network)
        for k in range(count):
            out[instance[first], found[k]] = True
            alive[found[k]] = 1
        first = last

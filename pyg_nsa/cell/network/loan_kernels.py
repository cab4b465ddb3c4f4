"""The loops of :class:`pyg_nsa.cell.network.loans.Loans`, compiled by Numba at first use and kept on disk.

A ``unit`` is a reaction in one direction. A ``network`` is a tuple of arrays: ``start_s [U + 1]``, the range of each unit in
``substrates [S]`` and ``used [S]`` (how much of it); ``start_p [U + 1]``, its range in ``products [P]`` and ``made [P]``;
``owner [S]``, the unit of each use; ``start_u [M + 1]``, the range of each metabolite in ``uses [S]`` (places in ``substrates``);
``keys [K]``, ascending ``product * M + substrate`` of all pairs that a unit has, ``start_k [K + 1]`` the range of each in ``use [Q]``
(the place of the substrate) and ``rate [Q]`` (how much of the product comes of one of it); ``reaction [U]``, the reaction of each unit.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.compiled.compiling import kept_on_disk

__all__ = ["EQUAL", "Network", "expand", "find"]

_Index = NDArray[np.int64]
_Amount = NDArray[np.float64]
_Mask = NDArray[np.bool_]
Network = tuple[
    _Index, _Index, _Amount, _Index, _Index, _Amount, _Index, _Index, _Index,
    _Index, _Index, _Index, _Amount, _Index,
]  # fmt: skip

EQUAL = 1e-9  # amounts of which the ratio is this close to 1 are the same


@kept_on_disk(numba.njit, nogil=True)
def find(keys: _Index, key: int) -> int:
    """Where a key stands; -1 if it does not."""
    at = np.searchsorted(keys, key)
    return int(at) if at < keys.size and keys[at] == key else -1


@kept_on_disk(numba.njit, nogil=True)
def _promised(
    u: int, m: int, but: int, there: _Mask, payer: _Index, start_s: _Index, substrates: _Index
) -> bool:
    """Whether a unit gives a product to pay for a use, other than the use ``but``."""
    for e in range(start_s[u], start_s[u + 1]):
        if e != but and payer[e] == m and not there[substrates[e]]:
            return True
    return False


@kept_on_disk(numba.njit, nogil=True)
def _make(m: int, there: _Mask, stack: _Index, length: int) -> int:
    if not there[m]:
        there[m] = True
        stack[length] = m
        length += 1
    return length


@kept_on_disk(numba.njit, nogil=True)
def _give(
    u: int,
    but: int,
    returned: int,
    there: _Mask,
    payer: _Index,
    stack: _Index,
    length: int,
    network: Network,
) -> int:
    """Makes the products of a unit that are not promised, without ``returned``; returns the length of the stack."""
    start_s, substrates, _, start_p, products, _, _, _, _, _, _, _, _, _ = network
    for k in range(start_p[u], start_p[u + 1]):
        m = products[k]
        if m != returned and not _promised(u, m, but, there, payer, start_s, substrates):
            length = _make(m, there, stack, length)
    return length


@kept_on_disk(numba.njit, nogil=True)
def _deliver(
    v: int,
    there: _Mask,
    payer: _Index,
    backer: _Index,
    gain: _Amount,
    stack: _Index,
    length: int,
    network: Network,
) -> int:
    """Makes what a running unit makes, and what the units that pay for it make beside that."""
    start_s, substrates, _, _, _, _, owner, _, _, _, _, _, _, _ = network
    length = _give(v, -1, -1, there, payer, stack, length, network)
    for e in range(start_s[v], start_s[v + 1]):
        s = substrates[e]
        if backer[e] < 0 or there[s]:
            continue
        if gain[e] > 0:
            length = _make(s, there, stack, length)
        use = backer[e]
        length = _give(owner[use], use, s, there, payer, stack, length, network)
    return length


@kept_on_disk(numba.njit, nogil=True)
def expand(alive: _Mask, seeds: _Mask, runs: _Mask, there: _Mask, network: Network) -> None:
    """Lets every unit run that has, or can borrow, its substrates, until nothing more follows.

    Args:
        alive: ``[U]``, units that may run.
        seeds: ``[M]``, metabolites that are there from the start.
        runs: ``[U]``, takes the units that run.
        there: ``[M]``, takes the metabolites that are there.
        network: See the module.
    """
    start_s, substrates, used, start_p, products, made, owner, start_u, uses = network[:9]
    keys, start_k, lender, rate, reaction = network[9:]
    units, metabolites, places = start_s.size - 1, start_u.size - 1, substrates.size
    missing = start_s[1:] - start_s[:-1]  # substrates that are not there
    lack = missing.copy()  # those of them that can't be borrowed either
    payer = np.full(places, -1, np.int64)  # the product that pays for a use,
    backer = np.full(places, -1, np.int64)  # the use of that product which turns it back,
    gain = np.zeros(places)  # and how much more comes back than was borrowed
    helper = np.full(
        units, -1, np.int64
    )  # another product of a borrower, which turning a payer back takes a part of
    stack = np.empty(metabolites, np.int64)
    look = np.empty(units, np.int64)  # units that may have something new to pay with
    waiting = np.zeros(units, np.bool_)
    length = looking = 0
    runs[:] = False
    there[:] = seeds
    for m in range(metabolites):
        if seeds[m]:
            stack[length] = m
            length += 1
    for u in range(units):
        if alive[u] and not lack[u]:
            runs[u] = True
            length = _give(u, -1, -1, there, payer, stack, length, network)
        elif alive[u] and lack[u] <= 2:
            waiting[u] = True
            look[looking] = u
            looking += 1
    while length or looking:
        while length:
            length -= 1
            m = stack[length]
            for q in range(start_u[m], start_u[m + 1]):
                e = uses[q]
                u = owner[e]
                missing[u] -= 1
                if payer[e] < 0:
                    lack[u] -= 1
                if not alive[u] or lack[u] > 2:
                    continue
                if not lack[u]:
                    runs[u] = True
                    length = _deliver(u, there, payer, backer, gain, stack, length, network)
                if missing[u] and not waiting[u]:
                    waiting[u] = True
                    look[looking] = u
                    looking += 1
        if not looking:
            break
        looking -= 1
        w = look[looking]
        waiting[w] = False
        for ep in range(start_s[w], start_s[w + 1]):
            p = substrates[ep]
            others = lack[w] - (payer[ep] < 0)
            if there[p] or others > 1:
                continue
            # All but p is there or borrowed, so this unit turns p into its products: a debt of one of them can be paid with p. One
            # thing more may be lacking, if the debtor makes more of it than this takes.
            ex = -1
            if others:
                for e in range(start_s[w], start_s[w + 1]):
                    if e != ep and payer[e] < 0 and not there[substrates[e]]:
                        ex = e
            end = start_p[w + 1]
            for k in range(start_p[w], end + start_s[w + 1] - start_s[w]):
                if k < end:
                    s, amount = products[k], made[k]
                    if s == helper[w] or _promised(w, s, ep, there, payer, start_s, substrates):
                        continue
                else:  # what it borrows and gives back more of is a product, too
                    e = start_s[w] + k - end
                    s, amount = substrates[e], gain[e]
                    if e == ep or amount <= 0:
                        continue
                if there[s] or s == p:
                    continue
                found = find(keys, p * metabolites + s)
                if found < 0:
                    continue
                for q in range(start_k[found], start_k[found + 1]):
                    e = lender[q]
                    v = owner[e]
                    # Its own other direction takes all of it back, and nothing has happened.
                    if not alive[v] or not missing[v] or reaction[v] == reaction[w]:
                        continue
                    back = rate[q] * amount / used[ep]
                    if back < 1 - EQUAL:
                        continue
                    if ex >= 0:
                        x = substrates[ex]
                        if (helper[v] >= 0 and (helper[v] != x or payer[e] < 0)) or _promised(
                            v, x, -1, there, payer, start_s, substrates
                        ):
                            continue
                        spare = -used[ex] * rate[q] * used[e] / used[ep]
                        for k2 in range(start_p[v], start_p[v + 1]):
                            if products[k2] == x:
                                spare += made[k2]
                        if spare <= EQUAL:
                            continue
                    new = False
                    if payer[e] < 0:
                        if p == helper[v] or _promised(v, p, e, there, payer, start_s, substrates):
                            continue
                        if ex >= 0:
                            helper[v] = substrates[ex]
                        payer[e], backer[e] = p, ep
                        lack[v] -= 1
                        new = True
                    if payer[e] != p or (ex >= 0 and backer[e] != ep):
                        continue
                    if back > 1 + EQUAL and gain[e] <= 0:
                        gain[e] = (back - 1) * used[e]
                        new = True
                    if not lack[v]:
                        if new:
                            runs[v] = True
                            length = _deliver(v, there, payer, backer, gain, stack, length, network)
                        if not there[s]:
                            length = _give(w, ep, s, there, payer, stack, length, network)
                    if not new:
                        continue
                    if lack[v] <= 2 and not waiting[v]:
                        waiting[v] = True
                        look[looking] = v
                        looking += 1
                    if not lack[v]:  # others may turn what it pays with into more
                        for e2 in range(start_s[v], start_s[v + 1]):
                            if payer[e2] < 0 or there[substrates[e2]]:
                                continue
                            for q2 in range(start_u[payer[e2]], start_u[payer[e2] + 1]):
                                u = owner[uses[q2]]
                                if alive[u] and lack[u] <= 2 and missing[u] and not waiting[u]:
                                    waiting[u] = True
                                    look[looking] = u
                                    looking += 1

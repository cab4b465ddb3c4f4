"""Loans that are paid back in several steps: the loops behind :mod:`pyg_nsa.cell.network.returns`, compiled by Numba at first use.

``worth[p, s]`` says how much of ``s`` one ``p`` can be turned into, if everything else that this takes is there, or is paid back on
the way. A reaction that has but one substrate to pay with makes the worth of that substrate: what its products are worth together,
one branch and the other. So worth grows from below, step by step, and every value is that of steps which a network can take.

A reaction runs on loans if its products are worth all that it lacks. What is left of them then is made.

``network`` is that of :mod:`~pyg_nsa.cell.network.loan_kernels`. Metabolites have places here: those that are missing and stand in a
cycle of missing ones, numbered so that each strongly connected part is a range; only such can pay, or be paid back.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.network.loan_kernels import EQUAL, Network, find
from pyg_nsa.compiled.compiling import kept_on_disk

__all__ = ["pay_back"]

_Index = NDArray[np.int64]
_Amount = NDArray[np.float64]
_Mask = NDArray[np.bool_]
_Step = tuple[_Index, _Index, _Amount, _Index, _Amount]  # see _empty

_BETTER = 1 + 1e-6  # a worth that grows by less has converged
_LARGE = 1e6  # of what amplifies itself there is no end
_SWEEPS = 40  # over all reactions; more have never been needed
_LACKS = 4  # substrates that a reaction may lack to be a step of others


@kept_on_disk(numba.njit, nogil=True)
def _empty(width: int) -> _Step:
    """A step without content: numbers of substrates and products, then their places and amounts.

    Places are those of missing metabolites; a product that pays for nothing is ``-1 - metabolite``.
    """
    return (
        np.zeros(2, np.int64),
        np.empty(width, np.int64),
        np.empty(width, np.float64),
        np.empty(width, np.int64),
        np.empty(width, np.float64),
    )


@kept_on_disk(numba.njit, nogil=True)
def _read(u: int, there: _Mask, place: _Index, step: _Step, network: Network) -> bool:
    """Reads what is missing of a unit's substrates and products; ``False`` if something can't be paid back at all."""
    start_s, substrates, used, start_p, products, made = network[:6]
    size, lacks, need, gives, amount = step
    size[:] = 0
    for e in range(start_s[u], start_s[u + 1]):
        m = substrates[e]
        if not there[m]:
            if place[m] < 0:
                return False
            lacks[size[0]], need[size[0]] = place[m], used[e]
            size[0] += 1
    for e in range(start_p[u], start_p[u + 1]):
        m = products[e]
        if not there[m]:
            gives[size[1]] = place[m] if place[m] >= 0 else -1 - m
            amount[size[1]] = made[e]
            size[1] += 1
    return True


@kept_on_disk(numba.njit, nogil=True)
def _cancel(count: int, places: _Index, amounts: _Amount, one: int, much: float) -> float:
    """Takes up to ``much`` of a place out of a list; returns what is not in it."""
    for i in range(count):
        if places[i] == one:
            taken = min(much, amounts[i])
            amounts[i] = amounts[i] - taken if amounts[i] > taken * (1 + EQUAL) else 0.0
            return much - taken if much > taken * (1 + EQUAL) else 0.0
    return much


@kept_on_disk(numba.njit, nogil=True)
def _together(step: _Step, other: _Step, share: float, both: _Step) -> None:
    """One step of two: ``share`` of the other for one of the first."""
    size, lacks, need, gives, amount = both
    size[0], size[1] = step[0][0], step[0][1]
    lacks[: size[0]], need[: size[0]] = step[1][: size[0]], step[2][: size[0]]
    gives[: size[1]], amount[: size[1]] = step[3][: size[1]], step[4][: size[1]]
    first_lacks, first_gives = size[0], size[1]
    for i in range(other[0][0]):
        rest = _cancel(first_gives, gives, amount, other[1][i], share * other[2][i])
        if rest > 0:
            lacks[size[0]], need[size[0]] = other[1][i], rest
            size[0] += 1
    for i in range(other[0][1]):
        rest = _cancel(first_lacks, lacks, need, other[3][i], share * other[4][i])
        if rest > 0:
            gives[size[1]], amount[size[1]] = other[3][i], rest
            size[1] += 1
    kept = 0
    for i in range(size[0]):
        if need[i] > 0:
            lacks[kept], need[kept] = lacks[i], need[i]
            kept += 1
    size[0] = kept


@kept_on_disk(numba.njit, nogil=True)
def _settle(
    step: _Step, but: int, spared: int, left: _Amount, paid: _Mask, worth: NDArray[np.float64]
) -> tuple[bool, bool]:
    """Pays for all that a step lacks, but for one, with its products.

    What the fewest can pay for is paid first, by the product that could pay for the fewest others.

    Args:
        step: What is lacked and made.
        but: The substrate that need not be paid for; -1 for none.
        spared: The product that pays only if no other can; -1 for none.
        left: Takes what is left of each product.
        paid: Scratch.
        worth: See the module.

    Returns:
        Whether all is paid, and whether there was a choice.
    """
    size, lacks, need, gives, amount = step
    left[: size[1]] = amount[: size[1]]
    paid[: size[0]] = False
    choice = False
    for _ in range(size[0]):
        next_, fewest = -1, 1 << 30
        for i in range(size[0]):
            if i == but or paid[i]:
                continue
            payers = 0
            for k in range(size[1]):
                if gives[k] >= 0 and left[k] > 0 and worth[gives[k], lacks[i]] > 0:
                    payers += 1
            if payers < fewest:
                next_, fewest = i, payers
        if next_ < 0:
            break
        choice = choice or fewest > 1
        s, debt = lacks[next_], need[next_]
        paid[next_] = True
        while debt > EQUAL * need[next_]:
            best, least = -1, 1 << 30
            for k in range(size[1]):
                if gives[k] < 0 or left[k] <= 0 or worth[gives[k], s] <= 0:
                    continue
                others = 1 << 20 if k == spared else 0
                for i in range(size[0]):
                    if i != next_ and worth[gives[k], lacks[i]] > 0:
                        others += 1
                if others < least:
                    best, least = k, others
            if best < 0:
                return False, choice
            value = worth[gives[best], s]
            taken = min(left[best], debt / value)
            debt -= taken * value
            left[best] = left[best] - taken if left[best] - taken > EQUAL * amount[best] else 0.0
    return True, choice


@kept_on_disk(numba.njit, nogil=True)
def _improve(
    step: _Step, but: int, left: _Amount, end: _Index, worth: NDArray[np.float64], row: _Amount
) -> bool:
    """Raises what a substrate is worth to what is left of a step's products; whether it was less."""
    size, lacks, need, gives, _ = step
    p = lacks[but]
    low, high = end[p, 0], end[p, 1]
    row[low:high] = 0.0
    for k in range(size[1]):
        q = gives[k]
        if left[k] > 0 and low <= q < high:
            rate = left[k] / need[but]
            for s in range(low, high):
                row[s] += rate * worth[q, s]
    row[p] = 0.0  # more of itself is found where it is borrowed
    better = False
    for s in range(low, high):
        if row[s] > worth[p, s] * _BETTER and worth[p, s] < _LARGE:
            worth[p, s] = row[s]
            better = True
    return better


@kept_on_disk(numba.njit, nogil=True)
def _take(
    step: _Step,
    there: _Mask,
    metabolite: _Index,
    end: _Index,
    worth: NDArray[np.float64],
    stamp: _Index,
    now: int,
    scratch: tuple[_Amount, _Mask, _Amount],
) -> tuple[bool, bool]:
    """Lets a step run if it can, and makes what is left of its products; else, or too, raises what its substrates are worth.

    Returns:
        Whether it runs, and whether anything was made or raised.
    """
    left, paid, row = scratch
    size, lacks, _, gives, _ = step
    runs = news = False
    for spared in range(-1, size[1]):
        settled, choice = _settle(step, -1, spared, left, paid, worth)
        if settled:
            runs = True
            for k in range(size[1]):
                m = metabolite[gives[k]] if gives[k] >= 0 else -1 - gives[k]
                if left[k] > 0 and not there[m]:
                    there[m] = news = True
                    stamp[m] = now + 1
        if not choice:
            break
    if size[0] > _LACKS:
        return runs, news
    for but in range(size[0]):
        if end[lacks[but], 1] - end[lacks[but], 0] < 2:
            continue
        for spared in range(-1, size[1]):
            settled, choice = _settle(step, but, spared, left, paid, worth)
            if settled and _improve(step, but, left, end, worth, row):
                stamp[metabolite[lacks[but]]] = now + 1
                news = True
            if not choice:
                break
    return runs, news


@kept_on_disk(numba.njit, nogil=True)
def _newest(u: int, stamp: _Index, network: Network) -> int:
    """When something changed last for a unit."""
    start_s, substrates, _, start_p, products = network[:5]
    newest = 0
    for e in range(start_s[u], start_s[u + 1]):
        newest = max(newest, stamp[substrates[e]])
    for e in range(start_p[u], start_p[u + 1]):
        newest = max(newest, stamp[products[e]])
    return newest


@kept_on_disk(numba.njit, nogil=True)
def pay_back(
    alive: _Mask,
    runs: _Mask,
    there: _Mask,
    metabolite: _Index,
    end: _Index,
    network: Network,
) -> None:
    """Lets every unit run that can pay back what it borrows, in as many steps as that takes.

    Args:
        alive: ``[U]``, units that may run.
        runs: ``[U]``, units that run; more are added.
        there: ``[M]``, metabolites that are there; more are added.
        metabolite: ``[N]``, the metabolite of each place.
        end: ``[N, 2]``, the range of places that each place stands in a cycle with.
        network: See the module.
    """
    start_s, substrates, used, start_p, _, _, owner = network[:7]
    keys, start_k, lender, rate, reaction = network[9:]
    units, metabolites, places = start_s.size - 1, there.size, metabolite.size
    place = np.full(metabolites, -1, np.int64)
    for n in range(places):
        place[metabolite[n]] = n
    worth = np.zeros((places, places))
    for n in range(places):
        worth[n, n] = 1.0
    waiting = np.empty(units, np.int64)
    width = count = 0
    for u in range(units):
        if not alive[u]:
            continue
        for e in range(start_s[u], start_s[u + 1]):
            if not there[substrates[e]]:
                waiting[count] = u
                count += 1
                width = max(width, max(start_s[u + 1] - start_s[u], start_p[u + 1] - start_p[u]))
                break
    step, other, both = _empty(width), _empty(width), _empty(2 * width)
    scratch = (np.empty(2 * width), np.empty(2 * width, np.bool_), np.empty(places))
    stamp = np.ones(metabolites, np.int64)
    seen = np.zeros(units, np.int64)
    now, paired = 1, 0
    for sweep in range(_SWEEPS):
        news = False
        for at in range(count):
            u = waiting[at if sweep % 2 == 0 else count - 1 - at]
            if _newest(u, stamp, network) <= seen[u]:
                continue
            now += 1
            seen[u] = now
            if not _read(u, there, place, step, network):
                continue
            ran, new = _take(step, there, metabolite, end, worth, stamp, now, scratch)
            news = news or new or (ran and not runs[u])
            runs[u] = runs[u] or ran
        if news and sweep % 4 != 3:
            continue
        # Two that need each other: one turns the other's product back, with the help of what else the two make.
        before, paired = paired, now
        for at in range(count):
            u = waiting[at]
            fresh = _newest(u, stamp, network) > before
            if not _read(u, there, place, step, network) or step[0][0] > _LACKS:
                continue
            for i in range(step[0][0]):
                for k in range(step[0][1]):
                    p, s = step[3][k], step[1][i]
                    if p < end[s, 0] or p >= end[s, 1] or p == s:
                        continue
                    if worth[p, s] * step[4][k] >= step[2][i] * (1 - EQUAL):
                        continue
                    key = metabolite[s] * metabolites + metabolite[p]
                    found = find(keys, key)
                    if found < 0:
                        continue
                    for q in range(start_k[found], start_k[found + 1]):
                        v = owner[lender[q]]
                        if not alive[v] or reaction[v] == reaction[u]:
                            continue
                        if not fresh and _newest(v, stamp, network) <= before:
                            continue
                        if not _read(v, there, place, other, network) or other[0][0] > _LACKS:
                            continue
                        share = min(
                            step[2][i] / (rate[q] * used[lender[q]]), step[4][k] / used[lender[q]]
                        )
                        _together(step, other, share, both)
                        now += 1
                        ran, new = _take(both, there, metabolite, end, worth, stamp, now, scratch)
                        news = news or new or (ran and not (runs[u] and runs[v]))
                        if ran:
                            runs[u] = runs[v] = True
        if not news:
            break

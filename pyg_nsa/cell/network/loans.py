"""What a deletion leaves without means, if a reaction may borrow what it pays back: scopes that know amounts, without a linear program.

From nutrients alone the scope (:mod:`~pyg_nsa.cell.network.scope`) reaches little, since a carrier such as ATP is needed to make
itself. There a few carriers are given, and nothing is learned about their own making. Variants of the method list cofactors that may
be used as such before they are made, ATP as a donor of phosphate for instance, though not as a substrate (Handorf, Ebenhöh & Heinrich,
*Journal of Molecular Evolution* 61, 2005). Here no list is needed, for the amounts tell: **a reaction may borrow what one of its
products pays back.** If a reaction makes ADP of ATP, and another one makes ATP of ADP, the two together need no ATP; the ADP is used up, and what
else both make is there. The other substrates of the second one must be there, or borrowed themselves, or more of them must come of the
first one than the second takes. If as much comes back as was borrowed, the carrier itself is not made. If more comes back, it is: two
glutamates of one, by glutamine, start a cycle that a transaminase, which gives back one for one, does not. A reaction's own other
direction pays nothing.

Where that leaves something out, loans may also be paid back in several steps (:mod:`~pyg_nsa.cell.network.returns`): by a chain of
reactions, by branches together, or by two reactions of which each needs what the other makes. So the glyoxylate cycle makes two malates of
an oxaloacetate, and glycolysis gives back the ATP that it begins with.

So the making of ATP, NAD or coenzyme A, or the loading of a carrier protein, is judged like that of anything else, and nothing is given as
long as the objective runs without; else a few metabolites are, as few as let it run (:attr:`Loans.given`; if the graph names no objective,
as few as let everything run). What does not run in the wildtype even so is left out, as blocked reactions are.

What can't run also blocks: reactions around it can't be in balance any more (:mod:`~pyg_nsa.cell.network.blocked`), they make nothing,
and so on in turn.

All that is found to be there can be made without using up anything but nutrients and what is given; tests compare it with linear
programs. It is not complete: at most two reactions pay together. Nor does it judge yields: a slower way round is a way round. And what
is left over may be left, so that a by-product that can't leave the cell is seen only if it blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.given import fewest_given
from pyg_nsa.cell.network.returns import Turns
from pyg_nsa.cell.network.shared import once_per_graph

__all__ = ["Loans"]

_RELATION = ("reaction", "rmr", "metabolite")
_KEPT = 50_000  # results: of iJO1366 80 MB
_PAID = 10_000  # of what is paid back in several steps


class Loans:
    """Finds what deletions leave without means.

    Results are kept, so that asking again about the same removed reactions costs nothing; :meth:`of` also shares them.

    Args:
        graph: The base graph, with signed stoichiometry and one reaction node for each direction
            (:meth:`BlockedReactions.known <pyg_nsa.cell.network.blocked.BlockedReactions.known>`). A reaction without substrates
            (an open exchange) gives a nutrient.

    Attributes:
        given: ``[M]`` bool, metabolites that are there from the start, besides the nutrients.
        runs: ``[R]`` bool, reaction nodes that run in the wildtype; the others are never looked at.
        there: ``[M]`` bool, metabolites that are there in the wildtype.
    """

    def __init__(self, graph: HeteroData) -> None:
        reactions, metabolites = graph["reaction"], int(graph["metabolite"].num_nodes)
        named = torch.stack([reactions.reaction_index, reactions.direction]).cpu().numpy()
        units, first, unit = np.unique(named, axis=1, return_index=True, return_inverse=True)
        self._unit = unit.reshape(-1)  # isozymes are one: whichever is left runs
        self._units = units.shape[1]
        self._network = _network(graph, self._unit, first, units[0], metabolites)
        self._turns = _turns(self._network, metabolites)
        self._blocked = BlockedReactions(graph)
        self._open = self._blocked.open.astype(np.bool_)
        node, metabolite = graph[_RELATION].edge_index.cpu().numpy()
        degree = np.bincount(metabolite[self._open[node]], minlength=metabolites)
        self._paid: dict[bytes, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._known: dict[bytes, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        grows = reactions.objective.cpu().numpy() > 0 if "objective" in reactions else np.True_
        self._needed = self._open & grows
        self.given = fewest_given(self._runs_enough, degree)
        self.runs, self.there = self._balanced(self._open)
        self._open = self.runs  # what never runs is as good as blocked

    @classmethod
    def of(cls, graph: HeteroData) -> Loans:
        """The same object for the same graph, for as long as the graph is there."""
        return once_per_graph(cls, graph)

    def __call__(self, dead: Tensor) -> tuple[Tensor, Tensor]:
        """Finds what has no means when nodes are removed.

        Args:
            dead: ``[B, R]`` bool, removed reaction nodes.

        Returns:
            On the device of ``dead``: ``[B, R]`` bool, nodes that do not run any more (those of the removed that ran among them),
            and ``[B, M]`` bool, metabolites that are not there any more.
        """
        removed = dead.cpu().numpy()
        starved, missing = np.zeros_like(removed), np.zeros((len(removed), self.there.size), bool)
        for row in np.flatnonzero(removed.any(axis=1)):
            starved[row], missing[row] = self._without(removed[row])
        return torch.from_numpy(starved).to(dead.device), torch.from_numpy(missing).to(dead.device)

    def _without(self, removed: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """``[R]`` nodes that do not run without the removed ones, and ``[M]`` metabolites that are not there."""
        alive = self._open & ~removed
        gone = np.bincount(self._unit[alive], minlength=self._units) == 0
        key = np.packbits(gone).tobytes()
        found = self._known.get(key)
        if found is None:
            runs, there = self._balanced(~gone[self._unit] & self._open)
            found = np.packbits(self.runs & ~runs), np.packbits(self.there & ~there)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = found
        starved, missing = (
            np.unpackbits(bits, count=size).view(np.bool_)
            for bits, size in zip(found, (self.runs.size, self.there.size), strict=True)
        )
        return starved | (self.runs & removed), missing

    def _balanced(self, alive: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """``[R]`` nodes that run and ``[M]`` metabolites that are there, once nothing more blocks or starves."""
        blocked = self._unbalanced(alive)
        while True:
            alive = alive & ~blocked
            ran, there = self._expand(self.given, alive)
            alive = alive & ran[self._unit]
            blocked = self._unbalanced(alive)
            if not (blocked & alive).any():
                return alive, there

    def _unbalanced(self, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``[R]`` nodes that are blocked, or not alive."""
        dead = torch.from_numpy((self._blocked.open > 0) & ~alive)
        blocked: NDArray[np.bool_] = self._blocked(dead[None])[0].numpy()
        return blocked

    def _expand(
        self, given: NDArray[np.bool_], alive: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """``[U]`` units that run, and ``[M]`` metabolites that are there: by what is paid back at once, then by what is later."""
        from pyg_nsa.cell.network.loan_kernels import expand  # imports Numba

        open_units = np.zeros(self._units, np.bool_)
        open_units[self._unit[alive]] = True
        runs, there = np.empty(self._units, np.bool_), np.empty(given.size, np.bool_)
        expand(open_units, given, runs, there, self._network)
        while (open_units & ~runs).any():
            ran, made = self._pay_back(open_units, there)
            if (ran <= runs).all() and (made == there).all():
                break
            runs, there = runs | ran, made
            if (runs | ~open_units).all():
                break
            again, more = np.empty_like(runs), np.empty_like(there)
            expand(open_units, there, again, more, self._network)
            if (again <= runs).all() and (more == there).all():
                break
            runs, there = runs | again, more
        return runs, there

    def _pay_back(
        self, alive: NDArray[np.bool_], there: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """``[U]`` units that run on loans which may be paid back in several steps, and ``[M]`` metabolites that are there then.

        Only units that lack something are looked at. Many deletions leave the same of these, so what is found is kept.
        """
        from pyg_nsa.cell.network.return_kernels import pay_back

        start_s, substrates, _, start_p, products, _, owner = self._network[:7]
        lacks = np.zeros(self._units, np.bool_)
        lacks[owner[~there[substrates]]] = True
        lacks &= alive
        near = np.zeros(there.size, np.bool_)
        near[substrates[np.repeat(lacks, np.diff(start_s))]] = True
        near[products[np.repeat(lacks, np.diff(start_p))]] = True
        key = np.packbits(np.concatenate([lacks, there | ~near])).tobytes()
        found = self._paid.get(key)
        if found is None:
            runs, made = np.zeros(self._units, np.bool_), there.copy()
            places, end = self._turns.rings(lacks, there)
            pay_back(lacks, runs, made, places, end, self._network)
            found = np.flatnonzero(runs), np.flatnonzero(made & ~there)
            if len(self._paid) >= _PAID:
                self._paid.clear()
            self._paid[key] = found
        runs, made = np.zeros(self._units, np.bool_), there.copy()
        runs[found[0]] = made[found[1]] = True
        return runs, made

    def _runs_enough(self, given: NDArray[np.bool_]) -> tuple[bool, NDArray[np.bool_]]:
        """Whether all open nodes run that have to, and ``[M]`` what is there."""
        self.given = given
        runs, there = self._balanced(self._open)
        return bool(runs[self._needed].all()), there


def _network(
    graph: HeteroData,
    unit: NDArray[np.int64],
    first: NDArray[np.int64],
    reaction: NDArray[np.int64],
    metabolites: int,
) -> tuple[NDArray, ...]:
    """What :mod:`~pyg_nsa.cell.network.loan_kernels` calls a network; each unit is read from its first node."""
    node, metabolite = graph[_RELATION].edge_index.cpu().numpy()
    amount = graph[_RELATION].stoichiometry.cpu().view(len(node), -1)[:, 0].double().numpy()
    chosen = (first[unit[node]] == node) & (amount != 0)
    of, metabolite, amount = unit[node[chosen]], metabolite[chosen], amount[chosen]
    order = np.argsort(of, kind="stable")
    of, metabolite, amount = of[order], metabolite[order], amount[order]
    uses, makes = np.flatnonzero(amount < 0), np.flatnonzero(amount > 0)
    owner, substrates, products = of[uses], metabolite[uses], metabolite[makes]
    count = np.arange(len(first) + 1)
    start_s, start_p = np.searchsorted(owner, count), np.searchsorted(of[makes], count)
    by_metabolite = np.argsort(substrates, kind="stable")
    start_u = np.searchsorted(substrates[by_metabolite], np.arange(metabolites + 1))
    # Each use beside each product of its unit.
    many = np.diff(start_p)[owner]
    use = np.repeat(np.arange(len(uses)), many)
    made = np.arange(len(use)) + np.repeat(start_p[owner] - (many.cumsum() - many), many)
    key = products[made] * metabolites + substrates[use]
    by_key = np.argsort(key, kind="stable")
    keys, start_k = np.unique(key[by_key], return_index=True)
    rate = amount[makes][made] / -amount[uses][use]
    return (
        start_s,
        substrates,
        -amount[uses],
        start_p,
        products,
        amount[makes],
        owner,
        start_u,
        by_metabolite,
        keys,
        np.append(start_k, len(key)),
        use[by_key],
        rate[by_key],
        reaction,
    )


def _turns(network: tuple[NDArray, ...], metabolites: int) -> Turns:
    """The pairs of a network's units, by ``keys``, ``start_k`` and ``use``."""
    owner, keys, start_k, use = network[6], network[9], network[10], network[11]
    key = np.repeat(keys, np.diff(start_k))
    return Turns(owner[use], key % metabolites, key // metabolites, metabolites)

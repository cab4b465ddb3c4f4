"""Growth after gene deletions, by exact flux-balance analysis (FBA).

FBA (Orth, Thiele & Palsson, *Nature Biotechnology* 2010) maximises the model's objective, growth, over all steady-state
fluxes within bounds: ``max c·v`` with ``S v = 0``, ``lower <= v <= upper``. A deleted gene makes every clause incomplete
that needs it, and a reaction all of whose clauses are incomplete is inactive: its flux is fixed to 0.

Only few of all pairs and triples need a linear program (LP). Three facts save the others, none of them an approximation:

- growth depends on the set of inactive reactions only, so each set is solved once;
- making reactions inactive can only lower growth. If a known optimum of a state with *fewer* inactive reactions puts no
  flux on the reactions that are newly lost, it stays feasible, so it stays optimal and growth is the same;
- what contains a lethal deletion is lethal.

:mod:`pyg_nsa.cell.labels.deletions` simulates all deletions of one, two or three genes, and :mod:`pyg_nsa.cell.labels.lp_solver` solves
the LPs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import cobra
import highspy
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.labels.lp_runner import LpRunner, LpTask
from pyg_nsa.cell.labels.lp_solver import TOLERANCE, LpSolver, State
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, as_network

__all__ = ["LETHAL", "GrowthSimulator"]

LETHAL = 1e-6
"""Relative growth below which a deletion is lethal. Well above the solver's noise, far below any true growth."""


class GrowthSimulator:
    """Exact growth of one model after any gene deletions.

    Args:
        model: The metabolic model, with its bounds (medium) and objective.

    Attributes:
        network: The model as arrays.
        wildtype_growth: Growth without deletions, in the objective's unit (1/h for biomass).
        lp_count: Number of LPs that its answers rest on so far, the wildtype's included.

    Raises:
        ValueError: If the wildtype cannot grow, or its growth is unbounded.
        RuntimeError: If HiGHS gives up on an LP, which says something about the model's numbers.
    """

    def __init__(self, model: cobra.Model | MetabolicNetwork) -> None:
        self.network = as_network(model)
        self.lp_count = 0
        self._gene_index = {gene: i for i, gene in enumerate(self.network.genes)}
        self._clauses_of: list[list[tuple[int, int]]] = [[] for _ in self.network.genes]
        for reaction, clauses in enumerate(self.network.clauses):
            for k, clause in enumerate(clauses):
                for gene in clause:
                    self._clauses_of[gene].append((reaction, k))
        self._states: dict[bytes, State] = {}
        self._singles: dict[int, NDArray[np.int32]] = {}
        self._solver = LpSolver(self.network)
        nothing = np.empty(0, np.int32)
        wildtype = self._solve(nothing, None)
        if not wildtype.growth > TOLERANCE:
            mend = "Check its objective and the bounds of its uptake reactions."
            if not self.network.objective.any():
                mend = (
                    "It has no objective: name the reaction that stands for growth (cobra: model.objective = 'BIOMASS'; in SBML the "
                    "active objective) and save the model."
                )
            raise ValueError(
                f"Model {self.network.model_id!r}: the wildtype does not grow (objective {wildtype.growth:g}). {mend}"
            )
        self.wildtype_growth = wildtype.growth
        self._states[nothing.tobytes()] = wildtype
        self._wildtype = wildtype

    def __repr__(self) -> str:
        return (
            f"GrowthSimulator({self.network.model_id!r}, wildtype_growth={self.wildtype_growth:.6g}, "
            f"lp_count={self.lp_count})"
        )

    def gene_indices(self, genes: Iterable[str | int]) -> tuple[int, ...]:
        """Ascending indices of genes given by id or index.

        Args:
            genes: Ids, or indices into the model's genes; one id may stand by itself.

        Returns:
            Unique indices.

        Raises:
            KeyError: For a gene that the model does not have.
        """
        found = set()
        for gene in (genes,) if isinstance(genes, str) else genes:
            if isinstance(gene, str):
                if gene not in self._gene_index:
                    raise KeyError(f"Model {self.network.model_id!r} has no gene {gene!r}.")
                found.add(self._gene_index[gene])
            elif 0 <= int(gene) < len(self.network.genes):
                found.add(int(gene))
            else:
                raise KeyError(
                    f"Model {self.network.model_id!r} has {len(self.network.genes)} genes, no gene number {gene}."
                )
        return tuple(sorted(found))

    def inactive_reactions(self, genes: Iterable[str | int]) -> NDArray[np.int32]:
        """Reactions that lose all their clauses when genes are deleted.

        Args:
            genes: The deleted genes, ids or indices.

        Returns:
            Ascending int32 reaction indices.
        """
        lost: dict[int, set[int]] = {}
        for gene in self.gene_indices(genes):
            for reaction, clause in self._clauses_of[gene]:
                lost.setdefault(reaction, set()).add(clause)
        return np.array(
            sorted(r for r, ks in lost.items() if len(ks) == len(self.network.clauses[r])), np.int32
        )

    def growth(self, genes: Iterable[str | int]) -> float:
        """Growth after deleting genes, in the objective's unit; 0 if no steady state is left.

        Args:
            genes: The deleted genes, ids or indices; empty for the wildtype.
        """
        members = self.gene_indices(genes)
        inactive = self.inactive_reactions(members)
        known = self._states.get(inactive.tobytes())
        if known is not None:
            return known.growth
        parents = [self._wildtype]
        for size in {1, len(members) - 1}:
            if 0 < size < len(members):
                for subset in combinations(members, size):
                    parent = self._states.get(self.inactive_reactions(subset).tobytes())
                    if parent is not None:
                        parents.append(parent)
        return self._state(inactive, parents).growth

    def fitness(self, genes: Iterable[str | int]) -> float:
        """Growth after deleting genes, relative to the wildtype: between 0 and 1.

        Args:
            genes: The deleted genes, ids or indices.
        """
        return self.relative(self.growth(genes))

    def relative(self, growth: float) -> float:
        """Growth relative to the wildtype; clipped to [0, 1], which only removes the solver's rounding."""
        return min(max(growth / self.wildtype_growth, 0.0), 1.0)

    def wildtype_optimum(self) -> State:
        """The wildtype's optimum."""
        return self._wildtype

    def known_state(
        self, inactive: NDArray[np.int32], parents: Sequence[State] = ()
    ) -> State | None:
        """The optimum of a set of inactive reactions, if no LP is needed for it.

        Args:
            inactive: Ascending int32 reaction indices.
            parents: States whose inactive reactions are subsets of these.
        """
        key = inactive.tobytes()
        known = self._states.get(key)
        if known is None:
            for parent in parents:
                lethal = parent.growth <= LETHAL * self._wildtype.growth
                if lethal or not meet(parent.support, inactive):
                    known = self._states[key] = parent
                    break
        return known

    def solve_all(
        self, tasks: Sequence[LpTask], runner: LpRunner, *, bases: bool, what: str, progress: bool
    ) -> None:
        """Solve LPs, after which :meth:`known_state` knows them.

        Args:
            tasks: The LPs, each once.
            runner: Who solves them.
            bases: Whether others will start from them.
            what: What the progress bar says.
            progress: Show a progress bar on stderr, if that is a terminal.
        """
        states = runner.run(tasks, bases=bases, description=what, progress=progress)
        self.lp_count += len(tasks)
        for task, state in zip(tasks, states, strict=True):
            self._states[task.inactive.tobytes()] = state

    def _state(self, inactive: NDArray[np.int32], parents: Sequence[State]) -> State:
        """The optimum of a set of inactive reactions, given states whose inactive reactions are subsets of it."""
        state = self.known_state(inactive, parents)
        if state is None:
            # Of several parents the worst is the closest: nothing lies between its optimum and this state's.
            able = [parent for parent in parents if parent.basis is not None]
            start = min(able, key=lambda parent: parent.growth).basis if able else None
            state = self._states[inactive.tobytes()] = self._solve(inactive, start)
        return state

    def _solve(self, inactive: NDArray[np.int32], basis: highspy.HighsBasis | None) -> State:
        """Solve one LP, from a basis if there is one."""
        self.lp_count += 1
        return self._solver.solve(inactive, basis)


def meet(first: NDArray[np.int32], second: NDArray[np.int32]) -> bool:
    """Whether two ascending arrays share an entry."""
    if not len(first) or not len(second):
        return False
    place = np.searchsorted(first, second)
    return bool((first[np.minimum(place, len(first) - 1)] == second).any())

"""Growth after gene deletions, by exact flux-balance analysis (FBA).

FBA (Orth, Thiele & Palsson, *Nature Biotechnology* 2010) maximises the model's objective, growth, over all steady-state
fluxes within bounds: ``max c·v`` with ``S v = 0``, ``lower <= v <= upper``. A deleted gene makes every clause incomplete
that needs it, and a reaction all of whose clauses are incomplete is inactive: its flux is fixed to 0.

Only few of all pairs need a linear program (LP). Three facts save the others, none of them an approximation:

- growth depends on the set of inactive reactions only, so each set is solved once;
- making reactions inactive can only lower growth. If a known optimum of a state with *fewer* inactive reactions puts no
  flux on the reactions that are newly lost, it stays feasible, so it stays optimal and growth is the same;
- a pair with a gene whose own deletion is lethal is lethal.

HiGHS solves the LPs with the simplex method from the basis of a parent state, with feasibility tolerances of 1e-9: at
the usual 1e-6 genes of genome-scale models come out essential, or not, by accident.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import cobra
import highspy
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tqdm import tqdm

from pyg_nsa.cell.metabolic_model import MetabolicNetwork, as_network

__all__ = [
    "LETHAL",
    "GrowthSimulator",
    "PairFitness",
    "SingleFitness",
    "simulate_pairs",
    "simulate_singles",
]

TOLERANCE = 1e-9
LETHAL = 1e-6
"""Relative growth below which a deletion is lethal. Well above the solver's noise, far below any true growth."""


@dataclass(frozen=True, eq=False)
class State:
    """An optimum of one set of inactive reactions.

    Attributes:
        growth: The objective.
        support: Ascending int32 indices of the reactions that carry flux in the optimum found.
        basis: HiGHS' basis, for warm starts; ``None`` where the state is infeasible.
    """

    growth: float
    support: NDArray[np.int32]
    basis: highspy.HighsBasis | None


class GrowthSimulator:
    """Exact growth of one model after any gene deletions.

    Args:
        model: The metabolic model, with its bounds (medium) and objective.

    Attributes:
        network: The model as arrays.
        wildtype_growth: Growth without deletions, in the objective's unit (1/h for biomass).
        lp_count: Number of LPs solved so far, the wildtype's included.

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
        self._fixed = np.empty(0, np.int32)
        self._solver = linear_program(self.network)
        nothing = np.empty(0, np.int32)
        wildtype = self._solve(nothing, None)
        if not wildtype.growth > TOLERANCE:
            raise ValueError(
                f"Model {self.network.model_id!r}: the wildtype does not grow (objective {wildtype.growth:g}). "
                "Check its objective and the bounds of its uptake reactions."
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

    def _state(self, inactive: NDArray[np.int32], parents: Sequence[State]) -> State:
        """The optimum of a set of inactive reactions, given states whose inactive reactions are subsets of it."""
        key = inactive.tobytes()
        known = self._states.get(key)
        if known is not None:
            return known
        for parent in parents:
            if parent.growth <= LETHAL * self._wildtype.growth or not _meet(
                parent.support, inactive
            ):
                state = parent
                break
        else:
            # Of several parents the worst is the closest: nothing lies between its optimum and this state's.
            state = self._solve(inactive, min(parents, key=lambda parent: parent.growth).basis)
        self._states[key] = state
        return state

    def _solve(self, inactive: NDArray[np.int32], basis: highspy.HighsBasis | None) -> State:
        """Solve one LP, from a basis if there is one."""
        solver, network = self._solver, self.network
        restored = np.setdiff1d(self._fixed, inactive, assume_unique=True)
        if len(restored):
            solver.changeColsBounds(
                len(restored), restored, network.lower[restored], network.upper[restored]
            )
        if len(inactive):
            zeros = np.zeros(len(inactive))
            solver.changeColsBounds(len(inactive), inactive, zeros, zeros)
        self._fixed = inactive
        self.lp_count += 1
        if basis is None:
            solver.clearSolver()
        else:
            solver.setBasis(basis)
        solver.run()
        status = solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal and basis is not None:
            # A verdict from a warm start is confirmed by a solve from scratch: it is rare, and decides life or death.
            solver.clearSolver()
            solver.run()
            status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return State(0.0, np.empty(0, np.int32), None)
        if status in (
            highspy.HighsModelStatus.kUnbounded,
            highspy.HighsModelStatus.kUnboundedOrInfeasible,
        ):
            raise ValueError(
                f"Model {network.model_id!r}: growth is unbounded. Give its uptake reactions finite bounds."
            )
        if status != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(
                f"Model {network.model_id!r}: HiGHS stopped with {solver.modelStatusToString(status)!r} on an LP "
                f"with {len(inactive)} inactive reactions."
            )
        fluxes = np.asarray(solver.getSolution().col_value)
        # Below the tolerance a flux can be set to 0 and the steady state still holds to the tolerance.
        support = np.flatnonzero(np.abs(fluxes) > TOLERANCE).astype(np.int32)
        growth = max(float(network.objective @ fluxes), 0.0)
        return State(growth, support, solver.getBasis())


def _meet(first: NDArray[np.int32], second: NDArray[np.int32]) -> bool:
    """Whether two ascending arrays share an entry."""
    if not len(first) or not len(second):
        return False
    place = np.searchsorted(first, second)
    return bool((first[np.minimum(place, len(first) - 1)] == second).any())


def linear_program(network: MetabolicNetwork) -> highspy.Highs:
    """The FBA problem of the wildtype, ready to run: one row per metabolite, one column per reaction.

    Args:
        network: The model.

    Returns:
        A silent, single-threaded HiGHS with tolerances of 1e-9.
    """
    matrix = network.stoichiometry
    problem = highspy.HighsLp()
    problem.num_row_, problem.num_col_ = matrix.shape
    problem.sense_ = highspy.ObjSense.kMaximize
    problem.col_cost_ = network.objective
    problem.col_lower_ = network.lower
    problem.col_upper_ = network.upper
    problem.row_lower_ = np.zeros(matrix.shape[0])
    problem.row_upper_ = np.zeros(matrix.shape[0])
    problem.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    problem.a_matrix_.start_ = np.asarray(matrix.indptr, np.int32)
    problem.a_matrix_.index_ = np.asarray(matrix.indices, np.int32)
    problem.a_matrix_.value_ = np.asarray(matrix.data, np.float64)
    solver = highspy.Highs()
    options: dict[str, bool | int | float | str] = {
        "output_flag": False,
        "threads": 1,
        "solver": "simplex",
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
    }
    for option, value in options.items():
        solver.setOptionValue(option, value)
    solver.passModel(problem)
    return solver


@dataclass(frozen=True, eq=False)
class SingleFitness:
    """Fitness of single deletions.

    Attributes:
        genes: [n] int32, gene indices.
        fitness: [n] float64, growth relative to the wildtype.
    """

    genes: NDArray[np.int32]
    fitness: NDArray[np.float64]

    @property
    def viable(self) -> NDArray[np.int32]:
        """Genes whose deletion is not lethal."""
        return self.genes[self.fitness > LETHAL]


@dataclass(frozen=True, eq=False)
class PairFitness:
    """Fitness and interaction of double deletions.

    Attributes:
        pairs: [n, 2] int32, gene indices, first below second.
        fitness: [n] float64, growth relative to the wildtype.
        interaction: [n] float64, ``f_ab − f_a·f_b`` (Costanzo et al., *Science* 2010).
    """

    pairs: NDArray[np.int32]
    fitness: NDArray[np.float64]
    interaction: NDArray[np.float64]


def simulate_singles(simulator: GrowthSimulator, progress: bool = True) -> SingleFitness:
    """Delete every gene of the model by itself.

    Args:
        simulator: The simulator, whose cache is used and filled.
        progress: Show a progress bar on stderr, if that is a terminal.

    Returns:
        Fitness of all genes, in the model's order.
    """
    count = len(simulator.network.genes)
    bar = tqdm(range(count), "single deletions", disable=None if progress else True)
    fitness = np.array([simulator.fitness((gene,)) for gene in bar], np.float64)
    return SingleFitness(np.arange(count, dtype=np.int32), fitness)


def simulate_pairs(
    simulator: GrowthSimulator,
    genes: Iterable[str | int] | None = None,
    progress: bool = True,
) -> PairFitness:
    """Delete all pairs of genes whose single deletion is not lethal.

    Args:
        simulator: The simulator, whose cache is used and filled.
        genes: Ids or indices of the genes to pair; all by default. Lethal ones are left out.
        progress: Show a progress bar on stderr, if that is a terminal.

    Returns:
        All ``n·(n − 1)/2`` pairs, ascending.
    """
    network = simulator.network
    chosen = range(len(network.genes)) if genes is None else simulator.gene_indices(genes)
    single = {gene: simulator.fitness((gene,)) for gene in chosen}
    viable = np.array([gene for gene in chosen if single[gene] > LETHAL], np.int32)
    fitness = np.array([single[int(gene)] for gene in viable], np.float64)
    count = len(viable)
    first, second = np.triu_indices(count, 1)

    inactive = [simulator.inactive_reactions((int(gene),)) for gene in viable]
    states = [simulator._states[lost.tobytes()] for lost in inactive]
    # touched[a, b]: the optimum without a puts flux on a reaction that the deletion of b takes away.
    touched = (
        _incidence([s.support for s in states], network) @ _incidence(inactive, network).T
    ) > 0
    touched_dense = touched.toarray()
    place = {int(gene): i for i, gene in enumerate(viable)}
    for (a, b), reactions in _joint_losses(network).items():
        if a in place and b in place:  # reactions that only both deletions together take away
            i, j, lost = place[a], place[b], np.array(reactions, np.int32)
            touched_dense[i, j] |= _meet(states[i].support, lost)
            touched_dense[j, i] |= _meet(states[j].support, lost)

    by_first, by_second = touched_dense[first, second], touched_dense[second, first]
    pair_fitness = np.where(by_first, fitness[second], fitness[first])
    unsure = np.flatnonzero(by_first & by_second)
    for k in tqdm(unsure, "double deletions", disable=None if progress else True):
        i, j = first[k], second[k]
        lost = simulator.inactive_reactions((int(viable[i]), int(viable[j])))
        pair_fitness[k] = simulator.relative(simulator._state(lost, (states[i], states[j])).growth)
    return PairFitness(
        pairs=np.stack([viable[first], viable[second]], axis=1),
        fitness=pair_fitness,
        interaction=pair_fitness - fitness[first] * fitness[second],
    )


def _incidence(sets: Sequence[NDArray[np.int32]], network: MetabolicNetwork) -> csr_array:
    """[len(sets), R] float32 matrix with a 1 for each member."""
    starts = np.concatenate([[0], np.cumsum([len(members) for members in sets])])
    columns = np.concatenate([*sets, np.empty(0, np.int32)])
    shape = (len(sets), len(network.reactions))
    return csr_array((np.ones(len(columns), np.float32), columns, starts), shape=shape)


def _joint_losses(network: MetabolicNetwork) -> dict[tuple[int, int], list[int]]:
    """Reactions that two deletions take away together and neither takes away alone, by pair of genes.

    Such a pair hits every clause: one gene is in the first clause, the other in all clauses that the one misses.
    """
    losses: dict[tuple[int, int], list[int]] = {}
    for reaction, clauses in enumerate(network.clauses):
        if len(clauses) < 2:
            continue
        pairs = set()
        for gene in clauses[0]:
            missed = [set(clause) for clause in clauses if gene not in clause]
            if missed:
                for other in set.intersection(*missed):
                    if any(other not in clause for clause in clauses):
                        pairs.add((min(gene, other), max(gene, other)))
        for pair in sorted(pairs):
            losses.setdefault(pair, []).append(reaction)
    return losses

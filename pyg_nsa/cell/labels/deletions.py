"""Growth after all deletions of one gene, of two, and of three interacting ones.

Each stage first finds out which LPs it needs (see :mod:`pyg_nsa.cell.labels.fba` for why they are few), then solves those, and
then reads off all fitnesses. The list of LPs depends on the model alone, so that they can be solved by several processes,
and a run that was interrupted needs the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pyg_nsa.cell.data_names import INTERACTING
from pyg_nsa.cell.labels.fba import LETHAL, GrowthSimulator, meet
from pyg_nsa.cell.labels.lp_runner import LpRunner, LpTask
from pyg_nsa.cell.labels.lp_solver import State
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

__all__ = [
    "PairFitness",
    "SingleFitness",
    "TripleFitness",
    "interacting_triples",
    "simulate_pairs",
    "simulate_singles",
    "simulate_triples",
]


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


@dataclass(frozen=True, eq=False)
class TripleFitness:
    """Fitness and interaction of triple deletions.

    Attributes:
        triples: [n, 3] int32, gene indices, ascending.
        fitness: [n] float64, growth relative to the wildtype.
        interaction: [n] float64, ``τ = f_abc − f_a·f_b·f_c − ε_ab·f_c − ε_ac·f_b − ε_bc·f_a``: what the pairs do not
            explain (Kuzmin et al., *Science* 2018).
    """

    triples: NDArray[np.int32]
    fitness: NDArray[np.float64]
    interaction: NDArray[np.float64]


def simulate_singles(
    simulator: GrowthSimulator, progress: bool = True, runner: LpRunner | None = None
) -> SingleFitness:
    """Delete every gene of the model by itself.

    Args:
        simulator: The simulator, whose cache is used and filled.
        progress: Show a progress bar on stderr, if that is a terminal.
        runner: Who solves the LPs; by default this process, and nothing is kept.

    Returns:
        Fitness of all genes, in the model's order.
    """
    runner = runner or LpRunner(simulator.network)
    wildtype, nothing = simulator.wildtype_optimum(), np.empty(0, np.int32)
    genes = np.arange(len(simulator.network.genes), dtype=np.int32)
    inactive = [simulator.inactive_reactions((int(gene),)) for gene in genes]
    tasks = {
        lost.tobytes(): LpTask(lost, nothing, wildtype)
        for lost in inactive
        if simulator.known_state(lost, (wildtype,)) is None
    }
    simulator.solve_all(
        list(tasks.values()), runner, bases=True, what="single deletions", progress=progress
    )
    return SingleFitness(genes, _fitness(simulator, inactive))


def simulate_pairs(
    simulator: GrowthSimulator,
    genes: Iterable[str | int] | None = None,
    progress: bool = True,
    runner: LpRunner | None = None,
) -> PairFitness:
    """Delete all pairs of genes whose single deletion is not lethal.

    Args:
        simulator: The simulator, whose cache is used and filled.
        genes: Ids or indices of the genes to pair; all by default. Lethal ones are left out.
        progress: Show a progress bar on stderr, if that is a terminal.
        runner: Who solves the LPs; by default this process, and nothing is kept.

    Returns:
        All ``n·(n − 1)/2`` pairs, ascending.
    """
    network = simulator.network
    runner = runner or LpRunner(network)
    chosen = range(len(network.genes)) if genes is None else simulator.gene_indices(genes)
    single = {gene: simulator.fitness((gene,)) for gene in chosen}
    viable = np.array([gene for gene in chosen if single[gene] > LETHAL], np.int32)
    fitness = np.array([single[int(gene)] for gene in viable], np.float64)
    count = len(viable)
    first, second = np.triu_indices(count, 1)

    inactive = [simulator.inactive_reactions((int(gene),)) for gene in viable]
    states = _states(simulator, inactive)
    # touched[a, b]: the optimum without a puts flux on a reaction that the deletion of b takes away.
    touched = (
        _incidence([s.support for s in states], network) @ _incidence(inactive, network).T
    ) > 0
    touched_dense = touched.toarray()
    place = {int(gene): i for i, gene in enumerate(viable)}
    for (a, b), reactions in _joint_losses(network).items():
        if a in place and b in place:  # reactions that only both deletions together take away
            i, j, lost = place[a], place[b], np.array(reactions, np.int32)
            touched_dense[i, j] |= meet(states[i].support, lost)
            touched_dense[j, i] |= meet(states[j].support, lost)

    by_first, by_second = touched_dense[first, second], touched_dense[second, first]
    pair_fitness = np.where(by_first, fitness[second], fitness[first])
    unsure = np.flatnonzero(by_first & by_second)
    tasks: dict[bytes, LpTask] = {}
    lost_of: list[NDArray[np.int32]] = []
    for k in unsure:
        i, j = int(first[k]), int(second[k])
        lost = simulator.inactive_reactions((int(viable[i]), int(viable[j])))
        lost_of.append(lost)
        if lost.tobytes() not in tasks and simulator.known_state(lost) is None:
            # The worse of both is the closer: nothing lies between its optimum and the pair's.
            start = i if states[i].growth <= states[j].growth else j
            tasks[lost.tobytes()] = LpTask(lost, inactive[start], states[start])
    simulator.solve_all(
        list(tasks.values()), runner, bases=False, what="double deletions", progress=progress
    )
    pair_fitness[unsure] = _fitness(simulator, lost_of)
    return PairFitness(
        pairs=np.stack([viable[first], viable[second]], axis=1),
        fitness=pair_fitness,
        interaction=pair_fitness - fitness[first] * fitness[second],
    )


def simulate_triples(
    simulator: GrowthSimulator,
    singles: SingleFitness,
    pairs: PairFitness,
    progress: bool = True,
    runner: LpRunner | None = None,
) -> TripleFitness:
    """Delete the triples of :func:`interacting_triples`.

    Args:
        simulator: The simulator that gave the singles and pairs; its cache is used and filled.
        singles: All single deletions.
        pairs: All pairs of viable genes.
        progress: Show a progress bar on stderr, if that is a terminal.
        runner: Who solves the LPs; by default this process, and nothing is kept.

    Returns:
        The triples, ascending.
    """
    network = simulator.network
    runner = runner or LpRunner(network)
    triples = interacting_triples(pairs)
    sides = [triples[:, [0, 1]], triples[:, [0, 2]], triples[:, [1, 2]]]
    inactive: list[NDArray[np.int32]] = []
    tasks: dict[bytes, LpTask] = {}
    single_lost = [simulator.inactive_reactions((g,)) for g in range(len(network.genes))]
    for a, b, c in triples.tolist():
        lost = simulator.inactive_reactions((a, b, c))
        inactive.append(lost)
        if lost.tobytes() in tasks or simulator.known_state(lost) is not None:
            continue
        alone = [single_lost[gene] for gene in (a, b, c)]
        both = [simulator.inactive_reactions(pair) for pair in ((a, b), (a, c), (b, c))]
        # A pair that needed no LP has the optimum of one of its genes.
        found = [simulator.known_state(known) for known in (*both, *alone)]
        parents = [state for state in found if state is not None]
        if simulator.known_state(lost, parents) is None:
            starts = _states(simulator, alone)
            worst = min(range(3), key=lambda i: starts[i].growth)
            tasks[lost.tobytes()] = LpTask(lost, alone[worst], starts[worst])
    simulator.solve_all(
        list(tasks.values()), runner, bases=False, what="triple deletions", progress=progress
    )
    fitness = _fitness(simulator, inactive)
    f_a, f_b, f_c = (singles.fitness[triples[:, k]] for k in range(3))
    e_ab, e_ac, e_bc = (pairs.interaction[_positions(pairs, side)] for side in sides)
    interaction = fitness - f_a * f_b * f_c - e_ab * f_c - e_ac * f_b - e_bc * f_a
    return TripleFitness(triples, fitness, interaction)


def interacting_triples(pairs: PairFitness, threshold: float = INTERACTING) -> NDArray[np.int32]:
    """Triples of which at least two of the three pairs interact.

    So every gene interacts with one of the others. Other triples are nearly always explained by their pairs; what this
    leaves out are mainly functions that three genes back up one another in, where no pair shows anything.

    Args:
        pairs: Pairs of genes.
        threshold: Pairs with a larger ``|ε|`` interact.

    Returns:
        [n, 3] int32, each row ascending, rows ascending and unique.
    """
    linked = pairs.pairs[np.abs(pairs.interaction) > threshold].astype(np.int64)
    count = int(pairs.pairs.max(initial=-1)) + 1
    ends = np.concatenate([linked, linked[:, ::-1]])
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    starts = np.searchsorted(ends[:, 0], np.arange(count + 1))
    found = [np.empty(0, np.int64)]
    for middle, (low, high) in enumerate(pairwise(starts)):
        others = ends[low:high, 1]
        i, j = np.triu_indices(len(others), 1)
        rows = np.sort(np.stack([np.full(len(i), middle), others[i], others[j]], axis=1), axis=1)
        found.append((rows[:, 0] * count + rows[:, 1]) * count + rows[:, 2])
    code = np.unique(np.concatenate(found))
    size = max(count, 1)
    return np.stack([code // size**2, code // size % size, code % size], axis=1).astype(np.int32)


def _states(simulator: GrowthSimulator, inactive: Sequence[NDArray[np.int32]]) -> list[State]:
    """States that are known already."""
    found = [simulator.known_state(lost) for lost in inactive]
    assert all(state is not None for state in found)
    return [state for state in found if state is not None]


def _fitness(
    simulator: GrowthSimulator, inactive: Sequence[NDArray[np.int32]]
) -> NDArray[np.float64]:
    """[n] float64: growth of known states, relative to the wildtype."""
    states = _states(simulator, inactive)
    return np.array([simulator.relative(state.growth) for state in states], np.float64)


def _positions(pairs: PairFitness, wanted: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows of ``pairs``, which ascend, that hold the wanted pairs."""
    size = int(pairs.pairs.max(initial=0)) + 1
    codes = pairs.pairs[:, 0].astype(np.int64) * size + pairs.pairs[:, 1]
    return np.searchsorted(codes, wanted[:, 0].astype(np.int64) * size + wanted[:, 1])


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

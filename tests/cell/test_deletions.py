"""Triple deletions, against cobra, a solver that solves everything, and loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pyg_nsa.cell.labels.deletions import (
    PairFitness,
    interacting_triples,
    simulate_pairs,
    simulate_singles,
    simulate_triples,
)
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.labels.lp_solver import LpSolver


@pytest.fixture(scope="module")
def simulated(textbook):
    simulator = GrowthSimulator(textbook)
    singles, pairs = simulate_singles(simulator, False), simulate_pairs(simulator, progress=False)
    return simulator, singles, pairs, simulate_triples(simulator, singles, pairs, progress=False)


def naive_triples(pairs, threshold=1e-3):
    links = {
        frozenset(p)
        for p, e in zip(pairs.pairs.tolist(), pairs.interaction, strict=True)
        if abs(e) > threshold
    }
    genes = sorted({gene for link in links for gene in link})
    return [
        list(triple)
        for triple in combinations(genes, 3)
        if sum(frozenset(pair) in links for pair in combinations(triple, 2)) >= 2
    ]


def test_which_triples(simulated):
    _, _, pairs, triples = simulated
    assert triples.triples.tolist() == naive_triples(pairs)
    assert len(triples.triples) == 12_615
    assert triples.triples.dtype == np.int32


def test_which_triples_by_hand():
    def of(links):
        linked = np.array(sorted(links), np.int32).reshape(-1, 2)
        ones = np.full(len(linked), 0.5)
        return interacting_triples(PairFitness(linked, ones, -ones)).tolist()

    assert of([]) == []
    assert of([(0, 1)]) == []
    assert of([(0, 1), (2, 3)]) == []
    assert of([(0, 5), (5, 7)]) == [[0, 5, 7]]  # a chain
    assert of([(0, 1), (0, 2), (1, 2)]) == [[0, 1, 2]]  # a triangle, once
    assert of([(1, 2), (1, 3), (1, 4)]) == [[1, 2, 3], [1, 2, 4], [1, 3, 4]]


def test_triples_that_needed_no_lp_would_have_had_the_same(textbook, simulated):
    simulator, _, _, triples = simulated
    sample = np.random.default_rng(0).choice(len(triples.triples), 200, replace=False)
    for k in sample:
        inactive = simulator.inactive_reactions(triples.triples[k].tolist())
        exact = LpSolver(textbook).solve(inactive, None).growth
        assert triples.fitness[k] == pytest.approx(simulator.relative(exact), abs=1e-8)


def test_triples_equal_cobra(textbook_model, textbook, simulated):
    simulator, _, _, triples = simulated
    sample = np.random.default_rng(1).choice(len(triples.triples), 40, replace=False)
    for k in sample:
        with textbook_model as model:
            for gene in triples.triples[k]:
                model.genes.get_by_id(textbook.genes[gene]).knock_out()
            growth = model.slim_optimize(error_value=0.0)
        expected = growth / simulator.wildtype_growth
        assert triples.fitness[k] == pytest.approx(expected, abs=1e-6)
    assert len(set(triples.fitness[sample].round(3))) > 5


def test_the_interaction_of_triples(simulated):
    _, singles, pairs, triples = simulated
    f = dict(enumerate(singles.fitness))
    e = {tuple(p): x for p, x in zip(pairs.pairs.tolist(), pairs.interaction, strict=True)}
    for (a, b, c), f_abc, tau in zip(
        triples.triples.tolist(), triples.fitness, triples.interaction, strict=True
    ):
        expected = f_abc - f[a] * f[b] * f[c]
        expected -= e[a, b] * f[c] + e[a, c] * f[b] + e[b, c] * f[a]
        assert tau == pytest.approx(expected, abs=1e-12)


def test_a_triple_of_the_toy_by_hand(toy):
    simulator = GrowthSimulator(toy)
    singles, pairs = simulate_singles(simulator, False), simulate_pairs(simulator, progress=False)
    triples = simulate_triples(simulator, singles, pairs, False)
    # Only ac and bc are lethal: ε of ab is 0, of ac and bc -1, and all single fitnesses are 1.
    assert triples.triples.tolist() == [[0, 1, 2]]
    assert triples.fitness.tolist() == [0.0]
    assert triples.interaction.tolist() == [0.0 - 1.0 - 0.0 + 1.0 + 1.0]


@pytest.mark.slow
def test_triples_of_ijo1366(ijo1366):
    simulator = GrowthSimulator(ijo1366)
    singles, pairs = simulate_singles(simulator), simulate_pairs(simulator)
    triples = simulate_triples(simulator, singles, pairs)
    assert len(triples.triples) == 33_023
    assert int((np.abs(triples.interaction) > 1e-3).sum()) == 21_078
    assert simulator.lp_count < 7000

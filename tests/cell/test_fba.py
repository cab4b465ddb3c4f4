from __future__ import annotations

import time
from dataclasses import replace
from itertools import combinations

import cobra
import numpy as np
import pandas as pd
import pytest
from cell.networks import YEAST, toy_network

from pyg_nsa.cell.labels.deletions import simulate_pairs, simulate_singles
from pyg_nsa.cell.labels.fba import GrowthSimulator

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def simulated(textbook):
    simulator = GrowthSimulator(textbook)
    return simulator, simulate_singles(simulator, False), simulate_pairs(simulator, progress=False)


def test_singles_equal_cobra(textbook_model, simulated):
    simulator, singles, _ = simulated
    theirs = cobra.flux_analysis.single_gene_deletion(textbook_model, processes=1)
    growth = {next(iter(ids)): g for ids, g in zip(theirs.ids, theirs.growth, strict=True)}
    expected = [
        np.nan_to_num(growth[g]) / simulator.wildtype_growth for g in simulator.network.genes
    ]
    np.testing.assert_allclose(singles.fitness, expected, atol=1e-6)


def test_pairs_equal_cobra(textbook_model, textbook, simulated):
    simulator, singles, pairs = simulated
    genes = [textbook.genes[g] for g in range(0, 137, 3)]
    theirs = cobra.flux_analysis.double_gene_deletion(textbook_model, genes, genes, processes=1)
    growth = {frozenset(ids): g for ids, g in zip(theirs.ids, theirs.growth, strict=True)}
    compared = 0
    for (a, b), f, e in zip(pairs.pairs.tolist(), pairs.fitness, pairs.interaction, strict=True):
        names = frozenset((textbook.genes[a], textbook.genes[b]))
        if names in growth:
            compared += 1
            assert f == pytest.approx(
                np.nan_to_num(growth[names]) / simulator.wildtype_growth, abs=1e-6
            )
            assert e == pytest.approx(f - singles.fitness[a] * singles.fitness[b], abs=1e-12)
    assert compared > 800


def test_textbook_counts(simulated):
    simulator, singles, pairs = simulated
    assert simulator.wildtype_growth == pytest.approx(0.873921507, abs=1e-8)
    assert len(singles.viable) == 130
    assert len(pairs.pairs) == 130 * 129 // 2 == 8385
    assert int((np.abs(pairs.interaction) > 1e-3).sum()) == 880
    assert (pairs.pairs[:, 0] < pairs.pairs[:, 1]).all()
    assert pairs.pairs.dtype == np.int32
    assert 100 <= simulator.lp_count <= 160  # 128; other versions of HiGHS may find other optima


def test_lps_that_are_saved_would_have_said_the_same(textbook, simulated):
    """Every pair that was not solved, against a solver that solves everything."""
    _, _, pairs = simulated
    sample = np.random.default_rng(0).choice(len(pairs.pairs), 300, replace=False)
    for k in sample:
        simulator = GrowthSimulator(textbook)
        inactive = simulator.inactive_reactions(pairs.pairs[k].tolist())
        exact = simulator.relative(simulator._solve(inactive, None).growth)
        assert pairs.fitness[k] == pytest.approx(exact, abs=1e-8)


def test_inactive_reactions_against_cobra(textbook_model, textbook):
    simulator = GrowthSimulator(textbook)
    generator = np.random.default_rng(1)
    for size in (0, 1, 2, 5):
        for _ in range(20):
            genes = [textbook.genes[g] for g in generator.choice(137, size, replace=False)]
            expected = (
                cobra.manipulation.delete.find_gene_knockout_reactions(textbook_model, genes)
                if hasattr(cobra.manipulation.delete, "find_gene_knockout_reactions")
                else [r for r in textbook_model.reactions if r.genes and not r.gpr.eval(set(genes))]
            )
            mine = {textbook.reactions[r] for r in simulator.inactive_reactions(genes)}
            assert mine == {r.id for r in expected}


def test_toy_by_hand(toy):
    simulator = GrowthSimulator(toy)
    assert simulator.wildtype_growth == pytest.approx(10.0)
    assert simulator.fitness(()) == 1.0
    assert simulator.fitness("a") == 1.0  # c is the isozyme
    assert simulator.fitness(["a", "b"]) == 1.0
    assert simulator.fitness(["a", "c"]) == 0.0
    assert simulator.fitness(["d"]) == 0.0
    assert simulator.fitness(["a", "b", "c"]) == 0.0
    assert simulator.fitness([2]) == simulator.fitness(["c"])
    pairs = simulate_pairs(simulator, progress=False)
    assert pairs.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert pairs.interaction.tolist() == [0.0, -1.0, -1.0]
    assert simulate_pairs(simulator, ["c", "a", "d"], False).pairs.tolist() == [[0, 2]]


def test_states_are_solved_once(textbook):
    simulator = GrowthSimulator(textbook)
    assert simulator.lp_count == 1
    assert simulator.fitness("b0116") == simulator.fitness(["b0116"])
    first = simulator.fitness(["b0116", "b0726"])
    count = simulator.lp_count
    assert simulator.fitness(["b0726", "b0116"]) == first
    assert simulator.lp_count == count


def test_the_order_of_questions_changes_no_answer(textbook):
    names = textbook.genes[::9]
    asked = list(combinations(names, 2))
    one, other = GrowthSimulator(textbook), GrowthSimulator(textbook)
    forth = [one.fitness(pair) for pair in asked]
    back = [other.fitness(pair) for pair in reversed(asked)]
    np.testing.assert_allclose(forth, back[::-1], atol=1e-9)


def test_forced_flux_that_is_lost_is_infeasible_not_an_error():
    network = toy_network(
        {
            "uptake": {"A": 1.0},
            "growth": {"A": -1.0},
            "feed": {"B": 1.0},
            "maintenance": {"B": -1.0},
        },
        {"feed": [{"a"}], "uptake": [{"b"}]},
        {"maintenance": (1.0, 10.0)},
    )
    simulator = GrowthSimulator(network)
    assert simulator.fitness(["a"]) == 0.0
    assert simulator.fitness(["b"]) == 0.0
    assert simulator.fitness(["a", "b"]) == 0.0
    assert simulator.fitness(()) == 1.0


def test_errors(toy):
    simulator = GrowthSimulator(toy)
    with pytest.raises(KeyError, match="Model 'toy' has no gene 'zz'"):
        simulator.fitness(["zz"])
    with pytest.raises(KeyError, match="Model 'toy' has 4 genes, no gene number 7"):
        simulator.fitness([7])
    dead = toy_network({"growth": {"A": -1.0}}, {})
    with pytest.raises(
        ValueError, match=r"Model 'toy': the wildtype does not grow \(objective 0\)\. Check its"
    ):
        GrowthSimulator(dead)
    aimless = replace(dead, objective=np.zeros_like(dead.objective))
    with pytest.raises(ValueError, match=r"It has no objective: name the reaction"):
        GrowthSimulator(aimless)
    endless = toy_network(
        {"uptake": {"A": 1.0}, "growth": {"A": -1.0}},
        {},
        {"uptake": (0.0, np.inf), "growth": (0.0, np.inf)},
    )
    with pytest.raises(
        ValueError, match=r"growth is unbounded\. Give its uptake reactions finite bounds"
    ):
        GrowthSimulator(endless)


def test_no_progress_bar_without_a_terminal(toy, capfd):
    simulator = GrowthSimulator(toy)
    simulate_singles(simulator)
    simulate_pairs(simulator)
    assert capfd.readouterr() == ("", "")


def test_all_pairs_of_ijo1366(ijo1366):
    start = time.perf_counter()
    simulator = GrowthSimulator(ijo1366)
    singles = simulate_singles(simulator)
    pairs = simulate_pairs(simulator)
    print(f"{time.perf_counter() - start:.1f} s, {simulator.lp_count} LPs")
    assert len(singles.viable) == 1159
    assert len(pairs.pairs) == 671_061
    assert int((np.abs(pairs.interaction) > 1e-3).sum()) == 1619
    assert simulator.lp_count < 3500


def test_essential_genes_of_yeast_are_mostly_others_than_the_lethal_ones(yeast):
    """The figures of docs/cell_data.md.

    Essential is a gene of Costanzo et al. 2016 with conditional or weakened alleles (tsa, tsq, damp) and no deletion strain
    (dma, sn); strains with suppressors (S) say neither.
    """
    strains = pd.read_csv(YEAST.parent / "smf_costanzo2016.tsv.gz", sep="\t")
    kind = strains["strain"].str.extract(r"_([a-zA-Z]+)\d+$")[0]
    assert set(kind) == {"dma", "sn", "tsa", "tsq", "damp", "S"}
    deleted = set(strains["orf"][kind.isin(["dma", "sn"])])
    weakened = set(strains["orf"][kind.isin(["tsa", "tsq", "damp"])])
    fitness = simulate_singles(GrowthSimulator(yeast), False).fitness
    lethal = {g for g, f in zip(yeast.genes, fitness, strict=True) if f < 1e-3}
    known = sorted((deleted | weakened) & set(yeast.genes))
    essential = np.array([g not in deleted for g in known])
    called = np.array([g in lethal for g in known])
    found = len(known), called.sum(), essential.sum(), (called & essential).sum()
    assert found == (1049, 154, 149, 77)
    mcc = np.corrcoef(called, essential)[0, 1]  # of two binary variables
    assert round(mcc, 2) == 0.43


@pytest.mark.slow
def test_singles_and_pairs_of_yeast(yeast):
    known = pd.read_csv(YEAST.parent / "fba_singles_yeastGEM9.0.2.tsv", sep="\t")
    simulator = GrowthSimulator(yeast)
    singles = simulate_singles(simulator)
    expected = known.set_index("gene").fitness[list(yeast.genes)].to_numpy()
    np.testing.assert_allclose(singles.fitness, expected, atol=1e-6)
    pairs = pd.read_csv(YEAST.parent / "fba_pairs_nonzero_yeastGEM9.0.2.tsv.gz", sep="\t")
    for row in pairs.sample(200, random_state=0).itertuples():
        assert simulator.fitness((row.a, row.b)) == pytest.approx(row.f_ab, abs=1e-5)

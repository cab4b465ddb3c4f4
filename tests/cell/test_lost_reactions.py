"""Deletions that take away the same reactions have one number, against cobra's own rule evaluation."""

import itertools

import cobra
import numpy as np
import pytest

from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.lost_reactions import lost_reactions
from pyg_nsa.cell.network.metabolic_model import as_network

PAD = -1
RULES = {
    "plain": "a",
    "both": "a and b",
    "either": "a or b",
    "either_too": "b or a",
    "nested": "(a and c) or (b and c) or d",
    "none": "",
    "alone": "e",
}


@pytest.fixture(scope="module")
def small():
    model = cobra.Model("small")
    metabolite = cobra.Metabolite("m", compartment="c")
    for name, rule in RULES.items():
        # One that runs in both directions has two nodes for each clause.
        reaction = cobra.Reaction(name, lower_bound=-10 if name in ("both", "either") else 0)
        reaction.add_metabolites({metabolite: 1})
        reaction.gene_reaction_rule = rule
        model.add_reactions([reaction])
    supply = cobra.Reaction("EX_m", lower_bound=-1000, upper_bound=1000)
    supply.add_metabolites({metabolite: -1})
    model.add_reactions([supply])
    model.objective = "plain"
    return model


def padded(sets):
    out = np.full((len(sets), max(map(len, sets))), PAD)
    for row, genes in zip(out, sets, strict=True):
        row[: len(genes)] = genes
    return out


def lost_by_rule(model, genes):
    """Reactions of which the rule, read as cobra reads it, is false without the genes."""
    return frozenset(
        r.id for r in model.reactions if r.gene_reaction_rule and not r.gpr.eval(set(genes))
    )


def assert_same_partition(numbers, sets):
    assert len({(int(n), s) for n, s in zip(numbers, sets, strict=True)}) == len(set(sets))
    assert len(set(numbers.tolist())) == len(set(sets))


def test_all_sets_of_genes_of_a_small_model(small):
    network = as_network(small)
    count = len(network.genes)
    some = [c for k in range(1, count + 1) for c in itertools.combinations(range(count), k)]
    numbers = lost_reactions(build_graph(small), padded([*some, ()]), PAD)
    names = [[network.genes[g] for g in genes] for genes in [*some, ()]]
    sets = [lost_by_rule(small, genes) for genes in names]
    assert len(set(sets)) > 10
    assert_same_partition(numbers, sets)
    assert numbers[-1] == 0  # without a deletion nothing is lost


def test_pairs_of_the_textbook_model(textbook):
    simulator = GrowthSimulator(textbook)
    graph = build_graph(textbook)
    count = len(simulator.network.genes)
    pairs = list(itertools.combinations(range(count), 2))
    singles = [(g,) for g in range(count)]
    numbers = lost_reactions(graph, padded([*singles, *pairs]), PAD)
    sets = [simulator.inactive_reactions(s).tobytes() for s in [*singles, *pairs]]
    assert len(set(sets)) < len(sets)
    assert_same_partition(numbers, sets)

"""The scope of the nutrients: against a loop over the definition, and against labels of linear programs."""

import pytest
import torch
from cell.naive_scope import naive_scope
from cell.random_network import pathways, random_network
from cell.starved_growth import growth_starves

from pyg_nsa.cell.labels.deletions import simulate_singles
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import load_model
from pyg_nsa.cell.network.scope import Scope


def numbers(mask):
    return set(mask.nonzero().view(-1).tolist())


def shut(graph):
    """Nodes that are blocked in the wildtype."""
    return numbers(torch.from_numpy(BlockedReactions(graph).open == 0))


@pytest.mark.parametrize("seed", range(30))
def test_what_is_starved_is_what_its_definition_says(seed):
    graph = random_network(seed, metabolites=20, least=3)
    scope = Scope(graph)
    given, closed = numbers(torch.from_numpy(scope.given)), shut(graph)
    runs, there = naive_scope(graph, given, closed)
    assert numbers(torch.from_numpy(scope.runs)) == runs
    assert numbers(torch.from_numpy(scope.there)) == there
    count = graph["reaction"].num_nodes
    dead = torch.rand(6, count, generator=torch.Generator().manual_seed(seed)) < 0.08
    dead[0] = False
    starved, missing = scope(dead)
    assert starved.dtype == missing.dtype == torch.bool
    assert not starved[0].any() and not missing[0].any()
    for row, lost, removed in zip(starved, missing, dead, strict=True):
        still, left = naive_scope(graph, given, closed | numbers(removed))
        assert numbers(row) == runs - still and numbers(lost) == there - left
        alone = scope(removed[None])  # a batch is its instances
        assert torch.equal(alone[0][0], row) and torch.equal(alone[1][0], lost)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_given_is_enough_and_not_too_much(seed):
    graph = random_network(seed, metabolites=20, least=3)
    given, closed = numbers(torch.from_numpy(Scope(graph).given)), shut(graph)
    may_run = set(range(graph["reaction"].num_nodes)) - closed
    assert naive_scope(graph, given, closed)[0] == may_run
    for one in given:
        assert naive_scope(graph, given - {one}, closed)[0] < may_run


def test_the_random_networks_give_and_starve_something():
    given = more = lost = 0
    for seed in range(30):
        graph = random_network(seed, metabolites=20, least=3)
        scope = Scope(graph)
        starved, missing = scope(torch.eye(graph["reaction"].num_nodes, dtype=torch.bool))
        given += int(scope.given.sum())
        more += int((starved.sum(dim=1) > 1).sum())
        lost += int(missing.any(dim=1).sum())
    assert given >= 10 and more > 50 and lost > 50


def test_a_long_way_round_keeps_a_product_there():
    """→ a → b → g →, and the long way a → c → d → b. Without a → b there is still b; without both there is none, and no growth."""
    graph, names = pathways(
        {"a": 1},
        {"a": -1, "b": 1},
        {"a": -1, "c": 1},
        {"c": -1, "d": 1},
        {"d": -1, "b": 1},
        {"b": -1},
    )
    scope = Scope(graph)
    assert not scope.given.any()
    dead = torch.zeros(2, 6, dtype=torch.bool)
    dead[:, 1] = True
    dead[1, 2] = True
    starved, missing = scope(dead)
    assert [numbers(row) for row in starved] == [{1}, {1, 2, 3, 4, 5}]
    assert [{names[m] for m in numbers(row)} for row in missing] == [set(), {"b", "c", "d"}]


def test_a_cycle_does_not_keep_itself_alive():
    """→ a → b ⇌ c →: without a → b nothing makes b but c, which is made of b. Connections around each alone do not tell."""
    graph, names = pathways(
        {"a": 1}, {"a": -1, "b": 1}, {"b": -1, "c": 1}, {"c": -1, "b": 1}, {"c": -1}, {"a": -1}
    )
    dead = torch.zeros(1, 6, dtype=torch.bool)
    dead[0, 1] = True
    starved, missing = Scope(graph)(dead)
    assert numbers(starved[0]) == {1, 2, 3, 4}
    assert {names[m] for m in numbers(missing[0])} == {"b", "c"}
    assert numbers(BlockedReactions(graph)(dead)[0]) == {1}


def test_a_carrier_that_is_needed_to_make_itself_is_given():
    """ATP pays for the step that its own recovery needs: of the two carriers only what opens both is given."""
    graph, names = pathways(
        {"glc": 1},
        {"glc": -1, "atp": -1, "g6p": 1, "adp": 1},
        {"g6p": -1, "adp": -2, "atp": 2, "pyr": 1},
        {"pyr": -1},
        {"atp": -1, "adp": 1},
    )
    scope = Scope(graph)
    assert [names[m] for m in scope.given.nonzero()[0]] == ["atp"]
    assert scope.runs.all() and scope.there.all()
    assert not Scope(graph)(torch.zeros(0, 5, dtype=torch.bool))[0].numel()


def test_most_deletions_that_starve_growth_are_lethal_in_the_textbook_model():
    model = load_model("textbook")
    graph = build_graph(model, features=False)
    starved = growth_starves(graph, Scope)
    fitness = torch.from_numpy(simulate_singles(GrowthSimulator(model)).fitness)
    assert int(starved.sum()) == 7 and int((fitness[starved] < 1e-6).sum()) == 5


@pytest.mark.slow
def test_lethal_deletions_of_ijo1366(ijo1366):
    """The figures of docs/design.md: growth starves in 186 single deletions, and 184 of the 208 lethal ones are among them."""
    fitness = torch.from_numpy(simulate_singles(GrowthSimulator(ijo1366)).fitness)
    starved = growth_starves(build_graph(ijo1366, features=False), Scope)
    assert int((fitness < 1e-6).sum()) == 208
    assert int(starved.sum()) == 186
    assert int((fitness[starved] < 1e-6).sum()) == 184


@pytest.mark.slow
def test_lethal_deletions_of_yeast(yeast):
    """The figures of docs/design.md: growth starves in 95 single deletions of yeast-GEM 9.0.2, 94 of them lethal."""
    fitness = torch.from_numpy(simulate_singles(GrowthSimulator(yeast)).fitness)
    starved = growth_starves(build_graph(yeast, features=False, proxies=False), Scope)
    assert int((fitness < 1e-3).sum()) == 192
    assert int(starved.sum()) == 95
    assert int((fitness[starved] < 1e-3).sum()) == 94

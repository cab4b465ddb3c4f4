"""Blocked reactions: against a loop over the definition, and against linear programs."""

import cobra
import pytest
import torch
from cell.naive_blocked import naive_blocked
from cell.random_network import pathways, random_network
from cobra.flux_analysis import flux_variability_analysis

from pyg_nsa.cell.labels.deletions import simulate_singles
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import load_model


@pytest.fixture(scope="module")
def textbook():
    return build_graph(load_model("textbook"), features=False)


def nodes_of(mask):
    return set(mask.nonzero().view(-1).tolist())


@pytest.mark.parametrize("seed", range(30))
def test_what_is_blocked_is_what_its_definition_says(seed):
    graph = random_network(seed)
    blocked = BlockedReactions(graph)
    count = graph["reaction"].num_nodes
    dead = torch.rand(6, count, generator=torch.Generator().manual_seed(seed)) < 0.08
    dead[0] = False
    got = blocked(dead)
    assert got.dtype == torch.bool and not got[0].any()
    for row, removed in zip(got, dead, strict=True):
        assert nodes_of(row) == naive_blocked(graph, nodes_of(removed))
        assert torch.equal(blocked(removed[None])[0], row)  # a batch is its instances


def test_the_random_networks_block_something_beyond_what_is_removed():
    more = 0
    for seed in range(30):
        graph = random_network(seed)
        blocked = BlockedReactions(graph)
        dead = torch.eye(graph["reaction"].num_nodes, dtype=torch.bool)
        more += int((blocked(dead) & ~dead).any(dim=1).sum())
    assert more > 100


def test_a_pathway_is_blocked_up_to_its_branches():
    """→ a → b → c → and c ← x: without a → b, b → c is blocked too, but not what c and x still feed; and a has nowhere to go."""
    names = ["in_a", "a_b", "b_c", "out_c", "in_x", "x_c"]
    data, _ = pathways(
        {"a": 1}, {"a": -1, "b": 1}, {"b": -1, "c": 1}, {"c": -1}, {"x": 1}, {"x": -1, "c": 1}
    )
    dead = torch.zeros(1, len(names), dtype=torch.bool)
    dead[0, names.index("a_b")] = True
    got = {names[v] for v in nodes_of(BlockedReactions(data)(dead)[0])}
    assert got == {"in_a", "a_b", "b_c"}


def without_each_reaction(graph):
    """Names of the reactions, ``[number, R]`` what is blocked without each of them, and the names and ways of the nodes."""
    index = graph["reaction"].reaction_index
    nodes = [(name.split("|")[0], name.rpartition("|")[2]) for name in graph["reaction"].node_ids]
    names = [nodes[(index == r).nonzero()[0, 0]][0] for r in range(int(index.max()) + 1)]
    got = BlockedReactions(graph)(index == torch.arange(len(names))[:, None])
    return names, got, nodes


def test_no_linear_program_finds_flux_in_a_blocked_reaction(textbook):
    names, got, nodes = without_each_reaction(textbook)
    model = cobra.io.load_model("textbook")
    model.reactions.ATPM.lower_bound = (
        0.0  # what keeps a cell alive would make most programs infeasible
    )
    looked_at = 0
    for name, row in zip(names, got, strict=True):
        blocked = [nodes[v] for v in nodes_of(row) if nodes[v][0] != name]
        if not blocked:
            continue
        with model:
            model.reactions.get_by_id(name).knock_out()
            ids = sorted({other for other, _ in blocked})
            fva = flux_variability_analysis(model, ids, fraction_of_optimum=0.0, processes=1)
        for other, way in blocked:
            largest = fva.maximum[other] if way == "forward" else -fva.minimum[other]
            assert largest < 1e-6, f"{other} {way} without {name}"
            looked_at += 1
    assert looked_at > 50


def test_a_loss_that_blocks_biomass_is_lethal(textbook):
    names, got, nodes = without_each_reaction(textbook)
    biomass = next(v for v, (name, _) in enumerate(nodes) if name.startswith("Biomass"))
    assert BlockedReactions(textbook).open[biomass]
    model = cobra.io.load_model("textbook")
    lethal = [name for name, row in zip(names, got, strict=True) if row[biomass]]
    assert {"GLNS", "RPI"} <= set(lethal)
    for name in lethal:
        with model:
            model.reactions.get_by_id(name).knock_out()
            assert model.slim_optimize(0.0) < 1e-6


def test_without_directions_nothing_is_known(textbook):
    assert BlockedReactions.known(textbook)
    for missing in ("direction", "reaction_index"):
        other = textbook.clone()
        del other["reaction"][missing]
        assert not BlockedReactions.known(other)
    other = textbook.clone()
    del other["reaction", "rmr", "metabolite"].stoichiometry
    assert not BlockedReactions.known(other)
    other = textbook.clone()
    del other["reaction", "rmr", "metabolite"]
    assert not BlockedReactions.known(other)


@pytest.mark.slow
def test_lethal_deletions_of_ijo1366(ijo1366):
    """The figures of docs/design.md: 81 of the 208 lethal single deletions block biomass, and no other deletion does."""
    graph = build_graph(ijo1366, features=False)
    fitness = torch.from_numpy(simulate_singles(GrowthSimulator(ijo1366)).fitness)
    count = graph["gene"].num_nodes
    everyone = torch.arange(count)
    dead = ~DeletionRule(graph).alive(everyone, everyone, count)["reaction"]
    biomass = next(
        v for v, name in enumerate(graph["reaction"].node_ids) if "BIOMASS_Ec_iJO1366_core" in name
    )
    blocked = BlockedReactions(graph)(dead)[:, biomass]
    assert int((fitness < 1e-6).sum()) == 208
    assert int(blocked.sum()) == 81
    assert (fitness[blocked] < 1e-6).all()

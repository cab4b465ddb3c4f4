"""The least change of flux, against dense least squares; and what a readout makes of it."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from cell.random_network import pathways, random_network
from scipy.linalg import null_space

from pyg_nsa.cell.data.batch import Perturbation, PerturbationCollate
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.models.deletion_readout import DeletionReadout
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.features import parsimonious_fluxes
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.response import FluxResponse


def balanced(seed):
    """A random network in which isozymes and directions agree, and a steady state of it."""
    graph = random_network(seed, reactions=30, metabolites=12)
    relation, reactions = graph["reaction", "rmr", "metabolite"], graph["reaction"]
    node, metabolite = relation.edge_index
    amount = (7 * reactions.reaction_index[node] + 3 * metabolite) % 4 + 0.5
    side = ((5 * reactions.reaction_index[node] + metabolite) % 3 > 0) * 2.0 - 1
    relation.stoichiometry = amount * side * reactions.direction[node]
    space = null_space(matrix(graph))
    generator = np.random.default_rng(seed)
    flux = space @ generator.normal(size=space.shape[1])
    reactions.flux = torch.from_numpy(flux)[reactions.reaction_index]
    reactions.objective = (reactions.reaction_index == int(np.abs(flux).argmax())).double()
    reactions.objective *= reactions.direction * np.sign(flux[np.abs(flux).argmax()])
    return graph


def matrix(graph):
    """``[M, Q]``, stoichiometry of the reactions in their forward direction."""
    relation, reactions = graph["reaction", "rmr", "metabolite"], graph["reaction"]
    out = np.zeros((graph["metabolite"].num_nodes, int(reactions.reaction_index.max()) + 1))
    for (v, m), amount in zip(
        relation.edge_index.t().tolist(), relation.stoichiometry.tolist(), strict=True
    ):
        out[m, reactions.reaction_index[v]] = amount * int(reactions.direction[v])
    return out


def nearest(balance, flux, weight, lost):
    """The steady state without the lost reactions that is nearest to ``flux``: by a basis of all such states."""
    kept = np.setdiff1d(np.arange(flux.size), lost)
    space = null_space(balance[:, kept])
    out = np.zeros(flux.size)
    found = np.linalg.lstsq(weight[kept, None] * space, weight[kept] * flux[kept], rcond=None)[0]
    out[kept] = space @ found
    return out


@pytest.mark.parametrize("seed", range(20))
def test_growth_is_that_of_the_nearest_steady_state(seed):
    graph = balanced(seed)
    reactions, count = graph["reaction"], graph["reaction"].num_nodes
    balance, response = matrix(graph), FluxResponse(graph)
    flux = np.zeros(balance.shape[1])
    flux[reactions.reaction_index.numpy()] = reactions.flux.numpy()
    growth = np.zeros_like(flux)
    growth[reactions.reaction_index.numpy()] = (reactions.objective * reactions.direction).numpy()
    dead = torch.rand(8, count, generator=torch.Generator().manual_seed(seed)) < 0.15
    dead[0] = False
    left = response(dead)
    assert left.shape == (8,) and left.dtype == torch.float32 and left[0] == 1
    for row, got in zip(dead, left, strict=True):
        alive = set(reactions.reaction_index[~row].tolist())
        lost = np.array(sorted(set(range(flux.size)) - alive), int)
        fluxes = nearest(balance, flux, response.weight, lost)
        assert np.abs(balance @ fluxes).max() < 1e-9
        wanted = growth @ fluxes / (growth @ flux)
        assert got == pytest.approx(min(max(wanted, 0.0), 1.0), abs=1e-6)
        assert response(row[None]) == got  # a batch is its instances


def test_a_reaction_goes_on_with_what_is_left_of_its_nodes():
    least = 1.0
    for seed in range(10):
        graph = balanced(seed)
        every = graph["reaction"].reaction_index == 0
        some = every.clone()
        some[every.nonzero()[-1]] = False
        assert some.any()
        one, both = FluxResponse(graph)(torch.stack([some, every])).tolist()
        assert one == 1
        least = min(least, both)
    assert least < 1


def test_what_rests_and_can_go_one_way_only_counts_for_more():
    graph, _ = pathways({"a": 1}, {"a": -1, "b": 1}, {"a": -1, "b": 1}, {"b": -1})
    graph["reaction"].flux = torch.tensor([1.0, 1.0, 0.0, 1.0])
    graph["reaction"].objective = torch.tensor([0.0, 0.0, 0.0, 1.0])
    response = FluxResponse(graph)
    assert response.weight.tolist() == [1, 1, 3, 1]
    # With x in all three that are left, 2 (1 - x)² + 9 x² is least.
    assert response(torch.tensor([[False, True, False, False]])) == pytest.approx(2 / 11)
    graph["reaction"].flux = torch.tensor([2.0, 1.0, 1.0, 2.0])
    assert FluxResponse(graph).weight.tolist() == [1, 1, 1, 1]


def test_reactions_that_run_slowly_count_as_much():
    """Growth that needs a millionth of something can't do without it."""
    graph, _ = pathways({"a": 1}, {"a": -1, "b": -1e-6}, {"b": 1})
    graph["reaction"].flux = torch.tensor([1.0, 1.0, 1e-6], dtype=torch.double)
    graph["reaction"].objective = torch.tensor([0.0, 1.0, 0.0])
    assert FluxResponse(graph)(torch.tensor([[False, False, True]])) == 0


def test_one_for_each_graph():
    graph = balanced(0)
    response = FluxResponse.of(graph)
    assert FluxResponse.of(graph) is response
    assert FluxResponse.of(balanced(0)) is not response
    gone = weakref.ref(response)
    del response, graph
    gc.collect()
    assert gone() is None


@pytest.fixture(scope="module")
def graph(textbook):
    return build_graph(textbook)


def test_the_graph_has_the_wildtypes_fluxes(graph, textbook):
    wanted = parsimonious_fluxes(textbook, GrowthSimulator(textbook).wildtype_growth)
    reactions = graph["reaction"]
    np.testing.assert_allclose(reactions.flux, wanted[reactions.reaction_index], rtol=1e-6)
    assert FluxResponse.known(graph)
    assert not FluxResponse.known(build_graph(textbook, features=["degree"]))


def test_in_the_textbook_model_it_ranks_what_growth_is_left(graph, textbook):
    simulator = GrowthSimulator(textbook)
    rule, response = DeletionRule(graph), FluxResponse(graph)
    genes = range(len(textbook.genes))
    dead = [~rule.alive_one(torch.tensor([g]))["reaction"] for g in genes]
    left = response(torch.stack(dead)).numpy()
    fitness = np.array([simulator.fitness((g,)) for g in genes])
    viable = fitness > 1e-6
    assert np.corrcoef(np.sqrt(left[viable]), fitness[viable])[0, 1] > 0.5


def batch(graph, *deleted):
    """Instances that delete these genes."""
    genes = [torch.tensor(one, dtype=torch.long) for one in deleted]
    return PerturbationCollate(graph)(
        [Perturbation(i, one, torch.zeros(2)) for i, one in enumerate(genes)]
    )


def test_a_readout_tells_growths_share_and_that_of_each_gene(graph):
    plain = DeletionReadout(graph, graph.node_types, 4, 6)
    readout = DeletionReadout(graph, graph.node_types, 4, 6, response=True)
    assert readout.growth_channels == plain.growth_channels + 3
    assert readout.out_channels == plain.out_channels + 3
    rule, response = DeletionRule(graph), FluxResponse(graph)
    rows = {t: torch.randn(graph[t].num_nodes, 4) for t in graph.node_types}
    names = plain.columns["reaction"]
    certain = [names.index("blocked"), names.index("stopped")]

    def cost(*genes):
        dead = ~rule.alive_one(torch.tensor(genes, dtype=torch.long))["reaction"]
        growth = plain(rows, graph, batch(graph, genes)).together[0, -plain.growth_channels :]
        return torch.stack([1 - response(dead[None])[0].sqrt(), *growth[certain]]).max()

    deleted = [[5], [7, 30], [24], [], [0, 1, 2, 3, 60, 99]]
    read = readout(rows, graph, batch(graph, *deleted)).together
    assert (read[3] == 0).all()
    parts = read[:, -readout.growth_channels :].view(len(deleted), 3, -1)
    assert (parts[:, 0, -1] > 0).any() and (parts[:, 1, -1] != 0).any()
    for (joint, excess, product), genes in zip(parts[..., -1], deleted, strict=True):
        torch.testing.assert_close(joint, cost(*genes))
        if len(genes) < 2:
            assert excess == product == 0
        else:
            each = torch.stack([cost(gene) for gene in genes])
            torch.testing.assert_close(excess, joint - each.sum())
            both = each.asinh().outer(each.asinh()).triu(1).sum()
            torch.testing.assert_close(product, both)


def test_without_fluxes_there_is_no_response(graph):
    other = copy.copy(graph)
    del other["reaction"].flux
    readout = DeletionReadout(other, other.node_types, 4, 6, response=True)
    assert not readout.response
    assert readout.out_channels == DeletionReadout(graph, graph.node_types, 4, 6).out_channels

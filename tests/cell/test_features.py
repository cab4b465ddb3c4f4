from __future__ import annotations

from dataclasses import replace

import cobra
import highspy
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.labels.lp_solver import linear_program
from pyg_nsa.cell.network import features
from pyg_nsa.cell.network.graph import build_graph


@pytest.fixture(scope="module")
def growth(textbook):
    return GrowthSimulator(textbook).wildtype_growth


@pytest.fixture(scope="module")
def filed(textbook):
    """The textbook model with subsystems, which its file does not give."""
    of = {
        "PFK": "Glycolysis",
        "PGI": "Glycolysis",
        "CS": "Citric Acid Cycle",
        "EX_ac_e": "Exchange",
    }
    return replace(textbook, subsystems=tuple(of.get(r, "") for r in textbook.reactions))


def test_shapes_and_scale(filed):
    graph = build_graph(filed, features=features.FEATURES)
    for node_type in graph.node_types:
        store = graph[node_type]
        assert store.x.shape == (store.num_nodes, len(store.feature_names))
        assert len(set(store.feature_names)) == len(store.feature_names)
        assert store.x.dtype == torch.float32
        assert store.x.isfinite().all()
        binary = ((store.x == 0) | (store.x == 1)).all(0)
        real = store.x[:, ~binary]
        assert real.mean(0).abs().max() < 1e-5
        torch.testing.assert_close(real.std(0, unbiased=False), torch.ones(real.size(1)))


def test_features_are_switchable(textbook, filed):
    graph = build_graph(textbook, features=["gene_reactions", "flux"])
    assert graph["gene"].feature_names == ["reactions", "reactions_without_isozyme"]
    assert graph["reaction"].feature_names == ["flux", "carries_flux"]
    assert graph["metabolite"].x.shape == (72, 0)
    assert "random_walk_2" not in build_graph(textbook)["gene"].feature_names
    for name in features.FEATURES:
        single = build_graph(filed, features=[name])
        assert any(single[t].x.size(1) for t in single.node_types), name


def test_every_feature_is_documented():
    for name in features.FEATURES:
        assert f"\n{name} " in features.__doc__


def test_unknown_feature(toy):
    with pytest.raises(
        ValueError,
        match=r"Unknown feature 'fluxes': expected some of flux, .* Did you mean 'flux'\?",
    ):
        build_graph(toy, features=["fluxes"])


def test_parsimonious_fluxes_against_cobra(textbook_model, textbook, growth):
    theirs = cobra.flux_analysis.pfba(textbook_model).fluxes
    mine = features.parsimonious_fluxes(textbook, growth)
    np.testing.assert_allclose(mine, theirs[list(textbook.reactions)], atol=1e-5)


def test_flux_variability_against_cobra(textbook_model, textbook, growth):
    theirs = cobra.flux_analysis.flux_variability_analysis(textbook_model, processes=1)
    lowest, highest = features.flux_variability(textbook, growth)
    np.testing.assert_allclose(lowest, theirs.minimum[list(textbook.reactions)], atol=1e-4)
    np.testing.assert_allclose(highest, theirs.maximum[list(textbook.reactions)], atol=1e-4)


def test_directions_split_the_flux(textbook, growth):
    graph = build_graph(textbook, features=["flux"])
    fluxes = features.parsimonious_fluxes(textbook, growth)
    carries = graph["reaction"].x[:, 1].numpy().astype(bool)
    reaction = graph["reaction"]
    for node, (r, way) in enumerate(
        zip(reaction.reaction_index.tolist(), reaction.direction.tolist(), strict=True)
    ):
        assert carries[node] == (fluxes[r] * way > 0)


def test_sole_clauses_by_hand(toy):
    graph = build_graph(toy, features=["gene_reactions"])
    x = graph["gene"].x  # a, b, c, d: one reaction each; only d has no isozyme
    assert x[:, 0].unique().tolist() == [0.0]
    alone = x[:, 1]
    assert alone[3] > alone[0] == alone[1] == alone[2]


def test_shadow_price_is_the_cost_of_draining(textbook, growth):
    graph = build_graph(textbook, features=["shadow_price"])
    price = graph["metabolite"].x[:, 0]
    draining = torch.full((len(textbook.metabolites),), torch.nan, dtype=torch.float64)
    for m in range(len(draining)):
        solver = linear_program(textbook)
        solver.changeRowBounds(m, 1e-5, 1e-5)
        solver.run()
        # A metabolite that is only passed around, such as ATP, cannot be drained at all.
        if solver.getModelStatus() == highspy.HighsModelStatus.kOptimal:
            draining[m] = (solver.getInfo().objective_function_value - growth) / 1e-5
    # Prices at a kink are one-sided, so the two may differ there.
    known = draining.isfinite()
    assert known.sum() > 50
    expected = draining.sign() * (draining.abs() / (growth * 1e-3)).log1p()
    assert torch.corrcoef(torch.stack([expected[known].float(), price[known]]))[0, 1] > 0.95


def test_subsystems_by_hand(textbook_model, textbook, filed):
    graph = build_graph(filed, features=["subsystem"])
    reaction, gene = graph["reaction"], graph["gene"]
    assert reaction.feature_names == [
        "subsystem_Citric Acid Cycle",
        "subsystem_Exchange",
        "subsystem_Glycolysis",
    ]
    marked = {
        name: {node.split("|")[0] for node, x in zip(reaction.node_ids, column, strict=True) if x}
        for name, column in zip(reaction.feature_names, reaction.x.T.tolist(), strict=True)
    }
    assert list(marked.values()) == [{"CS"}, {"EX_ac_e"}, {"PFK", "PGI"}]
    assert set(reaction.x.unique().tolist()) == {0.0, 1.0}
    assert reaction.x[:, 2].sum() == sum(n.startswith(("PFK|", "PGI|")) for n in reaction.node_ids)
    # No gene has the exchange, so genes have no column for it.
    assert gene.feature_names == ["subsystem_Citric Acid Cycle", "subsystem_Glycolysis"]
    glycolysis = {g.id for r in ("PFK", "PGI") for g in textbook_model.reactions.get_by_id(r).genes}
    assert {gene.node_ids[i] for i in gene.x[:, 1].nonzero().flatten().tolist()} == glycolysis
    assert graph["metabolite"].x.shape == (72, 0)
    # Not there unless it is asked for.
    plain, default = build_graph(textbook), build_graph(filed)
    assert all(torch.equal(plain[t].x, default[t].x) for t in plain.node_types)


def test_a_model_without_subsystems(textbook, toy):
    for network in (textbook, toy):
        with pytest.raises(
            ValueError, match=r"'subsystem': model '.*' files no reaction under a subsystem\. Leave"
        ):
            build_graph(network, features=["subsystem"])


def test_random_walks_against_pyg(textbook):
    graph = build_graph(textbook, features=False)
    sizes = [graph[t].num_nodes for t in ("gene", "reaction", "metabolite")]
    gpr = graph["gene", "gpr", "reaction"].edge_index + torch.tensor([[0], [sizes[0]]])
    rmr = graph["reaction", "rmr", "metabolite"].edge_index
    rmr = rmr + torch.tensor([[sizes[0]], [sizes[0] + sizes[1]]])
    edges = torch.cat([gpr, rmr], 1)
    both = torch.cat([edges, edges.flip(0)], 1)
    data = AddRandomWalkPE(walk_length=6)(Data(edge_index=both, num_nodes=sum(sizes)))
    mine = features.return_probabilities(*edges.numpy(), sum(sizes), (2, 4, 6))
    theirs = data.random_walk_pe.numpy()
    assert theirs[:, 2].max() == 0  # odd numbers of steps
    np.testing.assert_allclose(mine, theirs[:, [1, 3, 5]], atol=1e-5)


def test_no_feature_sees_a_deletion(filed, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a deletion was simulated")

    monkeypatch.setattr(GrowthSimulator, "growth", refuse)
    monkeypatch.setattr(GrowthSimulator, "fitness", refuse)
    build_graph(filed, features=features.FEATURES)

"""Which operator a configuration builds, and the baselines of a configuration."""

import copy
from typing import get_args

import pytest
import torch
from cell.test_model import make_batch, make_config
from torch_geometric.nn import GATv2Conv, HGTConv, SAGEConv, aggr
from torch_geometric.nn.resolver import aggregation_resolver

from pyg_nsa import HeteroNSA
from pyg_nsa.cell.config import Aggregation
from pyg_nsa.cell.models.build import (
    TRAINED_BASELINES,
    build_embedding,
    build_hetero_conv,
    build_model,
)
from pyg_nsa.cell.models.union_operator import UnionOperator
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import load_model


@pytest.fixture(scope="module")
def graph():
    return build_graph(load_model("textbook"), features=["degree"])


def convs_of(model, kind):
    return [m for m in model.operator.modules() if type(m) is kind]


def test_the_readout_and_the_operator_have_dropouts_of_their_own(graph):
    config = make_config(operator={"dropout": 0.1}, readout={"deletion": True, "dropout": 0.7})
    model = build_model(config, graph)
    assert {p for one in model.head.each for p in one.dropout} == {
        0.7,
        0.0,
    }  # none after the last layer
    assert model.deletion.dropout == 0.7
    found = {m.dropout for m in model.operator.modules() if hasattr(m, "dropout")}
    assert found == {0.1}
    assert {p for one in build_embedding(config, graph).head.each for p in one.dropout} == {
        0.7,
        0.0,
    }


def test_one_line_of_the_configuration_chooses_the_operator(graph):
    nsa = build_model(make_config(), graph)
    assert type(nsa.operator) is HeteroNSA
    for name, kind, count in (("hetero_conv", GATv2Conv, 2 * 6), ("hgt", HGTConv, 2)):
        model = build_model(make_config(operator={"operator": name}), graph)
        assert isinstance(model.operator, UnionOperator)
        assert len(convs_of(model, kind)) == count  # two M of MSM
        assert model.head.each[0].channel_list[1:] == nsa.head.each[0].channel_list[1:]
    options = {"conv": "SAGEConv", "args": {"aggr": "max"}}
    operator = {"operator": "hetero_conv", "operator_options": options}
    model = build_model(make_config(operator=operator), graph)
    assert len(convs_of(model, SAGEConv)) == 12
    prediction, _ = model(graph, make_batch(graph, [5], [7, 30]))
    assert prediction.isfinite().all()


def test_the_gatv2_baseline_gets_the_stoichiometry(graph):
    model = build_hetero_conv(make_config(), graph)
    arguments = model.operator.prepare(graph)
    with_attributes = {t for t in graph.edge_types if "stoichiometry" in graph[t]}
    assert set(arguments["edge_attr_dict"]) == with_attributes
    assert len(with_attributes) == 2
    prediction, _ = model(graph, make_batch(graph, [5]))
    other = graph.clone()
    for edge_type in with_attributes:
        other[edge_type].stoichiometry = -3 * other[edge_type].stoichiometry
    changed, _ = model(other, make_batch(graph, [5]))
    assert (prediction - changed).abs().max() > 1e-6
    assert "edge_attr" not in graph["reaction", "rmr", "metabolite"]


def test_an_operator_that_is_configured_is_its_own_baseline(graph):
    options = {"conv": "SAGEConv"}
    config = make_config(operator={"operator": "hetero_conv", "operator_options": options})
    assert convs_of(build_hetero_conv(config, graph), SAGEConv)


def test_embeddings_follow_the_switch(graph):
    for embeddings in (True, False):
        config = make_config(data={"model": "textbook", "embeddings": embeddings})
        for name, build in TRAINED_BASELINES.items():
            tables = [m for m in build(config, graph).modules() if type(m) is torch.nn.Embedding]
            assert bool(tables) == (embeddings or name == "embedding"), name


def test_the_model_without_a_graph_sums_over_deleted_genes(graph):
    torch.manual_seed(0)
    config = make_config()
    for data in (graph, build_graph(load_model("textbook"), features=False)):
        model = build_embedding(config, data).eval()
        assert model.columns == data["gene"].x.size(1)
        prediction, z = model(data, make_batch(data, [5], [7, 30], [7], [30], []))
        torch.testing.assert_close(z["z_p"][1], z["z_p"][2] + z["z_p"][3])
        torch.testing.assert_close(prediction[4], model.head(torch.zeros_like(z["z_w"]))[0])
    changed = copy.deepcopy(graph)
    changed["gene"].x += 1
    model = build_embedding(config, graph).eval()
    before, after = (model(g, make_batch(g, [5]))[0] for g in (graph, changed))
    assert (before - after).abs().max() > 1e-6


def test_an_operator_without_a_layer_is_refused(graph):
    operator = {"operator": "hgt", "pattern": "S"}
    with pytest.raises(
        ValueError, match=r"'S': operator 'hgt' is one layer for each M, and there is none"
    ):
        build_model(make_config(operator=operator), graph)


def test_the_names_of_aggregations_are_those_that_pyg_makes_without_arguments():
    def found(name):
        try:
            return type(aggregation_resolver(name))
        except TypeError:  # it needs arguments
            return None

    made = {found(name) for name in aggr.__all__} - {None, aggr.Aggregation}
    assert {found(name) for name in get_args(Aggregation)} == made


@pytest.mark.parametrize("name", get_args(Aggregation))
def test_every_aggregation_reads(graph, name):
    readout = {"deletion": True, "copies": True, "aggregations": [name]}
    model = build_model(make_config(readout=readout), graph)
    prediction, _ = model(graph, make_batch(graph, [5], [7, 30]))
    assert prediction.isfinite().all()

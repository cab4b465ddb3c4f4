"""What `HeteroNSAConfig.bind` says about numbers of nodes and columns, held against what a call does."""

from __future__ import annotations

import pytest
import torch
from nn.conftest import make_cell
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import ConfigError, HeteroNSAConv, build_operator, load_config

GG, GR = ("gene", "regulates", "gene"), ("gene", "gpr", "reaction")
EDGES = [
    {"edge_type": GG, "kind": "adjacency_mask"},
    {"edge_type": GR, "kind": "adjacency_mask"},
]


def graph(nodes=5):
    data = HeteroData()
    data["gene"].x = torch.zeros(nodes, 2)
    data["reaction"].x = torch.zeros(3, 4)
    data[GG].edge_index = torch.tensor([[0, 4], [1, 2]])
    data[GR].edge_index = torch.tensor([[0, 4, 1], [2, 0, 1]])
    return data


def without_x(**facts):
    """The graph with a node type of which only these facts are known."""
    data = graph()
    del data["reaction"].x
    for name, value in facts.items():
        data["reaction"][name] = value
    return data


def config(**changes):
    return load_config({"hidden_channels": 8, "edges": EDGES, **changes})


def only_problem(data, **changes):
    with pytest.raises(ConfigError) as caught:
        config(**changes).bind(data)
    (problem,) = caught.value.problems
    return problem


def facts(problem):
    return problem.path, problem.code, problem.message


def fails(data, **changes):
    conv = HeteroNSAConv.from_config(config(**changes))
    with pytest.raises((ValueError, RuntimeError)):
        conv(**conv.collect(data))


def test_more_nodes_than_embeddings():
    assert facts(only_problem(graph(), num_nodes={"gene": 4, "reaction": 3})) == (
        "num_nodes.gene",
        "too_few_embeddings",
        "num_nodes says that the base graph has 4 nodes of type 'gene', but the graph has 5; set it to the number of nodes of "
        "the base graph (5, if this is it)",
    )
    fails(graph(), num_nodes={"gene": 4})
    both = Batch.from_data_list([graph(), graph(7)])
    assert "but the graph has 7" in only_problem(both, num_nodes={"gene": 5}).message


def test_a_part_of_the_base_graph_fits():
    config(num_nodes={"gene": 9, "reaction": 3}).bind(graph())
    config(num_nodes={"gene": 7}).bind(Batch.from_data_list([graph(), graph(7)]))


@pytest.mark.parametrize("numbering", ["compact", "wildtype"])
@pytest.mark.parametrize("copies", [1, 2])
def test_deleted_nodes_are_not_counted_twice(numbering, copies):
    data = make_cell((2, 5), numbering, 3)
    batch = data if copies == 1 else Batch.from_data_list([data, make_cell((1,), numbering, 3)])
    sizes = {"gene": 23, "reaction": 31, "metabolite": 17}
    edges = [
        {"edge_type": list(edge_type), "kind": "adjacency_mask"}
        for edge_type in data.edge_types
        if data[edge_type].get("edge_index") is not None
    ]
    for chosen in (sizes, {"gene": 23}):
        raw = {"hidden_channels": 8, "edges": edges, "unmatched": "skip"}
        ends = {t for entry in edges for t in entry["edge_type"][::2]}
        load_config({**raw, "num_nodes": {t: n for t, n in chosen.items() if t in ends}}).bind(
            batch
        )


@pytest.mark.filterwarnings("ignore:Unable to accurately infer")
def test_nothing_says_how_many_nodes_there_are():
    data = without_x()
    assert facts(only_problem(data)) == (
        "edges[1].edge_type",
        "no_nodes",
        "node type 'reaction' of the graph has neither x nor num_nodes; set data['reaction'].num_nodes, or data['reaction'].x to "
        "its features",
    )
    fails(data)
    del data["reaction"]
    assert only_problem(data).code == "no_nodes"
    data["reaction"].num_nodes = 3
    config(num_nodes={"reaction": 3}).bind(data)
    data["extra"].y = torch.zeros(2)  # takes no part
    config(num_nodes={"reaction": 3}).bind(data)


def test_columns():
    assert facts(only_problem(graph(), in_channels={"gene": 3})) == (
        "in_channels.gene",
        "wrong_columns",
        "in_channels says that x of node type 'gene' has 3 columns, but its x has 2; set it to 2, or to -1, which takes it from "
        "the first call",
    )
    fails(graph(), in_channels={"gene": 3})
    assert only_problem(graph(), in_channels=2).path == "in_channels"
    data = without_x(num_nodes=3)
    more = {"num_nodes": {"reaction": 3}}
    problem = only_problem(data, in_channels={"reaction": 4}, **more)
    assert "but it has no x; set it to 0" in problem.message
    config(in_channels={"reaction": 0, "gene": 2}, **more).bind(data)
    config(in_channels={"reaction": 4, "gene": 2}).bind(graph())


def test_build_operator_takes_channels_in_the_place_of_in_channels():
    given = config(in_channels=3)
    with pytest.raises(ConfigError, match="in_channels says that x of node type 'gene' has 3"):
        build_operator(given, graph())
    build_operator(given, graph(), channels=-1)
    # Columns of node types that take no part are left out.
    data = graph()
    data["other"].x = torch.zeros(2, 1)
    conv = build_operator(given, data, channels={"gene": 2, "other": 1})
    assert conv.config.in_channels == {"gene": 2}


def test_the_line_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nsa.yaml").write_text(
        "num_nodes:\n  gene: 4\nedges:\n  - {edge_type: [gene, regulates, gene], kind: adjacency_mask}\n"
        "unmatched: skip\n"
    )
    with pytest.raises(ConfigError, match=r"^nsa.yaml:2:3: num_nodes.gene: num_nodes says"):
        load_config("nsa.yaml").bind(graph())


def test_nodes_that_nothing_tells_apart():
    data = without_x(num_nodes=3)
    assert facts(only_problem(data)) == (
        "num_nodes.reaction",
        "no_features",
        "node type 'reaction' has no x, so its nodes cannot be told apart; add num_nodes: {reaction: 3}, which gives each a "
        "learned embedding",
    )
    fails(data)
    config(num_nodes={"reaction": 3}).bind(data)
    data["reaction"].x = torch.zeros(3, 0)
    assert "has an x without columns" in only_problem(data).message
    both = Batch.from_data_list([data, data])
    assert "{reaction: <nodes of the base graph>}" in only_problem(both).message
    # Other operators may have a use for them, and a layer inside of a model gets rows from elsewhere.
    config(operator="hetero_conv").bind(data)
    build_operator(config(), data)
    build_operator(config(pattern=None), data)


@pytest.mark.parametrize("edge_type", [GR, ("reaction", "back", "gene")])
def test_attention_in_a_bare_step_needs_features(edge_type):
    data = without_x(num_nodes=3)
    data[edge_type].edge_index = torch.tensor([[0, 1], [2, 0]])
    edges = [{"edge_type": GG, "kind": "adjacency_mask"}]
    attended = [*edges, {"edge_type": edge_type, "kind": "adjacency_mask"}]
    bare = {"pattern": None, "unmatched": "skip"}
    assert facts(only_problem(data, edges=attended, **bare)) == (
        "edges[1]",
        "no_features",
        "node type 'reaction' has no x, so attention along this edge type has nothing to go by; set data['reaction'].x to its "
        "features, or use a stack, pattern: M (or another), with num_nodes: {reaction: 3}, which gives each node a learned "
        "embedding",
    )
    fails(data, edges=attended, **bare)
    # A conv does without.
    conv = {"edge_type": edge_type, "kind": "pyg_conv", "options": {"conv": "SAGEConv"}}
    fitting = config(edges=[*edges, conv], **bare)
    fitting.bind(data)
    module = HeteroNSAConv.from_config(fitting)
    assert module(**module.collect(data))[edge_type[2]].shape[1] == 8

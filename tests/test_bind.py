"""What `HeteroNSAConfig.bind` says about inputs of wrong shapes, dtypes and ranges."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from fake_kinds import fake_registry
from torch_geometric.data import Batch, HeteroData

from pyg_nsa.api import EdgeKind
from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError
from pyg_nsa.registry import use_registry

GG, GR = ("gene", "interacts", "gene"), ("gene", "gpr", "reaction")
GG_TEXT, GR_TEXT = "data[('gene', 'interacts', 'gene')]", "data[('gene', 'gpr', 'reaction')]"


@pytest.fixture(autouse=True)
def registry():
    registry = fake_registry()
    registry.register(
        EdgeKind(
            name="masked",
            build=lambda context, options: None,
            summary="Hyperedges or a mask.",
            requires=(("hyperedge_index", "inc_mask"),),
        )
    )
    with use_registry(registry):
        yield registry


def graph(**of_gg) -> HeteroData:
    data = HeteroData()
    data["gene"].x = torch.zeros(5, 2)
    data["reaction"].x = torch.zeros(3, 1)
    data["reaction"].num_nodes = 3
    data[GG].update({"edge_index": torch.tensor([[0, 4], [1, 2]]), **of_gg})
    data[GR].edge_index = torch.tensor([[0, 4, 1], [2, 0, 1]])
    data[GR].cost = torch.ones(3)
    return data


def config(first="pairs", second="weighted") -> HeteroNSAConfig:
    options = {"edge_attr": "cost"} if second == "weighted" else {}
    return HeteroNSAConfig.model_validate(
        {
            "edges": [
                {"edge_type": GG, "kind": first},
                {"edge_type": GR, "kind": second, "options": options},
            ]
        }
    )


def problems(data, **kinds):
    with pytest.raises(ConfigError) as caught:
        config(**kinds).bind(data)
    return caught.value.problems


def one(data, **kinds):
    (problem,) = problems(data, **kinds)
    assert problem.code == "wrong_input"
    return problem


def test_a_graph_that_fits():
    config().bind(graph())
    config().bind(Batch.from_data_list([graph(), graph()]))
    config().bind(graph(edge_index=torch.empty(2, 0, dtype=torch.int32)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.zeros(2, 3),
            "must hold integers, got torch.float32; convert it: {0}.edge_index = {0}.edge_index.long()",
        ),
        (
            torch.zeros(2, 3, dtype=torch.bool),
            "must hold integers, got torch.bool; a dense mask belongs into a field such as adj_mask; its edges: "
            "{0}.edge_index = mask.nonzero().t()",
        ),
        (
            torch.zeros(4, 2, dtype=torch.long),
            "must have shape [2, E], a row of sources and a row of targets, got [4, 2]; it lists the edges as rows, so "
            "transpose it: {0}.edge_index = {0}.edge_index.t().contiguous()",
        ),
        (
            torch.zeros(3, dtype=torch.long),
            "must have shape [2, E], a row of sources and a row of targets, got [3]",
        ),
        (
            torch.tensor([[0, 5], [1, 2]]),
            "has source index 5, but node type 'gene' has 5 nodes (valid: 0 to 4); set num_nodes of the node type, or "
            "relabel the edges",
        ),
        (
            torch.tensor([[0, 3], [1, -1]]),
            "has target index -1, but node type 'gene' has 5 nodes (valid: 0 to 4); set num_nodes of the node type, or "
            "relabel the edges",
        ),
        (
            [[0], [1]],
            "must be a tensor, got a list; convert it: {0}.edge_index = torch.tensor({0}.edge_index)",
        ),
        (
            np.zeros((2, 1), dtype=int),
            "must be a tensor, got a numpy array; convert it: {0}.edge_index = torch.from_numpy({0}.edge_index)",
        ),
    ],
)
def test_edges(value, message):
    problem = one(graph(edge_index=value))
    assert problem.path == "edges[0]"
    assert problem.message == (
        f"'edge_index' of edge type (gene, interacts, gene) {message.format(GG_TEXT)}"
    )
    assert problem.plugin == "edge kind 'pairs' of fake_kinds (registered by hand)"


def test_rows_of_edges_that_are_swapped():
    data = graph()
    data[GR].edge_index = data[GR].edge_index.flip(0)
    assert one(data).message == (
        "'edge_index' of edge type (gene, gpr, reaction) has target index 4, but node type 'reaction' has 3 nodes "
        f"(valid: 0 to 2); its rows seem to be swapped: {GR_TEXT}.edge_index = {GR_TEXT}.edge_index.flip(0)"
    )


def masked(mask) -> HeteroData:
    data = graph(adj_mask=mask)
    del data[GG].edge_index
    return data


def test_masks():
    config().bind(masked(torch.zeros(5, 5, dtype=torch.bool)))
    label = "'adj_mask' of edge type (gene, interacts, gene)"
    assert one(masked(torch.zeros(5, 5))).message == (
        f"{label} must be boolean, got torch.float32; convert it: {GG_TEXT}.adj_mask = {GG_TEXT}.adj_mask.bool() for a "
        f"mask of 0 and 1, {GG_TEXT}.adj_mask = {GG_TEXT}.adj_mask > -1e9 for an additive one of 0 and -inf"
    )
    assert one(masked(torch.zeros(25, dtype=torch.bool))).message == (
        f"{label} must have two dimensions, [sources, targets], got shape [25]"
    )
    assert one(masked(torch.zeros(4, 5, dtype=torch.bool))).message == (
        f"{label} must have shape [5, 5] (rows: source nodes 'gene', columns: target nodes 'gene'), got [4, 5]"
    )


def test_a_mask_of_edges_is_told_from_one_of_pairs(registry):
    flags = EdgeKind(
        name="flags",
        build=lambda context, options: None,
        summary="Edges that take part.",
        requires=("edge_index", "train_mask", "active"),
    )
    registry.register(flags)
    # What an attribute holds that no option `edge_attr` names, the kind knows.
    active = torch.tensor([True, False])
    data = graph(active=active, train_mask=torch.zeros(5, 5, dtype=torch.bool))
    config(first="flags").bind(data)
    assert "must have one row for each of the 2 edges" in (
        one(graph(**{**data[GG], "active": torch.ones(3, dtype=torch.bool)}), first="flags").message
    )
    assert one(graph(active=active, train_mask=active), first="flags").message == (
        "'train_mask' of edge type (gene, interacts, gene) must have two dimensions, [sources, targets], got shape [2]; a name "
        "that ends in _mask means a dense mask, so give an attribute of the edges another one"
    )


@pytest.mark.parametrize("name", ["edge_attr", "edge_weight"])
def test_pygs_names_of_attributes_mean_numbers(registry, name):
    kind = EdgeKind(
        name="named", build=lambda c, o: None, summary="It.", requires=("edge_index", name)
    )
    registry.register(kind)
    problem = one(graph(**{name: torch.tensor([True, False])}), first="named")
    assert "must hold numbers, got torch.bool" in problem.message


def test_a_mask_that_lies_on_its_side():
    data = graph()
    data[GR].inc_mask = torch.zeros(3, 5, dtype=torch.bool)
    del data[GR].edge_index
    message = one(data, second="masked").message
    assert "must have shape [5, 3]" in message
    assert message.endswith(
        f"got [3, 5]; transpose it: {GR_TEXT}.inc_mask = {GR_TEXT}.inc_mask.t()"
    )


def test_masks_of_a_batch_are_stacked():
    data = masked(torch.zeros(5, 5, dtype=torch.bool))
    config().bind(Batch.from_data_list([data, data, data]))
    batch = Batch.from_data_list([data, data])
    batch[GG].adj_mask = torch.zeros(10, 10, dtype=torch.bool)
    assert "shape [10, 5] (rows: source nodes 'gene', stacked for 2 graphs" in one(batch).message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.ones(3, dtype=torch.bool),
            f"must hold numbers, got torch.bool; convert it: {GR_TEXT}.cost = {GR_TEXT}.cost.float()",
        ),
        (torch.ones(3, 1, 1), "must have shape [E] or [E, F], a row for each edge, got [3, 1, 1]"),
        (torch.tensor(1.0), "must have shape [E] or [E, F], a row for each edge, got []"),
        (torch.ones(2), "must have one row for each of the 3 edges of 'edge_index', got shape [2]"),
        (
            torch.ones(5, 3),
            "must have one row for each of the 3 edges of 'edge_index', got shape [5, 3]; of a dense matrix take the "
            f"entries of the edges: {GR_TEXT}.cost[edge_index[0], edge_index[1]]",
        ),
        (
            torch.eye(3).to_sparse(),
            "must have shape [E] or [E, F], a row for each edge, got a sparse matrix",
        ),
        (
            "cost",
            f"must be a tensor, got a str; convert it: {GR_TEXT}.cost = torch.tensor({GR_TEXT}.cost)",
        ),
    ],
)
def test_edge_attributes(value, message):
    data = graph()
    data[GR].cost = value
    problem = one(data)
    assert problem.path == "edges[1]"
    assert problem.message == f"'cost' of edge type (gene, gpr, reaction) {message}"


def test_integers_and_columns_are_fine_attributes():
    for value in (torch.ones(3, dtype=torch.int64), torch.ones(3, 7), torch.ones(3, 0)):
        data = graph()
        data[GR].cost = value
        config().bind(data)


def test_of_alternatives_only_the_one_that_is_read_is_looked_at():
    config().bind(graph(adj_mask=torch.zeros(2)))


def test_sparse_edges_are_the_plugins_to_read():
    config().bind(graph(edge_index=torch.eye(5).to_sparse()))


def test_several_problems_at_once():
    data = graph(edge_index=torch.zeros(2, 3))
    data[GR].cost = torch.ones(2)
    assert [problem.path for problem in problems(data)] == ["edges[0]", "edges[1]"]


def test_nodes_that_nobody_counted_are_not_guessed():
    data = HeteroData()
    data[GG].edge_index = torch.tensor([[0, 9], [1, 2]])
    data[GR].edge_index = torch.tensor([[0, 9], [1, 2]])
    data[GR].cost = torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config().bind(data)


def test_a_fitting_kind_without_required_inputs(registry):
    config(second="touchy").bind(graph())

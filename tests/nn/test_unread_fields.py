"""A dictionary by edge type that no relation of a layer reads is warned of once, and nothing else is."""

import copy
import warnings

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, GraphConv, SAGEConv

from pyg_nsa import HeteroNSA, HeteroNSAConv

NN, MN, NM = ("n", "to", "n"), ("m", "of", "n"), ("n", "in", "m")
READS = r"got {}_dict, which none of its relations reads"


@pytest.fixture
def data():
    out = HeteroData()
    for node_type, rows in (("n", 6), ("m", 5)):
        out[node_type].x = torch.randn(rows, 8)
    for edge_type in (NN, MN, NM):
        out[edge_type].edge_index = torch.tensor([[0, 1, 2, 4, 3], [1, 2, 3, 0, 0]])
        out[edge_type].edge_weight = torch.rand(5)
        out[edge_type].edge_attr = torch.randn(5, 2)
    return out


def layer(convs=None, pattern=None):
    convs = convs or {NN: "adjacency_mask"}
    return HeteroNSAConv(convs, pattern=pattern, hidden_channels=8, in_channels=8)


def told(call, *args, **kwargs):
    """The warnings of a call that are about unread fields."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args, **kwargs)
    return [str(w.message) for w in caught if "none of its relations reads" in str(w.message)]


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_a_field_that_no_relation_reads_is_told_once(pattern, data):
    conv = layer({NN: "adjacency_mask", MN: "adjacency_mask"}, pattern)
    call = {"edge_weight_dict": {NN: data[NN].edge_weight}}
    with pytest.warns(UserWarning, match=READS.format("edge_weight")) as caught:
        conv(data.x_dict, data.edge_index_dict, **call)
    (message,) = [str(w.message) for w in caught if "reads" in str(w.message)]
    assert message.startswith("HeteroNSAConv got edge_weight_dict")
    assert f"edge type {NN} has edge kind 'adjacency_mask'" in message
    assert str(MN) not in message
    assert "{'kind': 'edge_attr_bias', 'options': {'edge_attr': 'edge_weight'}}" in message
    assert "'stoichiometry_bias'" in message
    for same in (conv, copy.deepcopy(conv)):
        assert told(same, data.x_dict, data.edge_index_dict, **call) == []
    # Another field, by place.
    attr = {NN: data[NN].edge_attr}
    (message,) = told(conv, data.x_dict, data.edge_index_dict, attr)
    assert "edge_attr_dict" in message
    assert told(conv, data.x_dict, data.edge_index_dict, edge_attr_dict=attr) == []


def test_a_stack_of_its_own_and_many_relations(data):
    edge_types = [("n", f"to{i}", "n") for i in range(5)]
    stack = HeteroNSA(8, 8, dict.fromkeys(edge_types, "adjacency_mask"), "M")
    index = dict.fromkeys(edge_types, data[NN].edge_index)
    weights = dict.fromkeys(edge_types, data[NN].edge_weight)
    (message,) = told(stack, {"n": data["n"].x}, index, edge_weight_dict=weights)
    assert message.startswith("HeteroNSA got edge_weight_dict")
    assert str(edge_types[2]) in message
    assert str(edge_types[3]) not in message
    assert " and 2 more" in message


def test_what_the_message_proposes_reads_it(data):
    proposed = {"kind": "edge_attr_bias", "options": {"edge_attr": "edge_weight"}}
    conv = layer({NN: proposed})
    weights = {NN: data[NN].edge_weight}
    assert told(conv, data.x_dict, data.edge_index_dict, edge_weight_dict=weights) == []


def test_a_name_that_is_nearly_that_of_a_field(data):
    conv = layer({NN: "edge_attr_bias"})
    with (
        pytest.warns(UserWarning, match="did you mean edge_attr_dict") as caught,
        pytest.raises(ValueError, match="'edge_attr'"),
    ):
        conv(data.x_dict, data.edge_index_dict, egde_attr_dict={NN: data[NN].edge_attr})
    assert "edge_attr_bias', 'options'" not in str(caught[0].message)


def test_what_is_no_tensor_gets_no_proposal(data):
    flags = {NN: True}
    (message,) = told(
        layer(), data.x_dict, data.edge_index_dict, return_attention_weights_dict=flags
    )
    assert "edge_attr_bias" not in message
    assert message.endswith("leave return_attention_weights_dict out")


@pytest.mark.parametrize("pattern", [None, "M", "S"])
def test_what_collect_gives_is_fine(pattern, data):
    convs = {
        NN: {"kind": "edge_attr_bias", "options": {"edge_attr": "edge_weight"}},
        MN: {"kind": "pyg_conv", "options": {"conv": "GraphConv", "fields": ["edge_weight"]}},
        NM: GATConv((8, 8), 8, edge_dim=2, add_self_loops=False),
    }
    conv = layer(convs, pattern)
    call = conv.collect(data)
    assert {"edge_weight_dict", "edge_attr_dict"} <= set(call)
    assert told(conv, **call) == []


class Wrapper(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = SAGEConv(8, 8)

    def forward(self, x, edge_index, **kwargs):
        return self.conv(x, edge_index)


@pytest.mark.parametrize(
    "convs",
    [
        # Another relation reads it, so one dictionary of the whole graph is right.
        {
            NN: "adjacency_mask",
            MN: {"kind": "edge_attr_bias", "options": {"edge_attr": "edge_weight"}},
        },
        {NN: "adjacency_mask", MN: GraphConv(8, 8)},
        {NN: "adjacency_mask", MN: Wrapper()},
        {NN: "adjacency_mask", MN: {"kind": "pyg_conv", "options": {"conv": "GraphConv"}}},
        # Not this layer's edge types.
        {NM: "adjacency_mask"},
    ],
)
def test_a_dictionary_that_some_relation_may_read(convs, data):
    weights = {NN: data[NN].edge_weight, MN: data[MN].edge_weight}
    assert told(layer(convs), data.x_dict, data.edge_index_dict, edge_weight_dict=weights) == []


def test_what_says_nothing_of_its_own(data):
    """Other forms of the edges, fields of nodes, and dictionaries that hold nothing."""
    index = {NN: data[NN].edge_index}
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[tuple(data[NN].edge_index)] = True
    fields = {
        "hyperedge_index_dict": index,
        "adj_mask_dict": {NN: mask},
        "inc_mask_dict": {NN: mask},
        "batch_dict": {"n": torch.zeros(6, dtype=torch.long)},
        "pos_dict": {"n": torch.randn(6, 3)},
        "edge_weight_dict": {NN: None},
        "edge_attr_dict": {},
    }
    source = {"kind": "adjacency_mask", "options": {"source": "edge_index"}}
    for pattern in (None, "M"):
        assert told(layer({NN: source}, pattern), {"n": data["n"].x}, index, **fields) == []


def test_a_conv_that_was_put_in_later_reads_it(data):
    conv = layer()
    conv.convs[NN] = GraphConv(8, 8)
    weights = {NN: data[NN].edge_weight}
    assert told(conv, data.x_dict, data.edge_index_dict, edge_weight_dict=weights) == []
    # By place it may be anything that a conv's third argument is.
    conv = layer({NN: GraphConv(8, 8), MN: "adjacency_mask"})
    assert told(conv, data.x_dict, data.edge_index_dict, weights) == []


@pytest.mark.parametrize("pattern", [None, "M"])
def test_a_compiled_layer_stays_one_graph_and_says_nothing(pattern, data):
    conv = layer(pattern=pattern).eval()
    args = ({"n": data["n"].x}, {NN: data[NN].edge_index})
    weights = {NN: data[NN].edge_weight}
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    assert told(compiled, *args, edge_weight_dict=weights) == []
    torch.testing.assert_close(compiled(*args, edge_weight_dict=weights), conv(*args))


def test_an_exported_layer_says_nothing(data):
    conv = layer().eval()
    args = ({"n": data["n"].x}, {NN: data[NN].edge_index})
    weights = {"edge_weight_dict": {NN: data[NN].edge_weight}}
    assert told(torch.export.export, conv, args, weights) == []

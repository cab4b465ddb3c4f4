"""What `collect` gathers for conv modules: what a call by dictionaries would give them."""

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HeteroConv, HypergraphConv, MessagePassing, SAGEConv

from pyg_nsa import HeteroNSAConv

NN = ("n", "to", "n")


def make_data(**fields):
    data = HeteroData()
    data["n"].x = torch.randn(6, 8)
    data[NN].edge_index = torch.tensor([[0, 1, 2, 4, 5], [1, 2, 3, 0, 0]])
    for name, value in fields.items():
        data[NN][name] = value
    return data


def assert_same(out, expected):
    assert set(out) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(out[key], value, rtol=0, atol=0)


# ---- edges under another name ---------------------------------------------------------------------------------------------


class Around(torch.nn.Module):
    """A module around a conv, whose forward has none of the conv's names."""

    def __init__(self, conv=None):
        super().__init__()
        self.conv = conv or SAGEConv(8, 8)

    def reset_parameters(self):
        self.conv.reset_parameters()


class Anything(Around):
    def forward(self, *args, **kwargs):
        return self.conv(*args, **kwargs).relu()


class ByPlace(Around):
    def forward(self, *args):
        return args[0] + self.conv(*args)


class ByName(Around):
    def forward(self, **kwargs):
        return self.conv(**kwargs)


class RestByPlace(Around):
    def forward(self, x, *rest):
        return x + self.conv(x, *rest)


class OtherNames(Around):
    def forward(self, feat, adj, size=None):
        return self.conv(feat, adj)


WRAPPED = {
    "anything": Anything,
    "anything around hyperedges": lambda: Anything(HypergraphConv(8, 8)),
    "by place": ByPlace,
    "rest by place": RestByPlace,
    "other names": OtherNames,
    "hyperedges": lambda: HypergraphConv(8, 8),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_edges_reach_forwards_that_do_not_name_them(name):
    data, conv = make_data(), WRAPPED[name]()
    expected = HeteroConv({NN: conv})(data.x_dict, data.edge_index_dict)
    bare = HeteroNSAConv({NN: conv})
    assert_same(bare(**bare.collect(data)), expected)
    stack = HeteroNSAConv({NN: conv}, hidden_channels=8, pattern="MM").eval()
    assert_same(stack(**stack.collect(data)), stack(data.x_dict, data.edge_index_dict))


def test_edges_reach_a_forward_of_keywords_by_name():
    data, conv = make_data(), ByName()
    bare = HeteroNSAConv({NN: conv})
    expected = HeteroConv({NN: conv})(x_dict=data.x_dict, edge_index_dict=data.edge_index_dict)
    assert_same(bare(**bare.collect(data)), expected)


def test_a_call_by_name_with_more_than_rows_and_edges_stays_by_name():
    """As in HeteroConv: by place, the edges would be taken for the positions."""

    class Positions(MessagePassing):
        def forward(self, x, pos, edge_index):
            return self.propagate(edge_index, x=x) + pos

    data, conv = make_data(), Anything(Positions())
    call = {
        "x_dict": data.x_dict,
        "pos_dict": {"n": torch.randn(6, 8)},
        "edge_index_dict": data.edge_index_dict,
    }
    assert_same(HeteroNSAConv({NN: conv})(**call), HeteroConv({NN: conv})(**call))


def test_a_field_of_the_edges_own_name_is_taken():
    data = make_data()
    data[NN].adj = data[NN].edge_index.flip(0)
    conv = OtherNames()
    bare = HeteroNSAConv({NN: conv})
    assert_same(bare(**bare.collect(data)), HeteroConv({NN: conv})(data.x_dict, {NN: data[NN].adj}))
    del data[NN].adj, data[NN].edge_index
    data[NN].weight = torch.randn(5)
    with pytest.raises(ValueError, match="the OtherNames of edge type .* requires 'edge_index' or"):
        bare.collect(data)


@pytest.mark.parametrize("name", ["other names", "hyperedges", "by place"])
def test_dead_rows_are_left_out_under_any_name(name):
    data, conv = make_data(), WRAPPED[name]()
    data["n"].mask = torch.tensor([True, True, False, True, True, True])
    bare = HeteroNSAConv({NN: conv})
    living = {NN: data[NN].edge_index[:, [0, 3, 4]]}
    expected = HeteroConv({NN: conv})(data.x_dict, living)["n"].masked_fill(
        ~data["n"].mask[:, None], 0.0
    )
    torch.testing.assert_close(bare(**bare.collect(data))["n"], expected)


def test_a_collected_call_compiles_into_one_graph():
    data = make_data()
    bare = HeteroNSAConv({NN: OtherNames(GATConv(8, 8))})
    call = bare.collect(data)
    compiled = torch.compile(bare, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**call)["n"], bare(**call)["n"])

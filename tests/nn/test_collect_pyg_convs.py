"""`collect` for PyG's convs: the call that it makes gives what HeteroConv gives on the fields that the conv was built for."""

import copy
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from torch.nn import Linear
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from pyg_nsa import HeteroNSAConv

NN, NM, MN = ("n", "to", "n"), ("n", "in", "m"), ("m", "of", "n")
SIZE = 4  # columns of edge_attr


def make_data():
    data = HeteroData()
    for node_type, rows in (("n", 6), ("m", 5)):
        data[node_type].x = torch.randn(rows, 8)
        data[node_type].pos = torch.randn(rows, 3)
        data[node_type].normal = torch.randn(rows, 3)
        data[node_type].x_0 = torch.randn(rows, 8)
    for edge_type in (NN, NM, MN):
        index = torch.tensor([[0, 1, 2, 4, 3, 0, 2], [1, 2, 3, 0, 0, 4, 2]])
        data[edge_type].edge_index = index
        data[edge_type].edge_attr = torch.rand(7, SIZE)
        data[edge_type].edge_type = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    data["n"].node_type = torch.tensor([0, 1, 1, 0, 1, 0])
    return data


def mlp(rows, columns):
    return torch.nn.Sequential(Linear(rows, columns))


DEGREE = torch.tensor([1, 2, 3])
#: The conv, whether it works between two node types, and the fields that it was built for.
CONVS = {
    # No word of edge attributes.
    "AGNNConv": (lambda: pyg.AGNNConv(add_self_loops=False), False, ()),
    "APPNP": (lambda: pyg.APPNP(2, 0.1), False, ()),
    "ARMAConv": (lambda: pyg.ARMAConv(8, 8), False, ()),
    "AntiSymmetricConv": (lambda: pyg.AntiSymmetricConv(8), False, ()),
    "ChebConv": (lambda: pyg.ChebConv(8, 8, 2), False, ()),
    "ClusterGCNConv": (lambda: pyg.ClusterGCNConv(8, 8), False, ()),
    "DirGNNConv": (lambda: pyg.DirGNNConv(SAGEConv(8, 8)), False, ()),
    "EGConv": (lambda: pyg.EGConv(8, 8, num_heads=2), False, ()),
    "EdgeConv": (lambda: pyg.EdgeConv(mlp(16, 8)), True, ()),
    "FeaStConv": (lambda: pyg.FeaStConv(8, 8), False, ()),
    "FiLMConv": (lambda: pyg.FiLMConv(8, 8), True, ()),
    "GCNConv": (lambda: pyg.GCNConv(8, 8), False, ()),
    "GINConv": (lambda: pyg.GINConv(mlp(8, 8)), True, ()),
    "GPSConv": (lambda: pyg.GPSConv(8, SAGEConv(8, 8), heads=2), False, ()),
    "GatedGraphConv": (lambda: pyg.GatedGraphConv(8, 2), False, ()),
    "GraphConv": (lambda: pyg.GraphConv(8, 8), True, ()),
    "HypergraphConv": (lambda: pyg.HypergraphConv(8, 8), False, ()),
    "LEConv": (lambda: pyg.LEConv(8, 8), True, ()),
    "LGConv": (lambda: pyg.LGConv(), False, ()),
    "MFConv": (lambda: pyg.MFConv(8, 8), True, ()),
    "MixHopConv": (lambda: pyg.MixHopConv(8, 8), False, ()),
    "SAGEConv": (lambda: pyg.SAGEConv(8, 8), True, ()),
    "SGConv": (lambda: pyg.SGConv(8, 8), False, ()),
    "SSGConv": (lambda: pyg.SSGConv(8, 8, 0.1), False, ()),
    "SimpleConv": (lambda: pyg.SimpleConv(), True, ()),
    "SuperGATConv": (lambda: pyg.SuperGATConv(8, 8), False, ()),
    "TAGConv": (lambda: pyg.TAGConv(8, 8), False, ()),
    "WLConvContinuous": (lambda: pyg.WLConvContinuous(), True, ()),
    # Built without edge attributes.
    "CGConv": (lambda: pyg.CGConv(8), True, ()),
    "GATConv": (lambda: pyg.GATConv((8, 8), 8, add_self_loops=False), True, ()),
    "GATv2Conv": (lambda: pyg.GATv2Conv(8, 8, add_self_loops=False), True, ()),
    "GENConv": (lambda: pyg.GENConv(8, 8), True, ()),
    "GeneralConv": (lambda: pyg.GeneralConv(8, 8), True, ()),
    "PNAConv": (lambda: pyg.PNAConv(8, 8, ["mean"], ["identity"], DEGREE), False, ()),
    "FastRGCNConv": (lambda: pyg.FastRGCNConv(8, 8, 3), False, ("edge_type",)),
    "RGCNConv": (lambda: pyg.RGCNConv(8, 8, 3), True, ("edge_type",)),
    "RGATConv": (lambda: pyg.RGATConv(8, 8, 3), False, ("edge_type",)),
    "ResGatedGraphConv": (lambda: pyg.ResGatedGraphConv(8, 8), True, ()),
    "TransformerConv": (lambda: pyg.TransformerConv(8, 8), True, ()),
    # Built for them.
    "CGConv, dim": (lambda: pyg.CGConv(8, SIZE), True, ("edge_attr",)),
    "GATConv, edge_dim": (
        lambda: pyg.GATConv((8, 8), 8, edge_dim=SIZE, add_self_loops=False),
        True,
        ("edge_attr",),
    ),
    "GATv2Conv, edge_dim": (
        lambda: pyg.GATv2Conv(8, 8, edge_dim=SIZE, add_self_loops=False),
        True,
        ("edge_attr",),
    ),
    "GENConv, edge_dim": (lambda: pyg.GENConv(8, 8, edge_dim=SIZE), True, ("edge_attr",)),
    "GENConv of their size": (lambda: pyg.GENConv(8, SIZE), True, ("edge_attr",)),
    "GENConv, edge_dim of its size": (
        lambda: pyg.GENConv(8, SIZE, edge_dim=SIZE),
        True,
        ("edge_attr",),
    ),
    "GINEConv": (lambda: pyg.GINEConv(mlp(8, 8), edge_dim=SIZE), True, ("edge_attr",)),
    "GMMConv": (lambda: pyg.GMMConv(8, 8, SIZE, 2), True, ("edge_attr",)),
    "GeneralConv, in_edge_channels": (
        lambda: pyg.GeneralConv(8, 8, in_edge_channels=SIZE),
        True,
        ("edge_attr",),
    ),
    "NNConv": (lambda: pyg.NNConv(8, 8, mlp(SIZE, 64)), True, ("edge_attr",)),
    "PDNConv": (lambda: pyg.PDNConv(8, 8, SIZE, 4), False, ("edge_attr",)),
    "PNAConv, edge_dim": (
        lambda: pyg.PNAConv(8, 8, ["mean"], ["identity"], DEGREE, edge_dim=SIZE),
        False,
        ("edge_attr",),
    ),
    "RGATConv, edge_dim": (
        lambda: pyg.RGATConv(8, 8, 3, edge_dim=SIZE),
        False,
        ("edge_type", "edge_attr"),
    ),
    "ResGatedGraphConv, edge_dim": (
        lambda: pyg.ResGatedGraphConv(8, 8, edge_dim=SIZE),
        True,
        ("edge_attr",),
    ),
    "TransformerConv, edge_dim": (
        lambda: pyg.TransformerConv(8, 8, edge_dim=SIZE),
        True,
        ("edge_attr",),
    ),
    # Fields of nodes.
    "HEATConv": (
        lambda: pyg.HEATConv(8, 8, 2, 3, 4, SIZE, 4),
        False,
        ("node_type", "edge_type", "edge_attr"),
    ),
    "FAConv": (lambda: pyg.FAConv(8), False, ("x_0",)),
    "GCN2Conv": (lambda: pyg.GCN2Conv(8, 0.1), False, ("x_0",)),
    "PPFConv": (lambda: pyg.PPFConv(mlp(12, 8), add_self_loops=False), True, ("pos", "normal")),
    "PointGNNConv": (
        lambda: pyg.PointGNNConv(mlp(8, 3), mlp(11, 8), mlp(8, 8)),
        False,
        ("pos",),
    ),
    "PointNetConv": (lambda: pyg.PointNetConv(mlp(11, 8), add_self_loops=False), True, ("pos",)),
    "PointTransformerConv": (
        lambda: pyg.PointTransformerConv((8, 8), 8, add_self_loops=False),
        True,
        ("pos",),
    ),
}
BETWEEN_TWO = [name for name, (_, between, _) in CONVS.items() if between]


def assert_as_hetero_conv(name, edge_types):
    make, _, fields = CONVS[name]
    data = make_data()
    if "edge_type" not in fields:  # FiLMConv can do without
        for edge_type in edge_types:
            del data[edge_type].edge_type
    convs = {edge_type: make().eval() for edge_type in edge_types}
    torch.manual_seed(0)
    expected = HeteroConv(convs)(
        x_dict=data.x_dict,
        **{"hyperedge_index_dict" if "Hyper" in name else "edge_index_dict": data.edge_index_dict},
        **{f"{field}_dict": data.collect(field) for field in fields},
    )
    conv = HeteroNSAConv(convs)
    torch.manual_seed(0)
    out = conv(**conv.collect(data))
    assert set(out) == set(expected)
    for node_type, rows in expected.items():
        torch.testing.assert_close(out[node_type], rows, rtol=0, atol=0)


@pytest.mark.parametrize("name", CONVS)
def test_within_a_node_type(name):
    assert_as_hetero_conv(name, [NN])


@pytest.mark.parametrize("name", BETWEEN_TWO)
def test_between_two(name):
    assert_as_hetero_conv(name, [NM, MN])


def test_all_convs_of_pyg_were_thought_of():
    """One that is new in PyG, and takes rows and edges, is to be added above."""
    left_out = {
        *("CuGraphGATConv", "CuGraphRGCNConv", "CuGraphSAGEConv", "FusedGATConv"),  # need packages
        *("SplineConv", "DNAConv", "MeshCNNConv", "PANConv", "SignedConv", "WLConv"),
        *("GravNetConv", "XConv", "DynamicEdgeConv"),
        *("HANConv", "HGTConv", "HeteroConv", "ECConv", "MessagePassing"),
    }
    named = {name.partition(",")[0].partition(" ")[0] for name in CONVS}
    assert {name for name in pyg.conv.__all__ if name not in left_out} <= named


# ---- several convs of one call --------------------------------------------------------------------------------------------


class Optional(SAGEConv):
    """Takes ``edge_attr`` without saying by which attribute it was built for it."""

    def forward(self, x, edge_index, edge_attr=None, pos=None):
        out = super().forward(x, edge_index)
        return out if edge_attr is None else out + edge_attr.sum() + pos[1].sum()


def test_fields_go_to_those_that_take_them():
    """``pos`` goes to one conv, ``edge_attr`` to two, and neither to the others of the same node types."""
    data = make_data()
    convs = {
        NN: SAGEConv(8, 8),
        NM: pyg.PointNetConv(mlp(11, 8), add_self_loops=False),
        MN: Optional(8, 8),
    }
    conv = HeteroNSAConv(convs)
    out = conv(**conv.collect(data))
    x, pos = data.x_dict, data.pos_dict
    index, attr = data[NN].edge_index, data[MN].edge_attr
    within = convs[NN](x["n"], index)
    into = convs[MN]((x["m"], x["n"]), index, attr, (pos["m"], pos["n"]))
    torch.testing.assert_close(out["n"], within + into)
    expected = convs[NM]((x["n"], x["m"]), (pos["n"], pos["m"]), index)
    torch.testing.assert_close(out["m"], expected)

    stack = HeteroNSAConv(convs, hidden_channels=8, pattern="MS").eval()
    call = {name: values for name, values in stack.collect(data).items() if name != "pos_dict"}
    by_hand = {**call, "pos_dict": data.pos_dict}
    torch.testing.assert_close(stack(**stack.collect(data))["n"], stack(**by_hand)["n"])


def test_node_fields_of_other_layers_are_refused_as_in_hetero_conv():
    """A conv in whose call nothing takes ``pos`` gets it and says so, as PyG's does."""
    data = make_data()
    conv = HeteroNSAConv({NN: SAGEConv(8, 8)})
    with pytest.raises(TypeError, match="unexpected keyword argument 'pos'"):
        conv(data.x_dict, data.edge_index_dict, pos_dict=data.pos_dict)


def test_edge_attributes_that_a_forward_needs_are_collected():
    class Needs(SAGEConv):
        edge_dim = None

        def forward(self, x, edge_index, edge_attr):
            return super().forward(x, edge_index) + edge_attr.sum()

    data, conv = make_data(), HeteroNSAConv({NN: Needs(8, 8)})
    out = conv(**conv.collect(data))["n"]
    expected = conv.convs[NN](data["n"].x, data[NN].edge_index, data[NN].edge_attr)
    torch.testing.assert_close(out, expected)


# ---- modules that were put in later ------------------------------------------------------------------------------------------


def late(**convs):
    """A layer whose convs were put in after it was made."""
    layer = HeteroNSAConv({NN: "adjacency_mask", MN: SAGEConv(8, 8)}, hidden_channels=8)
    for edge_type, conv in convs.items():
        layer.convs[{"nn": NN, "nm": NM, "mn": MN}[edge_type]] = conv
    return layer


def test_a_conv_that_was_put_in_later_gets_its_fields():
    conv, data = pyg.GATConv(8, 8, edge_dim=SIZE, add_self_loops=False), make_data()
    layer = late(nn=conv)
    call = layer.collect(data)
    assert set(call["edge_attr_dict"]) == {NN}
    expected = HeteroConv({NN: conv, MN: layer.convs[MN]})(
        data.x_dict, data.edge_index_dict, edge_attr_dict={NN: data[NN].edge_attr}
    )
    torch.testing.assert_close(layer(**call)["n"], expected["n"], rtol=0, atol=0)
    # And back: nothing is left of it.
    layer.convs[NN] = SAGEConv(8, 8)
    assert "edge_attr_dict" not in layer.collect(data)


def test_a_conv_of_another_edge_type_and_one_that_is_gone():
    data = make_data()
    layer = late(nm=pyg.GATConv(8, 8, edge_dim=SIZE, add_self_loops=False))
    assert set(layer.collect(data)["edge_attr_dict"]) == {NM}
    assert set(layer(**layer.collect(data))) == {"n", "m"}
    del layer.convs[NM], layer.convs[NN]
    assert set(layer.collect(data)["edge_index_dict"]) == {MN}


def test_fields_of_nodes_go_to_the_conv_that_was_put_in_later_alone():
    data = make_data()
    layer = late(nn=pyg.PointNetConv(mlp(11, 8), add_self_loops=False))
    call = layer.collect(data)
    assert set(call["pos_dict"]) == {"n"}
    again = late(nn=layer.convs[NN])
    again.convs[MN] = layer.convs[MN]
    # The call was collected elsewhere, so only the forward can see what has been put in.
    torch.testing.assert_close(again(**call)["n"], layer(**call)["n"], rtol=0, atol=0)


def test_a_wrapper_wants_what_was_in_its_place():
    class Wrapper(torch.nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, *args, **kwargs):
            return self.conv(*args, **kwargs)

    data = make_data()
    layer = HeteroNSAConv({NN: pyg.GATConv(8, 8, edge_dim=SIZE, add_self_loops=False)})
    expected = layer(**layer.collect(data))["n"]
    layer.convs[NN] = Wrapper(layer.convs[NN])
    torch.testing.assert_close(layer(**layer.collect(data))["n"], expected, rtol=0, atol=0)


def test_copies_know_their_convs():
    data = make_data()
    kinds = {
        NN: "edge_attr_bias",
        NM: {"kind": "pyg_conv", "options": {"conv": "GraphConv", "fields": ["edge_weight"]}},
    }
    for edge_type in kinds:
        data[edge_type].edge_weight = torch.rand(7)
    layer = HeteroNSAConv(kinds, hidden_channels=8)
    before = layer.collect(data)
    assert {"edge_attr_dict", "edge_weight_dict"} <= set(before)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.wanted == layer.wanted
        assert set(other.collect(data)) == set(before)
    # Attention of a kind in the place of the same attention.
    layer.convs[NN] = copy.deepcopy(layer.convs[NN])
    assert set(layer.collect(data)) == set(before)

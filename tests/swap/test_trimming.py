"""Models that trim their rows with `trim_to_layer`: where that is more than a speed-up after the swap, the report says so."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import HeteroConv, SAGEConv
from torch_geometric.utils import trim_to_layer

from pyg_nsa import swap

UV, VU, WU = ("u", "to", "v"), ("v", "to", "u"), ("w", "to", "u")
#: Two seeds of type u, with what two hops reach: rows and edges in the order in which they were sampled.
NODES = {"u": [2, 0, 4], "v": [0, 3, 0], "w": [0, 2, 0]}
EDGES = {VU: [3, 0], UV: [0, 4], WU: [2, 0]}
EDGE_INDEX = {
    VU: torch.tensor([[0, 1, 2], [0, 0, 1]]),
    UV: torch.tensor([[2, 3, 4, 5], [0, 1, 2, 2]]),
    WU: torch.tensor([[0, 1], [0, 1]]),
}


class Trimming(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            [HeteroConv({e: SAGEConv((-1, -1), 8) for e in EDGES}) for _ in range(2)]
        )

    def next(self, layer, x_dict, edge_index_dict, nodes, edges):
        return trim_to_layer(layer, nodes, edges, x_dict, edge_index_dict)[:2]

    def forward(self, x_dict, edge_index_dict, nodes=None, edges=None):
        for i, conv in enumerate(self.convs):
            if nodes is not None:
                x_dict, edge_index_dict = self.next(i, x_dict, edge_index_dict, nodes, edges)
            # A type that gets no messages keeps its rows.
            new = {t: h.relu() for t, h in conv(x_dict, edge_index_dict).items()}
            x_dict = {t: new.get(t, x) for t, x in x_dict.items()}
        return x_dict["u"][:2]


class Pooling(Trimming):
    """Leaves rows out, too, but makes other edges: nothing is cut off."""

    def next(self, layer, x_dict, edge_index_dict, nodes, edges):
        if layer == 0:
            return x_dict, edge_index_dict
        kept = edge_index_dict[UV][0] > 2
        index = edge_index_dict[UV][:, kept] - torch.tensor([[1], [0]])
        return {**x_dict, "u": x_dict["u"][1:]}, {**edge_index_dict, UV: index}


pytestmark = pytest.mark.filterwarnings("ignore:There exist node types")


@pytest.fixture
def whole():
    x_dict = {t: torch.randn(sum(n), 8) for t, n in NODES.items()}
    return x_dict, EDGE_INDEX


def swapped(config, call, make=Trimming):
    model = make()
    report = swap(model, config, call)
    return model.eval(), report.warnings


@pytest.mark.parametrize(
    ("config", "cut"),
    [
        ({}, "u"),
        ({"pattern": "S"}, "u"),
        ({"pattern": "MS", "sab": {"node_types": ["u"]}}, "u"),
        # All rows of v and w are there until the end.
        ({"pattern": "MS", "sab": {"node_types": ["v", "w"]}}, None),
        ({"pattern": "MS", "sab": {"node_types": []}}, None),
        ({"pattern": "M"}, None),
        ({"pattern": None}, None),
        ({"operator": "hetero_conv"}, None),
    ],
)
def test_self_attention_among_rows_that_are_trimmed_away(config, cut, whole):
    trimmed = (*whole, NODES, EDGES)
    model, warnings = swapped(config, trimmed)
    found = [w for w in warnings if "trim_to_layer" in w]
    if cut is None:
        assert found == []
    else:
        (warning,) = found
        assert warning.startswith("convs.1: the model trims its rows")
        assert f"self-attention (S) among {cut} misses" in warning
    # It is true.
    with torch.no_grad():
        same = torch.allclose(model(*trimmed), model(*whole), atol=1e-6)
    assert same == (cut is None)
    # Without trimming there is nothing to tell.
    assert not any("trim_to_layer" in w for w in swapped(config, whole)[1])


def test_a_model_that_pools_is_no_model_that_trims(whole):
    _, warnings = swapped({}, (*whole, NODES, EDGES), Pooling)
    assert warnings == ()

"""PyG's own kinds of index, in the place of plain tensors."""

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex, Index
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import EdgeSet, HeteroNSAConv, NSAConv
from pyg_nsa.plain_index import plain_index

CITES = ("paper", "cites", "paper")
EDGES = torch.tensor([[1, 2, 0, 4, 2], [0, 1, 2, 3, 4]])


def _graph(edge_index: Tensor) -> HeteroData:
    data = HeteroData()
    data["paper"].x = torch.linspace(-1, 1, 5 * 8).view(5, 8).sin()
    data[CITES].edge_index = edge_index
    return data


def _edge_indices() -> list[EdgeIndex]:
    both = torch.cat([EDGES, EDGES.flip(0)], dim=1).unique(dim=1).contiguous()
    return [
        EdgeIndex(EDGES),
        EdgeIndex(EDGES, sparse_size=(5, 5)),
        EdgeIndex(EDGES, sparse_size=(5, 5)).sort_by("col")[0],
        EdgeIndex(both, sparse_size=(5, 5), is_undirected=True, sort_order="row"),
    ]


def test_what_is_inside():
    for index in (EdgeIndex(EDGES), Index(EDGES[0])):
        plain = plain_index(index)
        assert type(plain) is Tensor and plain.data_ptr() != 0
    assert plain_index(EDGES) is EDGES


@pytest.mark.parametrize("pattern", [None, "MS"])
@pytest.mark.parametrize("number", range(4))
def test_an_operator_takes_an_edge_index(pattern, number):
    edge_index = _edge_indices()[number]
    plain, given = _graph(edge_index.as_tensor()), _graph(edge_index)
    torch.manual_seed(0)
    conv = HeteroNSAConv(
        {CITES: "adjacency_mask"}, hidden_channels=16, in_channels=8, pattern=pattern
    )
    wanted = conv(**conv.collect(plain))["paper"]
    out = conv(**conv.collect(given))["paper"]
    assert type(out) is Tensor
    torch.testing.assert_close(out, wanted, rtol=0, atol=0)
    out.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in conv.parameters() if p.grad is not None)


def test_a_batch_of_graphs_with_edge_indices():
    torch.manual_seed(0)
    conv = HeteroNSAConv({CITES: "adjacency_mask"}, hidden_channels=16, in_channels=8, pattern="MS")
    graphs = [_graph(EdgeIndex(EDGES, sparse_size=(5, 5))) for _ in range(3)]
    out = conv(**conv.collect(Batch.from_data_list(graphs)))["paper"]
    single = conv(**conv.collect(graphs[0]))["paper"]
    torch.testing.assert_close(out, single.repeat(3, 1))


def test_a_layer_takes_one_and_finds_its_edge_set_again():
    edge_index = EdgeIndex(EDGES, sparse_size=(5, 5))
    torch.manual_seed(0)
    conv, x = NSAConv(8, 4, heads=4), torch.randn(5, 8)
    torch.testing.assert_close(conv(x, edge_index), conv(x, EDGES), rtol=0, atol=0)
    first = EdgeSet.from_edge_index(edge_index, 5, 5)
    assert EdgeSet.from_edge_index(edge_index, 5, 5) is first

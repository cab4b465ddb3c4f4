"""``torch.compile`` of layers: sizes left open, batches of a DataLoader, learned embeddings, attention weights."""

import pytest
import torch
from torch._dynamo.utils import counters

from pyg_nsa import HeteroNSAConv

ET = ("a", "to", "a")


@pytest.fixture(autouse=True)
def _anew():
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)


def graph(nodes, edges):
    """Rows, edges and their attributes."""
    index = torch.randint(nodes, (2, edges))
    return {"a": torch.randn(nodes, 8)}, {ET: index}, {ET: torch.randn(edges, 4)}


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_one_graph_serves_sizes_that_are_left_open(pattern):
    layer = HeteroNSAConv({ET: "edge_attr_bias"}, hidden_channels=16, pattern=pattern)
    layer(*graph(6, 3))  # lazy layers
    compiled = torch.compile(layer, dynamic=True, fullgraph=True, backend="aot_eager")
    for sizes in [(6, 3), (9, 20), (30, 7)]:
        call = graph(*sizes)
        torch.testing.assert_close(compiled(*call)["a"], layer(*call)["a"])
    assert counters["stats"]["unique_graphs"] == 1


def test_other_columns_are_refused_where_sizes_are_left_open():
    layer = HeteroNSAConv({ET: "edge_attr_bias"}, hidden_channels=16, pattern="M")
    x, index, attr = graph(6, 3)
    layer(x, index, attr)
    compiled = torch.compile(layer, dynamic=True, backend="aot_eager")
    with pytest.raises(ValueError, match="'a' has 7 columns, but this module was made for 8"):
        compiled({"a": x["a"][:, :7]}, index, attr)
    with pytest.raises(ValueError, match="has 3 columns, but the projection was made for 4"):
        compiled(x, index, {ET: attr[ET][:, :3]})

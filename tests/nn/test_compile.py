"""``torch.compile`` of layers: sizes left open, batches of a DataLoader, learned embeddings, attention weights."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch_geometric.data import HeteroData
from torch_geometric.loader import DataLoader

from pyg_nsa import HeteroNSAConv, NSAConv, attention_maps

pytestmark = pytest.mark.long

ET = ("a", "to", "a")


@pytest.fixture(autouse=True)
def _anew():
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


# ---- batches -------------------------------------------------------------------------------------------------------------


def batch(*sizes):
    """Of graphs with these numbers of nodes, as a DataLoader gives it."""
    graphs = []
    for nodes in sizes:
        data = HeteroData()
        x, index, _ = graph(nodes, 2 * nodes)
        data["a"].x, data[ET].edge_index = x["a"], index[ET]
        graphs.append(data)
    return next(iter(DataLoader(graphs, batch_size=len(graphs))))


@pytest.mark.parametrize("dynamic", [None, True])
def test_inductor_compiles_self_attention_of_batches(dynamic):
    """The default backend: others do not lose the names of sizes."""
    layer = HeteroNSAConv({ET: "adjacency_mask"}, hidden_channels=8, pattern="S")
    calls = [layer.collect(batch(*sizes)) for sizes in [(3, 4, 5), (2, 7), (6, 6, 6)]]
    layer(**calls[0])
    compiled = torch.compile(layer, dynamic=dynamic)
    for call in calls:
        expected = layer(**call)["a"]
        torch.testing.assert_close(compiled(**call)["a"], expected)
    compact = {
        **calls[0],
        "ptr_dict": {"a": calls[0]["ptr_dict"]["a"] - torch.tensor([0, 0, 1, 1])},
    }
    with pytest.raises(RuntimeError, match="compact data of node type 'a' need x_ptr_dict"):
        compiled(**compact)


def test_lengths_of_graphs_end_a_graph_of_self_attention_and_no_more():
    """No batch's lengths are built in, so the next one is compiled anew at most for sizes that it leaves open."""
    layer = HeteroNSAConv({ET: "adjacency_mask"}, hidden_channels=8, pattern="S")
    calls = [layer.collect(batch(*sizes)) for sizes in [(3, 4, 5), (2, 7, 9), (6, 6, 6), (9, 2, 5)]]
    layer(**calls[0])
    compiled = torch.compile(layer, dynamic=True, backend="aot_eager")
    compiled(**calls[0])
    graphs = counters["stats"]["unique_graphs"]
    for call in calls[1:]:
        torch.testing.assert_close(compiled(**call)["a"], layer(**call)["a"])
    assert counters["stats"]["unique_graphs"] == graphs


# ---- batch_dict alone ----------------------------------------------------------------------------------------------------


def test_embeddings_of_a_sorted_batch():
    layer = HeteroNSAConv(
        {ET: "adjacency_mask"}, hidden_channels=8, pattern="M", num_nodes={"a": 3}
    )
    x, index = {"a": torch.randn(6, 4)}, {ET: torch.tensor([[0, 1, 3], [1, 2, 4]])}
    batch = torch.tensor([0, 0, 0, 2, 2, 2])
    expected = layer(x, index, batch_dict={"a": batch})["a"]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, index, batch_dict={"a": batch})["a"], expected)
    with pytest.raises(RuntimeError, match="or sort the rows so that batch_dict ascends"):
        compiled(x, index, batch_dict={"a": batch.flip(0)})
    with pytest.raises(ValueError, match="'batch' of node type 'a' has 5 entries but x has 6 rows"):
        torch.compile(layer, backend="aot_eager")(x, index, batch_dict={"a": batch[1:]})


@pytest.mark.parametrize("num_nodes", [None, {"a": 4}])
def test_masks_tell_the_numbering(num_nodes):
    """Compact graphs: the last row is padding, pert_mask marks a node that was removed and has no row."""
    layer = HeteroNSAConv(
        {ET: "adjacency_mask"}, hidden_channels=8, pattern="M", num_nodes=num_nodes
    )
    x, index = {"a": torch.randn(8, 4)}, {ET: torch.tensor([[0, 1, 2, 4, 5], [1, 2, 0, 5, 6]])}
    real = torch.tensor([1, 1, 1, 0, 1, 1, 1, 0]).bool()
    call = {
        "mask_dict": {"a": real},
        "pert_mask_dict": {"a": torch.tensor([0, 1, 0, 0, 0, 0, 1, 0]).bool()},
        "batch_dict": {"a": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])},
    }
    expected = layer(x, index, **call)["a"]
    out = torch.compile(layer, backend="aot_eager")(x, index, **call)["a"]
    torch.testing.assert_close(out[real], expected[real])


# ---- attention weights ---------------------------------------------------------------------------------------------------


def test_weights_of_edges_that_occur_twice():
    conv = NSAConv(8, 4, heads=2, edge_dim=1)
    x, attr = torch.randn(4, 8), torch.randn(5, 1)
    index = torch.tensor([[0, 1, 1, 2, 0], [1, 2, 2, 3, 1]])
    compiled = torch.compile(conv, backend="aot_eager")

    def results(layer):
        conv.zero_grad()
        out, (pairs, weights) = layer(x, index, attr, return_attention_weights=True)
        (out.sum() + weights.square().sum()).backward()
        return out, pairs, weights, conv.lin_key.weight.grad, conv.lin_edge.weight.grad

    for got, expected in zip(results(compiled), results(conv), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("is_compiled_before", [False, True])
def test_maps_of_a_compiled_model_are_told_to_be_missing(is_compiled_before):
    layer = HeteroNSAConv({ET: "adjacency_mask"}, hidden_channels=8, pattern="M")
    x, index, _ = graph(5, 12)
    layer(x, index)
    compiled = torch.compile(layer, backend="aot_eager")
    if is_compiled_before:
        compiled(x, index)
    with pytest.warns(UserWarning, match="or it was compiled"), attention_maps(layer) as maps:
        compiled(x, index)
    with attention_maps(layer) as found:
        layer(x, index)
    compiled(x, index)
    assert (len(maps), len(found)) == (0, 1)

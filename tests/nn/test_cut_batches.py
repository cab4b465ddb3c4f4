"""Batches that PyG has sampled from, cut or put in another order: `batch` goes with the rows, `ptr` stays as it was."""

import pytest
import torch
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import HeteroNSAConv

EDGES = {("a", "to", "b"): "adjacency_mask", ("b", "back", "a"): "adjacency_mask"}


def graph(n_a, n_b):
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(n_a, 6), torch.randn(n_b, 6)
    pairs = torch.randint(n_a, (3 * n_a,)), torch.randint(n_b, (3 * n_a,))
    data["a", "to", "b"].edge_index = torch.stack(pairs)
    data["b", "back", "a"].edge_index = torch.stack(pairs[::-1])
    return data


@pytest.fixture(params=[None, ["x"]], ids=["batch", "follow_batch"])
def batch(request):
    return Batch.from_data_list([graph(9, 5), graph(7, 8)], follow_batch=request.param)


@pytest.fixture
def layer():
    return HeteroNSAConv(EDGES, hidden_channels=8, heads=2, pattern="MS").eval()


def test_all_rows_in_another_order(batch, layer):
    whole = layer(**layer.collect(batch))
    order = {t: torch.randperm(batch[t].num_nodes) for t in batch.node_types}
    moved = batch.subgraph(order)
    assert moved["a"].ptr.tolist() == [0, 9, 16]  # of the rows as they were
    out = layer(**layer.collect(moved))
    for node_type, rows in out.items():
        torch.testing.assert_close(rows, whole[node_type][order[node_type]])


@pytest.mark.parametrize("pattern", [None, "M", "MS"])
def test_some_rows_are_what_they_are_graph_by_graph(batch, pattern):
    layer = HeteroNSAConv(EDGES, hidden_channels=8, heads=2, pattern=pattern).eval()
    kept = {"a": [0, 2, 3, 8, 10, 11, 15], "b": [1, 2, 4, 5, 9, 12]}
    cut = batch.subgraph({t: torch.tensor(rows) for t, rows in kept.items()})
    out = layer(**layer.collect(cut))
    singles = [
        single.subgraph(
            {
                t: torch.tensor(
                    [r - at[t] for r in rows if at[t] <= r < at[t] + single[t].num_nodes]
                )
                for t, rows in kept.items()
            }
        )
        for single, at in zip(
            batch.to_data_list(), [{"a": 0, "b": 0}, {"a": 9, "b": 5}], strict=True
        )
    ]
    each = [layer(**layer.collect(single)) for single in singles]
    for node_type, rows in out.items():
        torch.testing.assert_close(rows, torch.cat([found[node_type] for found in each]))


def test_as_many_rows_of_other_graphs(batch, layer):
    """Ascending, and as many as before: only the graphs' sizes are others."""
    doubled = batch.subgraph({"a": torch.tensor([*range(8), 8, 8, *range(10, 16)])})
    doubled["a"].batch[8:10] = 1
    if "x_batch" in doubled["a"]:
        doubled["a"].x_batch[8:10] = 1
    call = layer.collect(doubled)
    assert "a" not in call.get("ptr_dict", {})
    assert "a" not in call.get("x_ptr_dict", {})


def test_a_batch_as_it_was_made_keeps_its_ranges(batch, layer):
    assert {"a", "b"} == set(layer.collect(batch)["ptr_dict"])


@pytest.mark.parametrize("field", ["ptr", "x_ptr"])
@pytest.mark.parametrize(
    ("of_rows", "ranges"),
    [([0, 0, 1, 1], [0, 2, 5]), ([0, 1, 0, 1], [0, 2, 4]), ([0, 0, 0, 1], [0, 2, 4])],
    ids=["more rows", "any order", "other sizes"],
)
def test_ranges_that_contradict_the_batch_are_refused(field, of_rows, ranges):
    layer = HeteroNSAConv({("a", "to", "a"): "adjacency_mask"}, hidden_channels=8, pattern="S")
    given = {
        f"{field}_dict": {"a": torch.tensor(ranges)},
        "batch_dict": {"a": torch.tensor(of_rows)},
    }
    edges = {("a", "to", "a"): torch.tensor([[0], [1]])}
    text = f"'{field}'.*of node type 'a'" if field == "x_ptr" else "leave ptr_dict out"
    with pytest.raises(ValueError, match=text):
        layer({"a": torch.randn(4, 8)}, edges, **given)

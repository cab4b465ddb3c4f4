"""Calls whose rows `trim_to_layer` has cut: what else goes by rows has to be cut alike, and is told so."""

import pytest
import torch
from torch_geometric.utils import trim_to_layer

from pyg_nsa import HeteroNSAConv

UV, VU = ("u", "to", "v"), ("v", "to", "u")
#: Two seeds of type u, each with a tree of two hops: rows in the order of hops, as a loader samples them.
NODES = {"u": [2, 0, 4], "v": [0, 3, 0]}
EDGES = {VU: [3, 0], UV: [0, 4]}
EDGE_INDEX = {
    VU: torch.tensor([[0, 1, 2], [0, 0, 1]]),
    UV: torch.tensor([[2, 3, 4, 5], [0, 1, 2, 2]]),
}
FIELDS = {
    "batch": {"u": torch.tensor([0, 1, 0, 0, 1, 1]), "v": torch.tensor([0, 0, 1])},
    "n_id": {"u": torch.arange(6), "v": torch.arange(3)},
    "mask": {"u": torch.ones(6, dtype=torch.bool), "v": torch.ones(3, dtype=torch.bool)},
    "pert_mask": {"u": torch.zeros(6, dtype=torch.bool), "v": torch.zeros(3, dtype=torch.bool)},
}


def trimmed():
    """The rows and edges of the second layer, which needs the seeds and one hop."""
    x_dict = {"u": torch.randn(6, 4), "v": torch.randn(3, 4)}
    x_dict, edge_index_dict, _ = trim_to_layer(1, NODES, EDGES, x_dict, EDGE_INDEX)
    assert [x.size(0) for x in x_dict.values()] == [2, 3]
    return x_dict, edge_index_dict


def cut(values, x_dict):
    return {t: values[t][: x.size(0)] for t, x in x_dict.items()}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_was_not_cut_with_the_rows_is_told_how(name):
    conv = HeteroNSAConv(dict.fromkeys(EDGES, "adjacency_mask"), pattern="MS", hidden_channels=8)
    x_dict, edge_index_dict = trimmed()
    with pytest.raises(ValueError, match=f"'{name}' of node type 'u'") as caught:
        conv(x_dict, edge_index_dict, **{f"{name}_dict": FIELDS[name]})
    message = str(caught.value)
    assert "ptr_dict" not in message
    assert "if the rows were cut, as trim_to_layer does, cut it alike: {t: " in message
    # What the message says, done.
    code = message.split("cut it alike: ")[1]
    values = eval(code, {f"{name}_dict": FIELDS[name], "x_dict": x_dict})
    assert conv(x_dict, edge_index_dict, **{f"{name}_dict": values})["u"].shape == (2, 8)


def test_a_field_that_is_too_short_was_not_cut():
    conv = HeteroNSAConv(dict.fromkeys(EDGES, "adjacency_mask"), pattern="MS", hidden_channels=8)
    x_dict, edge_index_dict = trimmed()
    for name, values in FIELDS.items():
        short = {t: value[:1] for t, value in values.items()}
        with pytest.raises(ValueError, match=f"'{name}' of node type 'v'") as caught:
            conv(x_dict, edge_index_dict, **{f"{name}_dict": short})
        assert "trim_to_layer" not in str(caught.value)


def test_trees_stay_apart_in_trimmed_rows():
    conv = HeteroNSAConv(dict.fromkeys(EDGES, "adjacency_mask"), pattern="MS", hidden_channels=8)
    x_dict, edge_index_dict = trimmed()
    batch_dict = cut(FIELDS["batch"], x_dict)
    conv.eval()
    before = conv(x_dict, edge_index_dict, batch_dict=batch_dict)["u"][0]
    others = {t: torch.where(batch_dict[t][:, None] == 0, x, 1 - x) for t, x in x_dict.items()}
    after = conv(others, edge_index_dict, batch_dict=batch_dict)["u"][0]
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    mixed = conv(others, edge_index_dict)["u"][0] - conv(x_dict, edge_index_dict)["u"][0]
    assert mixed.abs().max() > 1e-4

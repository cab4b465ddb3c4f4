"""Checks of values in compiled graphs: Inductor's code must not read what is not there."""

import pytest
import torch

from pyg_nsa import HeteroNSAConv, NSAConv


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_an_edge_of_a_node_that_is_not_there():
    torch.manual_seed(0)
    conv = NSAConv(8, 8, heads=2).eval()
    compiled = torch.compile(conv, dynamic=True)
    rows = (torch.randn(4, 8), torch.randn(3, 8))
    right = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2]])
    torch.testing.assert_close(compiled(rows, right), conv(rows, right))
    # Counted from 1; so large that it would be another pair; negative.
    for place, value in (((0, 3), 4), ((1, 2), 3), ((0, 1), 6), ((1, 0), -1)):
        wrong = right.clone()
        wrong[place] = value
        with pytest.raises(ValueError, match=rf"edge index out of range: \w+ index {value}, but"):
            compiled(rows, wrong)
    torch.testing.assert_close(compiled(rows, right[:, :2]), conv(rows, right[:, :2]))


def test_a_node_without_an_embedding():
    torch.manual_seed(0)
    conv = HeteroNSAConv(
        {("a", "to", "a"): "adjacency_mask"}, hidden_channels=8, num_nodes={"a": 7}, pattern="M"
    ).eval()
    x = {"a": torch.empty(3, 0)}
    edges = {("a", "to", "a"): torch.tensor([[0, 1], [1, 2]])}
    n_id = torch.tensor([6, 0, 3])
    expected = conv(x, edges, n_id_dict={"a": n_id})["a"]
    compiled = torch.compile(conv)
    torch.testing.assert_close(compiled(x, edges, n_id_dict={"a": n_id})["a"], expected)
    n_id = torch.tensor([6, 7, 3])
    with pytest.raises(RuntimeError, match="node of type 'a' is none of the 7"):
        compiled(x, edges, n_id_dict={"a": n_id})

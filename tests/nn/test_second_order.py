"""Gradients of gradients: an error wherever they would be wrong, and first gradients as ever where a graph of them is asked for."""

import pytest
import torch
from torch_geometric.nn import TransformerConv

from pyg_nsa import HeteroNSAConv, NSAConv

TO = ("a", "to", "a")
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 1, 2, 2, 0, 0]])
LAYERS = {
    "NSAConv": lambda: HeteroNSAConv({TO: NSAConv(8, 4, heads=2)}),
    "kind": lambda: HeteroNSAConv({TO: "adjacency_mask"}, hidden_channels=16, in_channels=8),
    "M": lambda: HeteroNSAConv(
        {TO: "adjacency_mask"}, hidden_channels=16, in_channels=8, pattern="M"
    ),
    "MS": lambda: HeteroNSAConv(
        {TO: "adjacency_mask"}, hidden_channels=16, in_channels=8, pattern="MS"
    ),
    "S last, no MLP": lambda: HeteroNSAConv(
        {TO: "adjacency_mask"}, hidden_channels=16, in_channels=8, pattern="SM", mlp_ratio=0
    ),
}


@pytest.fixture
def x():
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_penalty_is_refused(name, constant, x):
    torch.manual_seed(0)
    out = LAYERS[name]()({"a": x}, {TO: EDGES})["a"]
    # Of a plain sum the incoming gradient is a constant, which needs no gradient itself.
    loss = out.sum() if constant else out.square().sum()
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradients of gradients|not implemented"):
        grad.square().sum().backward()


@pytest.mark.parametrize("name", LAYERS)
def test_the_first_gradients_are_the_same_where_a_graph_of_them_is_asked_for(name, x):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    wanted = [x, *layer.parameters()]

    def gradients(create_graph):
        loss = layer({"a": x}, {TO: EDGES})["a"].square().sum()
        return torch.autograd.grad(loss, wanted, create_graph=create_graph, allow_unused=True)

    for plain, with_graph in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(with_graph, plain)
        assert plain is None or not plain.requires_grad


def test_convolutions_of_pyg_have_gradients_of_gradients(x):
    torch.manual_seed(0)
    layer = HeteroNSAConv({TO: TransformerConv(8, 8)})
    (grad,) = torch.autograd.grad(layer({"a": x}, {TO: EDGES})["a"].sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert x.grad.abs().sum() > 0

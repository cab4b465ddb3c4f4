"""Dropout that shares draws, against what dropout is."""

import pytest
import torch
import torch.nn.functional as F

from pyg_nsa.nn.dropout import dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_zeros_with_probability_p_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 401, dtype=torch.float64)  # no multiple of four
    y = dropout(x, p, True)
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=5 * deviation)
    torch.testing.assert_close(
        y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)), rtol=1e-4, atol=0
    )
    assert y.mean().item() == pytest.approx(1, abs=5 * deviation / (1 - p))


def test_elements_are_independent():
    """Of those that share a draw, too: a wrong shift of bits would show as a correlation."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5, True) != 0).double().view(-1, 8) - 0.5
    correlation = kept.t() @ kept / len(kept) / 0.25
    assert (correlation - torch.eye(8)).abs().max() < 5 / len(kept) ** 0.5


def test_the_gradient_is_that_of_a_product():
    torch.manual_seed(1)
    x = torch.randn(30, 7, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.4, True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x * gradient)
    assert set(gradient.unique().tolist()) == {0.0, gradient.max().item()}


def test_a_seed_holds_and_the_next_mask_is_another():
    x = torch.ones(64)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, True), dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9, 1 - 1e-9])
def test_nothing_and_everything(p):
    x = torch.randn(50)
    assert torch.equal(dropout(x, p, True), x * (p < 0.5))


def test_evaluation_returns_what_came():
    x = torch.randn(5)
    assert torch.equal(dropout(x, 0.5, False), x)


@pytest.mark.parametrize("shape", [(0, 3), (), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_shape_and_dtype(shape, dtype):
    y = dropout(torch.ones(shape, dtype=dtype), 0.25, True)
    assert y.shape == shape
    assert y.dtype == dtype


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        dropout(torch.ones(2), p, True)


def test_a_compiled_graph_gets_torchs(monkeypatch):
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(lambda x: dropout(x, 0.5, True), backend=backend, fullgraph=True)(torch.ones(4))
    assert any("dropout" in name for name in seen)
    assert not any("random_" in name for name in seen)


def test_torch_agrees_on_the_extremes():
    x = torch.randn(9)
    for p in (0.0, 1.0):
        assert torch.equal(dropout(x, p, True), F.dropout(x, p, True))

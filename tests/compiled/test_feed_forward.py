"""The compiled MLP against torch's layers in float64, and what it leaves to them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_nsa.compiled import feed_forward as compiled
from pyg_nsa.nn import feed_forward as module
from pyg_nsa.nn.feed_forward import FeedForward


@pytest.fixture
def calls(monkeypatch):
    """How often the kernels were asked."""
    made = []

    def spy(*args):
        made.append(1)
        return compiled.feed_forward(*args)

    monkeypatch.setattr(module, "feed_forward", spy)
    return made


def randomised(channels, ratio, **options):
    layer = FeedForward(channels, ratio, **options)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.3)
    return layer


def by_hand(layer, x):
    h = F.layer_norm(x, x.shape[-1:], layer.norm.weight, layer.norm.bias, layer.norm.eps)
    return x + layer.lin2(F.gelu(layer.lin1(h)))


@pytest.mark.parametrize(
    ("shape", "ratio"),
    [((1, 16), 1), ((63, 48), 2), ((700, 32), 0.5), ((3, 50, 64), 2), ((5000, 16), 3)],
    ids=str,
)
def test_values_and_gradients(shape, ratio, calls):
    layer = randomised(shape[-1], ratio)
    x = (3 * torch.randn(shape) + 1).requires_grad_()
    y = layer(x)
    assert calls == [1]
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, [x, *layer.parameters()], grad)
    wide = x.detach().double().requires_grad_()
    layer.double()
    expected = by_hand(layer, wide)
    expected_grads = torch.autograd.grad(expected, [wide, *layer.parameters()], grad.double())
    for actual, wanted in zip((y, *grads), (expected, *expected_grads), strict=True):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=5e-6 * scale)


def test_extreme_units_saturate_and_nan_is_not_hidden(calls):
    layer = randomised(16, 1)
    with torch.no_grad():
        layer.lin1.weight.mul_(1e4)
    x = torch.randn(40, 16)
    expected = by_hand(layer, x)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    x[7, 3] = float("nan")
    y = layer(x)
    assert y[7].isnan().all()
    assert y[torch.arange(40) != 7].isfinite().all()
    assert len(calls) == 2


def test_gelu_at_every_scale(calls):
    """One unit passed through: GELU and its derivative from 1e-6 to 1e2, both signs."""
    layer = FeedForward(16, 1)
    with torch.no_grad():
        layer.norm.weight.zero_()
        layer.lin2.weight.copy_(torch.eye(16))
        layer.lin2.bias.zero_()
    for exponent in range(-6, 3):
        for unit in (-(10.0**exponent), 10.0**exponent, -(3.0**exponent), 3.0**exponent):
            with torch.no_grad():
                layer.lin1.bias.fill_(unit)
            wide = torch.tensor(unit, dtype=torch.float64, requires_grad=True)
            expected = F.gelu(wide)
            y = layer(torch.zeros(2, 16))
            (slope,) = torch.autograd.grad(y.sum(), layer.lin1.bias)
            (derivative,) = torch.autograd.grad(expected, wide)
            # 1 + erf cancels far below zero, in torch's float32 too: the error is one of the unit, not of its small GELU.
            torch.testing.assert_close(
                y.double(), expected.detach().expand(2, 16), rtol=2e-6, atol=1e-7 * abs(unit)
            )
            torch.testing.assert_close(
                slope.double() / 2, derivative.expand(16), rtol=2e-6, atol=2e-7
            )


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_same_bits_for_any_number_of_threads(threads, calls):
    layer, x = randomised(64, 2), torch.randn(3000, 64, requires_grad=True)
    grad = torch.randn(3000, 64)

    def run(n):
        threads(n)
        y = layer(x)
        return (y, *torch.autograd.grad(y, [x, *layer.parameters()], grad))

    expected = run(1)
    for n in (2, 3, 5, 2):
        assert all(torch.equal(a, b) for a, b in zip(run(n), expected, strict=True))
    assert len(calls) == 5


def test_what_is_left_to_torch(calls):
    x = torch.randn(20, 16)
    layer = randomised(16, 2, dropout=0.5)
    layer(x)
    assert not calls  # dropout
    layer.eval()(x)
    assert len(calls) == 1
    layer.double()(x.double())
    layer.float()
    layer.lin1.register_forward_hook(lambda *args: None)
    layer(x)
    other = randomised(16, 2)
    other.norm = nn.RMSNorm(16)
    other(x)
    other.norm = nn.LayerNorm(16, bias=False)
    other(x)
    other.lin1 = nn.Linear(16, 32, bias=False)
    other(x)
    randomised(20, 2)(torch.randn(5, 20))
    with torch.autocast("cpu", torch.bfloat16):
        randomised(16, 2)(x)
    assert len(calls) == 1


def test_the_operator_is_what_it_tells_the_compiler():
    layer = randomised(16, 2)
    x = torch.randn(2, 9, 16, requires_grad=True)
    parameters = [layer.norm.weight, layer.norm.bias, layer.lin1.weight, layer.lin1.bias]
    torch.library.opcheck(
        compiled.OPERATOR,
        (x, *parameters, layer.lin2.weight, layer.lin2.bias, 1e-5),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_compiles_without_a_graph_break():
    layer, x = randomised(16, 2), torch.randn(30, 16)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, layer(x))
    grads = [torch.autograd.grad(t.square().sum(), layer.parameters()) for t in (y, layer(x))]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)

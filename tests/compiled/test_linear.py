"""The compiled linear layer against torch's in float64, and what it leaves to torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_nsa.compiled import linear
from pyg_nsa.nn.projection import apply, is_plain


def leaves(*shape, width=48, bias=True):
    x = torch.randn(*shape, requires_grad=True)
    weight = torch.randn(width, shape[-1], requires_grad=True)
    return x, weight, torch.randn(width, requires_grad=True) if bias else None


def given(tensors):
    return [t for t in tensors if t is not None]


def assert_close(actual, expected):
    scale = max(expected.abs().max().item(), 1e-6)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 16), (63, 48), (700, 32), (3, 50, 64), (5000, 16)], ids=str)
def test_values_and_gradients(shape, bias):
    tensors = leaves(*shape, bias=bias)
    assert linear.fits(*tensors)
    y = linear.linear(*tensors)
    grad = torch.randn_like(y)
    wide = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected = F.linear(*wide)
    assert_close(y, expected)
    grads = torch.autograd.grad(y, given(tensors), grad)
    for a, b in zip(grads, torch.autograd.grad(expected, given(wide), grad.double()), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("shape", [(20, 16), (3, 30, 32)], ids=str)
def test_added_to_a_start(shape):
    x, weight, bias = leaves(*shape)
    start = torch.randn(*shape[:-1], 48, requires_grad=True)
    results = []
    for y in (linear.linear(x, weight, bias, start), start + F.linear(x, weight, bias)):
        grads = torch.autograd.grad(y.square().sum(), (x, weight, bias, start))
        results.append((y, *grads))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    # A start that would be spread over rows is added by torch.
    layer = nn.Linear(16, 48)
    rows = torch.randn(20, 16)
    torch.testing.assert_close(
        apply(layer, rows, start[..., :1, :].flatten()[:48]),
        layer(rows) + start[..., :1, :].flatten()[:48],
    )


def test_rows_apart_and_gradients_that_are_not_contiguous():
    wide = torch.randn(40, 64, requires_grad=True)
    weight = torch.randn(16, 32, requires_grad=True)
    grad = torch.randn(16, 40).t()
    results = []
    for layer in (linear.linear, F.linear):
        y = layer(wide[:, 32:], weight, None)
        results.append((y, *torch.autograd.grad(y, (wide, weight), grad)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_an_input_without_gradient_gets_none():
    x, weight, bias = leaves(20, 16)
    y = linear.linear(x.detach(), weight, bias)
    assert all(g is not None for g in torch.autograd.grad(y.sum(), (weight, bias)))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_same_bits_for_any_number_of_threads(threads):
    tensors = leaves(3000, 64, width=192)
    grad = torch.randn(3000, 192)

    def run(n):
        threads(n)
        y = linear.linear(*tensors)
        return (y, *torch.autograd.grad(y, tensors, grad))

    expected = run(1)
    for n in (2, 3, 5, 2):
        assert all(torch.equal(a, b) for a, b in zip(run(n), expected, strict=True))


def test_what_is_left_to_torch():
    x, weight, bias = leaves(20, 16)
    assert linear.fits(x, weight, bias)
    assert not linear.fits(x.double(), weight.double(), bias.double())
    assert not linear.fits(x.bfloat16(), weight, bias)
    assert not linear.fits(x[:0], weight, bias)
    assert not linear.fits(torch.randn(20, 20), torch.randn(16, 20), bias)
    assert not linear.fits(x, torch.randn(20, 16), torch.randn(20))
    assert not linear.fits(torch.randn(5, 4096), torch.randn(4096, 4096))
    assert not linear.fits(x.to("meta"), weight.to("meta"), bias.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not linear.fits(x, weight, bias)
        assert apply(nn.Linear(16, 16), x).dtype == torch.bfloat16


def test_layers_with_something_attached_are_called():
    layer, x = nn.Linear(16, 16), torch.randn(5, 16)
    calls = []
    assert is_plain(layer)
    handle = layer.register_forward_hook(lambda *args: calls.append(1))
    assert not is_plain(layer)
    apply(layer, x)
    assert calls == [1]
    handle.remove()
    torch.testing.assert_close(apply(layer, x), layer(x))

    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    twice = Twice(16, 16)
    assert torch.equal(apply(twice, x), twice(x))


def test_the_operator_is_what_it_tells_the_compiler():
    x, weight, bias = leaves(2, 9, 16)
    for b in (bias, None):
        torch.library.opcheck(
            linear.OPERATOR,
            (x, weight, b, None),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )


def test_compiles_without_a_graph_break():
    layer, x = nn.Linear(16, 32), torch.randn(30, 16)
    compiled = torch.compile(lambda x: apply(layer, x).relu(), fullgraph=True, backend="aot_eager")
    expected = apply(layer, x).relu()
    torch.testing.assert_close(compiled(x), expected)
    grads = [torch.autograd.grad(y.sum(), layer.parameters()) for y in (compiled(x), expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_there_is_no_gradient_of_the_gradient():
    x, weight, bias = leaves(20, 16)
    y = linear.linear(x, weight, bias).square().sum()
    (of_x,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradients of gradients"):
        of_x.square().sum().backward()


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("listed", [0, 1, 70, 200, 500])
def test_listed_rows(listed, copies):
    size, width, depth = 500, 48, 32
    index = torch.randperm(size)[:listed].sort().values
    rows = linear.Listed(index, size)
    at = (torch.arange(copies)[:, None] * size + index).flatten()
    x, weight, bias = (t.detach() for t in leaves(copies * size, depth, width=width))
    before = torch.randn(copies * size, width)
    expected = before.clone()
    expected[at] += F.linear(x[at], weight, bias)
    out = before.clone()
    assert linear.linear_forward(x, weight, bias, out, out, rows) is out
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    untouched = torch.ones(copies * size, dtype=torch.bool)
    untouched[at] = False
    assert torch.equal(out[untouched], before[untouched])
    out = torch.full_like(before, float("nan"))
    linear.linear_forward(x, weight, bias, out=out, rows=rows)
    torch.testing.assert_close(out[at], F.linear(x[at], weight, bias), rtol=1e-5, atol=1e-5)
    assert out[untouched].isnan().all()

    grad = torch.randn(copies * size, width)
    grad[untouched] = float("nan")  # is not read
    for adds in (True, False):
        of_x = torch.randn(copies * size, depth)
        expected = of_x.clone()
        expected[at] = grad[at] @ weight + (expected[at] if adds else 0)
        of_weight, of_bias = linear.linear_backward(grad, x, weight, of_x, adds=adds, rows=rows)
        torch.testing.assert_close(of_x, expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(of_weight, grad[at].t() @ x[at], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(of_bias, grad[at].sum(0), rtol=1e-4, atol=1e-4)
    of_weight, of_bias = linear.linear_backward(grad, x, weight, None, has_bias=False, rows=rows)
    torch.testing.assert_close(of_weight, grad[at].t() @ x[at], rtol=1e-4, atol=1e-3)
    assert of_bias is None


@pytest.mark.parametrize("threads", [2, 3])
def test_listed_rows_have_the_same_bits_for_any_number_of_threads(threads):
    rows = linear.Listed(torch.arange(0, 4000, 3), 4000)
    x, weight, bias = (t.detach() for t in leaves(8000, 32))
    grad = torch.randn(8000, 48)

    def numbers(n):
        torch.set_num_threads(n)
        try:
            out, of_x = torch.zeros(8000, 48), torch.zeros(8000, 32)
            linear.linear_forward(x, weight, bias, out=out, rows=rows)
            return out, of_x, *linear.linear_backward(grad, x, weight, of_x, rows=rows)
        finally:
            torch.set_num_threads(before)

    before = torch.get_num_threads()
    for a, b in zip(numbers(threads), numbers(1), strict=True):
        assert torch.equal(a, b)


def in_memory_of(other):
    """Numbers between others: a column of a matrix."""
    return torch.stack([other, torch.full_like(other, 1e6)], 1)[:, 0]


@pytest.mark.parametrize("rows", ["expanded", "every second", "overlapping"])
@pytest.mark.parametrize("start", [False, True])
def test_rows_and_biases_wherever_they_lie(rows, start):
    x = {
        "expanded": lambda: torch.randn(1, 32).expand(40, 32),
        "every second": lambda: torch.randn(80, 32)[::2],
        "overlapping": lambda: torch.randn(80).as_strided((40, 32), (1, 1)),
    }[rows]()
    weight, bias = torch.randn(16, 32), in_memory_of(torch.randn(16))
    assert bias.stride() == (2,)
    begin = torch.randn(40, 16) if start else None
    results = []
    for call in (
        lambda x, w, b: linear.linear(x, w, b, begin),
        lambda x, w, b: F.linear(x, w, b) + (begin if start else 0),
    ):
        given = [t.detach().requires_grad_() for t in (x, weight, bias)]
        assert [t.stride() for t in given] == [t.stride() for t in (x, weight, bias)]
        y = call(*given)
        grads = torch.autograd.grad((y * torch.arange(16.0)).sum(), given)
        results.append((y, *grads))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-3)

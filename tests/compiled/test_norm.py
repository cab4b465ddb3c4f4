"""The compiled layer norm against torch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_nsa.compiled import norm as compiled
from pyg_nsa.compiled.norm import layer_norm, layer_norm_and_rows
from pyg_nsa.nn.projection import normed


@pytest.mark.parametrize("shape", [(1, 16), (63, 48), (3, 50, 64), (5000, 16)], ids=str)
def test_values_and_gradients(shape):
    x = (5 * torch.randn(shape) + 3).requires_grad_()
    weight, bias = (torch.randn(shape[-1], requires_grad=True) for _ in range(2))
    y = layer_norm(x, weight, bias, 1e-5)
    grad = torch.randn_like(y)
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = F.layer_norm(wide[0], shape[-1:], *wide[1:], 1e-5)
    grads = torch.autograd.grad(y, (x, weight, bias), grad)
    wanted = torch.autograd.grad(expected, wide, grad.double())
    for a, b in zip((y, *grads), (expected, *wanted), strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a.double(), b, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize("shape", [(1, 16), (3, 50, 64), (5000, 16)], ids=str)
def test_a_residual_branch_beside_the_norm(shape):
    x = (5 * torch.randn(shape) + 3).requires_grad_()
    weight, bias = (torch.randn(shape[-1], requires_grad=True) for _ in range(2))
    y, same = layer_norm_and_rows(x, weight, bias, 1e-5)
    assert torch.equal(same, x)
    one, other = torch.randn(shape), torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]
    grads = torch.autograd.grad([y, same], (x, weight, bias), [one, other])
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = F.layer_norm(wide[0], shape[-1:], *wide[1:], 1e-5)
    assert torch.equal(y, layer_norm(x, weight, bias, 1e-5))
    wanted = torch.autograd.grad([expected, wide[0].clone()], wide, [one.double(), other.double()])
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=3e-6 * b.abs().max().item())


def test_a_branch_that_is_not_used_has_no_part_in_the_gradient():
    x = torch.randn(40, 16, requires_grad=True)
    norm = nn.LayerNorm(16)
    y, same = normed(norm, x)
    assert torch.equal(torch.autograd.grad(same.sum(), x)[0], torch.ones_like(x))
    y, _ = normed(norm, x)
    grad = torch.randn_like(y)
    actual = torch.autograd.grad(y, [x, *norm.parameters()], grad)
    expected = torch.autograd.grad(norm(x), [x, *norm.parameters()], grad)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    fixed = x.detach()
    assert normed(norm, fixed)[1] is fixed


def test_a_constant_row_and_nan():
    x = torch.full((40, 16), 7.0)
    x[3, 2] = float("nan")
    norm = nn.LayerNorm(16)
    y = normed(norm, x)[0]
    assert y[3].isnan().all()
    rest = torch.arange(40) != 3
    torch.testing.assert_close(y[rest], norm.bias.detach().expand(39, 16), rtol=0, atol=1e-3)


def test_same_bits_for_any_number_of_threads():
    before = torch.get_num_threads()
    x = torch.randn(3000, 64, requires_grad=True)
    norm = nn.LayerNorm(64)
    grad = torch.randn(3000, 64)

    def run(n):
        torch.set_num_threads(n)
        y = normed(norm, x)[0]
        return (y, *torch.autograd.grad(y, [x, *norm.parameters()], grad))

    try:
        expected = run(1)
        for n in (2, 3, 5, 2):
            assert all(torch.equal(a, b) for a, b in zip(run(n), expected, strict=True))
    finally:
        torch.set_num_threads(before)


def test_other_norms_are_called_as_they_are():
    x = torch.randn(20, 16)
    others = (nn.LayerNorm(16, elementwise_affine=False), nn.LayerNorm(16, bias=False))
    for norm in (*others, nn.RMSNorm(16), nn.Identity()):
        assert torch.equal(normed(norm, x)[0], norm(x))
    norm, seen = nn.LayerNorm(16), []
    norm.register_forward_hook(lambda *args: seen.append(1))
    normed(norm, x)
    assert seen == [1]
    with torch.autocast("cpu", torch.bfloat16):
        assert normed(nn.LayerNorm(16), x)[0].dtype == torch.float32


def test_the_operator_is_what_it_tells_the_compiler():
    x = torch.randn(2, 9, 16, requires_grad=True)
    weight, bias = (torch.randn(16, requires_grad=True) for _ in range(2))
    torch.library.opcheck(
        compiled.OPERATOR,
        (x, weight, bias, 1e-5),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )

"""Full attention inside graphs against the dense float64 reference."""

import pytest
import torch

from pyg_nsa import Segments, self_attention
from pyg_nsa.attention import full_attention, reference

CASES = {
    "one graph": (9, None, None),
    "equal graphs": (9, [0, 0, 0, 1, 1, 1, 2, 2, 2], None),
    "unequal graphs": (9, [0, 0, 0, 0, 1, 2, 2, 2, 2], None),
    "an empty graph": (6, [0, 0, 2, 2, 2, 2], None),
    "unsorted batch": (6, [1, 0, 1, 0, 0, 1], None),
    "padding": (6, [0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 0, 0]),
    "padding, one graph": (5, None, [1, 0, 1, 1, 0]),
    "all padding": (4, None, [0, 0, 0, 0]),
    "no row": (0, None, None),
}


def leaves(num_rows, dtype=torch.float64, lead=()):
    return [torch.randn(*lead, num_rows, 2, 5, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_values_and_gradients_equal_the_reference(name, dtype, tolerance):
    num_rows, batch, mask = CASES[name]
    batch = None if batch is None else torch.tensor(batch)
    mask = None if mask is None else torch.tensor(mask).bool()
    segments = Segments.from_batch(batch, num_rows, mask)
    inputs = leaves(num_rows, dtype)
    out = self_attention(*inputs, segments)
    grad = torch.randn_like(out)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = reference.full_attention(*wide, segments)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    for a, b in zip(
        torch.autograd.grad(out, inputs, grad),
        torch.autograd.grad(expected, wide, grad.double()),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_the_shared_layout_equals_single_graphs():
    alive = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    inputs = leaves(4, lead=(3,))
    out = self_attention(*inputs, alive=alive)
    grads = torch.autograd.grad(out.square().sum(), inputs)
    for b in range(3):
        single = [t[b].detach().requires_grad_() for t in inputs]
        expected = self_attention(*single, Segments.from_batch(None, 4, alive[b]))
        torch.testing.assert_close(out[b], expected, rtol=1e-12, atol=1e-12)
        for a, e in zip(grads, torch.autograd.grad(expected.square().sum(), single), strict=True):
            torch.testing.assert_close(a[b], e, rtol=1e-12, atol=1e-12)


def test_cross_attention_between_points_and_graphs():
    q, k, v = torch.randn(4, 2, 5), torch.randn(7, 2, 5), torch.randn(7, 2, 5)
    queries = Segments(torch.tensor([0, 2, 4]), 4)
    keys = Segments.from_batch(torch.tensor([0, 0, 0, 1, 1, 1, 1]), 7)
    out = full_attention(q, k, v, queries, keys)
    expected = reference.full_attention(q.double(), k.double(), v.double(), queries, keys)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_dead_rows_of_a_copy_hold_reaches_no_other(value):
    alive = torch.tensor([[True, True, False, True], [True, False, False, True]])
    clean = leaves(4, lead=(2,))
    dirty = [t.detach().masked_fill(~alive[..., None, None], value) for t in clean]
    out = self_attention(*dirty, alive=alive)
    torch.testing.assert_close(out[alive], self_attention(*clean, alive=alive)[alive])
    assert out.isfinite().all()

"""What dead rows hold reaches neither living rows nor a gradient."""

import copy
import math

import pytest
import torch

from pyg_nsa import HeteroNSAConv

SIZES = {"a": 9, "b": 6}
EDGES = {
    ("a", "r", "b"): torch.tensor([[0, 1, 2, 3, 4, 5, 6, 0, 8], [0, 1, 2, 3, 4, 0, 1, 2, 5]]),
    ("a", "s", "a"): torch.tensor([[0, 1, 2, 3, 4, 7], [1, 2, 3, 4, 5, 7]]),
}
KINDS = dict.fromkeys(EDGES, "adjacency_mask")


def conv(pattern, channels):
    torch.manual_seed(0)
    return HeteroNSAConv(
        KINDS, pattern=pattern, hidden_channels=channels, in_channels=channels, heads=2
    )


def living_and_gradients(module, x, alive, masks):
    """Living rows of each type that comes out, and gradients of all parameters and of living rows."""
    x = {t: rows.clone().requires_grad_() for t, rows in x.items()}
    out = module(x, EDGES, **masks)
    kept = {t: rows[alive[t]] for t, rows in out.items()}
    sum((rows**2).sum() for rows in kept.values()).backward()
    gradients = {n: p.grad for n, p in module.named_parameters()}
    of_rows = {t: rows.grad[alive[t]] for t, rows in x.items()}
    return kept, gradients, of_rows


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("channels", [16, 12], ids=["kernels", "single steps"])
@pytest.mark.parametrize("pattern", [None, "M", "S", "MS"])
@pytest.mark.parametrize("layout", ["copies", "one graph"])
def test_neither_rows_nor_gradients(layout, pattern, channels, value):
    lead = (3,) if layout == "copies" else ()
    draw = torch.Generator().manual_seed(1)
    alive = {t: torch.rand(*lead, n, generator=draw) > 0.3 for t, n in SIZES.items()}
    for rows in alive.values():
        rows[..., 1] = False
    if layout == "copies":
        masks = {"mask_dict": alive}
    else:
        masks = {"pert_mask_dict": {t: ~a for t, a in alive.items()}}
    clean = {t: torch.randn(*a.shape, channels, generator=draw) for t, a in alive.items()}
    dirty = {t: rows.masked_fill(~alive[t][..., None], value) for t, rows in clean.items()}
    module = conv(pattern, channels)
    other = copy.deepcopy(module)
    expected = living_and_gradients(module, clean, alive, masks)
    found = living_and_gradients(other, dirty, alive, masks)
    torch.testing.assert_close(found, expected)


def test_dead_rows_of_finite_values_come_out_as_before():
    """A stack hands them through: what reads deleted nodes out goes on finding them."""
    module, alive = conv("MS", 16), torch.arange(9) != 4
    x = {t: torch.randn(n, 16) for t, n in SIZES.items()}
    out = module(x, EDGES, mask_dict={"a": alive})
    projection = module.stack.inputs["a"]
    torch.testing.assert_close(out["a"][4], projection.lin(x["a"])[4] + projection.bias)


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_nan_of_living_rows_is_not_hidden(pattern):
    x = {t: torch.randn(n, 16) for t, n in SIZES.items()}
    x["a"][3] = math.nan
    out = conv(pattern, 16)(x, EDGES, mask_dict={"a": torch.arange(9) != 4})
    assert out["b"][3].isnan().all()  # attends to row 3 of a

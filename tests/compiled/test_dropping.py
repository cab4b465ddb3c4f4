"""The kernel of dropout: which elements become zeros, and that the others stay."""

import pytest
import torch

from pyg_nsa.compiled.dropping import STEPS, draw, drop, steps_of


@pytest.mark.parametrize("size", [1, 7, 1000, (1 << 14) + 3, 200_000])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_what_is_drawn_below_the_limit_becomes_zero(size, p):
    x = torch.randn(size) + 3
    x[0] = float("nan")
    draws, dropped = draw(size), steps_of(p)
    wanted = torch.where(draws.int() + STEPS // 2 >= dropped, x, torch.zeros(()))
    drop(x, draws, dropped)
    assert torch.equal(x.nan_to_num(7.0), wanted.nan_to_num(7.0))
    if size == 200_000:
        assert abs((x == 0).float().mean().item() - p) < 0.01


def test_draws_follow_the_seed():
    torch.manual_seed(3)
    first = draw(10)
    torch.manual_seed(3)
    assert torch.equal(draw(10), first)
    assert first.dtype == torch.int16


def test_steps_of_a_fraction():
    assert [steps_of(p) for p in (0, 0.5, 1, 1e-9, -1, 2)] == [0, STEPS // 2, STEPS, 0, 0, 0]

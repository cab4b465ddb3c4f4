"""Mixed precision. The target is what :class:`~pyg_nsa.testing.subject.Layered` says."""

from __future__ import annotations

import torch

from pyg_nsa.testing.results import Tally
from pyg_nsa.testing.subject import Layered
from pyg_nsa.testing.training_checks import expect_finite_gradients

__all__ = ["autocast"]

#: Of the norm of the rows. bfloat16 has eight bits, and the softmax makes more of what they lose.
_SHARE = 0.2


def autocast(subject: Layered, tally: Tally) -> None:
    """Under `torch.autocast` in bfloat16 a layer gives roughly the same rows, and finite gradients."""
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    wanted = subject.rows(layer, call=call)
    with torch.autocast("cpu", torch.bfloat16):
        rows = subject.rows(layer, call=call).float()
    tally.expect(bool(rows.isfinite().all()), "rows are NaN or infinite")
    off = float((rows - wanted).detach().norm() / wanted.detach().norm())
    tally.expect(
        off < _SHARE,
        f"rows are {100 * off:.0f} % off those without autocast; compute what is large or small in float32 "
        "(torch.autocast(device_type, enabled=False))",
    )
    expect_finite_gradients(layer, rows, tally)

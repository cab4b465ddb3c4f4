"""Dropout's draws, and the kernel that sets to zero what they drop."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.compiled.calls import KernelCall, threads_for

__all__ = ["STEPS", "draw", "drop", "steps_of"]

#: int16 has so many values: a fraction is a multiple of one over it.
STEPS = 1 << 16


def steps_of(p: float) -> int:
    """The fraction ``p`` in steps; 0 if none is dropped, or ``p`` is no fraction."""
    return round(p * STEPS) if 0 <= p <= 1 else 0


def draw(numel: int) -> Tensor:
    """``[numel]`` int16, uniform, from torch's generator of the CPU. Four share one draw of 64 bits."""
    draws = torch.empty(-(-numel // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return draws.view(torch.int16)[:numel]


def drop(x: Tensor, draws: Tensor, dropped: int) -> None:
    """Writes zeros over the elements of ``x`` that are dropped; the others are not scaled.

    Args:
        x: float32, any shape, in one piece.
        draws: int16, one for each element.
        dropped: Of :data:`STEPS`.
    """
    from pyg_nsa.compiled import dropping_kernel

    call = KernelCall(dropping_kernel.Words)
    call.put(X=x, DRAWS=draws)
    call.set(SIZE=x.numel(), LIMIT=dropped - STEPS // 2)
    call.run(dropping_kernel.zeros(), threads_for(x.numel()))

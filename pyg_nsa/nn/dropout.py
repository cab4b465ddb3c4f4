"""Dropout that draws its mask a few times faster on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_nsa.compiled.dropping import STEPS, draw, steps_of

__all__ = ["dropout"]


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """:func:`torch.nn.functional.dropout`: zeros each element with probability ``p``, scales the others by ``1 / (1 - p)``.

    On a CPU torch draws a double for each element, one after the other, which takes longer than the layers around it. Here
    four elements share one draw of 64 bits from the same generator (so :func:`torch.manual_seed` holds): ``p`` is rounded to a
    multiple of 2⁻¹⁶, and the scale goes by what was rounded. Other devices, and compiled graphs, get torch's.

    Args:
        x: Any shape, floating point.
        p: From 0 to 1.
        training: If false, ``x`` is returned as it is.

    Raises:
        ValueError: ``p`` is not from 0 to 1.
    """
    dropped = steps_of(p)
    if (
        not training
        or not 0 < dropped < STEPS
        or x.device.type != "cpu"
        or torch.compiler.is_compiling()
    ):
        return F.dropout(x, p, training)
    kept = draw(x.numel()).view(x.shape) >= dropped - STEPS // 2
    return x * kept.to(x.dtype).mul_(STEPS / (STEPS - dropped))

"""What dead rows hold must not matter, for gradients neither."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["without_dead_nan"]


def without_dead_nan(x: Tensor, alive: Tensor | None) -> Tensor:
    """Rows whose dead ones hold finite values: NaN and infinite ones become 0.

    A dead row gets no gradient, but a weight's gradient is a sum over all rows, and zero times NaN is NaN.

    Args:
        x: ``[*, N, F]``. If all copies of a graph are one tensor, expanded, a row that is dead in one lives in others: left as it is.
        alive: bool ``[*, N]``; ``None``: all are.
    """
    if alive is None or not x.is_floating_point() or (x.dim() == 3 and x.stride(0) == 0):
        return x
    return torch.where(alive[..., None] | x.isfinite(), x, 0.0)

"""Results of autograd functions that may be written to.

Users write into what a layer returns (``F.relu(out, inplace=True)``, ``out += skip``), which torch refuses of a view that was made inside of an
autograd function, and only where gradients are recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["unaliased"]


def unaliased(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A contiguous tensor in another shape, on the same memory and no view for autograd. Nothing else may go on using ``x``.

    Args:
        x: The tensor.
        shape: The shape; one number may be -1.
    """
    reshaped: Tensor = torch.ops.aten._unsafe_view(x, shape)
    return reshaped

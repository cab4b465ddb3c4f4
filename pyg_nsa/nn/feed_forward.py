"""The residual MLP of a block."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pyg_nsa.compiled.feed_forward import feed_forward
from pyg_nsa.compiled.linear import fits
from pyg_nsa.nn.dropout import dropout
from pyg_nsa.nn.option_checks import check_fraction, check_real
from pyg_nsa.nn.projection import is_plain

__all__ = ["FeedForward"]


class FeedForward(nn.Module):
    r"""Pre-norm residual MLP :math:`\mathbf{x} + \mathrm{MLP}(\mathrm{LN}(\mathbf{x}))` with GELU.

    Args:
        channels: Size of each row.
        mlp_ratio: Hidden size as a multiple of ``channels``; 0: no MLP, rows come out as they went in.
        dropout: Dropout on the hidden units and on the output.

    Shapes:
        ``[*, channels]`` to ``[*, channels]``.

    Raises:
        TypeError: ``mlp_ratio`` or ``dropout`` is no number.
        ValueError: ``mlp_ratio`` is negative, or ``dropout`` no probability.
    """

    def __init__(self, channels: int, mlp_ratio: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.lin1: nn.Linear | None = None
        check_fraction("dropout", dropout)
        check_real("mlp_ratio", mlp_ratio)
        if mlp_ratio < 0:
            raise ValueError(f"mlp_ratio must be 0 (no MLP) or more; got {mlp_ratio:g}")
        if mlp_ratio == 0:
            return
        hidden = max(1, round(channels * mlp_ratio))
        self.norm = nn.LayerNorm(channels)
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for module in self.children():
            module.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Applies norm, MLP and residual."""
        if self.lin1 is None:
            return x
        if self._is_compiled(x):
            norm, lin1, lin2 = self.norm, self.lin1, self.lin2
            parameters = (norm.weight, norm.bias, lin1.weight, lin1.bias, lin2.weight, lin2.bias)
            return feed_forward(x, *parameters, norm.eps)
        h = dropout(F.gelu(self.lin1(self.norm(x))), self.dropout, self.training)
        return x + dropout(self.lin2(h), self.dropout, self.training)

    def _is_compiled(self, x: Tensor) -> bool:
        """Whether the CPU's kernels do this: all layers are what they were made as, and nothing is dropped."""
        if self.training and self.dropout > 0:
            return False
        linears: list[Any] = [self.lin1, self.lin2]
        if not is_plain(self.norm, nn.LayerNorm) or not all(is_plain(lin) for lin in linears):
            return False
        parameters = [p for layer in (self.norm, *linears) for p in (layer.weight, layer.bias)]
        if not all(p is not None for p in parameters) or not fits(x, *parameters):
            return False
        channels, hidden = x.size(-1), linears[0].weight.size(0)
        shapes = [(channels,), (hidden, channels), (channels, hidden)]
        return [layer.weight.shape for layer in (self.norm, *linears)] == shapes

"""The residual MLP of a block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyg_nsa.nn.dropout import dropout

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
        ValueError: ``mlp_ratio`` is negative.
    """

    def __init__(self, channels: int, mlp_ratio: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.lin1: nn.Linear | None = None
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
        h = dropout(F.gelu(self.lin1(self.norm(x))), self.dropout, self.training)
        return x + dropout(self.lin2(h), self.dropout, self.training)

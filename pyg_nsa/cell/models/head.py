"""From what was read of a deletion to predictions: a network of its own for each target."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP

__all__ = ["TARGETS", "Head"]

#: Columns of predictions and labels.
TARGETS = ("fitness", "gene_interaction")


class Head(nn.Module):
    """One :class:`torch_geometric.nn.MLP` with two hidden layers for each of :data:`TARGETS`.

    Fitness is learned from single deletions for the most part, interaction from pairs; layers that both share are pulled two ways.

    Args:
        in_channels: Size of what was read.
        hidden_channels: Width of the hidden layers.
        dropout: Dropout after each of them.
    """

    def __init__(self, in_channels: int, hidden_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [in_channels, hidden_channels, hidden_channels, 1]
        self.each = nn.ModuleList(
            MLP(sizes, act="gelu", norm=None, dropout=dropout) for _ in TARGETS
        )

    def forward(self, z: Tensor) -> Tensor:
        """``[B, in_channels]`` to ``[B, 2]``."""
        return torch.cat([one(z) for one in self.each], dim=-1)

"""From what was read of a deletion to predictions: a network of its own for each target."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP

from pyg_nsa.cell.labels.table import TARGETS

__all__ = ["Head"]

# The network's share where fitness is certain begins at less than a hundredth: with more, whether a doubt is unlearned depends on how often such
# instances are drawn.
_TRUST = 5.0

# A weight that stands for several standard deviations is far away at a learning rate that suits the networks.
_REACH = 16.0


class Head(nn.Module):
    """One :class:`torch_geometric.nn.MLP` with two hidden layers for each of :data:`~pyg_nsa.cell.labels.table.TARGETS`.

    Fitness is learned from single deletions for the most part, interaction from pairs; layers that both share are pulled two ways.

    Args:
        in_channels: Size of what was read.
        hidden_channels: Width of the hidden layers.
        dropout: Dropout after each of them.
        plain: For each target the columns that also reach it by a linear map, past all dropout ("wide and deep", Cheng et al.,
            *DLRS* 2016): what is certain by itself needs no network to be told.
        sure: A column with ``asinh(1)`` where fitness is certain without the network, and 0 elsewhere. There the network's
            fitness counts less, by a share that is learned, so that it neither learns from such instances what the plain columns
            say already, nor doubts it.

    Attributes:
        trust: Scalar, the share's logit, ``None`` without such a column.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        dropout: float = 0.0,
        plain: Sequence[slice] = (),
        sure: int | None = None,
    ) -> None:
        super().__init__()
        sizes = [in_channels, hidden_channels, hidden_channels, 1]
        self.each = nn.ModuleList(
            MLP(sizes, act="gelu", norm=None, dropout=dropout) for _ in TARGETS
        )
        self.columns = list(plain)
        self.plain = nn.ModuleList(
            nn.Linear(len(range(in_channels)[where]), 1, bias=False) for where in plain
        )

        self.sure = sure
        self.trust = None if sure is None else nn.Parameter(torch.tensor(_TRUST))

    def forward(self, z: Tensor) -> Tensor:
        """``[B, in_channels]`` to ``[B, 2]``."""
        out = torch.cat([one(z) for one in self.each], dim=-1)
        if self.trust is not None:
            doubt = 1 - self.trust.sigmoid() * z[:, self.sure] / math.asinh(1)
            out = torch.stack([out[:, 0] * doubt, out[:, 1]], dim=-1)
        if not self.plain:
            return out
        plain = [
            one(_REACH * z[:, where]) for one, where in zip(self.plain, self.columns, strict=True)
        ]
        return out + torch.cat(plain, dim=-1)

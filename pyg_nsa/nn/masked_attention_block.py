"""MAB: masked attention along edges, for one node type."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.feed_forward import FeedForward
from pyg_nsa.nn.nsa_conv import NSAConv, check_heads
from pyg_nsa.nn.projection import apply, normed

__all__ = ["MaskedAttentionBlock"]


class MaskedAttentionBlock(nn.Module):
    r"""Pre-norm transformer block whose attention follows the edges of a graph.

    .. math::
        \mathbf{x} \leftarrow \mathbf{x} + \mathbf{W}_o\,\mathrm{Attn}_{\mathcal{E}}(\mathrm{LN}(\mathbf{x})), \qquad
        \mathbf{x} \leftarrow \mathbf{x} + \mathrm{MLP}(\mathrm{LN}(\mathbf{x}))

    The MAB of edge-set and node-set attention (Buterez et al., Nature Communications 2025), here over nodes.

    Args:
        channels: Size of each row.
        heads: Number of heads; must divide ``channels``.
        edge_dim: Number of edge attributes, projected linearly and added to the logits.
        mlp_ratio: Hidden size of the MLP as a multiple of ``channels``; 0: none.
        dropout: Dropout of the message and in the MLP.

    Shapes:
        - **x:** ``[N, channels]`` or ``[B, N, channels]``
        - **edge_index:** ``[2, E]`` or an :class:`~pyg_nsa.EdgeSet`
        - **edge_attr:** ``[E]`` or ``[E, edge_dim]``
        - **output:** like x

    Raises:
        ValueError: ``heads`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        edge_dim: int | None = None,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        head_dim = check_heads(channels, heads, "channels")
        self.norm = nn.LayerNorm(channels)
        self.conv = NSAConv(
            channels, head_dim, heads, dropout=dropout, edge_dim=edge_dim, root_weight=False
        )
        self.lin_out = nn.Linear(channels, channels, bias=False)
        self.feed_forward = FeedForward(channels, mlp_ratio, dropout)

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for module in self.children():
            module.reset_parameters()  # type: ignore[operator]

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | EdgeSet,
        edge_attr: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Applies the block.

        Args:
            x: Rows.
            edge_index: Edges, source to target.
            edge_attr: Their attributes.
            mask: bool, real rows; the others neither send nor receive and come out as they went in.
        """
        h, x = normed(self.norm, x)
        message = self.conv(h, edge_index, edge_attr, alive=(mask, mask))
        out = self.feed_forward(apply(self.lin_out, message, x))
        return out if mask is None else torch.where(mask[..., None], out, x)

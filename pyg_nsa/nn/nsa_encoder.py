"""A stack of MAB and SAB over one node type."""

from __future__ import annotations

from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet, Segments
from pyg_nsa.attention.edges import check_bool_mask
from pyg_nsa.nn.masked_attention_block import MaskedAttentionBlock
from pyg_nsa.nn.self_attention_block import SelfAttentionBlock

__all__ = ["NSAEncoder", "check_pattern"]


def check_pattern(pattern: str) -> str:
    """Returns the pattern.

    Raises:
        ValueError: It is empty or holds letters other than M and S.
    """
    if not isinstance(pattern, str) or not pattern or set(pattern) - {"M", "S"}:
        raise ValueError(
            f"pattern must be letters M (masked attention along edges) and S (self-attention among the nodes of a "
            f"type), such as 'MSMS'; got {pattern!r}"
        )
    return pattern


class NSAEncoder(nn.Module):
    """Interleaved masked and self-attention over one node type, node-set attention (Buterez et al. 2025).

    Args:
        channels: Size of each row.
        pattern: One letter per block: ``M`` for :class:`MaskedAttentionBlock`, ``S`` for :class:`SelfAttentionBlock`.
        heads: Number of heads; must divide ``channels``.
        edge_dim: Number of edge attributes.
        mlp_ratio: Hidden size of each MLP as a multiple of ``channels``; 0: none.
        dropout: Dropout of messages and in MLPs.
        induced_points: Induced points of each SAB; ``None``: exact.

    Shapes:
        - **x:** ``[N, channels]`` or ``[B, N, channels]``
        - **edge_index:** ``[2, E]`` or an :class:`~pyg_nsa.EdgeSet`
        - **output:** like x

    Raises:
        ValueError: An unknown letter in the pattern, or ``heads`` that do not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        pattern: str = "MSMS",
        heads: int = 4,
        edge_dim: int | None = None,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        induced_points: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.pattern = check_pattern(pattern)
        self.heads = heads
        self.blocks = nn.ModuleList(
            MaskedAttentionBlock(channels, heads, edge_dim, mlp_ratio, dropout)
            if letter == "M"
            else SelfAttentionBlock(channels, heads, mlp_ratio, dropout, induced_points)
            for letter in pattern
        )

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for block in self.blocks:
            block.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | EdgeSet,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Applies the blocks; the pair set and the graphs' segments are built once for all of them.

        Args:
            x: Rows.
            edge_index: Edges, source to target.
            edge_attr: Their attributes.
            batch: ``[N]`` graph of each row (default: one graph).
            mask: bool, real rows; the others neither send nor receive and come out as they went in.
        """
        if mask is not None:
            check_bool_mask(mask, "mask")
        num_rows = x.size(-2)
        edges = (
            edge_index
            if isinstance(edge_index, EdgeSet)
            else EdgeSet.from_edge_index(edge_index, num_rows, num_rows)
        )
        segments = None
        if x.dim() == 2 and "S" in self.pattern:
            segments = Segments.from_batch(batch, num_rows, mask, device=x.device)
        for block in self.blocks:
            if isinstance(block, MaskedAttentionBlock):
                x = block(x, edges, edge_attr, mask)
            else:
                x = block(x, mask=mask, segments=segments)
        return x

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, pattern='{self.pattern}', heads={self.heads})"
        )

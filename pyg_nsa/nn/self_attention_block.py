"""SAB: attention among all nodes of a type inside each graph, exact or through induced points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_nsa.attention import Segments, full_attention, self_attention
from pyg_nsa.attention.edges import check_bool_mask
from pyg_nsa.nn.dropout import dropout
from pyg_nsa.nn.feed_forward import FeedForward
from pyg_nsa.nn.nsa_conv import check_heads
from pyg_nsa.nn.option_checks import check_at_least_one
from pyg_nsa.nn.projection import apply, normed

__all__ = ["SelfAttentionBlock"]


class SelfAttentionBlock(nn.Module):
    r"""Pre-norm transformer block with attention among all nodes of a graph.

    .. math::
        \mathbf{x} \leftarrow \mathbf{x} + \mathbf{W}_o\,\mathrm{Attn}(\mathrm{LN}(\mathbf{x})), \qquad
        \mathbf{x} \leftarrow \mathbf{x} + \mathrm{MLP}(\mathrm{LN}(\mathbf{x}))

    With ``induced_points=m`` it is the ISAB of the Set Transformer (Lee et al. 2019, section 3.1):
    :math:`m` learned points attend to the nodes of a graph, and the nodes attend to those points, so that time grows
    with :math:`N m` instead of :math:`N^2`. The default is exact attention.

    Args:
        channels: Size of each row.
        heads: Number of heads; must divide ``channels``.
        mlp_ratio: Hidden size of the MLP as a multiple of ``channels``; 0: none.
        dropout: Dropout of the message and in the MLP.
        induced_points: Number of induced points ``m``; ``None``: exact.

    Shapes:
        - **x:** ``[N, channels]`` (graphs by ``batch``, ``ptr`` or ``segments``), or ``[B, N, channels]``
        - **mask:** bool, ``[N]`` or ``[B, N]``
        - **output:** like x

    Raises:
        ValueError: ``heads`` does not divide ``channels``, or lengths that do not fit.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        induced_points: int | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = check_heads(channels, heads, "channels")
        self.dropout = dropout
        self.norm = nn.LayerNorm(channels)
        self.lin_qkv = nn.Linear(channels, 3 * channels)
        self.lin_out = nn.Linear(channels, channels, bias=False)
        self.feed_forward = FeedForward(channels, mlp_ratio, dropout)
        self.induced: _InducedPoints | None = None
        if induced_points is not None:
            self.induced = _InducedPoints(channels, heads, induced_points)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for module in self.children():
            module.reset_parameters()  # type: ignore[operator]

    def forward(
        self,
        x: Tensor,
        batch: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        ptr: Tensor | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """Applies the block.

        Args:
            x: Rows.
            batch: ``[N]`` graph of each row (default: one graph).
            mask: bool, real rows; the others neither send nor receive and come out as they went in.
            ptr: ``[B + 1]`` row ranges of the graphs, instead of ``batch``.
            segments: Graphs and real rows prepared once, instead of ``batch``, ``ptr`` and ``mask``.
        """
        if mask is not None:
            check_bool_mask(mask, "mask")
        if x.dim() == 3 and (batch is not None or ptr is not None):
            raise ValueError(
                "in the layout [B, N, C] the first axis is the batch, so batch and ptr do not go with it"
            )
        if x.dim() == 2 and segments is None:
            if ptr is not None and batch is None:
                graphs = torch.arange(ptr.numel() - 1, device=x.device)
                batch = graphs.repeat_interleave(ptr.diff(), output_size=x.size(0))
            segments = Segments.from_batch(batch, x.size(0), mask, device=x.device)
        h, x = normed(self.norm, x)
        q, k, v = apply(self.lin_qkv, h).unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        # Where the batch is an axis a mask says who lives; in the other layout the segments leave dead rows out.
        alive = mask if x.dim() == 3 else None
        if self.induced is not None:
            message = self.induced(q, k, v, segments, alive)
        else:
            message = self_attention(q, k, v, segments, alive=alive)
        message = dropout(apply(self.lin_out, message.flatten(-2)), self.dropout, self.training)
        out = self.feed_forward(x + message)
        living = alive if x.dim() == 3 else _row_mask(segments)
        return out if living is None else torch.where(living[..., None], out, x)


class _InducedPoints(nn.Module):
    """The middle of ISAB: points attend to nodes, nodes attend to points.

    Set Transformer eq. 9, with the points' queries learned directly (their projection would be a product of two learned
    matrices) and with a linear map and norm in place of the inner MAB's feed-forward.
    """

    def __init__(self, channels: int, heads: int, num_points: int) -> None:
        super().__init__()
        check_at_least_one("induced_points", num_points)
        self.heads, self.head_dim = heads, channels // heads
        self.points = nn.Parameter(torch.empty(num_points, channels))
        self.norm = nn.LayerNorm(channels)
        self.lin_kv = nn.Linear(channels, 2 * channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.points)
        self.norm.reset_parameters()
        self.lin_kv.reset_parameters()

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Segments | None, alive: Tensor | None
    ) -> Tensor:
        num_points = self.points.size(0)
        points = self.points.unflatten(-1, (self.heads, self.head_dim))
        point_segments = None
        if q.dim() == 4:
            points = points.expand(q.size(0), -1, -1, -1)
        else:
            assert segments is not None
            num_graphs = segments.num_graphs
            points = points.repeat(num_graphs, 1, 1)
            ptr = torch.arange(num_graphs + 1, device=q.device) * num_points
            point_segments = Segments(ptr, num_graphs * num_points)
        summary = full_attention(points, k, v, point_segments, segments, alive_keys=alive)
        summary = self.norm((points + summary).flatten(-2))
        pk, pv = self.lin_kv(summary).unflatten(-1, (2, self.heads, self.head_dim)).unbind(-3)
        return full_attention(q, pk, pv, segments, point_segments, alive_queries=alive)


def _row_mask(segments: Segments | None) -> Tensor | None:
    if segments is None or segments.index is None:
        return None
    living = torch.zeros(segments.num_rows, dtype=torch.bool, device=segments.index.device)
    living[segments.index] = True
    return living

"""Masked attention with a dense boolean mask, as it is written today: SDPA, and FlexAttention.

Both have the projections of TransformerConv and of NSAConv under the same names, so that one state dict serves all.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from .contenders import NotRun


class DenseAttention(nn.Module):
    """``scaled_dot_product_attention`` with a boolean mask.

    Args:
        channels: Size of input and output rows.
        heads: Number of heads.

    Shapes:
        - **x:** ``[N, C]``, ``[B, N, C]``, or a tuple of sources and targets
        - **mask:** bool, ``[N_dst, N_src]``, or ``[B, N_dst, N_src]``
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.lin_key = nn.Linear(channels, channels)
        self.lin_query = nn.Linear(channels, channels)
        self.lin_value = nn.Linear(channels, channels)
        self.lin_skip = nn.Linear(channels, channels)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], mask: Any) -> Tensor:
        source, target = (x, x) if isinstance(x, Tensor) else x
        single = source.dim() == 2
        q, k, v = (
            (lin(rows)[None] if single else lin(rows)).unflatten(-1, (self.heads, -1))
            for lin, rows in (
                (self.lin_query, target),
                (self.lin_key, source),
                (self.lin_value, source),
            )
        )
        out = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        out = out.transpose(1, 2).flatten(-2)
        return (out[0] if single else out) + self.lin_skip(target)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """``[B, H, N, D]`` each."""
        mask = mask if mask.dim() == 2 else mask[:, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class FlexDense(DenseAttention):
    """FlexAttention, compiled, whose ``mask_mod`` reads a dense boolean mask; ``mask`` is its BlockMask."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        # Static shapes, the faster choice; one compilation for each shape.
        self.compiled = torch.compile(flex_attention, dynamic=False)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: BlockMask) -> Tensor:
        return self.compiled(q, k, v, block_mask=mask)


def block_mask(mask: Tensor) -> BlockMask:
    """The BlockMask of a dense mask ``[N_dst, N_src]`` or ``[B, N_dst, N_src]``."""
    if mask.dim() == 2:
        return create_block_mask(lambda b, h, q, k: mask[q, k], None, None, *mask.shape, "cpu")
    return create_block_mask(
        lambda b, h, q, k: mask[b, q, k], mask.size(0), None, *mask.shape[1:], "cpu"
    )


def dense_mask(edge_index: Tensor, num_sources: int, num_targets: int) -> Tensor:
    """bool ``[num_targets, num_sources]``, rows are queries."""
    mask = torch.zeros(num_targets, num_sources, dtype=torch.bool)
    mask[edge_index[1], edge_index[0]] = True
    return mask


def check_compiles(module: FlexDense, x: Any, mask: BlockMask) -> None:
    """Compiles for these shapes.

    Raises:
        NotRun: It does not compile on this machine (no C++ compiler, say); with the reason.
    """
    said = (
        io.StringIO()
    )  # a failing compiler's whole command line; the reason is in the exception too
    try:
        with torch.no_grad(), contextlib.redirect_stderr(said):
            module(x, mask)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise NotRun(f"torch.compile failed: {type(error).__name__}: {first[:200]}") from error

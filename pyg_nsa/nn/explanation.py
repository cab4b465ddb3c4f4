"""What PyG's explainers (``torch_geometric.explain``) ask of a convolution: edge masks, and attention weights.

They set a mask on each ``MessagePassing`` module, or register hooks on its messages. Both are answered for the edges of a relation,
though attention is over its pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_nsa.attention import EdgeSet

__all__ = ["is_explained", "parts_of_pairs", "show_weights", "wants_weights"]


def is_explained(conv: Any) -> bool:
    """Whether an explainer waits for something that kernels for training do not give."""
    return conv.explain is True or wants_weights(conv)


def parts_of_pairs(conv: Any, edges: EdgeSet) -> Tensor | None:
    """``[P]``, how much of each pair's message an explainer's edge mask lets through; ``None`` without a mask.

    Of edges that are one pair it is their mean. A pair of no edge, such as a self-loop that a kind adds, is let through.

    Raises:
        ValueError: The mask is for another number of edges.
    """
    if conv.explain is not True:
        return None
    mask: Tensor | None = conv._edge_mask
    if mask is None:
        raise ValueError(
            "explain is True, but there is no edge mask: let torch_geometric.explain.Explainer set it"
        )
    if mask.dim() != 1 or mask.numel() != edges.num_edges:
        raise ValueError(
            f"the explainer's edge mask has shape {list(mask.shape)}, but there are {edges.num_edges} edges"
        )
    if conv._apply_sigmoid:
        mask = mask.sigmoid()
    count = edges.coalesce(torch.ones_like(mask))
    return torch.where(count > 0, edges.coalesce(mask) / count.clamp(min=1), 1.0).squeeze(1)


def wants_weights(conv: Any) -> bool:
    """Whether a hook on messages is there, such as ``AttentionExplainer``'s."""
    return bool(conv._message_forward_hooks)


def show_weights(conv: Any, weights: Tensor, edges: EdgeSet, out: Tensor) -> None:
    """Calls the hooks on messages with the attention weights as ``alpha``.

    Args:
        conv: The convolution.
        weights: ``[P, heads]``.
        edges: The pairs; the hooks get a row for each edge, then those for pairs that were added.
        out: What they get as the result.
    """
    alpha = weights if edges.pair_of is None else weights[..., edges.pair_of, :]
    for hook in conv._message_forward_hooks.values():
        hook(conv, ({"alpha": alpha},), out)

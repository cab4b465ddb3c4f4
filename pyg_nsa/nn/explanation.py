"""What PyG's explainers (``torch_geometric.explain``) ask of a convolution: edge masks, and attention weights.

They set a mask on each ``MessagePassing`` module, or register hooks on its messages. Both are answered for the edges of a relation,
though attention is over its pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import is_sparse, to_edge_index

from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.relation_inputs import RelationInputs
from pyg_nsa.plain_index import plain_index

__all__ = ["by_edges", "is_explained", "parts_of_pairs", "show_weights", "wants_weights"]


def is_explained(conv: Any) -> bool:
    """Whether an explainer waits for something that kernels for training do not give."""
    return conv.explain is True or wants_weights(conv)


def by_edges(edges: EdgeSet, relation: RelationInputs) -> EdgeSet:
    """The pairs of a relation, as those of the edges that an explainer knows: the columns of ``edge_index``.

    A kind may find its pairs in any way (paths, all pairs of a graph, a dense mask). Those that are edges belong to these edges, the
    others to none.
    """
    index = relation.fields.get("edge_index")
    if is_sparse(index):
        index = to_edge_index(index)[0].flip(0)  # PyG stores either transposed
    if not isinstance(index, Tensor):
        return edges
    source, target = relation.rows(plain_index(index)).long()
    numbers = torch.arange(source.numel(), device=source.device)
    edge_of, pair_of = edges.edge_of, edges.pair_of
    if edge_of is not None and pair_of is not None and edges.num_edges == source.numel():
        first = pair_of[: source.numel()]
        if (
            torch.equal(edge_of[: source.numel()], numbers)
            and torch.equal(edges.col[first], source)
            and torch.equal(edges.row[first], target)
        ):
            return edges  # with the pairs that it added, such as reversed ones
    width = edges.num_keys + 1
    known, wanted = edges.row * width + edges.col, target * width + source
    place = torch.searchsorted(known, wanted).clamp(max=max(known.numel() - 1, 0))
    there = known[place] == wanted if known.numel() else torch.zeros_like(wanted, dtype=torch.bool)
    out = EdgeSet(
        edges.row,
        edges.col,
        edges.rowptr,
        edges.num_queries,
        edges.num_keys,
        numbers[there],
        place[there],
        source.numel(),
        _is_sound=True,
    )
    out.derived = edges.derived
    return out


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
        edges: The pairs; the hooks get a row for each edge, zeros for one that is no pair.
        out: What they get as the result.
    """
    alpha = weights
    if edges.edge_of is not None and edges.pair_of is not None:
        # The first pair of each edge is its own, those that were added for it come later.
        count = edges.num_edges
        edge, pair = edges.edge_of[:count], edges.pair_of[:count]
        alpha = weights.new_zeros(*weights.shape[:-2], count, weights.size(-1))
        alpha[..., edge, :] = weights[..., pair, :]
    for hook in conv._message_forward_hooks.values():
        hook(conv, ({"alpha": alpha},), out)

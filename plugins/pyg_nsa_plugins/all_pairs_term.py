"""The edge term of ``all_pairs``: cross attention as a pair set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyg_nsa import EdgeSet, EdgeTerm, RelationInputs

__all__ = ["AllPairsTerm"]


class AllPairsTerm(EdgeTerm):
    """Every (target, source) pair of one graph, for each graph of a batch.

    The number of pairs of a graph is ``N_dst * N_src``. Self-attention over all nodes of one type is better left to the S
    blocks of a stack, which make no pairs.

    Args:
        max_pairs: The largest number of pairs of one call.

    Shapes:
        - **pairs:** an :class:`~pyg_nsa.EdgeSet` of ``sum_b N_dst[b] * N_src[b]`` pairs; in the shared layout
          ``[B, N, F]`` of ``N_dst * N_src``, which all copies share
    """

    def __init__(self, max_pairs: int) -> None:
        super().__init__()
        self.max_pairs = max_pairs

    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        """The pair set of the relation."""
        src, dst = inputs.src, inputs.dst
        src_ptr, src_rows = _graphs(src)
        dst_ptr, dst_rows = _graphs(dst)
        given = [ptr.numel() - 1 for ptr in (src_ptr, dst_ptr)]
        if given[0] != given[1] and not (src.names_graphs and dst.names_graphs):
            raise ValueError(
                f"edge type {inputs.edge_type}: 'all_pairs' pairs nodes of one graph, but node type "
                f"'{src.node_type}' comes in {given[0]} graphs and '{dst.node_type}' in {given[1]}; pass ptr_dict or "
                "batch_dict for both (collect(data) does)"
            )
        num_src, num_dst = _padded(src_ptr.diff(), max(given)), _padded(dst_ptr.diff(), max(given))
        per_graph = num_src * num_dst
        if len(per_graph) == 1:  # known without a look at the device
            total = largest = src.num_rows * dst.num_rows
        else:
            total, largest = int(per_graph.sum()), int(per_graph.max())
        if total > self.max_pairs:
            raise ValueError(
                f"edge type {inputs.edge_type}: 'all_pairs' would make {total} pairs (the largest graph has {largest}), "
                f"above max_pairs={self.max_pairs}. Use smaller batches, a kind with fewer pairs such as "
                "'adjacency_mask' or 'distance_bias', S blocks with sab.induced_points for attention within a node "
                f"type, or raise the option: max_pairs: {total}"
            )
        # Targets graph after graph; each meets the sources of its graph.
        graph = torch.repeat_interleave(num_dst)
        counts = num_src[graph]
        query = torch.repeat_interleave(counts, output_size=total)
        first = counts.cumsum(0) - counts
        start = _padded(src_ptr[:-1], max(given))
        position = torch.arange(total, device=query.device) - first[query]
        key = position + start[graph[query]]
        if src_rows is not None:
            key = src_rows[key]
        if dst_rows is not None:
            query = dst_rows[query]
        return EdgeSet.from_edge_index(torch.stack([key, query]), src.num_rows, dst.num_rows)

    def extra_repr(self) -> str:
        """The limit."""
        return f"max_pairs={self.max_pairs}"


def _graphs(layout: Any) -> tuple[Tensor, Tensor | None]:
    """Ranges ``[B + 1]`` of each graph, and the row at each place where rows are not in that order.

    Dead rows are taken along, since one pair set may serve calls with different deletions; attention leaves them out.
    """
    single = torch.tensor([0, layout.num_rows], device=layout.device)
    if layout.is_shared:
        return single, None
    if layout.row_ptr is not None:
        return layout.row_ptr, None
    segments = layout.segments
    return (single, None) if segments.num_graphs == 1 else (segments.ptr, segments.index)


def _padded(values: Tensor, size: int) -> Tensor:
    """``values`` with zeros behind, for graphs at the end of a batch that have no node of the type."""
    return pad(values, (0, size - values.numel()))

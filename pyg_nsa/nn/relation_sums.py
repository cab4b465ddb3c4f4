"""Messages of relations that are added up: as many of them as can be in one pass."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pyg_nsa.attention.joint import summed_messages
from pyg_nsa.nn.hetero_inputs import EdgeType, HeteroInputs
from pyg_nsa.nn.relation_attention import RelationAttention

__all__ = ["add_messages"]


def add_messages(
    convs: Mapping[EdgeType, nn.Module],
    rows: Mapping[str, Tensor],
    inputs: HeteroInputs,
    totals: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[EdgeType, nn.Module]]:
    """Adds messages to what is there.

    Args:
        convs: The module of each relation, in order; those of other classes are left.
        rows: Rows of each node type.
        inputs: The call.
        totals: What the messages to a node type are added to; where there is nothing, they are summed.

    Returns:
        The sums by target node type, ``totals`` included, and the modules that are left to the caller.
    """
    out, left = dict(totals), {}
    calls = []
    for edge_type, conv in convs.items():
        src, _, dst = edge_type
        call = None
        if isinstance(conv, RelationAttention):
            call = conv.as_call((rows[src], rows[dst]), inputs, totals.get(dst))
        if call is None:
            left[edge_type] = conv
        else:
            calls.append(call)
    if calls:
        out |= summed_messages(rows, totals, calls)
    return out, left

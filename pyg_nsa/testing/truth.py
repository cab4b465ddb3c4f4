"""What the rows of an attention kind have to be: dense attention in float64, head by head."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.attention import EdgeSet

__all__ = ["dense_rows"]


def dense_rows(
    relation: Any, x: tuple[Tensor, Tensor], edges: EdgeSet, bias: Tensor | None
) -> Tensor:
    """Rows `[N_dst, C]` of a relation for given pairs and bias, by way of `[N_dst, N_src]` matrices.

    Args:
        relation: The relation's module.
        x: Rows of sources and targets.
        edges: The pairs.
        bias: `[P, heads]`.
    """
    # Not the whole relation: the plugin's part of it may hold what cannot be copied.
    conv, lin_out = (copy.deepcopy(part).double() for part in (relation.conv, relation.lin_out))
    heads = conv.heads
    key, value = (
        lin(x[0].double()).unflatten(-1, (heads, -1)) for lin in (conv.lin_key, conv.lin_value)
    )
    query = conv.lin_query(x[1].double()).unflatten(-1, (heads, -1))
    added = torch.full((heads, edges.num_queries, edges.num_keys), -math.inf, dtype=torch.float64)
    added[:, edges.row, edges.col] = 0.0 if bias is None else bias.detach().double().t()
    logits = torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(query.size(-1)) + added
    weights = logits.softmax(-1).nan_to_num(0.0)  # a target without a pair gets nothing
    rows: Tensor = lin_out(torch.einsum("hij,jhd->ihd", weights, value).flatten(1))
    return rows.detach()

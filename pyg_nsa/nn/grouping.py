"""How the messages of several relations to one node type become one."""

from __future__ import annotations

import functools
from typing import TypeAlias

import torch
from torch import Tensor
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.conv.hetero_conv import group as pyg_group

__all__ = ["Aggr", "check_aggr", "group"]

#: HeteroConv's values, or any PyG aggregation.
Aggr: TypeAlias = str | Aggregation | None

_NAMES = ("sum", "mean", "min", "max", "cat")


def check_aggr(aggr: Aggr) -> Aggr:
    """Returns ``aggr``.

    Raises:
        ValueError: A name that HeteroConv does not have.
    """
    if aggr is None or isinstance(aggr, Aggregation) or aggr in _NAMES:
        return aggr
    raise ValueError(
        f"aggr must be one of {', '.join(_NAMES)}, None, or a torch_geometric.nn.aggr.Aggregation; got {aggr!r}"
    )


def group(messages: list[Tensor], aggr: Aggr) -> Tensor:
    """Groups messages ``[*, N, C]`` of one target type; a learned aggregation sees one set of R rows per node."""
    if aggr == "sum":  # HeteroConv stacks the messages first
        return functools.reduce(torch.add, messages)
    if aggr is None:  # HeteroConv's place for the relations, of rows [N, C]
        return torch.stack(messages, dim=-2)
    if not isinstance(aggr, Aggregation):
        return pyg_group(messages, aggr)  # type: ignore[return-value]
    stacked = torch.stack(messages, dim=-2)
    rows = stacked.flatten(0, -3)
    index = torch.arange(rows.size(0), device=rows.device).repeat_interleave(len(messages))
    out = aggr(rows.flatten(0, 1), index, dim_size=rows.size(0), dim=0)
    return out.unflatten(0, stacked.shape[:-2])

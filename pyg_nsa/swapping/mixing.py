"""Whether a replacement lets the graphs of a batch see each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.swapping.trial import Call, answer

__all__ = ["graph_of_nodes", "mixes_graphs"]


def graph_of_nodes(data: Any) -> dict[str, Tensor]:
    """The graph of each node by node type, where what a model was tried on is (or holds) a batch of several graphs; else empty.

    Loaders that sample disjoint or temporal neighbourhoods give a plain `HeteroData`, of which only `batch` says so.
    """
    parts = (data,)
    if isinstance(data, tuple | list):
        parts = tuple(data)
    elif isinstance(data, Mapping):
        parts = tuple(data.values())
    for part in parts:
        if not hasattr(part, "collect"):
            continue
        graph_of = {
            t: graph
            for t, graph in part.collect("batch", allow_empty=True).items()
            if isinstance(graph, Tensor) and graph.dim() == 1 and not graph.is_floating_point()
        }
        if len({number for graph in graph_of.values() for number in graph.unique().tolist()}) > 1:
            return graph_of
    return {}


def mixes_graphs(
    module: nn.Module, call: Call, before: Mapping[str, Any], graph_of: Mapping[str, Tensor]
) -> bool:
    """Calls a replacement with other features in all graphs but the first, and sees whether the first one's rows move.

    Whatever lets a node see other graphs (self-attention, a kind that pairs nodes without edges) is found that way, and nothing has to
    declare it.

    Args:
        module: The replacement.
        call: What it is called with.
        before: What it gave for the call as it is.
        graph_of: ``[N]`` int64 by node type, the graph of each row.
    """
    x_dict = call.dictionary("x")
    lowest = min(int(graph.min()) for graph in graph_of.values() if graph.numel())
    first = {
        t: graph_of[t].to(x.device) == lowest
        for t, x in x_dict.items()
        if t in graph_of and x.dim() == 2 and x.size(0) == graph_of[t].numel()
    }
    others = {("x", t): _change(x_dict[t], ~rows) for t, rows in first.items()}
    after = answer(module, call, others)
    for node_type, rows in first.items():
        was, now = before.get(node_type), after.get(node_type)
        if was is None or now is None or was.size(0) != rows.numel():
            continue
        was, now = was[rows].double(), now[rows].double()
        # The same sums in the same order; what differs is more than rounding.
        if was.numel() and float((now - was).abs().max()) > 1e-4 * float(was.abs().max()):
            return True
    return False


def _change(x: Tensor, rows: Tensor) -> Tensor:
    return torch.where(rows.unsqueeze(-1), 1 - x, x) if x.is_floating_point() else x

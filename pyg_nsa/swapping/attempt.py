"""What a call of a replacement shows: whether it answers as its layer did, and what would go wrong without a word."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.swapping.layers import EdgeType
from pyg_nsa.swapping.mixing import graph_of_nodes, mixes_graphs
from pyg_nsa.swapping.plan import Plan
from pyg_nsa.swapping.problems import show
from pyg_nsa.swapping.trial import Call, answer
from pyg_nsa.swapping.unread import unread_fields

__all__ = ["attempt", "reason", "was_tried"]

_MIXES = (
    "graphs of a batch see each other (self-attention, S, and kinds that pair nodes without edges), since the call does not say which "
    "graph (or which seed's tree, where sampling was disjoint or temporal) a node is of: let the model's forward pass "
    "batch_dict=data.batch_dict, or use 'pattern: M'"
)


def was_tried(plan: Plan, calls: Mapping[str, Call]) -> bool:
    """Whether a plan's layer was called in the trial with all that its replacement needs."""
    return plan.layer.path in calls and not plan.lacks_fields


def attempt(plan: Plan, module: nn.Module, call: Call, data: Any) -> None:
    """Calls a replacement as its layer was called, and adds to the plan's warnings.

    Lazy parameters get their sizes.

    Args:
        plan: The plan.
        module: What was built of it.
        call: The layer's call.
        data: What the model was tried on.

    Raises:
        ValueError: It answers otherwise than the layer did.
        Exception: Whatever the replacement raises.
    """
    out = _try(plan, module, call)
    graph_of = graph_of_nodes(data)
    if graph_of and mixes_graphs(module, call, out, graph_of):
        plan.warnings.append(_MIXES)
    if _may_leave_unread(plan.config):
        plan.warnings += _unread(plan, module, call, out)
    plan.warnings += _lost_ids(plan, call, _with_ids(data))


def reason(error: Exception) -> str:
    """Why a replacement can't be built or called; assertions in convs have no words of their own."""
    notes = getattr(error, "__notes__", ())
    if str(error):
        return "; ".join([str(error), *notes])
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"its replacement fails with {type(error).__name__} in {place.name}, {Path(place.filename).name}:{place.lineno}"
    return "; ".join([f"{text}: {place.line}" if place.line else text, *notes])


def _try(plan: Plan, module: nn.Module, call: Call) -> dict[str, Any]:
    out = answer(module, call)
    for node_type, before in call.out.items():
        # None: no messages in this call; a stack of blocks has rows even then.
        now = out.get(node_type)
        if node_type in out and (before is None or (now is not None and now.shape == before.shape)):
            continue
        got = "nothing" if now is None else f"shape {list(now.shape)}"
        raise ValueError(
            f"called as the {plan.layer.name} was called, its replacement gives {got} for node type '{node_type}', the layer "
            f"gave {'None' if before is None else f'shape {list(before.shape)}'}"
        )
    return out


def _may_leave_unread(config: HeteroNSAConfig) -> bool:
    """Whether edges or fields may matter to nothing without a word of the plan: another operator, or blocks that use no edges."""
    return config.operator != "hetero_nsa" or (
        config.pattern is not None and "M" not in config.pattern
    )


def _unread(plan: Plan, module: nn.Module, call: Call, out: Mapping[str, Any]) -> list[str]:
    """What went into the layer and makes no difference any more, where the plan does not say so already."""
    known = {(name, r.edge_type) for r in plan.relations for name in r.unread}
    found = [one for one in unread_fields(module, call, out, plan.layer.convs) if one not in known]
    by_field: dict[str, list[EdgeType]] = {}
    for name, edge_type in found:
        by_field.setdefault(name, []).append(edge_type)
    return [
        f"{name} of {', '.join(map(show, edge_types))} went into the {plan.layer.name}, and makes no difference to the rows of its "
        "replacement"
        for name, edge_types in by_field.items()
    ]


def _with_ids(data: Any) -> list[str]:
    """Node types of which the data say by `n_id` which nodes of the base graph there are."""
    if not hasattr(data, "node_types"):
        return []
    return [t for t in data.node_types if data[t].get("n_id") is not None]


def _lost_ids(plan: Plan, call: Call, numbered: Collection[str]) -> list[str]:
    passed = call.kwargs.get("n_id_dict") or {}
    lost = [t for t in plan.config.num_nodes if t in numbered and t not in passed]
    if not lost or plan.config.operator != "hetero_nsa":
        return []
    return [
        f"n_id of {', '.join(lost)} is in the data and does not reach the layer, so learned embeddings go by rows: let the model's "
        "forward pass n_id_dict=data.n_id_dict"
    ]

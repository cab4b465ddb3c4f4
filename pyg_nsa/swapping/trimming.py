"""Whether a model trims rows from layer to layer that a replacement would still attend to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyg_nsa.swapping.plan import Plan
from pyg_nsa.swapping.trial import Call

__all__ = ["warn_of_trimming"]


def warn_of_trimming(plans: Sequence[Plan], calls: Mapping[str, Call]) -> None:
    """Adds a warning to each plan with self-attention among rows that were more in an earlier layer's call.

    PyG's ``trim_to_layer`` leaves out what can't reach the seeds any more, one hop of edges with each layer. Along edges that changes
    nothing; among all nodes of a type it does. How many hops a pattern with several M needs is not looked at: with enough of them
    sampled trimming is right.

    Args:
        plans: What is to be done.
        calls: How the model called its layers, in the order of these calls.
    """
    order = list(calls)
    for plan in plans:
        call = calls.get(plan.layer.path)
        if call is None or not (attending := _attending(plan)):
            continue
        before = order[: order.index(plan.layer.path)]
        trimmed = {t for path in before for t in _trimmed(calls[path], call)}
        cut = [t for t in attending if t in trimmed]
        if cut:
            plan.warnings.append(
                f"the model trims its rows before this layer (trim_to_layer), and self-attention (S) among {', '.join(cut)} misses "
                "those that are gone: seeds get other rows than without trimming. Use 'pattern: M', or do not trim"
            )


def _attending(plan: Plan) -> list[str]:
    """Node types whose nodes a replacement lets attend to each other."""
    config = plan.config
    if config.operator != "hetero_nsa" or "S" not in (config.pattern or ""):
        return []
    if config.sab.node_types is not None:
        return list(config.sab.node_types)
    return list(dict.fromkeys(t for s in config.edges for t in (s.edge_type[0], s.edge_type[2])))


def _trimmed(earlier: Call, later: Call) -> list[str]:
    """Node types with fewer rows in a later call whose edges are the first ones of the earlier call's."""
    old, new = (_edges(call) for call in (earlier, later))
    shared = [e for e in new if e in old]
    firsts = all(torch.equal(new[e], old[e][:, : new[e].size(1)]) for e in shared)
    # Without edges anything begins like anything.
    if not firsts or not any(new[e].numel() for e in shared):
        return []
    rows = earlier.dictionary("x")
    return [
        t
        for t, x in later.dictionary("x").items()
        if isinstance(x, Tensor) and isinstance(rows.get(t), Tensor) and x.size(0) < len(rows[t])
    ]


def _edges(call: Call) -> dict[object, Tensor]:
    if "edge_index_dict" not in call.kwargs and len(call.args) < 2:
        return {}
    return {
        e: index
        for e, index in call.dictionary("edge_index").items()
        if isinstance(index, Tensor) and index.layout == torch.strided and index.dim() == 2
    }

"""Whether what went into a layer still matters to the rows of its replacement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.swapping.layers import EdgeType
from pyg_nsa.swapping.trial import Call, answer

__all__ = ["unread_fields"]

_EDGES = ("edge_index", "hyperedge_index")


def unread_fields(
    module: nn.Module, call: Call, before: Mapping[str, Any], edge_types: Iterable[EdgeType]
) -> list[tuple[str, EdgeType]]:
    """Calls a replacement with one field of one edge type changed at a time, and sees whether any row moves.

    Edges are halved; numbers are made others. So it is seen of every operator and kind, and of a pattern that uses none.

    Args:
        module: The replacement.
        call: What it is called with.
        before: What it gave for the call as it is.
        edge_types: Those that the layer had.

    Returns:
        Fields (without ``_dict``) and edge types that make no difference. Fields that only the replacement takes, and those that
        can't be changed (integers, other than edges), are not tried.
    """
    new = {name.removesuffix("_dict") for name in call.unknown_before}
    rows = {t: h for t, h in before.items() if isinstance(h, Tensor)}
    found = []
    for edge_type in edge_types:
        names = call.fields.get(edge_type, set())
        for name in sorted(names - new - {"x"}):
            change = _change(name, call.dictionary(name).get(edge_type))
            if change is None:
                continue
            changed: dict[str, Any] = {name: change[0]}
            for other in names - set(_EDGES) - {"x"} if name in _EDGES else ():
                value = call.dictionary(other).get(edge_type)
                if isinstance(value, Tensor) and value.size(0) == change[1]:
                    changed[other] = value[
                        : change[0].size(1)
                    ]  # one row for each edge that is left
            after = answer(module, call, {(n, edge_type): v for n, v in changed.items()})
            if all(torch.equal(h, after[t]) for t, h in rows.items()):
                found.append((name, edge_type))
    return found


def _change(name: str, value: Any) -> tuple[Tensor, int] | None:
    """Another value, and the number of edges of the old one."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.numel() == 0:
        return None
    if name in _EDGES:
        if value.dim() != 2 or value.size(1) < 2:
            return None
        return value[:, : value.size(1) // 2], value.size(1)
    if not value.is_floating_point():
        return None
    return 1 - 2 * value, value.size(0)

"""PyG's convolutions that attend along edges already, and what they are as edge kinds."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

from pyg_nsa import NSAConv

__all__ = ["attends", "reads_attributes"]

_CLASSES = (GATConv, GATv2Conv, TransformerConv, NSAConv)


def attends(module: nn.Module, edge_type: tuple[str, str, str]) -> dict[str, Any] | None:
    """The options that an attention conv's edge kind has in common with it; None for another conv, or a class derived from one.

    Args:
        module: The conv.
        edge_type: Its relation.
    """
    if type(module) not in _CLASSES:
        return None
    loops = getattr(module, "add_self_loops", False) is True and edge_type[0] == edge_type[2]
    return {"self_loops": True} if loops else {}


def reads_attributes(module: nn.Module) -> bool:
    """Whether it projects edge attributes."""
    return getattr(module, "edge_dim", None) is not None

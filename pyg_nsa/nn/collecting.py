"""From a ``HeteroData`` to the keyword arguments of a call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.api import EdgeKind
from pyg_nsa.config import EdgeSpec
from pyg_nsa.nn.hetero_inputs import EdgeType
from pyg_nsa.registry import Registry, default_registry

__all__ = ["collect"]


def collect(
    data: Any,
    relations: Mapping[EdgeType, nn.Module | EdgeSpec],
    registry: Registry | None = None,
) -> dict[str, dict[Any, Any]]:
    """Gathers the arguments that relations ask for.

    Args:
        data: A ``torch_geometric.data.HeteroData`` or a batch of them.
        relations: What each edge type is.
        registry: Where kinds are looked up (default: the installed plugins).

    Returns:
        ``x_dict``, and ``{field}_dict`` for each field that a relation's kind reads and that the data has, and for the
        row layout of node types (``mask``, ``pert_mask``, ``batch``, ``ptr``, ``x_ptr``). Empty ones are left out,
        except ``x_dict`` and ``edge_index_dict``.

    Raises:
        ValueError: A field that a kind requires is missing; the message names the fields that are there.
    """
    out: dict[str, dict[Any, Any]] = {"x_dict": {}, "edge_index_dict": {}}
    node_types = dict.fromkeys(t for src, _, dst in relations for t in (src, dst))
    for node_type in node_types:
        if node_type in data.node_types:
            for name, value in _node_fields(data[node_type], node_type).items():
                out.setdefault(f"{name}_dict", {})[node_type] = value
    for edge_type, relation in relations.items():
        if edge_type not in data.edge_types:
            continue
        store = data[edge_type]
        if isinstance(relation, EdgeSpec):
            kind = (registry or default_registry()).edge_kind(relation.kind)
            names = _spec_fields(store, edge_type, relation, kind)
        else:
            names = tuple(_conv_fields(relation))
        for name in names:
            if store.get(name) is not None:
                out.setdefault(f"{name}_dict", {})[edge_type] = store[name]
    return out


def _node_fields(store: Any, node_type: str) -> dict[str, Tensor]:
    x = store.get("x")
    mask, pert_mask = store.get("mask"), store.get("pert_mask")
    num_nodes = store.num_nodes
    if x is None:
        for rows in (mask, pert_mask):
            if rows is not None:
                num_nodes = rows.numel()
        if num_nodes is None:
            raise ValueError(f"node type '{node_type}' has neither x nor num_nodes")
        device = next((t.device for t in store.values() if isinstance(t, Tensor)), None)
        x = torch.empty(int(num_nodes), 0, device=device)
    fields = {"x": x, "mask": mask, "pert_mask": pert_mask}
    fields["ptr"] = store.get("ptr")
    fields["x_ptr"] = store.get("x_ptr")
    batch = store.get("x_batch")
    fields["batch"] = store.get("batch") if batch is None else batch
    if fields["ptr"] is None and store.num_nodes != x.size(0):
        # One graph in compact numbering: the rows beyond num_nodes are padding.
        fields["ptr"] = torch.tensor([0, store.num_nodes], device=x.device)
    return {name: value for name, value in fields.items() if value is not None}


def _spec_fields(store: Any, edge_type: EdgeType, spec: EdgeSpec, kind: EdgeKind) -> tuple[str, ...]:
    present = [name for name in store.keys() if store.get(name) is not None]  # noqa: SIM118
    for choices in kind.missing(spec.options, present):
        raise ValueError(
            f"edge kind '{kind.name}' of edge type {edge_type} requires {' or '.join(map(repr, choices))}, which "
            f"data[{edge_type}] does not have; fields present: {', '.join(present) or 'none'}"
        )
    return kind.fields(spec.options)


def _conv_fields(conv: nn.Module) -> list[str]:
    names = ["edge_index"]
    accepted = inspect.signature(conv.forward).parameters
    if "edge_attr" in accepted and getattr(conv, "edge_dim", None) is not None:
        names.append("edge_attr")
    return names

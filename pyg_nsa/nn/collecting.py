"""From a ``HeteroData`` to the keyword arguments of a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.config import EdgeSpec
from pyg_nsa.nn.adjacency import read_from_matrix
from pyg_nsa.nn.call_fields import NODE_FIELDS, ReadFields
from pyg_nsa.nn.conv_arguments import (
    EDGES,
    edge_attr_columns,
    edge_places,
    names_its_fields,
    parameters,
    read_fields,
)
from pyg_nsa.nn.hetero_inputs import EdgeType
from pyg_nsa.nn.relation_attention import RelationAttention
from pyg_nsa.nn.row_ranges import ranges_fit
from pyg_nsa.registry import Registry, default_registry

__all__ = ["Wanted", "collect", "fields_read", "wanted_fields", "wanted_now"]


@dataclass(frozen=True)
class Wanted:
    """What one relation wants from the data; plain values, so that a module that holds it can be copied and saved.

    Attributes:
        reader: Who wants it, for messages.
        fields: Names of all fields to collect.
        required: Fields that it can't do without; of each tuple any one will do.
        edge_places: Names that may be the edges', in their order: the first that is no field of nodes gets them, whatever the data
            call them. None: each name has its own field.
        node_fields: Those of the fields that nodes may have, too.
        reads_any: Whether it may read what is not among the fields: a forward with ``**kwargs``, or a conv that a kind has made, gets
            all that a call passes for its edges.
        edge_attr_columns: Columns that ``edge_attr`` must have, or it is left out; ``None``: any.
    """

    reader: str
    fields: tuple[str, ...]
    required: tuple[tuple[str, ...], ...]
    edge_places: tuple[str, ...] = ()
    node_fields: tuple[str, ...] = ()
    edge_attr_columns: int | None = None
    reads_any: bool = False

    def may_read(self, name: str) -> bool:
        """Whether a field that a call passes may make a difference to this relation."""
        return self.reads_any or name in self.fields or name in self.edge_places

    def leaves_out(self, name: str, value: Any) -> bool:
        """Whether a field that is there is not for this relation."""
        columns = self.edge_attr_columns
        if name != "edge_attr" or columns is None:
            return False
        is_matrix = isinstance(value, Tensor) and value.dim() == 2
        return columns == 0 or not is_matrix or value.size(1) != columns


def wanted_fields(
    relations: Mapping[EdgeType, nn.Module | EdgeSpec], registry: Registry | None = None
) -> dict[EdgeType, Wanted]:
    """What each relation wants from the data.

    A declared kind says it. A conv module gets the edges (``hyperedge_index`` where there is no ``edge_index``), under whatever
    name its forward takes them, and each field of the edges or nodes that its forward has an argument for; ``edge_attr`` not if it
    was built without (``edge_dim=None``).
    """
    wanted = {}
    for edge_type, relation in relations.items():
        if isinstance(relation, EdgeSpec):
            kind = (registry or default_registry()).edge_kind(relation.kind)
            makes_messages = "message" in kind.produces
            wanted[edge_type] = Wanted(
                f"edge kind '{kind.name}'",
                kind.fields(relation.options),
                tuple(kind.missing(relation.options, ())),
                ("edge_index",) if makes_messages else (),
                reads_any=makes_messages,
            )
            continue
        named = parameters(relation)
        fields = read_fields(named)
        places = edge_places(named)
        wanted[edge_type] = Wanted(
            f"the {type(relation).__name__}",
            fields,
            (tuple(dict.fromkeys((*EDGES, *places))),),
            (*places, "edge_index"),
            tuple(name for name in fields if name not in NODE_FIELDS),
            edge_attr_columns(relation, named),
            not names_its_fields(named),
        )
    return wanted


def wanted_now(
    wanted: Mapping[EdgeType, Wanted],
    known: Mapping[EdgeType, nn.Module],
    convs: Mapping[EdgeType, nn.Module],
) -> dict[EdgeType, Wanted]:
    """What each relation wants, where modules may have taken the places of others since.

    Args:
        wanted: What each of ``known`` wants.
        known: The modules of which that is known.
        convs: The modules that are there now. One that does not say by its forward which fields it takes, such as a wrapper, wants
            what the one before it wanted; nor does attention of a declared kind.
    """
    out = {}
    for edge_type, conv in convs.items():
        is_same = conv is known.get(edge_type) or isinstance(conv, RelationAttention)
        if edge_type in wanted and (is_same or not names_its_fields(parameters(conv))):
            out[edge_type] = wanted[edge_type]
        elif isinstance(conv, RelationAttention):
            out[edge_type] = Wanted(f"edge kind '{conv.kind}'", EDGES, (EDGES,))
        else:
            out |= wanted_fields({edge_type: conv})
    return out


def fields_read(wanted: Mapping[EdgeType, Wanted]) -> ReadFields:
    """What the relations of a layer read, as far as it can be told."""
    return ReadFields(
        frozenset(name for asked in wanted.values() for name in asked.fields),
        frozenset(name for asked in wanted.values() for name in asked.node_fields),
    )


def collect(
    data: Any, wanted: Mapping[EdgeType, Wanted], embedded: Collection[str] = ()
) -> dict[str, dict[Any, Any]]:
    """Gathers the arguments that relations ask for.

    Args:
        data: A ``torch_geometric.data.HeteroData`` or a batch of them.
        wanted: What each relation wants (:func:`wanted_fields`).
        embedded: Node types with learned embeddings, which go by ``n_id`` where the data has it.

    Returns:
        ``x_dict``, and ``{field}_dict`` for each field that a relation wants and that the data has, and for the row
        layout of node types (``mask``, ``pert_mask``, ``batch``, ``ptr``, ``x_ptr``; ``n_id`` of those that are embedded).
        Empty ones are left out, except ``x_dict`` and ``edge_index_dict``.

    Raises:
        TypeError: It is no ``HeteroData``.
        ValueError: A required field is missing; the message names the fields that are there.
    """
    if not hasattr(data, "node_types") or not hasattr(data, "edge_types"):
        more = ""
        if hasattr(data, "to_heterogeneous"):
            more = ", which has no node and edge types; turn it into one with data.to_heterogeneous(...)"
        raise TypeError(
            f"collect expects a torch_geometric HeteroData or a batch of them, got a {type(data).__name__}{more}"
        )
    out: dict[str, dict[Any, Any]] = {"x_dict": {}, "edge_index_dict": {}}
    for node_type in dict.fromkeys(t for src, _, dst in wanted for t in (src, dst)):
        if node_type in data.node_types:
            fields = _node_fields(data[node_type], node_type)
            if node_type in embedded and data[node_type].get("n_id") is not None:
                fields["n_id"] = data[node_type].n_id
            for name, value in fields.items():
                out.setdefault(f"{name}_dict", {})[node_type] = value
    for edge_type, asked in wanted.items():
        if edge_type not in data.edge_types:
            continue
        fields = _edge_fields(data, edge_type, asked)
        for name, value in fields.items():
            out.setdefault(f"{name}_dict", {})[edge_type] = value
        for node_type in (edge_type[0], edge_type[2]):
            for name in asked.node_fields:
                rows = data[node_type].get(name) if node_type in data.node_types else None
                if name not in fields and isinstance(rows, Tensor):
                    out.setdefault(f"{name}_dict", {})[node_type] = rows
    return out


def _edge_fields(data: Any, edge_type: EdgeType, asked: Wanted) -> dict[str, Any]:
    store = data[edge_type]
    present = {name: value for name, value in store.items() if value is not None}
    present |= read_from_matrix(present, asked.fields, asked.required)
    for choices in asked.required:
        if not any(name in present for name in choices):
            raise ValueError(
                f"{asked.reader} of edge type {edge_type} requires {' or '.join(map(repr, choices))}, which "
                f"data[{edge_type}] does not have; fields present: {', '.join(present) or 'none'}"
            )
    ends = [data[t] for t in (edge_type[0], edge_type[2]) if t in data.node_types]
    of_nodes = {name for end in ends for name in end.keys()}  # noqa: SIM118 - PyG's storage
    place = next((name for name in asked.edge_places if name not in of_nodes), None)
    edges = next((present[name] for name in EDGES if name in present), None)
    if place is not None and edges is not None:
        present.setdefault(place, edges)
    wanted = dict.fromkeys((*asked.fields, *([place] if place else [])))
    return {
        name: present[name]
        for name in wanted
        if name in present and not asked.leaves_out(name, present[name])
    }


def _node_fields(store: Any, node_type: str) -> dict[str, Tensor]:
    masks = {name: store[name] for name in ("mask", "pert_mask") if store.get(name) is not None}
    x = store.get("x")
    if x is None:
        # No features: as many rows as the masks have, else as there are nodes, and no columns.
        num_rows = next((mask.numel() for mask in masks.values()), store.num_nodes)
        if num_rows is None:
            raise ValueError(f"node type '{node_type}' has neither x nor num_nodes")
        device = next((t.device for t in store.values() if isinstance(t, Tensor)), None)
        x = torch.empty(int(num_rows), 0, device=device)
    fields = {"x": x, **masks, "ptr": store.get("ptr"), "x_ptr": store.get("x_ptr")}
    in_rows = store.get("x_batch")
    fields["batch"] = store.get("batch") if in_rows is None else in_rows
    if _are_stale(fields, x.size(0)):
        fields["ptr"] = fields["x_ptr"] = None
    if fields["ptr"] is None and store.num_nodes != x.size(0):
        # One graph in compact numbering: the rows beyond num_nodes are padding.
        fields["ptr"] = torch.tensor([0, store.num_nodes], device=x.device)
    return {name: value for name, value in fields.items() if value is not None}


def _are_stale(fields: Mapping[str, Any], num_rows: int) -> bool:
    """Whether the ranges are of other rows: PyG samples, cuts and permutes ``batch`` with the rows, and leaves the ranges as they were."""
    batch, ptr, x_ptr = fields["batch"], fields["ptr"], fields["x_ptr"]
    ranges = ptr if x_ptr is None else x_ptr
    if not (isinstance(batch, Tensor) and isinstance(ranges, Tensor) and ranges.numel()):
        return False
    if batch.shape != (num_rows,) or torch.compiler.is_compiling():
        return False
    if x_ptr is None and int(ranges[-1]) < num_rows:  # compact numbering: it counts the real nodes
        return False
    return not (bool((batch[1:] >= batch[:-1]).all()) and ranges_fit(ranges, batch))

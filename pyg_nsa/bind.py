"""Whether the inputs of a graph have the shapes and dtypes that edge kinds read; for `HeteroNSAConfig.bind`.

What a field has to be follows from its name, as in PyG: `…_index` holds edges, `[2, E]` integers; `…_mask` is a dense boolean mask,
`[sources, targets]`; every other field is an edge attribute with one row for each edge. `edge_attr`, `edge_weight` and
what an option `edge_attr` names are numbers; what others hold only the kind knows. Values are looked at once, for their range; nothing is
copied. This module is imported when there is a graph to look at, and so is torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.plain_index import plain_index

__all__ = ["num_nodes", "num_rows", "wrong_inputs"]

_Type = tuple[str, str, str]


def wrong_inputs(
    data: Any,
    edge_type: _Type,
    fields: Sequence[str],
    choices: Sequence[Sequence[str]],
    numbers: Collection[str] = (),
) -> Iterator[str]:
    """Yields what is wrong with the fields that a relation reads, a sentence each.

    Args:
        data: A `HeteroData` or a batch of them.
        edge_type: The relation.
        fields: The names of the fields that its edge kind reads.
        choices: Fields of which any one will do; of those that are there, the first one is read.
        numbers: Fields of edges that are read as numbers.
    """
    store = data[edge_type]
    present = [name for name in fields if store.get(name) is not None]
    for names in choices:
        unread = [name for name in present if name in names][1:]
        present = [name for name in present if name not in unread]
    num_edges: int | None = None
    where: str | None = None
    for name in present:
        if name.endswith("_index"):
            value = store[name]
            found = _wrong_index(data, edge_type, name, value)
            if found is not None:
                yield found
            elif isinstance(value, Tensor) and not _is_sparse(value) and num_edges is None:
                num_edges, where = value.size(1), name
    for name in present:
        value = store[name]
        if name.endswith("_mask"):
            found = _wrong_mask(data, edge_type, name, value, num_edges)
        elif not name.endswith("_index"):
            found = _wrong_attribute(edge_type, name, value, num_edges, where, name in numbers)
        else:
            continue
        if found is not None:
            yield found


def _wrong_index(data: Any, edge_type: _Type, name: str, value: Any) -> str | None:
    label, spelled = _names(edge_type, name)
    foreign = _not_a_tensor(label, spelled, value)
    if foreign is not None or not isinstance(value, Tensor) or _is_sparse(value):
        return foreign
    if value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        return f"{label} must hold integers, got {value.dtype}; " + (
            f"a dense mask belongs into a field such as adj_mask; its edges: {spelled} = mask.nonzero().t()"
            if value.dtype == torch.bool
            else f"convert it: {spelled} = {spelled}.long()"
        )
    if value.dim() != 2 or value.size(0) != 2:
        mend = ""
        if value.dim() == 2 and value.size(1) == 2:
            mend = f"; it lists the edges as rows, so transpose it: {spelled} = {spelled}.t().contiguous()"
        return (
            f"{label} must have shape [2, E], a row of sources and a row of targets, got {list(value.shape)}"
            f"{mend}"
        )
    if value.numel() == 0:
        return None
    sizes = [num_nodes(data, node_type) for node_type in (edge_type[0], edge_type[2])]
    rows = plain_index(value)
    low, high = (side.tolist() for side in torch.aminmax(rows, dim=1))
    for row, size in enumerate(sizes):
        if size is not None and (low[row] < 0 or high[row] >= size):
            end, node_type = ("source", edge_type[0]) if row == 0 else ("target", edge_type[2])
            bad = low[row] if low[row] < 0 else high[row]
            swapped = (
                all(other is None or high[1 - side] < other for side, other in enumerate(sizes))
                and min(low) >= 0
            )
            return (
                f"{label} has {end} index {bad}, but node type '{node_type}' has {size} nodes "
                + (f"(valid: 0 to {size - 1})" if size else "(none is valid)")
                + (
                    f"; its rows seem to be swapped: {spelled} = {spelled}.flip(0)"
                    if swapped and edge_type[0] != edge_type[2]
                    else "; set num_nodes of the node type, or relabel the edges"
                )
            )
    return None


def _wrong_mask(
    data: Any, edge_type: _Type, name: str, value: Any, num_edges: int | None
) -> str | None:
    label, spelled = _names(edge_type, name)
    foreign = _not_a_tensor(label, spelled, value)
    if foreign is not None or not isinstance(value, Tensor) or _is_sparse(value):
        return foreign
    if value.dtype != torch.bool:
        return (
            f"{label} must be boolean, got {value.dtype}; convert it: {spelled} = {spelled}.bool() for a mask of 0 "
            f"and 1, {spelled} = {spelled} > -1e9 for an additive one of 0 and -inf"
        )
    if value.dim() != 2:
        mend = ""
        if list(value.shape) == [num_edges]:
            mend = "; a name that ends in _mask means a dense mask, so give an attribute of the edges another one"
        return f"{label} must have two dimensions, [sources, targets], got shape {list(value.shape)}{mend}"
    rows = [num_rows(data[node_type]) for node_type in (edge_type[0], edge_type[2])]
    graphs = int(getattr(data, "num_graphs", 1) or 1)
    if rows[0] is None or rows[1] is None or rows[1] % graphs:
        return None
    wanted = [rows[0], rows[1] // graphs]
    if list(value.shape) != wanted:
        mend = ""
        if list(value.shape) == wanted[::-1]:
            mend = f"; transpose it: {spelled} = {spelled}.t()"
        stacked = f", stacked for {graphs} graphs" if graphs > 1 else ""
        return (
            f"{label} must have shape {wanted} (rows: source nodes '{edge_type[0]}'{stacked}, columns: target nodes "
            f"'{edge_type[2]}'), got {list(value.shape)}{mend}"
        )
    return None


def _wrong_attribute(
    edge_type: _Type,
    name: str,
    value: Any,
    num_edges: int | None,
    where: str | None,
    is_number: bool,
) -> str | None:
    label, spelled = _names(edge_type, name)
    foreign = _not_a_tensor(label, spelled, value)
    if foreign is not None or not isinstance(value, Tensor):
        return foreign
    if is_number and (value.dtype == torch.bool or value.is_complex()):
        return f"{label} must hold numbers, got {value.dtype}; convert it: {spelled} = {spelled}.float()"
    if _is_sparse(value) or value.dim() not in (1, 2):
        return f"{label} must have shape [E] or [E, F], a row for each edge, got " + (
            "a sparse matrix" if _is_sparse(value) else str(list(value.shape))
        )
    if num_edges is not None and value.size(0) != num_edges:
        mend = ""
        if value.dim() == 2:
            mend = f"; of a dense matrix take the entries of the edges: {spelled}[{where}[0], {where}[1]]"
        return (
            f"{label} must have one row for each of the {num_edges} edges of '{where}', got shape "
            f"{list(value.shape)}{mend}"
        )
    return None


def _names(edge_type: _Type, name: str) -> tuple[str, str]:
    """How a message calls a field, and how Python spells it."""
    return f"'{name}' of edge type ({', '.join(edge_type)})", f"data[{edge_type!r}].{name}"


def _not_a_tensor(label: str, spelled: str, value: Any) -> str | None:
    """Says how to make a tensor of what can be one; other classes (a `SparseTensor`) are the plugin's to read."""
    if type(value).__module__.partition(".")[0] == "numpy":
        return f"{label} must be a tensor, got a numpy array; convert it: {spelled} = torch.from_numpy({spelled})"
    if isinstance(value, list | tuple | int | float | str):
        return f"{label} must be a tensor, got a {type(value).__name__}; convert it: {spelled} = torch.tensor({spelled})"
    return None


def _is_sparse(value: Tensor) -> bool:
    return value.layout != torch.strided


def num_nodes(data: Any, node_type: str) -> int | None:
    """How many nodes the edges count; None if nothing but the edges themselves says it."""
    if node_type not in data.node_types:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyG warns where it has to guess.
        try:
            found = data[node_type].num_nodes
        except Warning:
            return None
    return None if found is None else int(found)


def num_rows(store: Any) -> int | None:
    """The rows of x, which masks are laid out by."""
    for name in ("x", "mask", "pert_mask"):
        if isinstance(store.get(name), Tensor):
            return int(store[name].size(0))
    return int(store["num_nodes"]) if store.get("num_nodes") is not None else None

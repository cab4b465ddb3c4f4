"""Arguments of a heterogeneous call that would lose something without a word, or fail later without a name, are refused."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.errors import nearest
from pyg_nsa.nn.call_fields import GRAPH_FIELDS, NODE_FIELDS, ORDER, POSITIONAL, TERM_FIELDS
from pyg_nsa.nn.declared import EdgeType, meant_edge_type

__all__ = ["check_arguments", "check_edge_types", "check_ends", "check_graphs", "check_rows"]

#: Dictionaries by the name of their field.
Fields = Mapping[str, Mapping[Any, Any]]

_KNOWN = frozenset((*NODE_FIELDS, *TERM_FIELDS, *POSITIONAL, ORDER))


def check_arguments(
    owner: str, args_dict: Sequence[Any], named: Fields, read: Collection[str] = ()
) -> None:
    """Whether all arguments are dictionaries, and none is nearly the name of a node field.

    Args:
        owner: Class name for messages.
        args_dict: Those by place.
        named: Those by name, without ``_dict``.
        read: Names that relations read, whatever they resemble.

    Raises:
        TypeError: One is no dictionary.
        ValueError: A name is nearly that of a node field.
    """
    for place, values in enumerate(args_dict):
        _check_is_mapping(owner, _argument_at(place), values)
    for name, values in named.items():
        _check_is_mapping(owner, f"{name}_dict", values)
        if name in _KNOWN or name in read or torch.compiler.is_compiling():
            continue
        if meant := _meant_node_field(name):
            raise ValueError(
                f"'{owner}' got {name}_dict, which nothing reads; did you mean {meant}_dict?"
            )


def check_edge_types(fields: Fields, declared: Collection[EdgeType]) -> None:
    """Whether any declared edge type is in a call that has some; a stack would take all of them for relations without edges.

    Raises:
        ValueError: None is.
    """
    if any(edge_type in values for values in fields.values() for edge_type in declared):
        return
    given = {key for values in fields.values() for key in values if isinstance(key, tuple)}
    given |= set(fields.get("edge_index", ()))
    if not given:
        return
    names = [str(edge_type) for edge_type in declared]
    first = next(key for values in fields.values() for key in values if key in given)
    meant = nearest(str(meant_edge_type(first) or first), names)
    hint = f"; did you mean {meant}?" if meant else "."
    raise ValueError(
        f"none of the edge types of this call is declared: got {first!r}"
        + (f" and {len(given) - 1} more" if len(given) > 1 else "")
        + hint
        + f" Declared: {', '.join(names)}"
    )


def check_ends(fields: Fields, declared: Collection[EdgeType]) -> None:
    """Whether the rows of both ends are there of each declared edge type that has edges.

    Raises:
        ValueError: They are not; a layer would take the edges for none.
    """
    for edge_type in declared:
        index = fields.get("edge_index", {}).get(edge_type)
        if not isinstance(index, Tensor) or index.numel() == 0:
            continue
        for node_type in (edge_type[0], edge_type[2]):
            if node_type not in fields["x"]:
                meant = nearest(node_type, fields["x"])
                hint = f"; did you mean '{node_type}' by '{meant}'?" if meant else ""
                raise ValueError(
                    f"edge type {edge_type} has edges, but x_dict has no rows of node type '{node_type}' (it has "
                    f"{', '.join(fields['x']) or 'none'}){hint}"
                )


def check_graphs(node_type: str, x_dict: Mapping[str, Tensor], named: Fields) -> None:
    """Where a call says which graph some nodes are of, it says so of all: the others would be taken for one graph.

    Args:
        node_type: Of which it is asked.
        x_dict: Rows by node type.
        named: Arguments by name, without ``_dict``.

    Raises:
        ValueError: It does not.
    """
    said = {
        t: (name, value)
        for name in GRAPH_FIELDS
        for t, value in named.get(name, {}).items()
        if value is not None and t in x_dict
    }
    if not said or node_type in said or torch.compiler.is_compiling():
        return
    if x_dict[node_type].size(0) and any(_is_of_several(*one) for one in said.values()):
        raise ValueError(
            f"the call says of which graph the nodes of type {', '.join(map(repr, said))} are, but not those of "
            f"'{node_type}'; give batch_dict (or ptr_dict) an entry for each node type, as a batch's data.batch_dict has"
        )


def _argument_at(place: int) -> str:
    return f"{POSITIONAL[place]}_dict" if place < len(POSITIONAL) else f"argument {place + 1}"


def _check_is_mapping(owner: str, argument: str, values: object) -> None:
    if isinstance(values, Mapping):
        return
    hint = ""
    if values is None:
        hint = "; leave it out where there is nothing to pass"
    elif isinstance(values, Tensor):
        hint = "; a tensor belongs under its edge type or node type"
    raise TypeError(
        f"'{owner}' takes {argument} as a dictionary by edge type or node type, got {type(values).__name__}{hint}"
    )


def _is_of_several(name: str, value: Tensor) -> bool:
    if name != "batch":
        return value.numel() > 2
    return bool((value > 0).any())


@functools.lru_cache(maxsize=64)
def _meant_node_field(name: str) -> str | None:
    """The field of nodes that a name is a misspelling of; unread, it would let graphs or deleted nodes mix."""
    return nearest(name, NODE_FIELDS, cutoff=0.8)


def check_rows(node_type: str, x: object) -> None:
    """Whether ``x`` of a node type is a tensor of rows.

    Raises:
        TypeError: It is no tensor.
        ValueError: It is neither ``[N, F]`` nor ``[B, N, F]``.
    """
    expected = f"x of node type '{node_type}' must be a tensor of shape [N, F], N nodes with F features each"
    if not isinstance(x, Tensor):
        raise TypeError(f"{expected}, got {type(x).__name__}")
    if x.dim() not in (2, 3):
        hint = "; with one feature each: x.view(-1, 1)" if x.dim() == 1 else ""
        raise ValueError(
            f"{expected} (or [B, N, F] for B copies of one base graph), got {list(x.shape)}{hint}"
        )

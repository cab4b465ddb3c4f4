"""Dictionaries of a call that no relation of a layer reads: it says so, once, since they make no difference to its rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pyg_nsa.errors import nearest
from pyg_nsa.nn.call_fields import NODE_FIELDS, ORDER, TERM_FIELDS
from pyg_nsa.nn.collecting import Wanted
from pyg_nsa.nn.declared import EdgeType
from pyg_nsa.nn.hetero_inputs import HeteroInputs

__all__ = ["warn_of_unread"]

#: Rows, and the edges in all their forms, of which a kind reads one: the others say the same.
_ROWS_AND_EDGES = frozenset(("x", "edge_index", *NODE_FIELDS, *TERM_FIELDS, ORDER)) - {
    "stoichiometry"
}
_LISTED = 3


def warn_of_unread(inputs: HeteroInputs, wanted: Mapping[EdgeType, Wanted], told: set[str]) -> None:
    """Warns of each dictionary by edge type that holds entries for relations of a layer, none of which reads it.

    HeteroConv hands such a dictionary to its convs, which refuse it. A dictionary that any relation of the layer reads is fine. Nothing is
    said inside of a compiled graph.

    Args:
        inputs: The call.
        wanted: What each relation of the layer reads.
        told: Names that the layer has warned of; new ones are added.
    """
    if torch.compiler.is_compiling():
        return
    for name, values in _candidates(inputs, wanted):
        if name in told or any(asked.may_read(name) for asked in wanted.values()):
            continue
        given = [e for e in wanted if values.get(e) is not None]
        if given:
            told.add(name)
            warnings.warn(_message(inputs, name, given, wanted), UserWarning, stacklevel=2)


def _candidates(
    inputs: HeteroInputs, wanted: Mapping[EdgeType, Wanted]
) -> Iterator[tuple[str, Mapping[object, object]]]:
    # Of dictionaries by place a conv module decides itself what they are.
    by_place = any(asked.edge_places for asked in wanted.values())
    for name, values in (inputs.named if by_place else inputs.fields).items():
        if name not in _ROWS_AND_EDGES:
            yield name, values


def _message(
    inputs: HeteroInputs, name: str, given: list[EdgeType], wanted: Mapping[EdgeType, Wanted]
) -> str:
    readers = [f"edge type {e} has {wanted[e].reader}" for e in given]
    more = f" and {len(readers) - _LISTED} more" if len(readers) > _LISTED else ""
    text = (
        f"{inputs.owner} got {name}_dict, which none of its relations reads, so that it makes no difference: "
        f"{', '.join(readers[:_LISTED])}{more}"
    )
    absent = {field for asked in wanted.values() for field in asked.fields} - inputs.fields.keys()
    meant = nearest(name, absent - _ROWS_AND_EDGES, cutoff=0.8)
    if meant is not None:
        return f"{text}; did you mean {meant}_dict?"
    if any(isinstance(inputs.fields[name][e], Tensor) for e in given):
        text += (
            f"; declare a kind that reads it, such as {{'kind': 'edge_attr_bias', 'options': {{'edge_attr': '{name}'}}}} (or "
            "'stoichiometry_bias' with this option, for coefficients)"
        )
    return f"{text}; or leave {name}_dict out"

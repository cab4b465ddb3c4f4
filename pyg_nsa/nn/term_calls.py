"""Calls of a plugin's edge term: what it returns is checked, and what it raises says whose it is."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.relation_inputs import RelationInputs

__all__ = ["bias_of", "pairs_of"]

#: How a bias of another dtype becomes one of floating point.
_TO_FLOAT = {
    torch.bool: "if True means that a pair attends: torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)"
}


def pairs_of(term: EdgeTerm, relation: RelationInputs, kind: str) -> EdgeSet:
    """The pairs that a term finds.

    Args:
        term: What the kind built.
        relation: What it may read.
        kind: Name of the kind, for messages.

    Raises:
        TypeError: They are no :class:`~pyg_nsa.EdgeSet`.
        ValueError: They are pairs of other numbers of nodes.
        Exception: Whatever ``pairs`` raises, with a note that names the kind and the edge type.
    """
    try:
        edges = term.pairs(relation)
    except Exception as error:
        _add_note(error, "pairs", relation, kind)
        raise
    if not isinstance(edges, EdgeSet):
        raise TypeError(
            f"{_whose(relation, kind)}: pairs() must return a pyg_nsa.EdgeSet, got {_described(edges)}; "
            "inputs.edges_from_index('edge_index') makes one of a field, EdgeSet.from_edge_index(inputs.rows(index), "
            "inputs.src.num_rows, inputs.dst.num_rows) of a tensor [2, E] in the edges' numbering"
        )
    wanted = (relation.src.num_rows, relation.dst.num_rows)
    if (edges.num_keys, edges.num_queries) != wanted:
        raise ValueError(
            f"{_whose(relation, kind)}: the pairs are of {edges.num_keys} sources and {edges.num_queries} targets, but there "
            f"are {wanted[0]} rows of node type '{relation.src.node_type}' (sources) and {wanted[1]} of "
            f"'{relation.dst.node_type}' (targets)"
        )
    return edges


def bias_of(
    term: EdgeTerm, relation: RelationInputs, edges: EdgeSet, heads: int, kind: str
) -> Tensor | None:
    """The bias of a term for pairs that are there.

    Args:
        term: What the kind built.
        relation: What it may read.
        edges: The pairs.
        heads: Number of heads.
        kind: Name of the kind, for messages.

    Raises:
        TypeError: It is neither a dense tensor of floating-point numbers nor ``None``.
        ValueError: It has another shape than ``[P, heads]``, or is on another device than the pairs.
        Exception: Whatever ``bias`` raises, with a note that names the kind and the edge type.
    """
    try:
        bias = term(relation, edges)[1]
    except Exception as error:
        _add_note(error, "bias", relation, kind)
        raise
    if bias is None:
        return None
    shape = (edges.num_pairs, heads)
    if not isinstance(bias, Tensor) or bias.shape != shape:
        wrong = ValueError if isinstance(bias, Tensor) else TypeError
        raise wrong(
            f"{_whose(relation, kind)}: bias() must return a tensor of shape [pairs, heads] = {list(shape)}, or None, got "
            f"{_described(bias)}; edges.coalesce(attribute) brings attributes of edges into the order of the pairs"
        )
    if not bias.is_floating_point() or bias.layout != torch.strided:
        raise TypeError(
            f"{_whose(relation, kind)}: bias() must return a dense tensor of floating-point numbers, got {bias.dtype}, "
            f"{bias.layout}; {_TO_FLOAT.get(bias.dtype, 'convert it')}"
        )
    if bias.device != edges.device:
        raise ValueError(
            f"{_whose(relation, kind)}: bias() is on {bias.device}, but the pairs are on {edges.device}; make it of the inputs or of "
            "the module's parameters"
        )
    return bias


def _add_note(error: Exception, method: str, relation: RelationInputs, kind: str) -> None:
    note = f"raised by {method}() of {_whose(relation, kind)}"
    if note not in getattr(error, "__notes__", ()):  # an exception may be raised again
        error.add_note(note)


def _whose(relation: RelationInputs, kind: str) -> str:
    return f"edge kind '{kind}' for edge type {relation.edge_type}"


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return "None" if value is None else f"{type(value).__name__}"

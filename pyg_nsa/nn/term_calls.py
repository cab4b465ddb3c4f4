"""Calls of a plugin's edge term or convolution: what it returns is checked, and what it raises says whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet
from pyg_nsa.config import EdgeSpec
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.relation_inputs import RelationInputs

__all__ = ["DeclaredMessage", "bias_of", "declared_messages", "message_of", "pairs_of"]


@dataclass(frozen=True)
class DeclaredMessage:
    """What a declared kind promises of a relation's messages.

    Attributes:
        edge_type: The relation.
        kind: Name of the kind, for messages.
        channels: Columns of the messages.
    """

    edge_type: tuple[str, str, str]
    kind: str
    channels: int


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


def declared_messages(
    relations: Mapping[tuple[str, str, str], nn.Module | EdgeSpec], channels: int
) -> dict[tuple[str, str, str], DeclaredMessage]:
    """What the relations with a declared kind promise; a conv module that was passed has promised nothing."""
    return {
        edge_type: DeclaredMessage(edge_type, relation.kind, channels)
        for edge_type, relation in relations.items()
        if isinstance(relation, EdgeSpec)
    }


def message_of(
    conv: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    declared: DeclaredMessage,
    ends: Sequence[Tensor | None],
) -> Tensor:
    """The messages of a convolution that a kind built. Their values are not looked at.

    Args:
        conv: What the kind built.
        args: Arguments of its forward by place.
        kwargs: And by name.
        declared: What the kind promises.
        ends: Rows of the source and the target node type, ``[N, F]`` or in copies ``[B, N, F]``; ``None`` where there are none.

    Returns:
        ``[N_dst, channels]``, or in copies ``[B, N_dst, channels]``.

    Raises:
        TypeError: They are no tensor.
        ValueError: They have another shape, or no floating dtype.
        Exception: Whatever ``forward`` raises, with a note that names the kind and the edge type.
    """
    try:
        out: object = conv(*args, **kwargs)
    except Exception as error:
        _add_note(error, "forward", declared, declared.kind)
        raise
    rows = ends[1].size(-2) if ends[1] is not None else None
    most = max([2, *(x.dim() for x in ends if x is not None)])
    if (
        isinstance(out, Tensor)
        and out.is_floating_point()
        and 2 <= out.dim() <= most
        and out.size(-1) == declared.channels
        and (rows is None or out.size(-2) == rows)
    ):
        return out
    wanted = ["targets" if rows is None else rows, declared.channels]
    got = _described(out)
    if isinstance(out, Tensor):
        got += f" and {out.dtype}"
    wrong = ValueError if isinstance(out, Tensor) else TypeError
    raise wrong(
        f"{_whose(declared, declared.kind)}: forward() must return a floating-point tensor of shape [targets, out_channels] = "
        f"[{', '.join(map(str, wanted))}], got {got}; build(context, options) gets the number of columns as context.out_channels"
    )


def _add_note(
    error: Exception, method: str, relation: RelationInputs | DeclaredMessage, kind: str
) -> None:
    note = f"raised by {method}() of {_whose(relation, kind)}"
    if note not in getattr(error, "__notes__", ()):  # an exception may be raised again
        error.add_note(note)


def _whose(relation: RelationInputs | DeclaredMessage, kind: str) -> str:
    return f"edge kind '{kind}' for edge type {relation.edge_type}"


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return "None" if value is None else f"{type(value).__name__}"

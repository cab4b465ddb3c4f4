"""From what a user writes for an edge type to the module that computes its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pyg_nsa.api import BuildContext, EdgeKind, PairOptions
from pyg_nsa.config import EdgeSpec
from pyg_nsa.errors import ConfigError, Problem
from pyg_nsa.nn.declared import current_spec, declared_spec, wrong_key
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.hetero_inputs import EdgeType
from pyg_nsa.nn.relation_attention import RelationAttention
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.unfit_return import UnfitReturnError, unfit_build

__all__ = ["Relation", "as_relations", "build_relation", "check_built"]

#: What may stand for an edge type: a conv module, a spec, a kind's name, or a mapping with ``kind`` and ``options``.
Relation = nn.Module | EdgeSpec | str | Mapping[str, Any]


def as_relations(
    convs: Mapping[EdgeType, Relation] | Sequence[EdgeSpec], registry: Registry | None = None
) -> dict[EdgeType, nn.Module | EdgeSpec]:
    """Every edge type with a conv module or a validated spec, in the declared order.

    Raises:
        TypeError: A value that is none of :data:`Relation`, or no mapping and no list of specs.
        ValueError: No relation, an edge type twice, or a spec under another edge type's key.
        ConfigError: Edge types, kinds or options that are wrong: all of them, each with its edge type.
    """
    if not isinstance(convs, Mapping):
        convs = _by_edge_type(convs)
    if not convs:
        raise ValueError("no relation was given: declare at least one edge type")
    out: dict[EdgeType, nn.Module | EdgeSpec] = {}
    problems: list[Problem] = []
    for edge_type, value in convs.items():
        problem = wrong_key(edge_type)
        if problem is not None:
            problems.append(problem)
            continue
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, Mapping):
            try:
                value = declared_spec(edge_type, value, registry)
            except ConfigError as error:
                problems += error.problems
                continue
        if isinstance(value, EdgeSpec):
            if tuple(value.edge_type) != tuple(edge_type):
                raise ValueError(
                    f"the spec under key {edge_type} is for edge type {tuple(value.edge_type)}"
                )
            try:
                value = current_spec(value, registry)
            except ConfigError as error:
                problems += error.problems
                continue
        elif not isinstance(value, nn.Module):
            got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise TypeError(
                f"edge type {edge_type}: expected a conv module, an EdgeSpec, a kind's name such as "
                f"'adjacency_mask', or {{'kind': …, 'options': …}}; got {got}"
            )
        out[edge_type] = value
    if problems:
        raise ConfigError(problems)
    return out


def _by_edge_type(specs: Any) -> dict[EdgeType, EdgeSpec]:
    """A list of specs as a mapping."""
    found: dict[EdgeType, EdgeSpec] = {}
    for spec in specs if isinstance(specs, list | tuple) else [specs]:
        if not isinstance(spec, EdgeSpec):
            raise TypeError(
                f"expected a mapping of edge types, such as {{('gene', 'interacts', 'gene'): 'adjacency_mask'}}, or a "
                f"list of EdgeSpec; got {spec!r} in the place of an EdgeSpec"
            )
        edge_type: EdgeType = tuple(spec.edge_type)  # type: ignore[assignment]
        if edge_type in found:
            raise ValueError(f"edge type {edge_type} is declared twice")
        found[edge_type] = spec
    return found


def build_relation(
    spec: EdgeSpec,
    in_channels: tuple[int, int],
    out_channels: int,
    heads: int,
    dropout: float = 0.0,
    registry: Registry | None = None,
    edge_attr_dim: int = -1,
) -> nn.Module:
    """The module of a relation: attention with the edge term that the spec's kind builds, or the conv that it builds.

    Raises:
        UnfitReturnError: The kind's ``build`` did not return what it must (:func:`check_built`).
    """
    edge_type: EdgeType = tuple(spec.edge_type)  # type: ignore[assignment]
    kind = (registry or default_registry()).edge_kind(spec.kind)
    context = BuildContext(
        edge_type=edge_type,
        heads=heads,
        edge_attr_dim=edge_attr_dim,
        in_channels=in_channels,
        out_channels=out_channels,
    )
    try:
        term = kind.build(context, spec.options)
    except Exception as error:
        error.add_note(f"edge kind '{spec.kind}' could not be built for edge type {edge_type}")
        _let_name(error, edge_type)
        raise
    try:
        check_built(kind, term, edge_type)
    except UnfitReturnError as unfit:
        _let_name(unfit, edge_type)
        raise
    if "message" in kind.produces or not isinstance(term, EdgeTerm):
        return term
    edge_dropout = spec.options.edge_dropout if isinstance(spec.options, PairOptions) else 0.0
    return RelationAttention(
        edge_type, in_channels, out_channels, heads, term, spec.kind, edge_dropout, dropout
    )


def check_built(kind: EdgeKind, built: object, edge_type: EdgeType) -> None:
    """Refuses what a kind's ``build`` returned if it is not what the declaration promises.

    Raises:
        UnfitReturnError: It is no :class:`~pyg_nsa.EdgeTerm`, or for a kind that produces messages no module.
    """
    makes_messages = "message" in kind.produces
    if not isinstance(built, nn.Module if makes_messages else EdgeTerm):
        raise unfit_build(
            f"edge kind '{kind.name}'",
            built,
            "torch.nn.Module" if makes_messages else "pyg_nsa.EdgeTerm",
            f" for edge type {edge_type}",
        )


def _let_name(error: Exception, edge_type: EdgeType) -> None:
    """Lets an error of any class say which edge type it is about; `pyg_nsa.trial_build` finds the line of the file by it."""
    error.__dict__["edge_type"] = edge_type

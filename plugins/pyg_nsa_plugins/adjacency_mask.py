"""``adjacency_mask``: node-node pairs, from ``edge_index`` or from a dense boolean ``adj_mask``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pyg_nsa import BuildContext, EdgeKind, EdgeSpec, PairOptions, hookimpl

if TYPE_CHECKING:
    from torch import nn


class AdjacencyMaskOptions(PairOptions):
    """Options of ``adjacency_mask``."""

    source: Literal["auto", "edge_index", "adj_mask"] = "auto"
    """Where the pairs come from: the sparse edge_index, the dense boolean adj_mask, or (auto) edge_index where the data
    has it and adj_mask otherwise."""


def build(context: BuildContext, options: AdjacencyMaskOptions) -> nn.Module:
    """Builds the edge term."""
    from pyg_nsa_plugins.pair_term import PairTerm

    wanted = inputs(options)
    return PairTerm(
        tuple(n for n in wanted if n != "adj_mask"),
        tuple(n for n in wanted if n == "adj_mask"),
        options,
    )


def inputs(options: AdjacencyMaskOptions) -> tuple[str, ...]:
    """Fields to collect, in the order in which they are looked for."""
    return ("edge_index", "adj_mask") if options.source == "auto" else (options.source,)


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="adjacency_mask",
            options=AdjacencyMaskOptions,
            build=build,
            summary="Targets attend to the sources that an edge joins them to.",
            requires=(("edge_index", "adj_mask"),),
            inputs=inputs,
            api=(1, 0),
        )
    ]


@hookimpl(trylast=True)
def pyg_nsa_spec_from_module(module: nn.Module, edge_type: tuple[str, str, str]) -> EdgeSpec | None:
    """An attention conv that reads no edge attributes."""
    from pyg_nsa_plugins.attention_convs import attends, reads_attributes

    options = attends(module, edge_type)
    if options is None or reads_attributes(module):
        return None
    return EdgeSpec.model_validate(
        {"edge_type": edge_type, "kind": "adjacency_mask", "options": options}
    )

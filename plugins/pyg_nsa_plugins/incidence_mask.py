"""``incidence_mask``: node-hyperedge pairs, from ``hyperedge_index`` or from a dense boolean ``inc_mask``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pyg_nsa import BuildContext, EdgeKind, PairOptions, hookimpl

if TYPE_CHECKING:
    from torch import nn


class IncidenceMaskOptions(PairOptions):
    """Options of ``incidence_mask``."""

    source: Literal["auto", "hyperedge_index", "edge_index", "inc_mask"] = "auto"
    """Where the pairs come from: the sparse hyperedge_index (or edge_index of the same meaning), the dense boolean
    inc_mask, or (auto) the first of these that the data has."""


def build(context: BuildContext, options: IncidenceMaskOptions) -> nn.Module:
    """Builds the edge term."""
    from pyg_nsa_plugins.pair_term import PairTerm

    wanted = inputs(options)
    return PairTerm(
        tuple(n for n in wanted if n != "inc_mask"),
        tuple(n for n in wanted if n == "inc_mask"),
        options,
    )


def inputs(options: IncidenceMaskOptions) -> tuple[str, ...]:
    """Fields to collect, in the order in which they are looked for."""
    if options.source == "auto":
        return ("hyperedge_index", "edge_index", "inc_mask")
    return (options.source,)


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="incidence_mask",
            options=IncidenceMaskOptions,
            build=build,
            summary="Hyperedges attend to the nodes that they hold (rows of hyperedge_index: source, target).",
            requires=(("hyperedge_index", "edge_index", "inc_mask"),),
            inputs=inputs,
            api=(1, 0),
        )
    ]

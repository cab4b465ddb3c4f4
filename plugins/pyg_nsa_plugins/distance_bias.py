"""``distance_bias``: attention to all nodes within a few hops, with a learned bias for each distance.

The spatial encoding of Graphormer (Ying et al. 2021, arXiv:2106.05234, section 3.1.2), kept sparse: pairs beyond
``max_distance`` do not attend at all, where Graphormer's dense attention gives them a bias too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from pyg_nsa import BuildContext, EdgeKind, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn

_INDEX_FIELDS = ("edge_index", "hyperedge_index")


class DistanceBiasOptions(Options):
    """Options of ``distance_bias``."""

    max_distance: int = Field(default=3, ge=1)
    """The number of hops up to which nodes attend; the distance of two nodes is the number of edges on a shortest path. With 1 and
    without self_loops all pairs have one distance, whose bias cancels in the softmax: take adjacency_mask then."""

    directed: bool = True
    """Whether paths follow the direction of the edges (from the source to the target that attends); false: paths take edges
    both ways, for data that stores each undirected edge once."""

    self_loops: bool = False
    """Whether each node attends to itself, at distance 0 with a bias of its own. Edges from a node to itself in the data do not
    count: they are on no shortest path."""

    max_pairs: int = Field(default=4_000_000, ge=1)
    """The largest number of pairs of one call; more are refused. In a graph with short paths every node soon reaches
    every other."""


def build(context: BuildContext, options: DistanceBiasOptions) -> nn.Module:
    """Builds the edge term."""
    from pyg_nsa_plugins.distance_bias_term import DistanceBiasTerm

    return DistanceBiasTerm(
        context.heads,
        _INDEX_FIELDS,
        max_distance=options.max_distance,
        directed=options.directed,
        self_loops=options.self_loops,
        max_pairs=options.max_pairs,
    )


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="distance_bias",
            options=DistanceBiasOptions,
            build=build,
            summary="Targets attend to all nodes within max_distance hops, with a learned bias for each distance (Graphormer).",
            produces=frozenset({"mask", "bias"}),
            requires=(_INDEX_FIELDS,),
            within_one_type=True,
            api=(1, 0),
        )
    ]

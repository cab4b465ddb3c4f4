"""``all_pairs``: every target attends to every source of its own graph (cross attention between two node types)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from pyg_nsa import BuildContext, EdgeKind, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn

# Any of them says that the relation is there; none of them is read.
_FIELDS = ("edge_index", "hyperedge_index", "adj_mask", "inc_mask")


class AllPairsOptions(Options):
    """Options of ``all_pairs``."""

    max_pairs: int = Field(default=4_000_000, ge=1)
    """The largest number of pairs of one call, over all graphs of a batch; more are refused before they are made. Each pair
    takes about 50 bytes while it is kept."""


def build(context: BuildContext, options: AllPairsOptions) -> nn.Module:
    """Builds the edge term."""
    from pyg_nsa_plugins.all_pairs_term import AllPairsTerm

    return AllPairsTerm(options.max_pairs)


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="all_pairs",
            options=AllPairsOptions,
            build=build,
            summary="Every target attends to every source of the same graph; the edges say only that the relation is there.",
            requires=(_FIELDS,),
            api=(1, 0),
        )
    ]

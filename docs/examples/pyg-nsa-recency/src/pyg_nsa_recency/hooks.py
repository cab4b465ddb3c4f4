"""Declares the edge kind `recency_bias`; the entry point leads here, and torch is imported in `build`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pyg_nsa.api import BuildContext, EdgeKind, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn


class RecencyBiasOptions(Options):
    """Options of `recency_bias`."""

    age: str = "age"
    """The field that holds how long ago each edge was, of shape [E], in any unit. Edges of the future have a negative age."""

    max_age: float = Field(default=1.0, gt=0)
    """The age, in that unit, up to which an edge counts. Older ones are left out."""


def build(context: BuildContext, options: RecencyBiasOptions) -> nn.Module:
    """Makes the module of one relation."""
    from pyg_nsa_recency.recency_bias import RecencyBiasTerm

    return RecencyBiasTerm(context.heads, options.age, options.max_age)


def inputs(options: RecencyBiasOptions) -> tuple[str, ...]:
    """The fields that the module reads."""
    return ("edge_index", options.age)


@hookimpl
def pyg_nsa_edge_kinds() -> list[EdgeKind]:
    """The one kind of this plugin."""
    return [
        EdgeKind(
            name="recency_bias",
            options=RecencyBiasOptions,
            build=build,
            summary="Targets attend along edges of the last max_age, the less the older, at a learned rate per head.",
            produces=frozenset({"mask", "bias"}),
            requires=("edge_index",),
            inputs=inputs,
            api=(1, 0),
        )
    ]

"""``stoichiometry_bias``: incidence pairs with a linear projection of signed coefficients added to the logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyg_nsa import BuildContext, EdgeKind, PairOptions, hookimpl

if TYPE_CHECKING:
    from torch import nn

_INDEX_FIELDS = ("hyperedge_index", "edge_index")


class StoichiometryBiasOptions(PairOptions):
    """Options of ``stoichiometry_bias``."""

    edge_attr: str = "stoichiometry"
    """The field that holds the coefficients, [E] or [E, F], in the order of the edges. Signed: consumed is negative."""


def build(context: BuildContext, options: StoichiometryBiasOptions) -> nn.Module:
    """Builds the edge term."""
    from pyg_nsa_plugins.linear_bias_term import LinearBiasTerm

    return LinearBiasTerm(options.edge_attr, _INDEX_FIELDS, context, options)


def inputs(options: StoichiometryBiasOptions) -> tuple[str, ...]:
    """Fields to collect."""
    return (*_INDEX_FIELDS, options.edge_attr)


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="stoichiometry_bias",
            options=StoichiometryBiasOptions,
            build=build,
            summary="Incidence pairs, with the linearly projected stoichiometry added to the attention logits.",
            produces=frozenset({"mask", "bias"}),
            requires=(_INDEX_FIELDS,),
            inputs=inputs,
            api=(1, 0),
        )
    ]

"""``edge_attr_bias``: the pairs of the edges, with a linear projection of any edge attribute added to the logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyg_nsa import BuildContext, EdgeKind, EdgeSpec, PairOptions, hookimpl

if TYPE_CHECKING:
    from torch import nn

_INDEX_FIELDS = ("edge_index", "hyperedge_index")


class EdgeAttrBiasOptions(PairOptions):
    """Options of ``edge_attr_bias``."""

    edge_attr: str = "edge_attr"
    """The field that holds the attributes, numbers of shape [E] or [E, F] in the order of the edges. Where it is missing and the edges
    are a sparse matrix (adj_t), the values of the matrix."""


def build(context: BuildContext, options: EdgeAttrBiasOptions) -> nn.Module:
    """Builds the edge term."""
    from pyg_nsa_plugins.linear_bias_term import LinearBiasTerm

    return LinearBiasTerm(options.edge_attr, _INDEX_FIELDS, context, options)


def inputs(options: EdgeAttrBiasOptions) -> tuple[str, ...]:
    """Fields to collect."""
    return (*_INDEX_FIELDS, options.edge_attr)


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="edge_attr_bias",
            options=EdgeAttrBiasOptions,
            build=build,
            summary="Targets attend along edges, with the linearly projected edge attributes added to the attention logits.",
            produces=frozenset({"mask", "bias"}),
            requires=(_INDEX_FIELDS,),
            inputs=inputs,
            api=(1, 0),
        )
    ]


@hookimpl(trylast=True)
def pyg_nsa_spec_from_module(module: nn.Module, edge_type: tuple[str, str, str]) -> EdgeSpec | None:
    """An attention conv that reads edge attributes."""
    from pyg_nsa_plugins.attention_convs import attends, reads_attributes

    options = attends(module, edge_type)
    if options is None or not reads_attributes(module):
        return None
    return EdgeSpec.model_validate(
        {"edge_type": edge_type, "kind": "edge_attr_bias", "options": options}
    )

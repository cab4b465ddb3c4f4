"""``hgt``: PyG's Heterogeneous Graph Transformer convolution (Hu et al. 2020, arXiv:2003.01332).

It is a baseline, one step: of a configuration it reads the edge types, sizes and heads. HGT has no place for masks, edge attributes
and the options of edge kinds, so those are left unread; deleted nodes, which would go on sending, are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyg_nsa import Operator, OperatorContext, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn


class HGTOptions(Options):
    """``hgt`` has no options: heads and sizes are those of the configuration."""


def build(context: OperatorContext, options: HGTOptions) -> nn.Module:
    """Builds the operator."""
    from pyg_nsa_plugins.carried_types import with_carried_types
    from pyg_nsa_plugins.hgt_operator import HGTOperator

    aggr, heads, size = context.config.aggr, context.config.heads, context.out_channels
    if aggr in ("cat", None):
        raise ValueError(
            f"operator 'hgt' groups the messages of all edge types in one softmax, so it cannot keep them apart as aggr={aggr!r} "
            "asks for; set aggr: sum"
        )
    if size % heads:
        raise ValueError(
            f"operator 'hgt': heads={heads} does not divide out_channels={size}; change either"
        )
    return with_carried_types(
        HGTOperator(context.in_channels, context.edge_types, size, heads), context
    )


@hookimpl
def pyg_nsa_operators() -> Iterable[Operator]:
    """Declares the operator."""
    return [
        Operator(
            name="hgt",
            options=HGTOptions,
            build=build,
            summary="PyG's Heterogeneous Graph Transformer convolution, HGTConv (a baseline).",
            api=(1, 0),
        )
    ]

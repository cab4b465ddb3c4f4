"""``hetero_conv``: PyG's ``HeteroConv``, with a convolution of PyG by the name of its class for each edge type.

It is a baseline, one step of message passing: ``pattern``, ``sab``, ``num_nodes``, ``mlp_ratio`` and ``dropout`` of a configuration
are about the blocks of ``hetero_nsa`` and are left unread (a pattern only makes the rows of all node types come out). So are the
kinds of its edge types, except ``pyg_conv``, whose options take the place of the operator's for that edge type.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyg_nsa import Operator, OperatorContext, hookimpl
from pyg_nsa_plugins.pyg_conv import PygConvOptions

if TYPE_CHECKING:
    from torch import nn


class HeteroConvOptions(PygConvOptions):
    """Options of ``hetero_conv``: the conv of each edge type that has no ``pyg_conv`` of its own."""


def build(context: OperatorContext, options: HeteroConvOptions) -> nn.Module:
    """Builds the operator."""
    from pyg_nsa_plugins.carried_types import with_carried_types
    from pyg_nsa_plugins.conv_by_name import make_conv, needed_fields
    from pyg_nsa_plugins.named_convs import NamedConvs

    convs, fields = {}, {}
    for spec in context.config.edges:
        chosen = spec.options if isinstance(spec.options, PygConvOptions) else options
        source, _, target = edge_type = spec.edge_type
        convs[edge_type] = make_conv(
            chosen.conv,
            chosen.args,
            edge_type,
            (context.in_channels[source], context.in_channels[target]),
            context.out_channels,
            context.config.heads,
        )
        fields[edge_type] = needed_fields(chosen.conv, chosen.args, chosen.fields)
    return with_carried_types(NamedConvs(convs, fields, context.config.aggr), context)


@hookimpl
def pyg_nsa_operators() -> Iterable[Operator]:
    """Declares the operator."""
    return [
        Operator(
            name="hetero_conv",
            options=HeteroConvOptions,
            build=build,
            summary="PyG's HeteroConv, with a PyG convolution for each edge type by the name of its class (a baseline).",
            api=(1, 0),
        )
    ]

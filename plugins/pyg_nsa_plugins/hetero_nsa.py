"""``hetero_nsa``: masked attention along declared edge types, as one step or as a stack of blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyg_nsa import Operator, OperatorContext, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn


class HeteroNSAOptions(Options):
    """``hetero_nsa`` has no options of its own: the whole configuration is about it."""


def build(context: OperatorContext, options: HeteroNSAOptions) -> nn.Module:
    """Builds the operator."""
    from pyg_nsa import HeteroNSAConv

    return HeteroNSAConv.from_config(
        context.config, registry=context.registry, edge_attr_dims=context.edge_attr_dims
    )


@hookimpl
def pyg_nsa_operators() -> Iterable[Operator]:
    """Declares the operator."""
    return [
        Operator(
            name="hetero_nsa",
            options=HeteroNSAOptions,
            build=build,
            summary="Masked attention along the declared edge types and self-attention within node types (HeteroNSA).",
            api=(1, 0),
        )
    ]

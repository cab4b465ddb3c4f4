"""``pyg_conv``: a convolution of PyG, by the name of its class, as the message of a relation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from pyg_nsa import BuildContext, EdgeKind, EdgeSpec, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn

_INDEX_FIELDS = ("edge_index", "hyperedge_index")


class PygConvOptions(Options):
    """Options of ``pyg_conv``."""

    # In this order: a validator sees only the fields that were declared before its own.
    conv: str = "GATv2Conv"
    """The name of a class in torch_geometric.nn.conv that gives rows of out_channels columns, such as SAGEConv, GATv2Conv or
    TransformerConv. Never a Python path."""

    args: dict[str, JsonValue] = Field(default={})
    """Further arguments of its constructor. Not the sizes in_channels and out_channels, which follow from the model. A conv with
    heads that are concatenated gets the model's heads if none are named here."""

    fields: tuple[str, ...] = ()
    """Fields of the edge type that the conv gets beside the edges, by the names of its forward's arguments, such as edge_weight or
    edge_attr; the data must have each. Those that it cannot do without need not be named."""

    @field_validator("conv")
    @classmethod
    def _is_known(cls, conv: str, info: ValidationInfo) -> str:
        from pyg_nsa_plugins.conv_by_name import check_conv

        return check_conv(conv, (info.context or {}).get("edge_type"))

    @field_validator("args")
    @classmethod
    def _are_accepted(
        cls, args: dict[str, JsonValue], info: ValidationInfo
    ) -> dict[str, JsonValue]:
        from pyg_nsa_plugins.conv_by_name import check_args

        if "conv" in info.data:  # else there is nothing to hold them against
            check_args(info.data["conv"], args)
        return args

    @field_validator("fields")
    @classmethod
    def _are_taken(cls, fields: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from pyg_nsa_plugins.conv_by_name import check_fields

        if "conv" in info.data and "args" in info.data:
            check_fields(info.data["conv"], info.data["args"], fields)
        return fields


def build(context: BuildContext, options: PygConvOptions) -> nn.Module:
    """Builds the conv."""
    from pyg_nsa_plugins.conv_by_name import make_conv

    return make_conv(
        options.conv,
        options.args,
        context.edge_type,
        context.in_channels,
        context.out_channels,
        context.heads,
    )


def inputs(options: PygConvOptions) -> tuple[str, ...]:
    """Fields to collect."""
    from pyg_nsa_plugins.conv_by_name import needed_fields

    return (*_INDEX_FIELDS, *needed_fields(options.conv, options.args, options.fields))


@hookimpl
def pyg_nsa_edge_kinds() -> Iterable[EdgeKind]:
    """Declares the kind."""
    return [
        EdgeKind(
            name="pyg_conv",
            options=PygConvOptions,
            build=build,
            produces=frozenset({"message"}),
            summary="The messages of a convolution of PyG, chosen by the name of its class.",
            requires=(_INDEX_FIELDS,),
            inputs=inputs,
            api=(1, 0),
        )
    ]


@hookimpl(trylast=True)
def pyg_nsa_spec_from_module(module: nn.Module, edge_type: tuple[str, str, str]) -> EdgeSpec | None:
    """A conv of PyG by its class, unless it attends: then `adjacency_mask` or `edge_attr_bias` has the answer."""
    from pyg_nsa_plugins.attention_convs import attends
    from pyg_nsa_plugins.conv_by_name import named_as, why_not_between

    found = None if attends(module, edge_type) is not None else named_as(module)
    if found is None or why_not_between(found[0], edge_type) is not None:
        return None
    name, args = found
    raw = {"edge_type": edge_type, "kind": "pyg_conv", "options": {"conv": name, "args": args}}
    return EdgeSpec.model_validate(raw)

"""Rows of node types that no edge type leads to, beside an operator that gives the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.module_dict import ModuleDict

from pyg_nsa import OperatorContext

__all__ = ["CarriedTypes", "with_carried_types"]


def with_carried_types(conv: nn.Module, context: OperatorContext) -> nn.Module:
    """The operator itself, or with rows of all node types that the context asks for."""
    targets = {target for _, _, target in context.edge_types}
    missing = {t: context.in_channels[t] for t in context.out_types if t not in targets}
    return CarriedTypes(conv, missing, context.out_channels) if missing else conv


class CarriedTypes(nn.Module):
    """An operator, and a linear layer for each node type that it gives no rows of.

    A stack of ``hetero_nsa`` carries the rows of every node type along. This does the same for an operator of one step, so that
    both serve one model.

    Args:
        conv: The operator.
        in_channels: The node types to carry, with the columns of their ``x``; ``-1`` is taken from the first call.
        out_channels: Size of the rows.

    Shapes:
        The operator's, and ``[N, out_channels]`` for each carried node type.
    """

    def __init__(self, conv: nn.Module, in_channels: Mapping[str, int], out_channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.lins = ModuleDict({t: Linear(size, out_channels) for t, size in in_channels.items()})

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for module in (self.conv, *self.lins.values()):
            module.reset_parameters()

    def collect(self, data: Any) -> dict[str, dict[Any, Any]]:
        """The keyword arguments of a call, as the operator gathers them."""
        return self.conv.collect(data)  # type: ignore[operator]

    def forward(self, *args_dict: Any, **kwargs_dict: Any) -> dict[str, Tensor]:
        """Runs the operator; the call is HeteroConv's."""
        out: dict[str, Tensor] = self.conv(*args_dict, **kwargs_dict)
        x_dict = args_dict[0] if args_dict else kwargs_dict["x_dict"]
        carried = {t: lin(x_dict[t]) for t, lin in self.lins.items() if t in x_dict}
        return {**out, **carried}

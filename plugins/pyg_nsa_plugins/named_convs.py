"""The module of ``hetero_conv``: HeteroConv that takes from a call what its convs ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from pyg_nsa import HeteroNSAConv
from pyg_nsa_plugins.call import EdgeType, by_name, edge_indices

__all__ = ["NamedConvs"]

_NODE_FIELDS = ("x", "mask", "pert_mask", "batch", "ptr", "x_ptr")


class NamedConvs(HeteroNSAConv):
    """:class:`torch_geometric.nn.HeteroConv` around PyG convs, for calls that other operators understand too.

    HeteroConv hands every field of an edge type to its conv, which fails on those that it has no argument for. Here a conv gets
    the edges and the fields that it was declared with; others stay unread. Deleted nodes and padding are left out as
    :class:`~pyg_nsa.HeteroNSAConv` does it.

    Args:
        convs: The conv of each edge type.
        fields: The fields beside the edges that each conv gets.
        aggr: How the messages of several edge types are grouped.

    Shapes:
        ``conv(x_dict, edge_index_dict, **{name}_dict)`` gives ``[N, out_channels]`` for each target node type.
    """

    def __init__(
        self,
        convs: Mapping[EdgeType, nn.Module],
        fields: Mapping[EdgeType, tuple[str, ...]],
        aggr: Literal["sum", "mean", "min", "max", "cat"] | None = "sum",
    ) -> None:
        super().__init__(dict(convs), aggr)
        self.fields = dict(fields)

    def forward(self, *args_dict: Any, **kwargs_dict: Any) -> dict[str, Tensor]:
        """Runs the operator; the call is HeteroConv's.

        Raises:
            ValueError: An edge type comes without a field that its conv needs, or as a dense mask only.
        """
        call = by_name("hetero_conv", args_dict, kwargs_dict)
        chosen: dict[str, Any] = {n: call[n] for n in _NODE_FIELDS if n in call}
        chosen["edge_index"] = edge_indices("hetero_conv", call, list(self.fields))
        for edge_type in chosen["edge_index"]:
            for name in self.fields[edge_type]:
                value = call.get(name, {}).get(edge_type)
                if value is None:
                    raise ValueError(
                        f"edge type {edge_type} has no '{name}', which its conv gets; pass "
                        f"{name}_dict={{{edge_type}: …}} or store it as data[{edge_type}].{name}"
                    )
                chosen.setdefault(name, {})[edge_type] = value
        return super().forward(**{f"{name}_dict": values for name, values in chosen.items()})

"""The module of ``hgt``: HGTConv with HeteroConv's call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import HGTConv
from torch_geometric.utils import is_sparse, to_edge_index

from pyg_nsa.plain_index import plain_index
from pyg_nsa_plugins.call import EdgeType, by_name, edge_indices

__all__ = ["HGTOperator"]


class HGTOperator(nn.Module):
    """:class:`torch_geometric.nn.HGTConv` for calls that other operators understand too.

    Fields of edge types beside ``edge_index`` (or ``hyperedge_index``) stay unread, since HGT has no place for them.

    Args:
        in_channels: Columns of ``x`` of each node type; ``-1`` is taken from the first call.
        edge_types: The relations.
        out_channels: Size of the rows.
        heads: Number of heads; must divide ``out_channels``.

    Shapes:
        ``conv(x_dict, edge_index_dict, **{name}_dict)`` gives ``[N, out_channels]`` for each target node type.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        edge_types: Sequence[EdgeType],
        out_channels: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.node_types = list(in_channels)
        self.edge_types = list(edge_types)
        metadata = (self.node_types, self.edge_types)
        self.conv = HGTConv(dict(in_channels), out_channels, metadata, heads)

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        self.conv.reset_parameters()

    def collect(self, data: Any) -> dict[str, dict[Any, Any]]:
        """The keyword arguments of a call, gathered from a ``HeteroData`` or a batch of them.

        Raises:
            ValueError: A node type without features, or an edge type without edges.
        """
        out: dict[str, dict[Any, Any]] = {"x_dict": {}, "edge_index_dict": {}}
        for node_type in self.node_types:
            if node_type not in data.node_types:
                continue
            store = data[node_type]
            if store.get("x") is None:
                raise ValueError(f"operator 'hgt' needs x of node type '{node_type}'")
            for name in ("x", "mask", "pert_mask", "ptr"):
                if store.get(name) is not None:
                    out.setdefault(f"{name}_dict", {})[node_type] = store[name]
        for edge_type in self.edge_types:
            if edge_type in data.edge_types:
                call = {name: {edge_type: value} for name, value in data[edge_type].items()}
                index = edge_indices("hgt", call, [edge_type])
                if not index:
                    raise ValueError(
                        f"edge type {edge_type} has no edge_index; fields present: {', '.join(call) or 'none'}"
                    )
                out["edge_index_dict"].update(index)
        return out

    def forward(self, *args_dict: Any, **kwargs_dict: Any) -> dict[str, Tensor]:
        """Runs the operator; the call is HeteroConv's.

        Raises:
            ValueError: Deleted nodes or padding, which HGT cannot leave out; an edge type that comes as a dense mask only.
        """
        call = by_name("hgt", args_dict, kwargs_dict)
        self._check_living(call)
        x_dict = {t: call["x"][t] for t in self.node_types if t in call["x"]}
        edges = edge_indices("hgt", call, self.edge_types)
        edges = {
            t: _plain(index) for t, index in edges.items() if t[0] in x_dict and t[2] in x_dict
        }
        if not edges:
            return {}
        out = self.conv(x_dict, edges)
        return {t: x for t, x in out.items() if x is not None}

    def _check_living(self, call: Mapping[str, Mapping[Any, Any]]) -> None:
        for node_type, x in call["x"].items():
            mask, gone, ptr = (
                call.get(name, {}).get(node_type) for name in ("mask", "pert_mask", "ptr")
            )
            what = None
            if x.dim() != 2:
                what = f"x of shape {list(x.shape)}, copies of one graph"
            elif mask is not None and not bool(mask.all()):
                what = "rows that 'mask' marks as not there"
            elif gone is not None and bool(gone.any()):
                what = "rows that 'pert_mask' marks as deleted"
            elif ptr is not None and int(ptr[-1]) != x.size(0):
                what = f"{x.size(0)} rows for {int(ptr[-1])} nodes"
            if what is not None:
                raise ValueError(
                    f"node type '{node_type}' has {what}, which operator 'hgt' cannot leave out of its messages; remove "
                    "those nodes from the data, or take operator 'hetero_nsa' or 'hetero_conv'"
                )


def _plain(index: Any) -> Tensor:
    if is_sparse(index):  # PyG stores either kind transposed
        index = to_edge_index(index)[0].flip(0)
    return plain_index(index)

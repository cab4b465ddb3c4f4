"""Baselines: PyG convs on perturbed copies of one graph, as a disjoint union."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn.module_dict import ModuleDict

from pyg_nsa.nn.node_input import NodeInput
from pyg_nsa.nn.node_layout import NodeLayout

__all__ = ["UnionOperator"]


class UnionOperator(nn.Module):
    """Layers with HeteroConv's call on ``[B, N, F]``: the B copies become one graph without the dead nodes' edges.

    Input projection, learned embeddings and residuals are those of :class:`~pyg_nsa.HeteroNSA`, so that the layers alone
    make the difference.

    Args:
        layers: Modules called as ``layer(x_dict, edge_index_dict, edge_attr_dict=…)``, from ``channels`` to ``channels``.
        node_types: All node types.
        channels: Size of the rows.
        num_nodes: Node types that get learned embeddings, with their number of nodes.
        edge_attr: Field of the edges that goes to convs with ``edge_dim``.
        dropout: Dropout after each layer.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        node_types: list[str],
        channels: int,
        num_nodes: Mapping[str, int] | None = None,
        edge_attr: str = "stoichiometry",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = dict(num_nodes or {})
        self.inputs = ModuleDict({t: NodeInput(t, -1, channels, sizes.get(t)) for t in node_types})
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(
            ModuleDict({t: nn.LayerNorm(channels) for t in node_types}) for _ in layers
        )
        self.edge_attr = edge_attr
        self.dropout = dropout

    def prepare(self, data: HeteroData) -> dict[str, dict[Any, Any]]:
        """Arguments of a call on copies of ``data``."""
        attributes = {
            t: data[t][self.edge_attr].view(-1, 1)
            for t in data.edge_types
            if self.edge_attr in data[t]
        }
        return {
            "x_dict": dict(data.x_dict),
            "edge_index_dict": dict(data.edge_index_dict),
            "edge_attr_dict": attributes,
        }

    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[Any, Tensor],
        edge_attr_dict: Mapping[Any, Tensor],
        mask_dict: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """``[B, N, F]`` to ``[B, N, channels]`` of each node type."""
        shapes = {t: tuple(x.shape[:2]) for t, x in x_dict.items()}
        h = {}
        for node_type, x in x_dict.items():
            layout = NodeLayout(node_type, shapes[node_type], x.device)
            h[node_type] = self.inputs[node_type](x, layout).flatten(0, 1)
        indices, attributes = {}, {}
        for edge_type, index in edge_index_dict.items():
            src, _, dst = edge_type
            copies = torch.arange(shapes[src][0], device=index.device)[:, None]
            living = mask_dict[src][:, index[0]] & mask_dict[dst][:, index[1]]
            source = (index[0] + copies * shapes[src][1])[living]
            target = (index[1] + copies * shapes[dst][1])[living]
            indices[edge_type] = torch.stack([source, target])
            if edge_type in edge_attr_dict:
                attr = edge_attr_dict[edge_type].expand(shapes[src][0], -1, -1)
                attributes[edge_type] = attr[living]
        for layer, norms in zip(self.layers, self.norms, strict=True):
            normed = {t: norms[t](x) for t, x in h.items()}
            out = layer(normed, indices, edge_attr_dict=attributes)
            h = {
                t: x + F.dropout(F.gelu(out[t]), self.dropout, self.training) if t in out else x
                for t, x in h.items()
            }
        return {t: x.unflatten(0, shapes[t]) for t, x in h.items()}

"""Baselines: PyG convs on perturbed copies of one graph, as a disjoint union."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv
from torch_geometric.nn.module_dict import ModuleDict

from pyg_nsa.nn.collecting import collect, wanted_fields
from pyg_nsa.nn.dropout import dropout
from pyg_nsa.nn.node_input import NodeInput
from pyg_nsa.nn.node_layout import NodeLayout

__all__ = ["UnionOperator", "with_edge_attr"]

_INDICES = ("edge_index", "hyperedge_index")


class UnionOperator(nn.Module):
    """Layers with HeteroConv's call on ``[B, N, F]``: the B copies become one graph without the dead nodes' edges.

    Input projection, learned embeddings and residuals are those of :class:`~pyg_nsa.HeteroNSA`, so that the layers alone
    make the difference.

    Args:
        layers: Operators of :func:`pyg_nsa.build_operator`, or PyG's HeteroConv, from ``channels`` to ``channels``. Without any
            the rows are the projected features: what is left of a model if no messages are sent.
        node_types: All node types.
        channels: Size of the rows.
        num_nodes: Node types that get learned embeddings, with their number of nodes.
        dropout: Dropout after each layer.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        node_types: list[str],
        channels: int,
        num_nodes: Mapping[str, int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = dict(num_nodes or {})
        self.inputs = ModuleDict({t: NodeInput(t, -1, channels, sizes.get(t)) for t in node_types})
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(
            ModuleDict({t: nn.LayerNorm(channels) for t in node_types}) for _ in layers
        )
        self.dropout = dropout

    def prepare(self, data: HeteroData) -> dict[str, dict[Any, Any]]:
        """Arguments of a call on copies of ``data``: what the layers ask for."""
        if not len(self.layers):
            return {"x_dict": {t: data[t].x for t in self.inputs.keys()}}  # noqa: SIM118 - PyG's ModuleDict
        data, layer = with_edge_attr(data), self.layers[0]
        if isinstance(layer, HeteroConv) and not hasattr(layer, "collect"):
            return collect(data, wanted_fields(dict(layer.convs.items())))
        return layer.collect(data)  # type: ignore[operator]

    def forward(self, **arguments: Mapping[Any, Any]) -> dict[str, Tensor]:
        """``[B, N, F]`` to ``[B, N, channels]`` of each node type.

        Args:
            **arguments: Those of :meth:`prepare`, with ``x_dict`` of copies, and ``mask_dict`` ``[B, N]`` unless there is one
                copy, of which all nodes live.
        """
        x_dict, alive = arguments.pop("x_dict"), arguments.pop("mask_dict", None)
        shapes = {t: tuple(x.shape[:2]) for t, x in x_dict.items()}
        h = {}
        for node_type, x in x_dict.items():
            layout = NodeLayout(node_type, shapes[node_type], x.device)
            h[node_type] = self.inputs[node_type](x, layout).flatten(0, 1)
        call = arguments if alive is None else _union(arguments, shapes, alive)
        for layer, norms in zip(self.layers, self.norms, strict=True):
            out = layer({t: norms[t](x) for t, x in h.items()}, **call)
            h = {
                t: x + dropout(F.gelu(out[t]), self.dropout, self.training) if t in out else x
                for t, x in h.items()
            }
        return {t: x.unflatten(0, shapes[t]) for t, x in h.items()}


def with_edge_attr(data: HeteroData) -> HeteroData:
    """The graph with ``stoichiometry`` as ``edge_attr`` ``[E, 1]``, PyG's name, wherever there is none; the same tensors."""
    data = copy.copy(data)
    for store in data.edge_stores:
        if "stoichiometry" in store and "edge_attr" not in store:
            store.edge_attr = store.stoichiometry.view(-1, 1)
    return data


def _union(
    arguments: Mapping[str, Mapping[Any, Any]],
    shapes: Mapping[str, tuple[int, ...]],
    alive: Mapping[str, Tensor],
) -> dict[str, dict[Any, Tensor]]:
    """The fields of edge types on the disjoint union of the copies, edges of dead nodes left out."""
    fields = {name.removesuffix("_dict"): values for name, values in arguments.items()}
    living: dict[Any, Tensor] = {}
    out: dict[str, dict[Any, Tensor]] = {}
    for name in _INDICES:
        for (src, relation, dst), index in fields.get(name, {}).items():
            copies = torch.arange(shapes[src][0], device=index.device)[:, None]
            kept = alive[src][:, index[0]] & alive[dst][:, index[1]]
            source = (index[0] + copies * shapes[src][1])[kept]
            target = (index[1] + copies * shapes[dst][1])[kept]
            living[src, relation, dst] = kept
            out.setdefault(f"{name}_dict", {})[src, relation, dst] = torch.stack([source, target])
    for name, values in fields.items():
        for edge_type, value in values.items():
            if name not in _INDICES and edge_type in living:
                kept = living[edge_type]
                rows = value.expand(kept.size(0), *value.shape)[kept]
                out.setdefault(f"{name}_dict", {})[edge_type] = rows
    return out

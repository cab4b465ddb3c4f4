"""HeteroCellNSA: from perturbed copies of one cell graph to fitness and gene interaction."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.resolver import aggregation_resolver

from pyg_nsa.cell.batch import PerturbationBatch
from pyg_nsa.nn.node_order import NodeOrder

__all__ = ["TARGETS", "HeteroCellNSA"]

#: Columns of predictions and labels.
TARGETS = ("fitness", "gene_interaction")


class HeteroCellNSA(nn.Module):
    r"""Predicts what a perturbation does from how it changes the cell's representation.

    .. math::
        \mathbf{z} = \Big\Vert_{t} \mathrm{readout}_t(\{\mathbf{h}_i : i \text{ alive}\}), \qquad
        \mathbf{z}_p = \mathbf{z}_w - \mathbf{z}_i, \qquad \hat{\mathbf{y}} = \mathrm{head}(\mathrm{asinh}(\mathbf{z}_p))

    The operator runs on the wildtype (once a batch) and on each perturbed copy, all in one call; dead nodes neither send
    nor receive. An instance without deletions predicts exactly ``head(0)``.

    Args:
        operator: Maps ``x_dict`` ``[B, N, F]`` to rows ``[B, N, channels]`` of each node type, called as
            ``operator(x_dict=…, mask_dict=…, **operator.prepare(cell_graph))``: :class:`~pyg_nsa.HeteroNSA`,
            or :class:`~pyg_nsa.cell.union_operator.UnionOperator` around convs that know no shared layout.
        node_types: Node types that are read out.
        channels: Size of the operator's rows.
        readout: PyG aggregations by name (``"sum"``, ``"mean"``, ``"max"``, ``"std"``, …); their results are concatenated.
        hidden_channels: Width of the head (default: ``channels``).
        dropout: Dropout in the head.
        node_order: Order of the nodes inside of the operator (see :meth:`pyg_nsa.HeteroNSA.prepare`). An operator that knows
            none must be given ``"natural"``. Not part of the parameters: a checkpoint loads whatever the order.

    Shapes:
        ``forward(cell_graph, batch)`` returns predictions ``[B, 2]`` (columns :data:`TARGETS`) and a dict with ``z_w``
        ``[1, Z]``, ``z_i`` and ``z_p`` ``[B, Z]``.
    """

    def __init__(
        self,
        operator: nn.Module,
        node_types: Sequence[str],
        channels: int,
        readout: Sequence[str] = ("sum",),
        hidden_channels: int | None = None,
        dropout: float = 0.0,
        node_order: NodeOrder = "natural",
    ) -> None:
        super().__init__()
        self.operator = operator
        self.node_order = node_order
        self.node_types = list(node_types)
        self.readout_names = list(readout)
        self.readouts = nn.ModuleList(_aggregation(name) for name in readout)
        width = len(self.node_types) * len(self.readout_names) * channels
        hidden = hidden_channels or channels
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.node_types)
        self.head = nn.Sequential(
            _Compress(),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(TARGETS)),
        )
        self._prepared: tuple[Any, torch.device, dict[str, Any]] | None = None

    def forward(
        self, cell_graph: HeteroData, batch: PerturbationBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predictions of a batch.

        Args:
            cell_graph: The base graph, on the batch's device.
            batch: Which nodes each instance keeps.
        """
        z = self.embed(cell_graph, batch.alive_dict)
        z_w, z_i = z[:1], z[1:]
        z_p = z_w - z_i
        return self.head(z_p), {"z_w": z_w, "z_i": z_i, "z_p": z_p}

    def embed(self, cell_graph: HeteroData, alive_dict: Mapping[str, Tensor]) -> Tensor:
        """``[1 + B, Z]``: the representation of the wildtype, then of each instance."""
        arguments = self.prepared(cell_graph)
        with_wildtype = {
            t: torch.cat([alive.new_ones(1, alive.size(1)), alive])
            for t, alive in alive_dict.items()
        }
        copies = next(iter(with_wildtype.values())).size(0)
        x_dict = {t: x.expand(copies, -1, -1) for t, x in arguments["x_dict"].items()}
        rows = self.operator(**{**arguments, "x_dict": x_dict, "mask_dict": with_wildtype})
        parts = []
        for node_type, norm in zip(self.node_types, self.norms, strict=True):
            h, alive = norm(rows[node_type]), with_wildtype[node_type]
            for aggr in self.readouts:
                parts.append(_pool(aggr, h, alive))
        return torch.cat(parts, dim=-1)

    def prepared(self, cell_graph: HeteroData) -> dict[str, Any]:
        """The operator's arguments for a base graph, its pair sets built once."""
        device = next(self.parameters()).device
        options: dict[str, Any] = {}
        if self.node_order != "natural":
            options["node_order"] = self.node_order
        if self._prepared is not None:
            graph, known_device, arguments = self._prepared
            if graph() is cell_graph:
                if known_device == device:
                    return arguments
                if "order_dict" in arguments:  # took a second or two to find
                    options["node_order"] = arguments["order_dict"]
        arguments = self.operator.prepare(copy.copy(cell_graph).to(device), **options)
        self._prepared = (weakref.ref(cell_graph), device, arguments)
        return arguments

    def __getstate__(self) -> dict[str, Any]:
        # Derived from the graph, and a weak reference does not pickle.
        return {**self.__dict__, "_prepared": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.operator}, readout={self.readout_names} over {', '.join(self.node_types)})"


class _Compress(nn.Module):
    """asinh: linear near zero, logarithmic far out.

    A difference of sums is the size of one node where little changes, and of thousands where everything does.
    """

    def forward(self, z: Tensor) -> Tensor:
        return torch.asinh(z)


def _aggregation(name: str) -> Aggregation:
    return aggregation_resolver(name)


def _pool(aggr: Aggregation, h: Tensor, alive: Tensor) -> Tensor:
    """``[B, N, C]`` to ``[B, C]`` over living rows."""
    copies = h.size(0)
    index = torch.arange(copies, device=h.device)[:, None].expand(alive.shape)
    return aggr(h[alive], index[alive], dim_size=copies)

"""HeteroCellNSA: from perturbed copies of one cell graph to fitness and gene interaction."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.resolver import aggregation_resolver

from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.models.deletion_readout import DeletionReadout
from pyg_nsa.cell.models.epistasis import Epistasis
from pyg_nsa.cell.models.head import Head
from pyg_nsa.nn.node_order import NodeOrder

__all__ = ["HeteroCellNSA"]


class HeteroCellNSA(nn.Module):
    r"""Predicts what a perturbation does from how it changes the cell's representation.

    .. math::
        \mathbf{z} = \Big\Vert_{t} \mathrm{readout}_t(\{\mathbf{h}_i : i \text{ alive}\}), \qquad
        \mathbf{z}_p = \mathbf{z}_w - \mathbf{z}_i, \qquad \hat{\mathbf{y}} = \mathrm{head}(\mathrm{asinh}(\mathbf{z}_p))

    The operator runs on the wildtype (once a batch) and on each perturbed copy, all in one call; dead nodes neither send
    nor receive. With a ``deletion`` reading its result is further columns of :math:`\mathbf{z}_p`; with ``copies=False`` they
    are all, and the operator runs on the wildtype alone. With ``difference="nodes"`` rows are subtracted before they are pooled,

    .. math::
        \mathbf{z}_p = \Big\Vert_{t} \mathrm{readout}_t(\{\mathbf{h}_{w,i} - \mathbf{h}_i : i \text{ alive}\}),

    so that a maximum or a deviation is one of changes, and nodes that do not change stay out of it. A removed node shows in what it
    changes at others alone; but for it the sum is the same as without. An instance without deletions predicts exactly ``head(0)``.

    Args:
        operator: Maps ``x_dict`` ``[B, N, F]`` to rows ``[B, N, channels]`` of each node type, called as
            ``operator(x_dict=…, mask_dict=…, **operator.prepare(cell_graph))``: :class:`~pyg_nsa.HeteroNSA`,
            or :class:`~pyg_nsa.cell.models.union_operator.UnionOperator` around convs that know no shared layout.
        node_types: Node types that are read out.
        channels: Size of the operator's rows.
        readout: PyG aggregations by name (``"sum"``, ``"mean"``, ``"max"``, ``"std"``, …); their results are concatenated.
        hidden_channels: Width of the head (default: ``channels``), which has layers of its own for each target.
        dropout: Dropout in the head.
        deletion: Reads deletions from the wildtype's rows (:class:`~pyg_nsa.cell.models.deletion_readout.DeletionReadout`).
        copies: Whether perturbed copies are computed at all.
        epistasis: Whether the interaction that follows from the predicted fitness of an instance and of its genes alone is
            added to the head's (:class:`~pyg_nsa.cell.models.epistasis.Epistasis`); the genes alone are read too.
        difference: What is subtracted where copies are read: ``"pooled"`` rows, or those of the ``"nodes"``.
        node_order: Order of the nodes inside of the operator (see :meth:`pyg_nsa.HeteroNSA.prepare`). An operator that knows
            none must be given ``"natural"``. Not part of the parameters: a checkpoint loads whatever the order.

    Shapes:
        ``forward(cell_graph, batch)`` returns predictions ``[B, 2]`` (columns
        :data:`~pyg_nsa.cell.labels.table.TARGETS`) and a dict with ``z_w``
        ``[1, Z]``, ``z_i`` and ``z_p`` ``[B, Z]``. In the columns of the deletion reading, and of copies where rows of nodes are
        subtracted, ``z_w`` is 0.

    Raises:
        ValueError: Neither ``deletion`` nor ``copies``, ``difference="nodes"`` without copies, or ``epistasis`` with copies, which
            would be needed of each gene alone.
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
        deletion: DeletionReadout | None = None,
        copies: bool = True,
        epistasis: bool = False,
        difference: Literal["pooled", "nodes"] = "pooled",
    ) -> None:
        super().__init__()
        if deletion is None and not copies:
            raise ValueError("nothing is read: give a deletion readout, or copies=True")
        if difference == "nodes" and not copies:
            raise ValueError(
                "difference='nodes' subtracts rows of perturbed copies: give copies=True"
            )
        self.operator = operator
        self.node_order = node_order
        self.node_types = list(node_types)
        self.readout_names = list(readout)
        self.readouts = nn.ModuleList(aggregation_resolver(name) for name in readout)
        self.deletion = deletion
        self.copies = copies
        self.difference = difference
        if epistasis and (deletion is None or copies):
            raise ValueError("epistasis needs a deletion readout, and copies=False")
        self.epistasis = Epistasis() if epistasis else None
        width = len(self.node_types) * len(self.readout_names) * channels if copies else 0
        width += 0 if deletion is None else deletion.out_channels
        hidden = hidden_channels or channels
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.node_types)
        plain, sure = [], None
        if deletion is not None and deletion.growth_channels:
            # Fitness follows from what growth loses; interaction from how that compares with each gene alone.
            start = width - deletion.growth_channels
            middle = start + deletion.growth_channels // 3
            plain = [slice(start, middle), slice(middle, width)]
            if deletion.loans:
                sure = start + deletion.columns["reaction"].index("stopped")
        self.head = Head(width, hidden, dropout, plain, sure)
        self._prepared: tuple[Any, torch.device, dict[str, Any]] | None = None

    def forward(
        self, cell_graph: HeteroData, batch: PerturbationBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predictions of a batch.

        Args:
            cell_graph: The base graph, on the batch's device.
            batch: Which nodes each instance keeps.
        """
        copies = {t: a if self.copies else a[:0] for t, a in batch.alive_dict.items()}
        rows = self.rows(cell_graph, copies)
        parts = []
        if self.copies:
            parts.append(self._read_copies(rows, copies))
        if self.deletion is not None:
            read = self.deletion({t: h[0] for t, h in rows.items()}, cell_graph, batch)
            parts.append(_as_sides(read.together))
        z_w, z_i = (torch.cat(side, dim=-1) for side in zip(*parts, strict=True))
        z_p = z_w - z_i
        prediction = self._answer(z_p)
        if self.epistasis is not None:
            # Without perturbed copies the reading of a single gene is all there is of it.
            alone, nothing = self._answer(torch.cat([read.alone, torch.zeros_like(z_w)]))[
                :, 0
            ].split([len(read.alone), 1])
            found = self.epistasis(prediction[:, 0], alone, nothing[0], read.place, read.owner)
            prediction = torch.stack([prediction[:, 0], prediction[:, 1] + found], dim=1)
        return prediction, {"z_w": z_w, "z_i": z_i, "z_p": z_p}

    def _answer(self, z_p: Tensor) -> Tensor:
        # asinh is linear near zero and logarithmic far out: a difference of sums is the size of one node where little changes,
        # and of thousands where everything does.
        return self.head(torch.asinh(z_p))

    def rows(self, cell_graph: HeteroData, alive_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``[1 + B, N, channels]`` of each node type that is read out: of the wildtype, then of each instance."""
        arguments = dict(self.prepared(cell_graph))
        with_wildtype = _with_wildtype(alive_dict)
        copies = next(iter(with_wildtype.values())).size(0)
        arguments["x_dict"] = {t: x.expand(copies, -1, -1) for t, x in arguments["x_dict"].items()}
        if copies > 1:  # of the wildtype every node lives
            arguments["mask_dict"] = with_wildtype
        rows = self.operator(**arguments)
        return {t: norm(rows[t]) for t, norm in zip(self.node_types, self.norms, strict=True)}

    def _read_copies(
        self, rows: Mapping[str, Tensor], alive_dict: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``z_w`` ``[1, Z]`` and ``z_i`` ``[B, Z]``."""
        if self.difference == "nodes":
            changes = {t: h[:1] - h[1:] for t, h in rows.items()}
            return _as_sides(self._pooled(changes, alive_dict))
        pooled = self._pooled(rows, _with_wildtype(alive_dict))
        return pooled[:1], pooled[1:]

    def _pooled(self, rows: Mapping[str, Tensor], alive_dict: Mapping[str, Tensor]) -> Tensor:
        """Rows ``[C, N, channels]`` of each node type to ``[C, Z]``."""
        parts = [
            _pool(aggr, rows[t], alive_dict[t]) for t in self.node_types for aggr in self.readouts
        ]
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


def _as_sides(z_p: Tensor) -> tuple[Tensor, Tensor]:
    """What is read as a difference, as that of 0 and its negative."""
    return z_p.new_zeros(1, z_p.size(1)), -z_p


def _with_wildtype(alive_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {t: torch.cat([a.new_ones(1, a.size(1)), a]) for t, a in alive_dict.items()}


def _pool(aggr: Aggregation, h: Tensor, alive: Tensor) -> Tensor:
    """``[B, N, C]`` to ``[B, C]`` over living rows."""
    copies = h.size(0)
    index = torch.arange(copies, device=h.device)[:, None].expand(alive.shape)
    return aggr(h[alive], index[alive], dim_size=copies)

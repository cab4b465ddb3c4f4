"""What a deletion takes away, read in the context of the wildtype.

The operator runs on the wildtype alone, once a batch, however many instances there are; a deletion is then read where it
strikes: at the nodes that it removes, and at those that lose some of their neighbours with it. That is the first order of
what the deletion does to the operator's messages, at a small part of the price of perturbed copies.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.resolver import aggregation_resolver
from torch_geometric.utils import scatter

from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.models.touched_nodes import TouchedNodes, growth_nodes, touch_names
from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.response import FluxResponse
from pyg_nsa.nn.dropout import dropout

__all__ = ["DeletionReadout", "Readings"]

_ALL = 1 - 1e-4  # shares are sums of fractions

# Shares of the objective's node by which growth is nothing for certain, whatever fluxes would do without bounds.
_NO_GROWTH = ("blocked", "stopped")


@dataclass(frozen=True, eq=False)
class Readings:
    """What was read of a batch.

    Attributes:
        together: ``[B, out_channels]``, of each instance.
        alone: ``[G, out_channels]``, of each gene of the instances that delete several, as if it were deleted alone.
        place: ``[P]`` int64, rows of ``alone``: the genes of the instances that delete several, one instance after the other.
        owner: ``[P]`` int64, the instance of each, ascending.
    """

    together: Tensor
    alone: Tensor
    place: Tensor
    owner: Tensor


class DeletionReadout(nn.Module):
    r"""Reads deletions from the wildtype's rows.

    A node :math:`v` is touched by a deletion if it is removed, or if a share of its neighbours in some relation is, or a
    share of the nodes of its reaction (isozymes), or if it is a reaction that the deletion blocks
    (:class:`~pyg_nsa.cell.network.blocked.BlockedReactions`; the removed ones among them), or a reaction or metabolite that
    falls out of the nutrients' scope (:class:`~pyg_nsa.cell.network.scope.Scope`) or is left without means even on credit
    (:class:`~pyg_nsa.cell.network.loans.Loans`). With these shares
    :math:`\mathbf{s}_v \neq 0`

    .. math::
        \mathbf{r} = \Big\Vert_t \mathrm{aggr}_{v \text{ touched}}\ \mathbf{A}_t \big[\mathrm{GELU}(\mathbf{W}_t [\mathbf{h}_v,
        \mathbf{x}_v]) \odot \mathbf{V}_t [\mathbf{s}_v, \mathbf{1}_{\mathbf{s}_v = 1}]\big], \qquad
        \mathbf{z} = \Big[\mathbf{r},\ \mathbf{r} - \sum_g \mathbf{r}_g,\
        \sum_{g < g'} \mathrm{asinh}\,\mathbf{r}_g \odot \mathrm{asinh}\,\mathbf{r}_{g'}\Big]

    where :math:`\mathbf{r}_g` is what deleting gene :math:`g` alone would give. The second part is zero unless deletions meet
    at some node, the last one unless there are two; without a deletion everything is exactly zero. Before they are aggregated
    the nodes of one reaction in one direction (isozymes) are averaged: what was lost is one reaction, however many enzymes
    catalysed it.

    Behind :math:`\mathbf{z}` stands the same of what growth loses: :math:`\mathbf{s}_v` of the reaction that is the model's
    objective, in the place of :math:`\mathbf{r}`. With ``response`` it has a share more, :math:`1 - \sqrt{\mu}`, where :math:`\mu` is what is left
    of growth if fluxes change as little as they can (:class:`~pyg_nsa.cell.network.response.FluxResponse`), and 0 where growth is blocked or
    stopped. The least change of squares lets growth fall further than it must, so that the root is nearer to optimal growth.

    Args:
        graph: The base graph, for its relations; the module does not keep it.
        node_types: Node types that are read.
        channels: Size of the rows.
        hidden_channels: Rows of :math:`\mathbf{A}_t`, :math:`\mathbf{V}_t` and :math:`\mathbf{W}_t`.
        aggregations: PyG aggregations by name, concatenated.
        dropout: Dropout of :math:`\mathbf{h}_v`; features :math:`\mathbf{x}_v` stay, so that a reading does not rest on what
            messages tell one node from all others by.
        blocked: Whether blocked reactions are touched, in a graph that says what is needed to find them.
        starved: Whether reactions and metabolites are touched that can't be reached from the nutrients any more, in such a graph.
        loans: Whether they are where no loan helps (:class:`~pyg_nsa.cell.network.loans.Loans`), in such a graph.
        response: Whether growth's share of the flux response is read, in a graph that also has the wildtype's fluxes.

    Attributes:
        columns: Of each node type the names of its shares.
        growth_channels: How many of the result's last columns are of growth; 0 if the graph does not say which reaction that is.
        out_channels: Size of the result.

    Raises:
        ValueError: If no node type of ``node_types`` can be touched.
    """

    def __init__(
        self,
        graph: HeteroData,
        node_types: Sequence[str],
        channels: int,
        hidden_channels: int,
        aggregations: Sequence[str] = ("sum",),
        dropout: float = 0.0,
        blocked: bool = True,
        starved: bool = True,
        loans: bool = True,
        response: bool = False,
    ) -> None:
        super().__init__()
        known = BlockedReactions.known(graph)
        self.blocked, self.starved, self.loans = (
            blocked and known,
            starved and known,
            loans and known,
        )
        found = touch_names(graph, self.blocked, self.starved, self.loans)
        self.columns = {t: found[t] for t in node_types if t in found}
        if not self.columns:
            raise ValueError(
                f"readout.deletion: a deletion touches no node of type {', '.join(node_types)}; it touches "
                f"{', '.join(found)}. Name one of them in readout.node_types."
            )
        columns = {t: graph[t].x.size(1) if "x" in graph[t] else 0 for t in self.columns}
        self.context = ModuleDict(
            {t: nn.Linear(channels + columns[t], hidden_channels) for t in self.columns}
        )
        self.gate = ModuleDict(
            {
                t: nn.Linear(2 * len(names), hidden_channels, bias=False)
                for t, names in self.columns.items()
            }
        )
        self.outer = ModuleDict(
            {t: nn.Linear(hidden_channels, hidden_channels, bias=False) for t in self.columns}
        )
        self.dropout = dropout
        self.readouts = nn.ModuleList(aggregation_resolver(name) for name in aggregations)
        told = "reaction" in self.columns and growth_nodes(graph) is not None
        self.response = response and told and FluxResponse.known(graph)
        self.growth_channels = 3 * (len(self.columns["reaction"]) + self.response) if told else 0
        read = len(self.columns) * len(aggregations) * hidden_channels
        self.out_channels = 3 * read + self.growth_channels
        self._known: tuple[Any, torch.device, TouchedNodes] | None = None

    def forward(
        self, rows: Mapping[str, Tensor], cell_graph: HeteroData, batch: PerturbationBatch
    ) -> Readings:
        """Reads the deletions of a batch.

        Args:
            rows: ``[N, channels]`` of each node type, of the wildtype.
            cell_graph: The base graph.
            batch: ``B`` instances.

        Returns:
            The readings.
        """
        device = next(iter(rows.values())).device
        touched = self._touched(cell_graph, device)
        count = torch.tensor([len(genes) for genes in batch.genes], dtype=torch.long, device=device)
        # Deletions of one gene are their own sum, so only the genes of the others are looked at alone.
        several = [genes for genes in batch.genes if len(genes) > 1]
        genes, place = torch.cat([*several, batch.index.new_empty(0)]).unique(return_inverse=True)
        owner = torch.repeat_interleave(
            (count > 1).nonzero().view(-1), count[count > 1], output_size=place.numel()
        )
        each = touched.rule.alive(genes.cpu(), torch.arange(genes.numel()), genes.numel())
        alive = {t: torch.cat([batch.alive_dict[t], mask.to(device)]) for t, mask in each.items()}
        gone = touched.gone(alive)
        size = len(batch) + genes.numel()
        read, growth = [], []
        for t in self.columns:
            found = touched(t, gone)
            read += self._read(t, rows[t], cell_graph[t].get("x"), touched, found, size)
            if self.growth_channels and t == "reaction":
                loses = touched.growth_loses(found, size)
                if self.response:
                    loses = torch.cat([loses, self._cost(loses, touched.growth_left(alive))], dim=1)
                growth.append(loses.to(read[0]))
        together, alone = [], []
        for values in (read, growth):
            if values:
                joint, single = torch.cat(values, dim=-1).split([len(batch), genes.numel()])
                together += _compared(joint, single[place], owner, count > 1)
                alone += [single, single.new_zeros(genes.numel(), 2 * single.size(1))]
        return Readings(torch.cat(together, dim=-1), torch.cat(alone, dim=-1), place, owner)

    def _read(
        self,
        node_type: str,
        h: Tensor,
        x: Tensor | None,
        touched: TouchedNodes,
        found: tuple[Tensor, Tensor, Tensor],
        size: int,
    ) -> list[Tensor]:
        """``[size, hidden_channels]`` of each aggregation."""
        instance, node, shares = found
        h = dropout(h, self.dropout, self.training)
        # To lose all of something is another thing than to lose most of it.
        shares = torch.cat([shares, (shares > _ALL).to(shares.dtype)], dim=-1).to(h.dtype)
        known = h if x is None else torch.cat([h, x.to(h)], dim=-1)
        context = F.gelu(self.context[node_type](known))[node]
        response = self.outer[node_type](context * self.gate[node_type](shares))
        unit = touched.units.get(node_type)
        if unit is not None:
            nodes = touched.num_nodes[node_type]  # there are no more units than that
            key, place = (instance * nodes + unit[node]).unique(return_inverse=True)
            response, instance = scatter(response, place, reduce="mean"), key // nodes
        return [aggr(response, instance, dim_size=size) for aggr in self.readouts]

    def _cost(self, loses: Tensor, left: Tensor) -> Tensor:
        """``[size, 1]`` float32: what the response takes of growth, all where there is none for certain."""
        certain = [k for k, name in enumerate(self.columns["reaction"]) if name in _NO_GROWTH]
        return torch.cat([loses[:, certain], (1 - left.sqrt())[:, None]], dim=1).amax(1, True)

    def _touched(self, cell_graph: HeteroData, device: torch.device) -> TouchedNodes:
        if self._known is not None:
            graph, known_device, touched = self._known
            if graph() is cell_graph and known_device == device:
                return touched
        touched = TouchedNodes(
            cell_graph, device, self.blocked, self.starved, self.loans, self.response
        )
        self._known = (weakref.ref(cell_graph), device, touched)
        return touched

    def __getstate__(self) -> dict[str, Any]:
        # Derived from the graph, and a weak reference does not pickle.
        return {**self.__dict__, "_known": None}


def _compared(joint: Tensor, single: Tensor, owner: Tensor, several: Tensor) -> list[Tensor]:
    """What was read of each instance, that less what was read of its genes alone, and the products of these.

    Args:
        joint: ``[B, C]``, of each instance.
        single: ``[P, C]``, of the genes of the instances that delete several.
        owner: ``[P]`` int64, the instance of each.
        several: ``[B]`` bool, which these instances are.
    """
    squeezed = torch.asinh(single)
    zero = torch.zeros_like(joint)
    excess = torch.where(several[:, None], joint - zero.index_add(0, owner, single), zero)
    square = zero.index_add(0, owner, squeezed).square()
    return [joint, excess, (square - zero.index_add(0, owner, squeezed.square())) / 2]

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
from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.nn.dropout import dropout

__all__ = ["DeletionReadout", "Readings"]

_ALL = 1 - 1e-4  # shares are sums of fractions
_MORTAL = ("gene", "reaction")  # node types of which a deletion removes nodes
_BLOCKED = "blocked"  # stands beside them: reactions that a deletion blocks


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
    (:class:`~pyg_nsa.cell.network.blocked.BlockedReactions`; the removed ones among them). With these shares
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

    Args:
        graph: The base graph, for its relations; the module does not keep it.
        node_types: Node types that are read.
        channels: Size of the rows.
        hidden_channels: Rows of :math:`\mathbf{A}_t`, :math:`\mathbf{V}_t` and :math:`\mathbf{W}_t`.
        aggregations: PyG aggregations by name, concatenated.
        dropout: Dropout of :math:`\mathbf{h}_v`; features :math:`\mathbf{x}_v` stay, so that a reading does not rest on what
            messages tell one node from all others by.
        blocked: Whether blocked reactions are touched, in a graph that says what is needed to find them.

    Attributes:
        columns: Of each node type the names of its shares.
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
    ) -> None:
        super().__init__()
        self.blocked = blocked and BlockedReactions.known(graph)
        found: dict[str, list[str]] = {}
        for source, name, target, _ in _links(graph, self.blocked):
            found.setdefault(target, []).append(
                name if name in ("removed", _BLOCKED) else f"{name} of {source}"
            )
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
        self.out_channels = 3 * len(self.columns) * len(aggregations) * hidden_channels
        self._known: tuple[Any, torch.device, _Neighbourhood] | None = None

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
        near = self._neighbourhood(cell_graph, device)
        count = torch.tensor([len(genes) for genes in batch.genes], dtype=torch.long, device=device)
        # Deletions of one gene are their own sum, so only the genes of the others are looked at alone.
        several = [genes for genes in batch.genes if len(genes) > 1]
        genes, place = torch.cat([*several, batch.index.new_empty(0)]).unique(return_inverse=True)
        owner = torch.repeat_interleave(
            (count > 1).nonzero().view(-1), count[count > 1], output_size=place.numel()
        )
        alone = near.rule.alive(genes.cpu(), torch.arange(genes.numel()), genes.numel())
        dead = {t: ~torch.cat([batch.alive_dict[t], alone[t].to(device)]) for t in _MORTAL}
        if near.blocked is not None:
            dead[_BLOCKED] = near.blocked(dead["reaction"])
        gone = {t: mask.nonzero(as_tuple=True) for t, mask in dead.items()}
        size = len(batch) + genes.numel()
        parts = []
        for t in self.columns:
            parts += self._read(t, rows[t], cell_graph[t].get("x"), near, gone, size)
        r = torch.cat(parts, dim=-1)
        joint, single = r[: len(batch)], r[len(batch) :][place]
        squeezed = torch.asinh(single)
        zero = torch.zeros_like(joint)
        total = zero.index_add(0, owner, single)
        product = zero.index_add(0, owner, squeezed).square() - zero.index_add(
            0, owner, squeezed.square()
        )
        excess = torch.where(count[:, None] > 1, joint - total, zero)
        nothing = torch.zeros_like(r[len(batch) :])
        return Readings(
            together=torch.cat([joint, excess, product / 2], dim=-1),
            alone=torch.cat([r[len(batch) :], nothing, nothing], dim=-1),
            place=place,
            owner=owner,
        )

    def _read(
        self,
        node_type: str,
        h: Tensor,
        x: Tensor | None,
        near: _Neighbourhood,
        gone: Mapping[str, tuple[Tensor, ...]],
        size: int,
    ) -> list[Tensor]:
        """``[size, hidden_channels]`` of each aggregation."""
        instance, node, shares = near.touched(node_type, gone)
        h = dropout(h, self.dropout, self.training)
        # To lose all of something is another thing than to lose most of it.
        shares = torch.cat([shares, (shares > _ALL).to(shares.dtype)], dim=-1).to(h.dtype)
        known = h if x is None else torch.cat([h, x.to(h)], dim=-1)
        context = F.gelu(self.context[node_type](known))[node]
        response = self.outer[node_type](context * self.gate[node_type](shares))
        unit = near.units.get(node_type)
        if unit is not None:
            nodes = near.num_nodes[node_type]  # there are no more units than that
            key, place = (instance * nodes + unit[node]).unique(return_inverse=True)
            response, instance = scatter(response, place, reduce="mean"), key // nodes
        return [aggr(response, instance, dim_size=size) for aggr in self.readouts]

    def _neighbourhood(self, cell_graph: HeteroData, device: torch.device) -> _Neighbourhood:
        if self._known is not None:
            graph, known_device, near = self._known
            if graph() is cell_graph and known_device == device:
                return near
        near = _Neighbourhood(cell_graph, device, self.blocked)
        self._known = (weakref.ref(cell_graph), device, near)
        return near

    def __getstate__(self) -> dict[str, Any]:
        # Derived from the graph, and a weak reference does not pickle.
        return {**self.__dict__, "_known": None}


@dataclass(frozen=True, eq=False)
class _Link:
    """Which nodes lose how much when a node dies.

    Attributes:
        source: Node type of the dying nodes, or ``"blocked"``: blocked reactions.
        column: Column of the shares.
        rowptr: [N + 1] int64, the range of each source in
        col: [E] int64, the touched nodes, and
        share: [E] float32, the part of its neighbours that it loses.
    """

    source: str
    column: int
    rowptr: Tensor
    col: Tensor
    share: Tensor


class _Neighbourhood:
    """All links of a base graph by the node type that they touch.

    Attributes:
        units: Of node types of which several nodes are one thing, the number of that thing, ``[N]`` int64. A deletion that touches
            one of its nodes touches all.
        blocked: Finds the reactions that a deletion blocks; ``None`` where they are not read.
    """

    def __init__(self, graph: HeteroData, device: torch.device, blocked: bool) -> None:
        self.rule = DeletionRule(graph)
        self.num_nodes = {**self.rule.num_nodes, _BLOCKED: self.rule.num_nodes["reaction"]}
        self.blocked = BlockedReactions(graph) if blocked else None
        self.units: dict[str, Tensor] = {}
        if _has_isozymes(graph):
            reaction = graph["reaction"]
            named = torch.stack([reaction.reaction_index.cpu(), reaction.direction.cpu()])
            self.units["reaction"] = named.unique(dim=1, return_inverse=True)[1].to(device)
        self.links: dict[str, list[_Link]] = {}
        for source, _, target, index in _links(graph, blocked):
            src, dst = index[:, index[0].argsort(stable=True)]
            degree = torch.bincount(dst, minlength=self.num_nodes[target])
            links = self.links.setdefault(target, [])
            links.append(
                _Link(
                    source,
                    len(links),
                    torch.searchsorted(src, torch.arange(self.num_nodes[source] + 1)).to(device),
                    dst.to(device),
                    (1.0 / degree[dst]).to(device),
                )
            )

    def touched(
        self, node_type: str, gone: Mapping[str, tuple[Tensor, ...]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which nodes of a type are touched in which instance.

        Args:
            node_type: The type.
            gone: Of each type that dies instance and number of the dead nodes, each [D] int64.

        Returns:
            [T] int64 instance, [T] int64 node, [T, F] float32 shares.
        """
        links, nodes = self.links[node_type], self.num_nodes[node_type]
        keys, columns, values = [], [], []
        for link in links:
            instance, node = gone[link.source]
            start, count = link.rowptr[node], link.rowptr[node + 1] - link.rowptr[node]
            shift = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
            edge = shift + torch.arange(shift.numel(), device=shift.device)
            keys.append(torch.repeat_interleave(instance, count) * nodes + link.col[edge])
            columns.append(torch.full_like(edge, link.column))
            values.append(link.share[edge])
        key, place = torch.cat(keys).unique(return_inverse=True)
        shares = torch.zeros(key.numel(), len(links), device=key.device)
        shares.index_put_((place, torch.cat(columns)), torch.cat(values), accumulate=True)
        return key // nodes, key % nodes, shares


def _links(graph: HeteroData, blocked: bool) -> list[tuple[str, str, str, Tensor]]:
    """Source type, name, target type, ``[2, E]``: along which pairs of nodes the loss of one touches the other."""
    out = []
    for t in _MORTAL:
        out.append((t, "removed", t, _itself(graph, t)))
    if blocked:
        out.append((_BLOCKED, _BLOCKED, "reaction", _itself(graph, "reaction")))
    for source, name, target in graph.edge_types:
        if source in _MORTAL:
            index = graph[source, name, target].edge_index
            out.append((source, name, target, index.cpu().unique(dim=1)))
    if _has_isozymes(graph):  # a reaction goes on with what is left of its nodes
        out.append(
            ("reaction", "isozyme", "reaction", _within(graph["reaction"].reaction_index.cpu()))
        )
    return out


def _itself(graph: HeteroData, node_type: str) -> Tensor:
    return torch.arange(int(graph[node_type].num_nodes)).expand(2, -1)


def _has_isozymes(graph: HeteroData) -> bool:
    """Whether the graph says which reaction nodes are one reaction."""
    return "reaction_index" in graph["reaction"]


def _within(group: Tensor) -> Tensor:
    """``[2, P]``: all pairs of nodes of one group, each node with itself included."""
    order = group.argsort(stable=True)
    size = torch.bincount(group)
    start = size.cumsum(0) - size
    first = torch.repeat_interleave(order, size[group[order]])
    reps = size[group[order]]
    within = torch.arange(first.numel()) - torch.repeat_interleave(reps.cumsum(0) - reps, reps)
    return torch.stack([first, order[start[group[first]] + within]])

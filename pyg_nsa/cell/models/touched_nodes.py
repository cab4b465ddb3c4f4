"""Which nodes of a graph a deletion touches, and how much of what is around each of them it takes away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import scatter

from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.loans import Loans
from pyg_nsa.cell.network.response import FluxResponse
from pyg_nsa.cell.network.scope import Scope

__all__ = ["TouchedNodes", "growth_nodes", "touch_names"]

_MORTAL = ("gene", "reaction")  # node types of which a deletion removes nodes
# These stand beside them: reactions that a deletion blocks, and reactions and metabolites that it starves, or leaves without means even
# on credit. Each touches itself.
_SPREAD_OVER = {
    "blocked": "reaction",
    "starved": "reaction",
    "missing": "metabolite",
    "stopped": "reaction",
    "unmade": "metabolite",
}


def touch_names(
    graph: HeteroData, blocked: bool, starved: bool, loans: bool
) -> dict[str, list[str]]:
    """Of each node type the names of its shares, in the order of their columns.

    Args:
        graph: The base graph.
        blocked: Whether blocked reactions are touched.
        starved: Whether starved reactions and missing metabolites are.
        loans: Whether reactions and metabolites are for which there are no loans.
    """
    names: dict[str, list[str]] = {}
    for source, name, target, _ in _links(graph, blocked, starved, loans):
        alone = name in ("removed", *_SPREAD_OVER)
        names.setdefault(target, []).append(name if alone else f"{name} of {source}")
    return names


def growth_nodes(graph: HeteroData) -> Tensor | None:
    """``[R]`` bool: reaction nodes that the model's objective is the flux of; ``None`` if the graph does not say."""
    objective = graph["reaction"].get("objective") if "reaction" in graph.node_types else None
    return None if objective is None else objective > 0


@dataclass(frozen=True, eq=False)
class _Link:
    """Which nodes lose how much when a node dies.

    Attributes:
        source: Node type of the dying nodes, or ``"blocked"``, ``"starved"``, …: reactions and metabolites so.
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


class TouchedNodes:
    """All links of a base graph by the node type that they touch.

    Args:
        graph: The base graph.
        device: Where everything is kept.
        blocked: Whether blocked reactions are touched.
        starved: Whether starved reactions and missing metabolites are.
        loans: Whether reactions and metabolites are for which there are no loans (:class:`~pyg_nsa.cell.network.loans.Loans`).
        response: Whether :meth:`growth_left` will be asked (:class:`~pyg_nsa.cell.network.response.FluxResponse`).

    Attributes:
        rule: What dies with a gene.
        num_nodes: Of each source of a link.
        growth: ``[R]`` bool, see :func:`growth_nodes`.
        units: Of node types of which several nodes are one thing, the number of that thing, ``[N]`` int64. A deletion that touches
            one of its nodes touches all.
    """

    def __init__(
        self,
        graph: HeteroData,
        device: torch.device,
        blocked: bool,
        starved: bool,
        loans: bool,
        response: bool = False,
    ) -> None:
        self.rule = DeletionRule(graph)
        counts = self.rule.num_nodes
        self.num_nodes = counts | {s: counts[t] for s, t in _SPREAD_OVER.items() if t in counts}
        self._blocked = BlockedReactions(graph) if blocked else None
        self._scope = Scope(graph) if starved else None
        self._loans = Loans.of(graph) if loans else None
        self._response = FluxResponse.of(graph) if response else None
        growth = growth_nodes(graph)
        self.growth = None if growth is None else growth.to(device)
        self.units: dict[str, Tensor] = {}
        if _has_isozymes(graph):
            reaction = graph["reaction"]
            named = torch.stack([reaction.reaction_index.cpu(), reaction.direction.cpu()])
            self.units["reaction"] = named.unique(dim=1, return_inverse=True)[1].to(device)
        self._links: dict[str, list[_Link]] = {}
        for source, _, target, index in _links(graph, blocked, starved, loans):
            src, dst = index[:, index[0].argsort(stable=True)]
            degree = torch.bincount(dst, minlength=self.num_nodes[target])
            links = self._links.setdefault(target, [])
            links.append(
                _Link(
                    source,
                    len(links),
                    torch.searchsorted(src, torch.arange(self.num_nodes[source] + 1)).to(device),
                    dst.to(device),
                    (1.0 / degree[dst]).to(device),
                )
            )

    def gone(self, alive_dict: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        """What each instance loses.

        Args:
            alive_dict: ``[B, N]`` bool of ``"gene"`` and ``"reaction"``.

        Returns:
            Of each source of a link, instance and number of the dead nodes, each ``[D]`` int64, by instance.
        """
        dead = {t: ~alive_dict[t] for t in _MORTAL}
        if self._blocked is not None:
            dead["blocked"] = self._blocked(dead["reaction"])
        if self._scope is not None:
            dead["starved"], dead["missing"] = self._scope(dead["reaction"])
        if self._loans is not None:
            dead["stopped"], dead["unmade"] = self._loans(dead["reaction"])
        return {t: mask.nonzero(as_tuple=True) for t, mask in dead.items()}

    def growth_left(self, alive_dict: Mapping[str, Tensor]) -> Tensor:
        """What is left of growth by the response of the wildtype's fluxes.

        Args:
            alive_dict: ``[B, N]`` bool of ``"reaction"``.

        Returns:
            ``[B]`` float32, from 0 to 1.
        """
        assert self._response is not None
        return self._response(~alive_dict["reaction"])

    def growth_loses(self, found: tuple[Tensor, Tensor, Tensor], size: int) -> Tensor:
        """Of each instance the shares of the objective's node; the largest of each where it has several.

        Args:
            found: The touched reaction nodes.
            size: Number of instances.

        Returns:
            ``[size, F]`` float32.
        """
        assert self.growth is not None
        instance, node, shares = found
        at = self.growth[node]
        return scatter(shares[at], instance[at], dim_size=size, reduce="max")

    def __call__(
        self, node_type: str, gone: Mapping[str, tuple[Tensor, ...]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which nodes of a type are touched in which instance.

        Args:
            node_type: The type.
            gone: See :meth:`gone`.

        Returns:
            [T] int64 instance, [T] int64 node, [T, F] float32 shares.
        """
        links, nodes = self._links[node_type], self.num_nodes[node_type]
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


def _links(
    graph: HeteroData, blocked: bool, starved: bool, loans: bool
) -> list[tuple[str, str, str, Tensor]]:
    """Source type, name, target type, ``[2, E]``: along which pairs of nodes the loss of one touches the other."""
    out = []
    for t in _MORTAL:
        out.append((t, "removed", t, _itself(graph, t)))
    for source in (
        ["blocked"] * blocked + ["starved", "missing"] * starved + ["stopped", "unmade"] * loans
    ):
        target = _SPREAD_OVER[source]
        out.append((source, source, target, _itself(graph, target)))
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

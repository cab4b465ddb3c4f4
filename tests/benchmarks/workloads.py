"""Graphs that the benchmarks run on: generated from a seed, or the real yeast topology.

Edges are unique and sorted by (target, source), the order that PyG's convolutions like best. Node numbers carry no
information: hubs lie anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from .yeast import yeast_cell, yeast_physical

GENES, REACTIONS, METABOLITES = 6_607, 7_122, 2_806
PHYSICAL_EDGES, REGULATORY_EDGES, GPR_EDGES, RMR_EDGES = 144_211, 16_101, 5_450, 26_325

PHYSICAL = ("gene", "physical", "gene")
REGULATORY = ("gene", "regulates", "gene")
GPR = ("gene", "gpr", "reaction")
RMR = ("reaction", "rmr", "metabolite")

#: Tail exponents of the degrees: 2.5 gives the largest hub 1.8 % of all ends, as in the yeast interactome (2.0 %).
HUBS = 2.5
MILD = 6.0


@dataclass(frozen=True)
class Workload:
    """Which graph; small enough to travel to another process as JSON.

    Attributes:
        kind: ``"physical"`` (both directions of each pair), ``"cell"`` (heterogeneous), and the same from the tables:
            ``"yeast_physical"``, ``"yeast_cell"``.
        nodes: Number of nodes of ``"physical"``.
        edges: Number of edges of ``"physical"``.
        scale: Fraction of the cell's nodes and edges, for smoke tests.
        yeast: Folder of the tables.
        seed: Of the generator.
    """

    kind: str = "physical"
    nodes: int = GENES
    edges: int = PHYSICAL_EDGES
    scale: float = 1.0
    yeast: str = ""
    seed: int = 0

    def scaled(self, scale: float) -> Workload:
        """The same at another size; a physical graph keeps its mean degree, as far as so few nodes can have it."""
        if self.kind == "physical":
            nodes = max(64, round(self.nodes * scale))
            edges = min(max(256, round(self.edges * scale)), nodes * nodes // 4)
            return replace(self, nodes=nodes, edges=edges)
        return replace(self, scale=scale)

    def graph(self) -> HeteroData:
        """The graph: ``num_nodes`` per type; ``edge_index``, and ``stoichiometry`` [E] where signed."""
        return _graph(self)


@functools.lru_cache(maxsize=2)
def _graph(workload: Workload) -> HeteroData:
    if workload.kind == "physical":
        data = HeteroData()
        data["gene"].num_nodes = workload.nodes
        data[PHYSICAL].edge_index = symmetric_pairs(workload.nodes, workload.edges, workload.seed)
        return data
    if workload.kind == "cell":
        return cell_graph(workload.scale, workload.seed)
    if workload.kind == "yeast_physical":
        return sorted_edges(yeast_physical(workload.yeast))
    if workload.kind == "yeast_cell":
        data = yeast_cell(workload.yeast)
        genes = data["gene"].num_nodes
        # The tables have no regulatory relation.
        data[REGULATORY].edge_index = regulatory_pairs(genes, REGULATORY_EDGES, workload.seed + 1)
        return sorted_edges(data)
    raise ValueError(f"no workload '{workload.kind}'")


def cell_graph(scale: float = 1.0, seed: int = 0) -> HeteroData:
    """A cell of the yeast cell graph's sizes, with generated topology."""

    def size(count: int) -> int:
        return max(8, round(count * scale))

    data = HeteroData()
    genes, reactions, metabolites = size(GENES), size(REACTIONS), size(METABOLITES)
    data["gene"].num_nodes = genes
    data["reaction"].num_nodes = reactions
    data["metabolite"].num_nodes = metabolites
    data[PHYSICAL].edge_index = symmetric_pairs(genes, size(PHYSICAL_EDGES), seed)
    data[REGULATORY].edge_index = regulatory_pairs(genes, size(REGULATORY_EDGES), seed + 1)
    data[GPR].edge_index = power_law_pairs(genes, reactions, size(GPR_EDGES), seed + 2, HUBS, MILD)
    # Currency metabolites (water, ATP, protons) are hubs; a reaction has a handful of metabolites.
    rmr = power_law_pairs(reactions, metabolites, size(RMR_EDGES), seed + 3, MILD, HUBS)
    data[RMR].edge_index = rmr
    generator = torch.Generator().manual_seed(seed + 4)
    sign = torch.randint(2, (rmr.size(1),), generator=generator) * 2.0 - 1
    data[RMR].stoichiometry = sign * torch.randint(1, 4, (rmr.size(1),), generator=generator)
    return data


def regulatory_pairs(genes: int, edges: int, seed: int) -> Tensor:
    """Directed: few regulators with many targets, and no hubs among the targets."""
    return power_law_pairs(genes, genes, edges, seed, HUBS, MILD)


def power_law_pairs(
    num_sources: int, num_targets: int, num_edges: int, seed: int, sources: float, targets: float
) -> Tensor:
    """Exactly ``num_edges`` different directed pairs; expected degrees follow power laws (Chung and Lu 2002).

    Args:
        num_sources: Number of sources.
        num_targets: Number of targets.
        num_edges: Number of pairs.
        seed: Of the generator.
        sources: Exponent of the sources' degree distribution.
        targets: Exponent of the targets' degree distribution.
    """
    generator = torch.Generator().manual_seed(seed)
    draw_source = _sampler(num_sources, sources, generator)
    draw_target = _sampler(num_targets, targets, generator)
    if num_edges > num_sources * num_targets // 2:
        raise ValueError(f"{num_edges} edges are too many for {num_sources} x {num_targets} nodes")
    found = _different(
        lambda count: draw_target(count) * num_sources + draw_source(count), num_edges
    )
    keep = torch.randperm(found.numel(), generator=generator)[:num_edges]
    found = found[keep].sort().values
    return torch.stack([found % num_sources, found // num_sources])


def symmetric_pairs(num_nodes: int, num_edges: int, seed: int) -> Tensor:
    """Exactly ``num_edges`` directed pairs, both directions of each; an odd number has one self pair."""
    generator = torch.Generator().manual_seed(seed)
    draw = _sampler(num_nodes, HUBS, generator)
    wanted = num_edges // 2
    if num_edges > num_nodes * (num_nodes - 1) // 2:
        raise ValueError(f"{num_edges} edges are too many for {num_nodes} nodes")

    def draw_pairs(count: int) -> Tensor:
        a, b = draw(count), draw(count)
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        return (low * num_nodes + high)[low != high]

    found = _different(draw_pairs, wanted)
    keep = torch.randperm(found.numel(), generator=generator)[:wanted]
    low, high = found[keep] // num_nodes, found[keep] % num_nodes
    loops = torch.zeros(num_edges % 2, dtype=torch.long)
    source, target = torch.cat([low, high, loops]), torch.cat([high, low, loops])
    order = (target * num_nodes + source).argsort()
    return torch.stack([source[order], target[order]])


def _different(draw: Callable[[int], Tensor], wanted: int) -> Tensor:
    """At least ``wanted`` different values, ascending."""
    found, new_share = torch.empty(0, dtype=torch.long), 1.0
    while found.numel() < wanted:
        count = int((wanted - found.numel()) / new_share) + 1024
        before = found.numel()
        found = torch.cat([found, draw(count)]).unique()
        # The denser the graph is already, the more of what is drawn is known.
        new_share = max((found.numel() - before) / count / 2, 0.05)
    return found


def _sampler(
    num_nodes: int, exponent: float, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """Draws nodes with weights whose tail has the exponent; which node is a hub is random."""
    weight = torch.arange(1, num_nodes + 1, dtype=torch.float64).pow(-1 / (exponent - 1))
    bounds = weight.cumsum(0) / weight.sum()
    name = torch.randperm(num_nodes, generator=generator)

    def draw(count: int) -> Tensor:
        place = torch.rand(count, dtype=torch.float64, generator=generator)
        return name[torch.searchsorted(bounds, place).clamp(max=num_nodes - 1)]

    return draw


def sorted_edges(data: HeteroData) -> HeteroData:
    """The same graph with each relation sorted by (target, source), attributes along."""
    for edge_type in data.edge_types:
        store = data[edge_type]
        source, target = store.edge_index
        order = (target * data[edge_type[0]].num_nodes + source).argsort()
        for name, value in store.items():
            store[name] = value[..., order].contiguous()
    return data


def only_relation(data: HeteroData) -> tuple[int, Tensor]:
    """Number of nodes and ``edge_index`` of a graph with one node type and one relation."""
    (node_type,) = data.node_types
    (edge_type,) = data.edge_types
    return int(data[node_type].num_nodes), data[edge_type].edge_index


def union_index(edge_index: Tensor, num_nodes: int, copies: int) -> Tensor:
    """``edge_index`` of a disjoint union of copies, sorted as one copy is."""
    shift = torch.arange(copies)[:, None, None] * num_nodes
    return (edge_index[None] + shift).permute(1, 0, 2).reshape(2, -1).contiguous()

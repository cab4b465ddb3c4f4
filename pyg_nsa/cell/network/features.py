"""Node features that the wildtype alone provides.

A gene that no training instance deletes can only be judged by its place in the network, which learned embeddings of
nodes cannot carry over to it. So nodes get features; every one is computed from the unperturbed model, and none uses the
result of a deletion. (Some say much about one all the same: a reaction that must carry flux at optimal growth cannot be
lost without harm. That is what features are for; leave ``flux_variability`` out to see what structure alone can do.)

Wildtype fluxes are the *parsimonious* optimum: of all fluxes with optimal growth those with the least total flux (pFBA,
Lewis et al., *Molecular Systems Biology* 2010), since an arbitrary optimum holds idle loops. Fluxes and their bounds
span many orders of magnitude, so they enter as ``log(1 + |v| / 1e-6)``, counts as ``log(1 + n)``. Every column that
is not 0/1 is then standardised over the nodes of its type (constant columns become 0).

==================== ========== =========================================================================================
name                 node type  columns
==================== ========== =========================================================================================
flux                 reaction   wildtype flux in the node's direction; whether it carries flux
flux_variability     reaction   least and largest flux in the node's direction at optimal growth (FVA; Mahadevan &
                                Schilling, *Metabolic Engineering* 2003); whether the least is above 0. Two LPs a
                                reaction: 0.02 s for the textbook model, about 10 s for iJO1366
bounds               reaction   largest flux that the bounds allow in the node's direction; whether some flux is forced
reversibility        reaction   whether the reaction is reversible; whether the node is its backward direction
isozymes             reaction   number of clauses of the reaction; whether it has a gene
degree               all        reaction: genes, substrates and products; gene: reaction nodes, and neighbours in each
                                gene–gene relation (in, out); metabolite: nodes that produce it, nodes that consume it
gene_flux            gene       sum and largest of the absolute wildtype flux of its reactions
gene_reactions       gene       number of its reactions; of those without another clause that lacks the gene (no isozyme)
shadow_price         metabolite sign and size of growth's change per unit of the metabolite that is drained
random_walk          all        chance that a random walk over gene–reaction and reaction–metabolite edges is back after
                                2, 4, …, 16 steps (Dwivedi et al., ICLR 2022; odd numbers are 0 on a bipartite graph).
                                Opt-in
subsystem            reaction,  whether the model files the reaction under a subsystem (a pathway), a column for each; gene:
                     gene       whether one of its reactions is. Opt-in
==================== ========== =========================================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import highspy
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from torch_geometric.data import HeteroData
from tqdm import tqdm

from pyg_nsa.cell.data_names import DEFAULT_FEATURES, FEATURES
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.labels.lp_solver import TOLERANCE, linear_program
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork
from pyg_nsa.cell.network.reaction_nodes import ReactionNodes

__all__ = [
    "DEFAULT_FEATURES",
    "FEATURES",
    "add_features",
    "flux_variability",
    "parsimonious_fluxes",
    "return_probabilities",
]

FLUX_UNIT = 1e-6
PRICE_UNIT = 1e-3  # a thousandth of the growth, per unit of a metabolite
WALK_STEPS: tuple[int, ...] = (2, 4, 6, 8, 10, 12, 14, 16)

Column = NDArray[np.float64]


def add_features(
    data: HeteroData,
    network: MetabolicNetwork,
    nodes: ReactionNodes,
    features: bool | Sequence[str] = True,
) -> None:
    """Set ``x`` ([N, F] float32) and ``feature_names`` (list of F str) of every node type; with ``flux`` also the fluxes themselves.

    These are ``data["reaction"].flux`` ([N] float32), the wildtype flux of each node's reaction, negative if it runs backwards.

    Args:
        data: The graph, its nodes and edges complete; changed in place.
        network: The model.
        nodes: Its reaction nodes.
        features: ``True`` for :data:`DEFAULT_FEATURES`, ``False`` for none, or names of :data:`FEATURES`.

    Raises:
        ValueError: For an unknown name, or ``"subsystem"`` and a model without any; or from the simulator, if the wildtype
            does not grow and a feature needs its optimum.
    """
    names = check_features(features)
    source = _Source(data, network, nodes)
    columns = _Columns()
    for name in names:
        _BUILDERS[name](columns, source)
    for node_type in ("gene", "reaction", "metabolite"):
        count = data[node_type].num_nodes
        named = columns.of[node_type]
        x = (
            np.stack([_standardised(c) for c in named.values()], axis=1)
            if named
            else np.zeros((count, 0))
        )
        data[node_type].x = torch.from_numpy(x.astype(np.float32))
        data[node_type].feature_names = list(named)
    if "flux" in names:
        data["reaction"].flux = torch.from_numpy(source.fluxes[nodes.reaction].astype(np.float32))


def check_features(features: bool | Sequence[str]) -> tuple[str, ...]:
    """Names of features, checked, in the order of :data:`FEATURES`.

    Args:
        features: As for :func:`add_features`.

    Returns:
        The names.

    Raises:
        ValueError: For an unknown name, with the nearest known one.
    """
    if isinstance(features, bool):
        return DEFAULT_FEATURES if features else ()
    chosen = (features,) if isinstance(features, str) else tuple(features)
    for name in chosen:
        if name not in FEATURES:
            close = difflib.get_close_matches(str(name), FEATURES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"Unknown feature {name!r}: expected some of {', '.join(FEATURES)}.{hint}"
            )
    return tuple(name for name in FEATURES if name in chosen)


class _Columns:
    """Named columns of each node type, in order."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, Column]] = {"gene": {}, "reaction": {}, "metabolite": {}}

    def add(self, node_type: str, name: str, values: NDArray) -> None:
        self.of[node_type][name] = np.asarray(values, np.float64)


@dataclass
class _Source:
    """What features are computed from; the wildtype's optimum is solved where one asks for it."""

    data: HeteroData
    network: MetabolicNetwork
    nodes: ReactionNodes

    @cached_property
    def growth(self) -> float:
        return GrowthSimulator(self.network).wildtype_growth

    @cached_property
    def fluxes(self) -> NDArray[np.float64]:
        return parsimonious_fluxes(self.network, self.growth)


def _standardised(column: Column) -> Column:
    """Mean 0 and standard deviation 1, unless the column is 0/1 or constant."""
    if np.isin(column, (0.0, 1.0)).all() and column.size and column.min() != column.max():
        return column
    deviation = column.std() if column.size else 0.0
    return (column - column.mean()) / deviation if deviation > 1e-12 else np.zeros_like(column)


def _log_flux(values: NDArray[np.float64]) -> Column:
    """Fluxes on a logarithmic scale that keeps 0 at 0, and infinite bounds finite."""
    return np.log1p(np.clip(values, 0.0, 1e6) / FLUX_UNIT)


def _one_way(values: NDArray[np.float64], nodes: ReactionNodes) -> Column:
    """Reaction fluxes as seen by every node: its part of the flux in its own direction."""
    return np.maximum(values[nodes.reaction] * nodes.direction, 0.0)


# --- the features -------------------------------------------------------------


def _flux(out: _Columns, of: _Source) -> None:
    flux = _one_way(of.fluxes, of.nodes)
    out.add("reaction", "flux", _log_flux(flux))
    out.add("reaction", "carries_flux", flux > TOLERANCE)


def _variability(out: _Columns, of: _Source) -> None:
    lowest, highest = flux_variability(of.network, of.growth)
    least = np.where(of.nodes.direction > 0, lowest[of.nodes.reaction], -highest[of.nodes.reaction])
    most = np.where(of.nodes.direction > 0, highest[of.nodes.reaction], -lowest[of.nodes.reaction])
    out.add("reaction", "flux_min", _log_flux(least))
    out.add("reaction", "flux_max", _log_flux(most))
    # LP noise around 0 would otherwise count as a flux that growth needs.
    out.add("reaction", "flux_needed", least > FLUX_UNIT)


def _bounds(out: _Columns, of: _Source) -> None:
    forward = of.nodes.direction > 0
    most = np.where(
        forward, of.network.upper[of.nodes.reaction], -of.network.lower[of.nodes.reaction]
    )
    least = np.where(
        forward, of.network.lower[of.nodes.reaction], -of.network.upper[of.nodes.reaction]
    )
    out.add("reaction", "bound", _log_flux(most))
    out.add("reaction", "forced", least > 0)


def _reversibility(out: _Columns, of: _Source) -> None:
    reversible = (of.network.lower < 0) & (of.network.upper > 0)
    out.add("reaction", "reversible", reversible[of.nodes.reaction])
    out.add("reaction", "backward", of.nodes.direction < 0)


def _isozymes(out: _Columns, of: _Source) -> None:
    counts = np.array([len(clauses) for clauses in of.network.clauses])
    out.add("reaction", "isozymes", np.log1p(counts[of.nodes.reaction]))
    out.add("reaction", "has_gene", of.nodes.has_gene)


def _degree(out: _Columns, of: _Source) -> None:
    genes, reactions, metabolites = (
        of.data[t].num_nodes for t in ("gene", "reaction", "metabolite")
    )
    gene, catalysed = of.nodes.gene_edges
    reaction, metabolite = of.nodes.metabolite_edges
    made = of.nodes.stoichiometry > 0

    def count(index: NDArray[np.int64], size: int) -> Column:
        return np.log1p(np.bincount(index, minlength=size))

    out.add("gene", "degree_gpr", count(gene, genes))
    for edge_type in of.data.edge_types:
        if edge_type[0] == edge_type[2] == "gene":
            source, target = of.data[edge_type].edge_index.numpy()
            out.add("gene", f"out_degree_{edge_type[1]}", count(source, genes))
            out.add("gene", f"in_degree_{edge_type[1]}", count(target, genes))
    out.add("reaction", "degree_genes", count(catalysed, reactions))
    out.add("reaction", "degree_substrates", count(reaction[~made], reactions))
    out.add("reaction", "degree_products", count(reaction[made], reactions))
    out.add("metabolite", "degree_producers", count(metabolite[made], metabolites))
    out.add("metabolite", "degree_consumers", count(metabolite[~made], metabolites))


def _gene_flux(out: _Columns, of: _Source) -> None:
    size = np.abs(of.fluxes)
    total = np.zeros(of.data["gene"].num_nodes)
    largest = np.zeros(of.data["gene"].num_nodes)
    gene, reaction = _memberships(of.network)
    np.add.at(total, gene, size[reaction])
    np.maximum.at(largest, gene, size[reaction])
    out.add("gene", "flux_sum", _log_flux(total))
    out.add("gene", "flux_largest", _log_flux(largest))


def _gene_reactions(out: _Columns, of: _Source) -> None:
    count = of.data["gene"].num_nodes
    gene, reaction = _memberships(of.network)
    alone = np.array(
        [
            all(g in clause for clause in of.network.clauses[r])
            for g, r in zip(gene.tolist(), reaction.tolist(), strict=True)
        ],
        np.bool_,
    )
    out.add("gene", "reactions", np.log1p(np.bincount(gene, minlength=count)))
    out.add(
        "gene", "reactions_without_isozyme", np.log1p(np.bincount(gene[alone], minlength=count))
    )


def _shadow_price(out: _Columns, of: _Source) -> None:
    # From a fresh solve, so that the value cannot depend on what was solved before.
    solver = linear_program(of.network)
    solver.run()
    price = np.asarray(solver.getSolution().row_dual)
    scaled = price / (of.growth * PRICE_UNIT)
    out.add("metabolite", "shadow_price", np.sign(scaled) * np.log1p(np.abs(scaled)))


def _random_walk(out: _Columns, of: _Source) -> None:
    sizes = [of.data[t].num_nodes for t in ("gene", "reaction", "metabolite")]
    starts = np.cumsum([0, *sizes])
    gene, catalysed = of.nodes.gene_edges
    reaction, metabolite = of.nodes.metabolite_edges
    rows = np.concatenate([gene, reaction + starts[1]])
    columns = np.concatenate([catalysed + starts[1], metabolite + starts[2]])
    chances = return_probabilities(rows, columns, int(starts[-1]), WALK_STEPS)
    for node_type, low, high in zip(of.data.node_types, starts[:-1], starts[1:], strict=True):
        for k, steps in enumerate(WALK_STEPS):
            out.add(node_type, f"random_walk_{steps}", chances[low:high, k])


def _subsystem(out: _Columns, of: _Source) -> None:
    found = np.array(of.network.subsystems or [""])
    names = sorted({*found.tolist()} - {""})
    if not names:
        raise ValueError(
            f"features: 'subsystem': model {of.network.model_id!r} files no reaction under a subsystem. "
            "Leave this feature out, or set reaction.subsystem in the model."
        )
    gene, reaction = _memberships(of.network)
    for name in names:
        out.add("reaction", f"subsystem_{name}", found[of.nodes.reaction] == name)
        members = np.zeros(of.data["gene"].num_nodes)
        members[gene[found[reaction] == name]] = 1.0
        if members.any():
            out.add("gene", f"subsystem_{name}", members)


def _memberships(network: MetabolicNetwork) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (gene, reaction) with the gene in some clause of the reaction, each once."""
    found = [
        (gene, reaction)
        for reaction, clauses in enumerate(network.clauses)
        for gene in sorted({gene for clause in clauses for gene in clause})
    ]
    gene, reaction = np.array(found, np.int64).reshape(-1, 2).T
    return gene, reaction


_BUILDERS = {
    "flux": _flux,
    "flux_variability": _variability,
    "bounds": _bounds,
    "reversibility": _reversibility,
    "isozymes": _isozymes,
    "degree": _degree,
    "gene_flux": _gene_flux,
    "gene_reactions": _gene_reactions,
    "shadow_price": _shadow_price,
    "random_walk": _random_walk,
    "subsystem": _subsystem,
}


# --- what they are computed from ----------------------------------------------


def parsimonious_fluxes(network: MetabolicNetwork, growth: float) -> NDArray[np.float64]:
    """Wildtype fluxes with optimal growth and the least sum of absolute fluxes.

    Args:
        network: The model.
        growth: Its optimal growth.

    Returns:
        [R] float64.

    Raises:
        RuntimeError: If HiGHS cannot solve the LP.
    """
    solver = linear_program(network)
    count = len(network.reactions)
    everything = np.arange(count, dtype=np.int32)
    # |v| as a column t of its own, with t >= v and t >= -v; only reactions with both signs need that.
    both = np.flatnonzero((network.lower < 0) & (network.upper > 0)).astype(np.int32)
    cost = np.where(network.upper <= 0, 1.0, -1.0)
    cost[both] = 0.0
    solver.changeColsCost(count, everything, cost)
    for k, reaction in enumerate(both.tolist()):
        solver.addCol(-1.0, 0.0, highspy.kHighsInf, 0, np.empty(0, np.int32), np.empty(0))
        for sign in (1.0, -1.0):
            index = np.array([count + k, reaction], np.int32)
            solver.addRow(0.0, highspy.kHighsInf, 2, index, np.array([1.0, sign]))
    _hold_growth(solver, network, growth)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        status = solver.modelStatusToString(solver.getModelStatus())
        raise RuntimeError(
            f"Model {network.model_id!r}: parsimonious fluxes: HiGHS stopped with {status!r}."
        )
    fluxes = np.asarray(solver.getSolution().col_value)[:count]
    return np.where(np.abs(fluxes) > TOLERANCE, fluxes, 0.0)


def flux_variability(
    network: MetabolicNetwork, growth: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest flux of every reaction at optimal growth.

    Args:
        network: The model.
        growth: Its optimal growth.

    Returns:
        [R] float64 each. Two LPs a reaction, warm-started, less where a flux at its bound was already met.

    Raises:
        RuntimeError: If HiGHS cannot solve an LP.
    """
    solver = linear_program(network)
    count = len(network.reactions)
    solver.changeColsCost(count, np.arange(count, dtype=np.int32), np.zeros(count))
    _hold_growth(solver, network, growth)
    solver.setOptionValue("simplex_strategy", 4)  # primal: only the cost changes between LPs
    lowest, highest = network.upper.copy(), network.lower.copy()
    for sign, best, limit, name in (
        (-1.0, lowest, network.lower, "least fluxes"),
        (1.0, highest, network.upper, "largest fluxes"),
    ):
        for reaction in tqdm(range(count), name, disable=None):
            if abs(best[reaction] - limit[reaction]) <= TOLERANCE:
                continue  # an earlier solution already stands at the bound
            solver.changeColCost(reaction, sign)
            solver.run()
            status = solver.getModelStatus()
            if status != highspy.HighsModelStatus.kOptimal:
                # The optimal face is thin, and a warm start may lose it to rounding: once more from scratch.
                solver.clearSolver()
                solver.setOptionValue("simplex_strategy", 1)
                solver.run()
                solver.setOptionValue("simplex_strategy", 4)
                status = solver.getModelStatus()
            solver.changeColCost(reaction, 0.0)
            if status == highspy.HighsModelStatus.kUnbounded:
                best[reaction] = sign * np.inf
                continue
            if status != highspy.HighsModelStatus.kOptimal:
                raise RuntimeError(
                    f"Model {network.model_id!r}: flux variability of {network.reactions[reaction]!r}: HiGHS stopped "
                    f"with {solver.modelStatusToString(status)!r}."
                )
            fluxes = np.asarray(solver.getSolution().col_value)
            np.minimum(lowest, fluxes, out=lowest)
            np.maximum(highest, fluxes, out=highest)
    return lowest, highest


def _hold_growth(solver: highspy.Highs, network: MetabolicNetwork, growth: float) -> None:
    """Require optimal growth, less a relative 1e-9 that keeps the optimal face numerically feasible."""
    grows = np.flatnonzero(network.objective).astype(np.int32)
    solver.addRow(
        growth * (1 - 1e-9), highspy.kHighsInf, len(grows), grows, network.objective[grows]
    )


def return_probabilities(
    rows: NDArray[np.int64], columns: NDArray[np.int64], count: int, steps: Sequence[int]
) -> NDArray[np.float64]:
    """Chance that a random walk on an undirected graph is back at its start.

    Args:
        rows: [E] one end of every edge.
        columns: [E] the other end; an edge is given once.
        count: Number of nodes.
        steps: Even numbers of steps, ascending.

    Returns:
        [count, len(steps)] float64; 0 for a node without edges.
    """
    ends = (np.concatenate([rows, columns]), np.concatenate([columns, rows]))
    adjacency = csr_array(coo_array((np.ones(len(ends[0])), ends), shape=(count, count)))
    adjacency.data[:] = 1.0
    degree = adjacency.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros(count), where=degree > 0)
    scaled = csr_array(diags_array(scale) @ adjacency @ diags_array(scale)).astype(np.float32)
    # With S = D^-1/2 A D^-1/2, symmetric, the chance after 2m steps is (S^2m)_ii = |S^m e_i|²: half the products, and
    # blocks of columns keep the dense part small.
    result = np.zeros((count, len(steps)))
    for start in range(0, count, 256):
        block = np.arange(start, min(start + 256, count))
        walk = np.zeros((count, len(block)), np.float32)
        walk[block, np.arange(len(block))] = 1.0
        for step in range(1, max(steps) // 2 + 1):
            walk = scaled @ walk
            if 2 * step in steps:
                squares = np.einsum("ij,ij->j", walk, walk, dtype=np.float64)
                result[block, list(steps).index(2 * step)] = squares
    result[degree == 0] = 0.0
    return result

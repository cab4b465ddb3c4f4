"""The cell as a heterogeneous graph: genes, reactions, metabolites.

Nodes
    ``gene``: the model's genes in its order, then any that the user's tables add.
    ``reaction``: one node per reaction × clause of its gene rule (isozyme) × direction. A reaction without genes has
    one node per direction. Every reaction has a forward node unless its bounds allow only backward flux, and a backward
    node if its lower bound is negative; a reaction that the model blocks (both bounds 0) so keeps its forward node.
    ``metabolite``: the model's metabolites in its order.

Edges
    ``(gene, gpr, reaction)``: the genes of a reaction node's clause.
    ``(reaction, rmr, metabolite)``: ``stoichiometry`` [E] float32, negative where the node consumes (a backward node has
    the reaction's signs flipped), and ``edge_type`` [E] int64: 0 substrate, 1 product.
    ``(reaction, rev_gpr, gene)``, ``(metabolite, rev_rmr, reaction)``: the same reversed, so that information also
    flows back to the genes.
    ``(gene, <name>, gene)``: the user's tables; or, without tables, two proxies that the model itself gives:
    ``co_complex`` (genes of one clause, both directions) and ``producer_consumer`` (directed, see
    :func:`producer_consumer_pairs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import cobra
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.features import add_features
from pyg_nsa.cell.network.gene_tables import UnknownGenes, check_unknown, read_gene_pairs
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, as_network
from pyg_nsa.cell.network.names import ids_as_written
from pyg_nsa.cell.network.reaction_nodes import ReactionNodes, expand_reactions

__all__ = [
    "MAX_DEGREE",
    "UnknownGenes",
    "build_graph",
    "co_complex_pairs",
    "producer_consumer_pairs",
]

MAX_DEGREE = 20
"""Metabolites of more reactions (water, ATP, protons, …) join nothing in particular."""


def build_graph(
    model: cobra.Model | MetabolicNetwork,
    *,
    gene_tables: Mapping[str, str | Path | pd.DataFrame] | None = None,
    unknown: UnknownGenes = "error",
    proxies: bool | None = None,
    reverse: bool = True,
    features: bool | Sequence[str] = True,
) -> HeteroData:
    """Build the graph of the unperturbed cell.

    Args:
        model: The metabolic model.
        gene_tables: Gene–gene relations by name: a CSV, TSV or Parquet file or a ``DataFrame``, whose first two columns
            are gene ids (source, target). A file may have a header line: it has one if neither of the first line's two
            ids is a gene of the model. Pairs are taken as directed and as they are, each once.
        unknown: What to do with ids in ``gene_tables`` that the model lacks: ``"error"``, ``"skip"`` their pairs
            with a warning, or ``"add"`` gene nodes, after the model's genes, in the order of their first mention.
        proxies: Whether to add ``co_complex`` and ``producer_consumer``. ``None``: only without ``gene_tables``.
        reverse: Whether to add ``rev_gpr`` and ``rev_rmr``.
        features: ``True`` for the default node features, ``False`` for none (``x`` has zero columns), or names of
            :data:`pyg_nsa.cell.network.features.FEATURES`.

    Returns:
        The graph. Every node type has ``node_ids`` (list of str), ``num_nodes``, ``x`` ([N, F] float32) and
        ``feature_names``; relations between types have ``hyperedge_index`` and ``edge_index`` (one tensor, [2, E]
        int64); ``model_id`` is the model's name. ``data["reaction"]`` also has, each [N]: ``reaction_index`` (int64,
        the reaction in the model), ``direction`` (int64, 1 forward, -1 backward), ``reversible`` (bool, whether the
        bounds allow both directions), ``has_gene`` (bool) and ``objective`` (float32, what a unit of flux through the node adds to the
        model's objective), and with the feature ``flux`` also ``flux`` (float32, the wildtype flux of the node's reaction). Reaction nodes are named ``<reaction>|<number of the clause>|forward`` or ``…|backward``.

    Raises:
        TableError: If a table cannot be read, or has unknown ids and ``unknown="error"``, or names of the model's genes and
            ``unknown="add"``.
        ValueError: For a relation name that the graph uses itself, or unknown feature names.
    """
    network = as_network(model)
    tables = dict(gene_tables or {})
    check_unknown(unknown)
    use_proxies = not tables if proxies is None else proxies
    if use_proxies and (taken := {"co_complex", "producer_consumer"} & set(tables)):
        raise ValueError(
            f"gene_tables: {sorted(taken)[0]!r} is the name of a proxy relation. "
            "Rename the table, or build the graph with proxies=False."
        )
    nodes = expand_reactions(network)
    gene_ids, written = list(network.genes), ids_as_written(network)
    relations: dict[str, NDArray[np.int64]] = {}
    for name, table in tables.items():
        relations[name] = read_gene_pairs(name, table, gene_ids, unknown, written=written).pairs
    if use_proxies:
        relations["co_complex"] = co_complex_pairs(network)
        relations["producer_consumer"] = producer_consumer_pairs(network)

    data = HeteroData()
    data.model_id = network.model_id
    _add_nodes(data, network, nodes, gene_ids)
    for name, pairs in relations.items():
        data["gene", name, "gene"].edge_index = torch.from_numpy(pairs)
    gpr: dict[str, Any] = {"hyperedge_index": torch.from_numpy(nodes.gene_edges)}
    rmr: dict[str, Any] = {
        "hyperedge_index": torch.from_numpy(nodes.metabolite_edges),
        "stoichiometry": torch.from_numpy(nodes.stoichiometry.astype(np.float32)),
        "edge_type": torch.from_numpy((nodes.stoichiometry > 0).astype(np.int64)),
    }
    _add_relation(data, ("gene", "gpr", "reaction"), gpr, reverse)
    _add_relation(data, ("reaction", "rmr", "metabolite"), rmr, reverse)
    add_features(data, network, nodes, features)
    return data


def _add_nodes(
    data: HeteroData, network: MetabolicNetwork, nodes: ReactionNodes, gene_ids: list[str]
) -> None:
    """Ids and numbers of the nodes, and what reaction nodes stand for."""
    ids = {"gene": gene_ids, "reaction": nodes.ids, "metabolite": list(network.metabolites)}
    for node_type, names in ids.items():
        data[node_type].node_ids = list(names)
        data[node_type].num_nodes = len(names)
    data["reaction"].reaction_index = torch.from_numpy(nodes.reaction)
    data["reaction"].direction = torch.from_numpy(nodes.direction)
    reversible = (network.lower < 0) & (network.upper > 0)
    data["reaction"].reversible = torch.from_numpy(reversible[nodes.reaction])
    data["reaction"].has_gene = torch.from_numpy(nodes.has_gene)
    objective = network.objective[nodes.reaction] * nodes.direction
    data["reaction"].objective = torch.from_numpy(objective.astype(np.float32))


def _add_relation(
    data: HeteroData, edge_type: tuple[str, str, str], store: dict[str, Any], reverse: bool
) -> None:
    """Store a relation between node types, and its reverse."""
    source, name, target = edge_type
    ways = [(edge_type, store["hyperedge_index"])]
    if reverse:
        ways.append(
            ((target, f"rev_{name}", source), store["hyperedge_index"].flip(0).contiguous())
        )
    for key, index in ways:
        for field, value in store.items():
            data[key][field] = index if field == "hyperedge_index" else value
        data[key].edge_index = index


def co_complex_pairs(network: MetabolicNetwork) -> NDArray[np.int64]:
    """Pairs of different genes that stand in one clause, joined by ``and``; both directions.

    Args:
        network: The model.

    Returns:
        [2, E] int64, unique, ascending.
    """
    pairs = {
        pair
        for clauses in network.clauses
        for clause in clauses
        for pair in permutations(clause, 2)
    }
    return _sorted_pairs(pairs)


def _sorted_pairs(pairs: set[tuple[int, int]]) -> NDArray[np.int64]:
    """[2, E] int64 of a set of pairs, in an order that does not depend on hashing."""
    return np.ascontiguousarray(np.array(sorted(pairs), np.int64).reshape(-1, 2).T)


def producer_consumer_pairs(
    network: MetabolicNetwork, max_degree: int = MAX_DEGREE
) -> NDArray[np.int64]:
    """Directed pairs: a gene of a reaction that makes a metabolite → a gene of another reaction that uses it.

    Metabolites that take part in more than ``max_degree`` reactions are left out. A reversible reaction makes and uses
    all its metabolites, but a reaction is never joined to itself.

    Args:
        network: The model.
        max_degree: Largest number of reactions of a metabolite that joins genes.

    Returns:
        [2, E] int64, unique, no self pairs, ascending.
    """
    matrix = network.stoichiometry.tocsr().copy()
    matrix.data = np.sign(matrix.data)
    degree = np.diff(matrix.indptr)
    keep = np.repeat(degree <= max_degree, degree)
    coo = matrix.tocoo()
    metabolite, reaction, sign = coo.row[keep], coo.col[keep], coo.data[keep]
    forward = ~((network.upper <= 0) & (network.lower < 0))[reaction]
    backward = (network.lower < 0)[reaction]
    makes = np.where(sign > 0, forward, backward)
    uses = np.where(sign > 0, backward, forward)
    shape = matrix.shape
    made = csr_array((np.ones(makes.sum()), (metabolite[makes], reaction[makes])), shape=shape)
    used = csr_array((np.ones(uses.sum()), (metabolite[uses], reaction[uses])), shape=shape)
    joined = (made.T @ used).tolil()
    joined.setdiag(0)
    joined = joined.tocsr()
    joined.eliminate_zeros()
    members = [
        (r, g) for r, cs in enumerate(network.clauses) for g in sorted({g for c in cs for g in c})
    ]
    rows, columns = np.array(members, np.int64).reshape(-1, 2).T
    genes = csr_array((np.ones(len(rows)), (rows, columns)), shape=(shape[1], len(network.genes)))
    pairs = (genes.T @ joined @ genes).tocoo()
    different = pairs.row != pairs.col
    source, target = pairs.row[different].astype(np.int64), pairs.col[different].astype(np.int64)
    order = np.lexsort((target, source))
    return np.stack([source[order], target[order]])

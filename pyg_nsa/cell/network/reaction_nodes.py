"""Reaction nodes: a model's reactions, expanded by clause of the gene rule and by direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

__all__ = ["ReactionNodes", "expand_reactions", "reaction_id"]


@dataclass(frozen=True, eq=False)
class ReactionNodes:
    """``N`` reaction nodes and their edges.

    Attributes:
        ids: ``N`` names, ``<reaction>|<number of the clause>|forward`` or ``…|backward``.
        reaction: [N] int64, index of the reaction in the model; ascending.
        direction: [N] int64, 1 forward, -1 backward.
        has_gene: [N] bool, whether the node stands for a clause.
        gene_edges: [2, E] int64, (gene, node), ascending by node.
        metabolite_edges: [2, E] int64, (node, metabolite), ascending by node.
        stoichiometry: [E] float64 of ``metabolite_edges``; negative where the node consumes.
    """

    ids: list[str]
    reaction: NDArray[np.int64]
    direction: NDArray[np.int64]
    has_gene: NDArray[np.bool_]
    gene_edges: NDArray[np.int64]
    metabolite_edges: NDArray[np.int64]
    stoichiometry: NDArray[np.float64]


def expand_reactions(network: MetabolicNetwork) -> ReactionNodes:
    """Make one node per reaction × clause × direction.

    Args:
        network: The model.

    Returns:
        The nodes, in the model's order of reactions, then by clause, forward before backward.
    """
    ids: list[str] = []
    reaction: list[int] = []
    direction: list[int] = []
    has_gene: list[bool] = []
    gene_edges: list[tuple[int, int]] = []
    for r, clauses in enumerate(network.clauses):
        # A reaction that the bounds block altogether keeps its forward node: it is still part of the cell.
        only_backward = network.upper[r] <= 0 and network.lower[r] < 0
        ways = [1] * (not only_backward) + [-1] * bool(network.lower[r] < 0)
        for k, clause in enumerate(clauses or ((),)):
            for way in ways:
                node = len(ids)
                ids.append(f"{network.reactions[r]}|{k}|{'forward' if way > 0 else 'backward'}")
                reaction.append(r)
                direction.append(way)
                has_gene.append(bool(clause))
                gene_edges.extend((gene, node) for gene in clause)
    of_node = np.array(reaction, np.int64)
    sign = np.array(direction, np.int64)
    matrix = network.stoichiometry
    starts = np.asarray(matrix.indptr, np.int64)
    lengths = np.diff(starts)[of_node]
    owner = np.repeat(np.arange(len(ids)), lengths)
    # Position of every node's column in the matrix, run after run.
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = starts[of_node][owner] + within
    return ReactionNodes(
        ids=ids,
        reaction=of_node,
        direction=sign,
        has_gene=np.array(has_gene, np.bool_),
        gene_edges=np.ascontiguousarray(np.array(gene_edges, np.int64).reshape(-1, 2).T),
        metabolite_edges=np.stack([owner, np.asarray(matrix.indices, np.int64)[position]]),
        stoichiometry=np.asarray(matrix.data, np.float64)[position] * sign[owner],
    )


def reaction_id(node_id: str) -> str:
    """The model's id of the reaction that a node (see :attr:`ReactionNodes.ids`) is a clause and a direction of."""
    return node_id.split("|")[0]

"""Which nodes a deletion takes away.

A deleted gene removes its node. A reaction node is removed when any gene of its clause is deleted, for the clause needs
all of them; the reaction's other clauses have nodes of their own. Metabolites stay.

This is *not* the set of inactive reactions of :mod:`pyg_nsa.cell.labels.fba`: a reaction is inactive once all its clauses are
lost.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import HeteroData

__all__ = ["DeletionRule"]


class DeletionRule:
    """Turns deleted genes into living nodes, for many instances at once.

    Args:
        graph: The base graph.

    Attributes:
        num_nodes: Number of nodes of each node type.
    """

    def __init__(self, graph: HeteroData) -> None:
        self.num_nodes: dict[str, int] = {t: int(graph[t].num_nodes) for t in graph.node_types}
        gene, node = graph["gene", "gpr", "reaction"].hyperedge_index.numpy()
        # Reaction nodes of gene g: self._nodes[self._start[g] : self._start[g + 1]].
        self._nodes = node[np.argsort(gene, kind="stable")]
        self._start = np.searchsorted(np.sort(gene), np.arange(self.num_nodes["gene"] + 1))

    def alive(self, genes: Tensor, instance: Tensor, num_instances: int) -> dict[str, Tensor]:
        """Living nodes of a batch.

        Args:
            genes: [D] int64, all deleted genes of all instances; on the CPU.
            instance: [D] int64, the instance of each.
            num_instances: ``B``.

        Returns:
            Per node type [B, N] bool; ``True`` is alive.
        """
        # NumPy, for these arrays are small and torch's threads cost more than they save.
        gene, owner = genes.numpy(), instance.numpy()
        alive = {
            t: np.ones((num_instances, count), np.bool_) for t, count in self.num_nodes.items()
        }
        alive["gene"][owner, gene] = False
        alive["reaction"][self.dead_reactions(gene, owner)] = False
        return {t: torch.from_numpy(rows) for t, rows in alive.items()}

    def dead_reactions(
        self, genes: NDArray[np.int64], instance: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Reaction nodes of which the clause has a deleted gene.

        Args:
            genes: [D] int64, all deleted genes of all instances.
            instance: [D] int64, the instance of each.

        Returns:
            Instance and reaction node of each loss; twice where two genes of a clause are deleted.
        """
        start = self._start[genes]
        count = self._start[genes + 1] - start
        # Runs start[g], start[g] + 1, … of all deleted genes, one after another.
        shift = np.repeat(start - (np.cumsum(count) - count), count)
        return np.repeat(instance, count), self._nodes[np.arange(len(shift)) + shift]

    def alive_one(self, genes: Tensor) -> dict[str, Tensor]:
        """Living nodes of one instance, [N] bool per node type.

        Args:
            genes: [D] int64, its deleted genes.
        """
        batch = self.alive(genes, torch.zeros_like(genes), 1)
        return {node_type: rows[0] for node_type, rows in batch.items()}

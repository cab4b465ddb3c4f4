"""Which reactions a deletion blocks, by the connections of the network alone.

At steady state what makes a metabolite and what uses it balance. So a reaction cannot carry flux if one of its substrates is made, or
one of its products used, by no other reaction that can carry flux; losing it blocks its neighbours in turn, down a pathway to the
first branch ("topological damage", Lemke et al., *Bioinformatics* 2004; blocked reactions: Burgard et al., *Genome Research* 2004).
The other direction of the same reaction does not count, for what it gives the reaction takes back.

It is sound and not complete: what is found blocked has no flux in any flux balance solution, but a reaction may lack flux for
reasons that only the amounts show. No linear program is solved and no label is looked at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

__all__ = ["BlockedReactions"]

_RELATION = ("reaction", "rmr", "metabolite")


class BlockedReactions:
    """Finds the reaction nodes that deletions block.

    Args:
        graph: The base graph, with signed stoichiometry and one reaction node for each direction (see :meth:`known`).

    Attributes:
        open: ``[R]`` uint8, the reaction nodes that are not blocked in the wildtype already.
    """

    def __init__(self, graph: HeteroData) -> None:
        from pyg_nsa.cell.network.blocking_kernels import spread  # imports Numba

        relation, reactions = graph[_RELATION], graph["reaction"]
        node, metabolite = relation.edge_index.cpu().numpy()
        makes = relation.stoichiometry.cpu().view(len(node), -1)[:, 0].numpy() > 0
        count, metabolites = int(reactions.num_nodes), int(graph["metabolite"].num_nodes)
        by_metabolite = np.argsort(metabolite, kind="stable")
        by_node = np.argsort(node, kind="stable")
        self._network = (
            np.searchsorted(metabolite[by_metabolite], np.arange(metabolites + 1)),
            node[by_metabolite],
            makes[by_metabolite],
            np.searchsorted(node[by_node], np.arange(count + 1)),
            metabolite[by_node],
            reactions.reaction_index.cpu().numpy(),
        )
        self.open = np.ones(count, np.uint8)
        everything = np.arange(metabolites)
        waiting = np.ones(metabolites, np.uint8)
        found = np.empty(count, np.int64)
        spread(self.open, everything, waiting, metabolites, found, self._network)

    @staticmethod
    def known(graph: HeteroData) -> bool:
        """Whether a graph says what this needs: which nodes are directions of which reaction, and signed stoichiometry.

        Without directions a node may run both ways, and nothing follows from the signs.
        """
        if _RELATION not in graph.edge_types or "stoichiometry" not in graph[_RELATION]:
            return False
        return "reaction_index" in graph["reaction"] and "direction" in graph["reaction"]

    def __call__(self, dead: Tensor) -> Tensor:
        """Finds what is blocked when nodes are removed.

        Args:
            dead: ``[B, R]`` bool, removed reaction nodes.

        Returns:
            ``[B, R]`` bool, on the device of ``dead``: nodes that are removed or blocked now, and were not blocked in the wildtype.
        """
        from pyg_nsa.cell.network.blocking_kernels import spread_each

        removed = dead.cpu().numpy()
        out = np.zeros(removed.shape, np.bool_)
        instance, node = np.nonzero(removed)
        spread_each(instance, node, self.open, out, self._network)
        return torch.from_numpy(out).to(dead.device)

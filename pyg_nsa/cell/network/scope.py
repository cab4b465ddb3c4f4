"""What a network can make from its nutrients, and what it cannot make any more after a deletion, by connections alone.

The scope of some metabolites is all that can be made from them: a reaction runs once all its substrates are there, and then its
products are there too (Ebenhöh, Handorf & Heinrich, *Genome Informatics* 15, 2004; Handorf, Ebenhöh & Heinrich, *Journal of Molecular
Evolution* 61, 2005). What falls out of the nutrients' scope with a deletion tells lethal from viable mutants well (Wunderlich &
Mirny, *Biophysical Journal* 91, 2006): there is a way round a lost reaction, or there is none.

A carrier such as ATP is needed to make itself, so from nutrients alone little is reached. A few metabolites are given besides, as few
as let everything run that can run in the wildtype (:attr:`Scope.given`). They are never missing, so nothing is learned about their own
making; that is what :mod:`~pyg_nsa.cell.network.blocked` sees.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.given import fewest_given

__all__ = ["Scope"]

_RELATION = ("reaction", "rmr", "metabolite")


class Scope:
    """Finds what deletions starve.

    Args:
        graph: The base graph, with signed stoichiometry and one reaction node for each direction
            (:meth:`BlockedReactions.known <pyg_nsa.cell.network.blocked.BlockedReactions.known>`). A reaction without substrates
            (an open exchange) gives a nutrient.

    Attributes:
        given: ``[M]`` bool, metabolites that are there from the start, besides the nutrients.
        runs: ``[R]`` bool, reaction nodes that run in the wildtype.
        there: ``[M]`` bool, metabolites that are there in the wildtype.
    """

    def __init__(self, graph: HeteroData) -> None:
        relation = graph[_RELATION]
        node, metabolite = relation.edge_index.cpu().numpy()
        makes = relation.stoichiometry.cpu().view(len(node), -1)[:, 0].numpy() > 0
        count, metabolites = int(graph["reaction"].num_nodes), int(graph["metabolite"].num_nodes)
        used, made = metabolite[~makes], node[makes]
        by_used, by_maker = np.argsort(used, kind="stable"), np.argsort(made, kind="stable")
        self._network = (
            np.bincount(node[~makes], minlength=count),
            np.searchsorted(used[by_used], np.arange(metabolites + 1)),
            node[~makes][by_used],
            np.searchsorted(made[by_maker], np.arange(count + 1)),
            metabolite[makes][by_maker],
        )
        self._open = BlockedReactions(graph).open.astype(np.bool_)
        degree = np.bincount(metabolite[self._open[node]], minlength=metabolites)
        self.given = fewest_given(self._runs_all, degree)
        self.runs, self.there = self._expand(self.given)

    def __call__(self, dead: Tensor) -> tuple[Tensor, Tensor]:
        """Finds what is starved when nodes are removed.

        Args:
            dead: ``[B, R]`` bool, removed reaction nodes.

        Returns:
            On the device of ``dead``: ``[B, R]`` bool, nodes that do not run any more (those of the removed that ran among them),
            and ``[B, M]`` bool, metabolites that are not there any more.
        """
        from pyg_nsa.cell.network.scope_kernels import expand_each

        removed = dead.cpu().numpy()
        runs = np.repeat(self.runs[None], len(removed), axis=0)
        there = np.repeat(self.there[None], len(removed), axis=0)
        instance, node = np.nonzero(removed)
        expand_each(instance, node, self._open, self.given, runs, there, self._network)
        lost = (self.runs & ~runs, self.there & ~there)
        reactions, metabolites = (torch.from_numpy(mask).to(dead.device) for mask in lost)
        return reactions, metabolites

    def _expand(self, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from pyg_nsa.cell.network.scope_kernels import expand  # imports Numba

        runs, there = np.empty(self._open.size, np.bool_), np.empty(given.size, np.bool_)
        expand(self._open, given, runs, there, self._network)
        return runs, there

    def _runs_all(self, given: np.ndarray) -> tuple[bool, np.ndarray]:
        """Whether all open nodes run, and ``[M]`` what is there."""
        runs, there = self._expand(given)
        return bool(runs[self._open].all()), there

"""The prediction that connections alone give: no growth where growth is left without means, and growth as before everywhere else."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.models.touched_nodes import growth_nodes
from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.loans import Loans

__all__ = ["growth_by_scope"]

_AT_ONCE = 1024


def growth_by_scope(
    dataset: PerturbationDataset, train: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fitness 0 where the model's objective can't run from the nutrients any more, not even on credit, else 1; nothing is learned.

    The interaction is what that says of the genes together less the product of what it says of each alone; of a triple also less
    what it says of the interactions of its pairs, as τ is defined (:mod:`pyg_nsa.cell.labels.table`). See
    :class:`~pyg_nsa.cell.network.loans.Loans`.

    Args:
        dataset: For its graph and the deletions; no label is looked at.
        train: Not looked at either.
        wanted: ``[W]`` instances.

    Returns:
        ``[W, 2]``: fitness, gene_interaction; an instance of a single gene has no interaction (NaN).

    Raises:
        ValueError: If the graph does not say what this needs.
    """
    graph = dataset.graph
    growth = growth_nodes(graph)
    if growth is None or not BlockedReactions.known(graph):
        raise ValueError(
            "baseline 'scope' needs the network: reaction nodes with reaction_index, direction and objective, and signed stoichiometry "
            "on (reaction, rmr, metabolite), as build_graph makes them from a metabolic model. Leave it out of `baselines`."
        )
    rule, loans = DeletionRule(graph), Loans.of(graph)

    def grows(deletions: list[torch.Tensor]) -> NDArray[np.float64]:
        out = np.empty(len(deletions))
        for first in range(0, len(deletions), _AT_ONCE):
            some = deletions[first : first + _AT_ONCE]
            count = torch.tensor([len(genes) for genes in some])
            owner = torch.repeat_interleave(torch.arange(len(some)), count)
            dead = ~rule.alive(torch.cat(some), owner, len(some))["reaction"]
            cut = loans(dead)[0][:, growth]
            out[first : first + len(some)] = ~cut.any(dim=1).numpy()
        return out

    deletions = [item.genes for item in dataset.__getitems__(wanted.tolist())]
    every = torch.cat([*deletions, torch.empty(0, dtype=torch.long)]).unique()
    alone = np.ones(graph["gene"].num_nodes)
    alone[every.numpy()] = grows([gene[None] for gene in every])
    fitness = grows(deletions)
    expected = np.array([alone[genes.numpy()].prod() for genes in deletions])
    sizes = np.array([len(genes) for genes in deletions])
    interaction = np.where(sizes > 1, fitness - expected, np.nan)
    triples = np.flatnonzero(sizes == 3)
    if len(triples):
        three = torch.stack([deletions[i] for i in triples])
        for first, second, third in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            pairs, place = three[:, [first, second]].unique(dim=0, return_inverse=True)
            epsilon = grows(list(pairs)) - alone[pairs.numpy()].prod(axis=1)
            interaction[triples] -= epsilon[place.numpy()] * alone[three[:, third].numpy()]
    return np.stack([fitness, interaction], axis=1)

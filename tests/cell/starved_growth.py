"""Single deletions that stop growth, by any rule that says which reactions a deletion stops."""

import torch

from pyg_nsa.cell.network.deletion import DeletionRule

__all__ = ["growth_starves"]


def growth_starves(graph, rule):
    """``[G]``: single deletions that starve the objective."""
    count = graph["gene"].num_nodes
    everyone = torch.arange(count)
    dead = ~DeletionRule(graph).alive(everyone, everyone, count)["reaction"]
    return rule(graph)(dead)[0][:, graph["reaction"].objective > 0].any(dim=1)

"""Which deletions take away the same reactions.

Growth by flux balance depends on the reactions that a deletion takes away, not on the genes: many pairs share one LP, so a pair that
training has not seen may be one whose label it has seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.deletion import DeletionRule

__all__ = ["lost_reactions"]


def lost_reactions(graph: HeteroData, genes: NDArray[np.integer], pad: int) -> NDArray[np.int64]:
    """A number for the set of reactions that each deletion takes away: all their clauses need a gene that is deleted.

    Args:
        graph: The base graph.
        genes: [n, k] integers, the deleted genes of each instance.
        pad: What stands where an instance has fewer.

    Returns:
        [n] int64: two instances have the same number if they take away the same reactions (and by a chance of 2⁻⁶⁴ if not).
    """
    # Nodes of one reaction are its clauses, each in the directions that it has.
    reaction = graph["reaction"].reaction_index.cpu().numpy().astype(np.int64)
    count = int(reaction.max(initial=-1)) + 1
    nodes_of = np.bincount(reaction, minlength=count)
    instance, column = np.nonzero(genes != pad)
    owner, node = DeletionRule(graph).dead_reactions(
        genes[instance, column].astype(np.int64), instance
    )
    # Each node once; np.unique takes ten times as long for millions.
    dead = np.sort(owner * len(reaction) + node)
    dead = dead[np.diff(dead, prepend=-1) > 0]
    owner, node = np.divmod(dead, max(len(reaction), 1))
    hit, number = np.unique(owner * count + reaction[node], return_counts=True)
    owner, hit = np.divmod(hit, max(count, 1))
    lost = number == nodes_of[hit]
    limits = np.iinfo(np.int64)
    key = np.random.default_rng(0).integers(limits.min, limits.max, count)
    out = np.zeros(len(genes), np.int64)
    np.add.at(out, owner[lost], key[hit[lost]])  # sums wrap around
    return out

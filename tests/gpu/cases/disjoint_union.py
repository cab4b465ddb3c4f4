"""A batch of unequal graphs as one block-diagonal edge set, one graph across the border of two tiles."""

import torch
from _common import edge_case, random_edges

from pyg_nsa.attention.edges import EdgeSet


def case():
    sizes, parts, start = [40, 170, 5, 130], [], 0
    for i, size in enumerate(sizes):
        parts.append(random_edges(size, size, 6 * size, seed=i).edge_index() + start)
        start += size
    return edge_case(EdgeSet.from_edge_index(torch.cat(parts, 1), start, start))

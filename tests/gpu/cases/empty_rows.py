"""Queries without a key, keys without a query, and a row whose pairs a bias of -inf drops."""

import torch
from _common import edge_case, random_edges

from pyg_nsa.attention.edges import EdgeSet


def case():
    edge_index = random_edges(300, 280, 500).edge_index()
    key, query = edge_index
    keep = (query % 3 != 0) & (key % 5 != 0) & (query < 256)
    edges = EdgeSet.from_edge_index(edge_index[:, keep], 280, 300)
    row = int(edges.row[40])
    drop = torch.arange(int(edges.rowptr[row]), int(edges.rowptr[row + 1])).tolist()
    return edge_case(edges, drop=drop)

"""A head dimension of 8, which is padded to 16 while the scale stays 1 / sqrt(8)."""

from _common import edge_case, random_edges


def case():
    return edge_case(random_edges(140, 140, 700), dim=8)

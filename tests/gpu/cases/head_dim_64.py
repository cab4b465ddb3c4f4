"""A head dimension for which the kernels of edge sets get other block sizes than FlexAttention's own."""

from _common import edge_case, random_edges


def case():
    return edge_case(random_edges(140, 140, 700), dim=64)

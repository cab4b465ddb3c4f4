"""Directed edges between node sets of different size, off the multiples of 128, with a bias that drops some pairs."""

from _common import edge_case, random_edges


def case():
    return edge_case(random_edges(200, 330, 1500), drop=[0, 7, 8, 700])

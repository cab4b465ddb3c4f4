"""Directed edges without a bias: no log-sum-exp is asked for, and no ``score_mod`` exists."""

from _common import edge_case, random_edges


def case():
    return edge_case(random_edges(100, 150, 700), bias_dtype=None)

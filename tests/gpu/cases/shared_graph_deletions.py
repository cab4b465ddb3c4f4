"""Copies of one base graph that share edges and bias; each copy has other rows deleted."""

from _common import alive_rows, edge_case, random_edges


def case():
    alive = alive_rows(3, 150)
    return edge_case(random_edges(150, 150, 900), batch=3, alive_queries=alive, alive_keys=alive)

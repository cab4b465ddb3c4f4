"""Copies of a shared graph: one with deletions, one all dead, one without a living key."""

from _common import alive_rows, edge_case, random_edges


def case():
    alive_queries, alive_keys = alive_rows(3, 150), alive_rows(3, 140, seed=6)
    alive_queries[1] = False
    alive_keys[1:] = False
    return edge_case(
        random_edges(150, 140, 900), batch=3, alive_queries=alive_queries, alive_keys=alive_keys
    )

"""Copies of a bipartite base graph with other deletions on each side; one copy has lost everything.

Nine copies, since Inductor unrolls the sum of the bias's gradient over at most eight.
"""

from _common import alive_rows, edge_case, random_edges


def case():
    alive_queries, alive_keys = alive_rows(9, 60), alive_rows(9, 140, seed=6)
    alive_queries[4] = alive_keys[4] = False
    return edge_case(
        random_edges(60, 140, 400),
        batch=9,
        alive_queries=alive_queries,
        alive_keys=alive_keys,
        drop=[3],
    )

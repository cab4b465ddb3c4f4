"""Copies of one base graph whose deleted rows hold NaN, which must reach no other row and no gradient."""

import math

from _common import alive_rows, edge_case, random_edges


def case():
    alive = alive_rows(3, 150)
    edges = random_edges(150, 150, 900)
    return edge_case(edges, batch=3, alive_queries=alive, alive_keys=alive, dead=math.nan)

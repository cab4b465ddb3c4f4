"""Self-attention in copies of one graph with deleted rows."""

from _common import alive_case, alive_rows


def case():
    alive = alive_rows(3, 150)
    return alive_case(3, 150, 150, alive, alive)

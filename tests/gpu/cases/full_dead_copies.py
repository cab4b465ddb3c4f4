"""Self-attention in copies, of which one is all dead and one has no living key."""

from _common import alive_case, alive_rows


def case():
    alive_queries, alive_keys = alive_rows(3, 150), alive_rows(3, 150, seed=6)
    alive_queries[1] = False
    alive_keys[1:] = False
    return alive_case(3, 150, 150, alive_queries, alive_keys)

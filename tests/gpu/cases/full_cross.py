"""Full attention from few queries (induced points) to many keys, some of them deleted."""

from _common import alive_case, alive_rows


def case():
    return alive_case(2, 20, 200, None, alive_rows(2, 200))

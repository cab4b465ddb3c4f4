"""Which missing metabolites may pay for one another: those in one cycle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Turns"]

_Index = NDArray[np.int64]
_Mask = NDArray[np.bool_]


class Turns:
    """What reactions turn into what, and where that goes round.

    A loan comes back if what was made of it is turned into it again. So both stand in one strongly connected part of the graph that
    leads from what is missing of a reaction's substrates to what is missing of its products, and nothing else has to be looked at.

    Args:
        unit: ``[P]``, the unit of each pair of a substrate and a product.
        substrate: ``[P]``.
        product: ``[P]``.
        metabolites: How many there are.
    """

    def __init__(self, unit: _Index, substrate: _Index, product: _Index, metabolites: int) -> None:
        self._pairs = unit, substrate, product
        self._metabolites = metabolites

    def rings(self, alive: _Mask, there: _Mask) -> tuple[_Index, _Index]:
        """Missing metabolites that stand in a cycle of missing ones.

        Args:
            alive: ``[U]``, units that may run.
            there: ``[M]``, metabolites that are not missing.

        Returns:
            ``[N]``, these metabolites, part by part; and ``[N, 2]``, the range that each one's part has among them.
        """
        unit, substrate, product = self._pairs
        chosen = alive[unit] & ~there[substrate] & ~there[product]
        ends, starts = product[chosen], substrate[chosen]
        size = self._metabolites
        turns = csr_array((np.ones(len(ends), np.int8), (starts, ends)), shape=(size, size))
        _, part = connected_components(turns, connection="strong")
        many = np.bincount(part)
        inside = np.flatnonzero(many[part] > 1)
        inside = inside[np.argsort(part[inside], kind="stable")]
        high = np.searchsorted(part[inside], part[inside], side="right")
        return inside, np.stack([high - many[part[inside]], high], axis=1)

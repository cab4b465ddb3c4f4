"""Whether a model grows, on what, and what it counts as growth: what a wrong medium or objective shows in first."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

__all__ = ["growth_info"]


def growth_info(network: MetabolicNetwork) -> dict[str, Any]:
    """Growth of the wildtype, objective and medium.

    Args:
        network: The model.

    Returns:
        Plain JSON values. ``growth``: the optimum of the objective (1/h for biomass), ``None`` if labels cannot be simulated;
        ``growth_problem``: why not, else ``None``. ``objective``: ``direction`` (``"max"`` or ``"min"``) and ``reactions``,
        coefficients by id. ``uptakes``: of each reaction that may bring a metabolite in, ``reaction``, ``metabolite`` and
        ``limit``, the largest rate (``None``: no limit), the smallest limit first.
    """
    growth: float | None = None
    problem = None
    try:
        growth = GrowthSimulator(network).wildtype_growth
    except (ValueError, RuntimeError) as error:
        problem = str(error)
    coefficients = {
        network.reactions[i]: float(network.objective[i]) for i in np.flatnonzero(network.objective)
    }
    # A network is maximised always; a model that is minimised came with the sign turned.
    turned = bool(coefficients) and all(value < 0 for value in coefficients.values())
    if turned:
        coefficients = {reaction: -value for reaction, value in coefficients.items()}
    return {
        "growth": growth,
        "growth_problem": problem,
        "objective": {"direction": "min" if turned else "max", "reactions": coefficients},
        "uptakes": _uptakes(network),
    }


def _uptakes(network: MetabolicNetwork) -> list[dict[str, Any]]:
    """Reactions of one metabolite that may bring it in."""
    matrix = network.stoichiometry
    found = []
    for r in np.flatnonzero(np.diff(matrix.indptr) == 1):
        at = matrix.indptr[r]
        value = matrix.data[at]
        limit = float(max(value * network.lower[r], value * network.upper[r]))
        if limit > 0:
            metabolite = network.metabolites[matrix.indices[at]]
            found.append((limit, network.reactions[r], metabolite))
    return [
        {"reaction": r, "metabolite": m, "limit": limit if np.isfinite(limit) else None}
        for limit, r, m in sorted(found)
    ]

"""Networks for tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from scipy.sparse import csc_array

from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

_BESIDE = Path(__file__).parents[3] / "shared" / "data" / "yeast"
YEAST = Path(os.environ.get("PYG_NSA_YEAST") or _BESIDE) / "yeast-GEM_9.0.2.npz"
"""The yeast model as arrays, in a folder that the repository does not hold: that of ``PYG_NSA_YEAST``, or beside the repository."""


def toy_network(
    columns: dict[str, dict[str, float]],
    rules: dict[str, list[set[str]]],
    bounds: dict[str, tuple[float, float]] | None = None,
    objective: str = "growth",
) -> MetabolicNetwork:
    """A hand-made network: ``columns`` are reactions, ``rules`` their clauses."""
    metabolites = sorted({m for column in columns.values() for m in column})
    genes = sorted({g for clauses in rules.values() for clause in clauses for g in clause})
    dense = np.zeros((len(metabolites), len(columns)))
    for r, column in enumerate(columns.values()):
        for metabolite, value in column.items():
            dense[metabolites.index(metabolite), r] = value
    bounds = bounds or {}
    limits = [bounds.get(r, (0.0, 10.0)) for r in columns]
    return MetabolicNetwork(
        model_id="toy",
        genes=tuple(genes),
        reactions=tuple(columns),
        metabolites=tuple(metabolites),
        stoichiometry=csc_array(dense),
        lower=np.array([low for low, _ in limits]),
        upper=np.array([high for _, high in limits]),
        objective=np.array([float(r == objective) for r in columns]),
        clauses=tuple(
            tuple(tuple(sorted(genes.index(g) for g in clause)) for clause in rules.get(r, []))
            for r in columns
        ),
    )

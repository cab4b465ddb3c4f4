"""Names in a configuration of data (what stands for no file, and features), and a default that readers of it share."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "DEFAULT_FEATURES",
    "FEATURES",
    "INTERACTING",
    "SHIPPED_MODELS",
    "SIMULATED",
    "FeatureName",
]

SHIPPED_MODELS: dict[str, str] = {
    "textbook": "textbook.xml.gz",
    "iJO1366": "iJO1366.xml.gz",
    "salmonella": "salmonella.xml.gz",
}
"""Models inside cobra's wheel, by name: *E. coli* core, *E. coli* iJO1366, *Salmonella* iYS1720."""

INTERACTING = 1e-3
"""Genes with a larger ``|ε|`` (or ``|τ|``) interact: exact labels of others are 0 but for rounding."""

SIMULATED: dict[str, Literal["singles", "pairs", "triples"]] = {
    "simulated": "pairs",
    "simulated-singles": "singles",
    "simulated-pairs": "pairs",
    "simulated-triples": "triples",
}
"""Names of simulated labels."""

FeatureName = Literal[
    "flux",
    "flux_variability",
    "bounds",
    "reversibility",
    "isozymes",
    "degree",
    "gene_flux",
    "gene_reactions",
    "shadow_price",
    "random_walk",
    "subsystem",
]

FEATURES: tuple[FeatureName, ...] = get_args(FeatureName)
"""All names of node features; :mod:`pyg_nsa.cell.network.features` says what they are."""

DEFAULT_FEATURES: tuple[FeatureName, ...] = FEATURES[:-2]
"""Those that ``features: true`` stands for: all but the two that are opt-in."""

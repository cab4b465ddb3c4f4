"""Names in a configuration of data that stand for no file, and a default that readers of it share."""

from __future__ import annotations

from typing import Literal

__all__ = ["INTERACTING", "SHIPPED_MODELS", "SIMULATED"]

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

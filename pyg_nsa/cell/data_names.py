"""Names in a configuration of data that stand for no file."""

from __future__ import annotations

from typing import Literal

__all__ = ["SHIPPED_MODELS", "SIMULATED"]

SHIPPED_MODELS: dict[str, str] = {
    "textbook": "textbook.xml.gz",
    "iJO1366": "iJO1366.xml.gz",
    "salmonella": "salmonella.xml.gz",
}
"""Models inside cobra's wheel, by name: *E. coli* core, *E. coli* iJO1366, *Salmonella* iYS1720."""

SIMULATED: dict[str, Literal["singles", "pairs", "triples"]] = {
    "simulated": "pairs",
    "simulated-singles": "singles",
    "simulated-pairs": "pairs",
    "simulated-triples": "triples",
}
"""Names of simulated labels."""

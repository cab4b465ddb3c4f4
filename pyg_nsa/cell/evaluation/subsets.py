"""Which instances are measured together."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pyg_nsa.cell.data_names import INTERACTING

__all__ = ["SUBSETS", "Subset", "interacts", "subset_rows", "subsets_of"]


@dataclass(frozen=True)
class Subset:
    """Instances that are alike.

    Attributes:
        size: How many genes they delete.
        interacting: Whether only those that interact count.
        known_genes: Whether training has seen all their genes, though not together; else some gene is new, or predictions do
            not tell the two apart.
        new_losses: Whether only those count that take away reactions as no training instance does: many pairs share one LP, so the
            label of a new pair may have been seen.
    """

    size: int
    interacting: bool = False
    known_genes: bool = False
    new_losses: bool = False


SUBSETS = {
    "singles": Subset(1),
    "pairs": Subset(2),
    "interacting pairs": Subset(2, interacting=True),
    "new pairs of known genes": Subset(2, known_genes=True),
    "interacting new pairs of known genes": Subset(2, interacting=True, known_genes=True),
    "new pairs of known genes, new losses": Subset(2, known_genes=True, new_losses=True),
    "interacting new pairs of known genes, new losses": Subset(
        2, interacting=True, known_genes=True, new_losses=True
    ),
    "triples": Subset(3),
    "new triples of known genes": Subset(3, known_genes=True),
}
"""Subsets by name, in the order of tables."""

_ALWAYS = ("singles", "pairs", "interacting pairs")


def subsets_of(predictions: pd.DataFrame) -> list[str]:
    """Names of the subsets that tables show: singles and pairs always, others where there is an instance of theirs.

    Args:
        predictions: As for :func:`pyg_nsa.cell.evaluation.metrics.evaluate`.
    """
    return [n for n in SUBSETS if n in _ALWAYS or len(subset_rows(predictions, n))]


def subset_rows(predictions: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of a subset.

    Args:
        predictions: Columns size and gene_interaction; and held_out (``"gene"``: a gene that training has not seen; ``"pair"``: genes
            that it has seen, but not together) and new_losses (see :class:`Subset`), where the split holds out both; and
            interacting, without which the threshold of simulated labels counts.
        name: One of :data:`SUBSETS`.
    """
    wanted = SUBSETS[name]
    chosen = predictions["size"] == wanted.size
    if "held_out" in predictions:
        chosen &= predictions["held_out"] == ("pair" if wanted.known_genes else "gene")
    else:
        chosen &= not wanted.known_genes
    if wanted.new_losses:
        chosen &= predictions.get("new_losses", False)
    if wanted.interacting:
        chosen &= interacts(predictions)
    return predictions[chosen]


def interacts(predictions: pd.DataFrame) -> pd.Series:
    """Which rows interact, bool; as for :func:`subset_rows`."""
    if "interacting" in predictions:
        return predictions["interacting"]
    return predictions["gene_interaction"].abs() > INTERACTING

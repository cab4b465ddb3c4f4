"""The figures of a report: files in a folder, and the same embedded in the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pyg_nsa.cell.report.figure_style import save

__all__ = ["Gallery", "Picture"]


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    file: str
    data: str
    alt: str
    caption: str
    wide: bool


class Gallery:
    """Writes figures into a folder and gives what the page embeds."""

    names = (
        "metrics",
        "loss",
        "fitness_singles",
        "fitness_pairs",
        "gene_interaction_pairs",
        "fitness_new_pairs_of_known_genes",
        "gene_interaction_new_pairs_of_known_genes",
        "fitness_triples",
        "gene_interaction_triples",
        "fitness_new_triples_of_known_genes",
        "gene_interaction_new_triples_of_known_genes",
        "occupancy",
        "knockout_wildtype",
        "knockout",
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: set[str] = set()

    def add(
        self, name: str, figure: Figure | None, alt: str, caption: str, wide: bool = True
    ) -> Picture | None:
        """Save a figure; ``None`` stays ``None``."""
        if figure is None:
            return None
        assert name in self.names
        self.written.add(name)
        data = save(figure, self.folder / f"{name}.png")
        encoded = base64.b64encode(data).decode("ascii")
        return Picture(f"figures/{name}.png", encoded, alt, caption, wide)

    def remove_stale(self) -> None:
        """Remove figures that an earlier report of this folder had and this one has not."""
        for name in set(self.names) - self.written:
            (self.folder / f"{name}.png").unlink(missing_ok=True)

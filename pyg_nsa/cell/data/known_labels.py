"""What each part of a split knows: lines for people, before and while a model is trained."""

from __future__ import annotations

import numpy as np

from pyg_nsa.cell.data.splits import Split
from pyg_nsa.cell.labels.table import TARGETS, LabelTable

__all__ = ["check_known", "part_lines"]


def check_known(split: Split, table: LabelTable) -> None:
    """Make sure that there is something to learn.

    Args:
        split: The parts.
        table: The labels that they divide.

    Raises:
        ValueError: No instance of the training part has a known label of any target.
    """
    if not np.isfinite(table.y[split.part("train")]).any():
        count = len(split.part("train"))
        where = table.provenance.get("file", "the labels")
        raise ValueError(
            f"{where}: nothing can be learned: none of the {count:,} training instances has a known "
            f"{' or '.join(TARGETS)}. Fill these columns, whose empty cells are values that were not measured."
        )


def part_lines(split: Split, table: LabelTable) -> list[str]:
    """A line on each part: genes, instances of each size, and how many labels of each target are known.

    A target without a known label in the training part is not trained, which a further line says.

    Args:
        split: The parts.
        table: The labels that they divide.
    """
    known = {name: np.isfinite(getattr(table, name)) for name in TARGETS}
    lines = []
    for part, line in zip(split.counts(), split.lines(), strict=True):
        index = split.part(part)
        counts = ", ".join(f"{int(of[index].sum()):,} {name}" for name, of in known.items())
        lines.append(f"{line}; known labels: {counts}")
    return lines + [
        f"{name} is not trained: no instance of the training part has a known one"
        for name, of in known.items()
        if not of[split.part("train")].any()
    ]

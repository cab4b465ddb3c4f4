"""What in a table of measurements is no error, and yet hardly meant: columns that are nearly named, values of another scale, interactions of
one gene."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.files.tables import problem_list
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.errors import nearest

__all__ = [
    "doubtful_columns",
    "doubtful_values",
    "undefined_interactions",
    "without_undefined_interactions",
]

_NEAR = 0.81  # 'fitness_sd' and 'interaction' are near an optional column, replicates such as 'fitness_2' are not
_USUAL_MEDIAN = (0.5, 1.5)  # of single deletions: most genes are not needed
_ENOUGH = 5  # fewer deletions say little by their median
_PERCENT = (50.0, 150.0)
_PLAUSIBLE = {
    "fitness": (-0.5, 3.0),
    "gene_interaction": (-3.0, 3.0),
    "fitness_std": (0.0, 3.0),
}
_SCALE = "Expected is growth relative to the wildtype: 1 where a deletion changes nothing, 0 where nothing grows"


def doubtful_columns(columns: Collection[str], known: Sequence[str]) -> list[str]:
    """Columns that are left alone although their names are nearly those that have a meaning.

    Args:
        columns: The table's columns.
        known: Names that have a meaning.

    Returns:
        A sentence for each.
    """
    absent = [name for name in known if name not in columns]
    return [
        f"column {column!r} is not used; did you mean {near!r}?"
        for column in columns
        if column not in known and (near := nearest(column, absent, cutoff=_NEAR))
    ]


def doubtful_values(table: LabelTable, place: Callable[[int], str]) -> list[str]:
    """Values that are hardly relative to the wildtype.

    Args:
        table: The labels.
        place: What a message calls an instance, such as ``line 7``.

    Returns:
        A text for each sort of doubt.
    """
    found = []
    checked = dict(_PLAUSIBLE)
    single = table.fitness[(table.sizes == 1) & np.isfinite(table.fitness)]
    median = float(np.median(single)) if len(single) >= _ENOUGH else 1.0
    if not _USUAL_MEDIAN[0] <= median <= _USUAL_MEDIAN[1]:
        del checked["fitness"]  # on another scale all of it would be listed
        percent = _PERCENT[0] <= median <= _PERCENT[1]
        found.append(
            f"the median fitness of {len(single):,} single deletions is {median:.4g}. {_SCALE}."
            + (" These look like percent: divide them by 100." if percent else "")
        )
    listed = []
    for name, (low, high) in checked.items():
        values = getattr(table, name)
        listed += [
            f"{place(i)}: {name} {values[i]:.4g} of {'+'.join(table.ids(i))}"
            for i in np.flatnonzero((values < low) | (values > high)).tolist()  # NaN is neither
        ]
    if listed:
        some = f"{len(listed):,} values are" if len(listed) > 1 else "1 value is"
        found.append(f"{some} far from what a cell does. {_SCALE}:\n{problem_list(listed)}")
    return found


def undefined_interactions(table: LabelTable, place: Callable[[int], str]) -> list[str]:
    """Gene interactions of single deletions, which are not defined.

    Args:
        table: The labels.
        place: What a message calls an instance, such as ``line 7``.

    Returns:
        One text, or none.
    """
    rows = np.flatnonzero(_undefined(table)).tolist()
    if not rows:
        return []
    listed = [f"{place(i)}: {table.gene_interaction[i]:.4g} of {table.ids(i)[0]}" for i in rows]
    some = f"{len(rows):,} values are" if len(rows) > 1 else "1 value is"
    return [
        f"{some} gene_interaction of a single deletion, which is not defined (it takes two genes to interact), and left "
        f"out. Leave these cells empty:\n{problem_list(listed)}"
    ]


def without_undefined_interactions(table: LabelTable) -> LabelTable:
    """The table with NaN in the place of gene interactions of single deletions."""
    values = np.where(_undefined(table), np.float32(np.nan), table.gene_interaction)
    return replace(table, gene_interaction=values)


def _undefined(table: LabelTable) -> NDArray[np.bool_]:
    return (table.sizes < 2) & np.isfinite(table.gene_interaction)

"""What in a table of measurements is no error, and yet hardly meant: columns that are nearly named, values of another scale, interactions of
one gene, interactions that the table's own fitness contradicts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.files.tables import problem_list
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.errors import nearest

__all__ = [
    "contradicted_interactions",
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
#: What others call the columns that may be missing, far from how they are spelled here.
_CALLED_OTHERWISE = dict.fromkeys(
    ("epsilon", "eps", "ε", "gi", "gi_score", "interaction", "interaction_score"),
    "gene_interaction",
)
_CONTRADICTED = 0.3  # noise of three measured fitnesses hardly makes that much
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

    def meant(column: str) -> str | None:
        called = _CALLED_OTHERWISE.get(column.strip().lower().replace(" ", "_"))
        return called if called in absent else nearest(column, absent, cutoff=_NEAR)

    return [
        f"column {column!r} is not used; did you mean {near!r}?"
        for column in columns
        if column not in known and (near := meant(column))
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
    median = _median(single)
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


def contradicted_interactions(table: LabelTable, place: Callable[[int], str]) -> list[str]:
    """Gene interactions of pairs that are far from what the fitness in the same table makes of them.

    They may have the other sign, be scores or logarithms, or follow another definition. Triples are not looked at.

    Args:
        table: The labels.
        place: What a message calls an instance, such as ``line 7``.

    Returns:
        One text, or none; none where fitness is on another scale, of which :func:`doubtful_values` tells.
    """
    alone = np.full(len(table.gene_ids), np.nan)
    single = (table.sizes == 1) & np.isfinite(table.fitness)
    alone[table.genes[single, 0]] = table.fitness[single]
    pairs = np.flatnonzero(table.sizes == 2)
    if not len(pairs) or not _USUAL_MEDIAN[0] <= _median(table.fitness[single]) <= _USUAL_MEDIAN[1]:
        return []
    a, b = alone[table.genes[pairs, 0]], alone[table.genes[pairs, 1]]
    told = table.gene_interaction[pairs].astype(np.float64)
    expected = table.fitness[pairs].astype(np.float64) - a * b
    compared = int(np.isfinite(told - expected).sum())
    far = np.flatnonzero(np.abs(told - expected) > _CONTRADICTED)  # NaN is not
    if not len(far):
        return []
    listed = [
        f"{place(int(pairs[k]))}: {told[k]:.4g} of {'+'.join(table.ids(int(pairs[k])))}, whose fitness makes it "
        f"{table.fitness[pairs[k]]:.4g} - {a[k]:.4g} * {b[k]:.4g} = {expected[k]:.4g}"
        for k in far
    ]
    turned = int((np.abs(told[far] + expected[far]) <= _CONTRADICTED).sum())
    hint = f" With the other sign {turned:,} of them would fit." if 2 * turned > len(far) else ""
    values = f"{len(far):,} of {compared:,} values of gene_interaction that can be compared"
    return [
        f"{values} are more than {_CONTRADICTED} off f_ab - f_a * f_b of this table's fitness. Expected is that difference, "
        f"in units of fitness, negative where two deletions do more harm than each by itself foretells.{hint} They are "
        f"trained on as they stand:\n{problem_list(listed)}"
    ]


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


def _median(single: NDArray[np.float32]) -> float:
    """Of the fitness of single deletions; 1 where there are too few to say."""
    return float(np.median(single)) if len(single) >= _ENOUGH else 1.0


def _undefined(table: LabelTable) -> NDArray[np.bool_]:
    return (table.sizes < 2) & np.isfinite(table.gene_interaction)

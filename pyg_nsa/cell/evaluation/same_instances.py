"""Whether two datasets come to the same instances with the same labels, part by part.

Equal settings of a split do not suffice: the genes that one graph lacks and the other has are dealt out with all others, so that one
more of them moves most genes to another part.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.labels.table import PAD, LabelTable

__all__ = ["instances_apart"]


def instances_apart(
    mine: LabelTable,
    theirs: LabelTable,
    my_parts: Mapping[str, NDArray[np.int64]],
    their_parts: Mapping[str, NDArray[np.int64]],
) -> list[str]:
    """What differs, a line for each part; empty where nothing does. Order and numbers of the instances do not matter.

    Args:
        mine: Labels of one dataset.
        theirs: Labels of the other.
        my_parts: Instance numbers in ``mine``, by part.
        their_parts: Instance numbers in ``theirs``, by the same names.
    """
    number = {gene: i for i, gene in enumerate(sorted({*mine.gene_ids, *theirs.gene_ids}))}
    lines = []
    for part, index in my_parts.items():
        ours = _rows(mine, index, number), mine.y[index]
        others = _rows(theirs, their_parts[part], number), theirs.y[their_parts[part]]
        if line := _apart(*ours, *others):
            lines.append(f"{part}: {line}")
    return lines


def _rows(
    table: LabelTable, index: NDArray[np.int64], number: Mapping[str, int]
) -> NDArray[np.int64]:
    """[n, K] the genes of some instances in a numbering of both tables, ascending after the padding."""
    of_gene = np.array([*(number[gene] for gene in table.gene_ids), PAD], np.int64)
    return np.sort(of_gene[table.genes[index]], axis=1)  # PAD, -1, finds the last


def _apart(
    a: NDArray[np.int64], a_y: NDArray[np.float32], b: NDArray[np.int64], b_y: NDArray[np.float32]
) -> str:
    width = max(a.shape[1], b.shape[1])
    # Columns are padded in front, where the rows are.
    a, b = (
        np.pad(rows, ((0, 0), (width - rows.shape[1], 0)), constant_values=PAD) for rows in (a, b)
    )
    first, second = (_in_order(np.hstack([rows, y])) for rows, y in ((a, a_y), (b, b_y)))
    if np.array_equal(first, second, equal_nan=True):
        return ""
    shared = len({*map(bytes, a)} & {*map(bytes, b)})
    if len(a) == len(b) == shared:
        other = ~((first == second) | (np.isnan(first) & np.isnan(second))).all(axis=1)
        return f"the same {shared:,} instances, {int(other.sum()):,} of them with other labels"
    return f"{len(a):,} instances and {len(b):,}, of which {shared:,} are the same"


def _in_order(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows[np.lexsort(rows.T[::-1])]

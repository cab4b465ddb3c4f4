"""Predictions that need no network, which any model has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.labels.table import PAD, LabelTable
from pyg_nsa.cell.models.scope_baseline import growth_by_scope

__all__ = ["BASELINES", "mean_of_training", "product_of_singles"]


def mean_of_training(
    table: LabelTable, train: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean label of training instances of the same size (all of them where there is none).

    Returns:
        ``[len(wanted), 2]``: fitness, gene_interaction.
    """
    y = table.y.astype(np.float64)
    sizes = table.sizes
    out = np.empty((len(wanted), 2))
    for size in np.unique(sizes[wanted]):
        same = train[sizes[train] == size]
        values = y[same if len(same) else train]
        mean = [
            column[np.isfinite(column)].mean() if np.isfinite(column).any() else np.nan
            for column in values.T
        ]
        out[sizes[wanted] == size] = mean
    return out


def product_of_singles(
    table: LabelTable, train: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fitness as the product of the single deletions' *true* fitness, so no interaction.

    It is told the fitness of held-out genes, which no model is: a bound for models that see no interaction. Singles
    themselves, and instances with a gene whose single label is missing, are NaN.

    Returns:
        ``[len(wanted), 2]``: fitness, gene_interaction.
    """
    single = np.full(len(table.gene_ids) + 1, np.nan)
    alone = np.flatnonzero(table.sizes == 1)
    members = table.genes[alone].max(axis=1)  # PAD is -1
    single[members] = table.fitness[alone]
    single[PAD] = 1.0
    fitness = single[table.genes[wanted]].prod(axis=1)
    fitness[table.sizes[wanted] < 2] = np.nan
    return np.stack([fitness, np.where(np.isfinite(fitness), 0.0, np.nan)], axis=1)


Baseline = Callable[
    [PerturbationDataset, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]
]

#: Baselines by name: of a dataset, its training instances and the wanted ones.
BASELINES: dict[str, Baseline] = {
    "mean": lambda dataset, train, wanted: mean_of_training(dataset.table, train, wanted),
    "product_of_singles": lambda dataset, train, wanted: product_of_singles(
        dataset.table, train, wanted
    ),
    "scope": growth_by_scope,
}

"""How sure a metric is: 95 % intervals by resampling genes.

Instances are not independent, for many pairs share a gene. So genes are drawn with replacement, and an instance counts as often
as the product of its genes' numbers of draws (the pigeonhole bootstrap: Owen, *Annals of Applied Statistics* 2007, which
errs on the wide side). For single deletions that is the ordinary bootstrap. What it does not cover is another split or
another seed of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["GeneBootstrap", "interval", "weighted_auroc", "weighted_metrics"]

_Array = NDArray[np.float64]

_CHUNK = 2_000_000  # weights at a time
_MOST = 20_000_000  # weights in all: with very many instances fewer replicates are drawn
_LEVEL = (2.5, 97.5)


class GeneBootstrap:
    """Weights of instances in each replicate, the same for all models.

    Args:
        genes: Ids of each instance's genes, joined by ``;``.
        replicates: How many.
        seed: Seed of the draws.
    """

    def __init__(self, genes: Sequence[str], replicates: int = 1000, seed: int = 0) -> None:
        members = [str(ids).split(";") for ids in genes]
        names = sorted({gene for ids in members for gene in ids})
        index = {gene: i for i, gene in enumerate(names)}
        width = max(map(len, members), default=1)
        # The last column of counts is 1: no gene, no factor.
        self._genes = np.full((len(members), width), len(names))
        for row, ids in zip(self._genes, members, strict=True):
            row[: len(ids)] = [index[gene] for gene in ids]
        few = min(replicates, max(_MOST // max(len(members), 1), 200))
        draws = np.random.default_rng(seed).multinomial(
            len(names), np.full(len(names), 1 / max(len(names), 1)), size=few
        )
        self._counts = np.concatenate([draws, np.ones((few, 1), np.int64)], axis=1).astype(float)

    def weights(self, rows: NDArray[np.int64]) -> Iterator[_Array]:
        """``[b, len(rows)]`` weights of some instances, a part of the replicates at a time.

        Args:
            rows: Positions of the instances.
        """
        genes = self._genes[rows]
        step = max(_CHUNK // max(genes.size, 1), 1)
        for start in range(0, len(self._counts), step):
            yield self._counts[start : start + step][:, genes].prod(axis=2)


def interval(values: _Array) -> tuple[float, float]:
    """The middle 95 % of the replicates; NaN where more than a tenth of them is undefined."""
    known = values[np.isfinite(values)]
    if not len(known) or len(known) < 0.9 * len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(known, _LEVEL)
    return float(low), float(high)


def weighted_metrics(
    y: _Array, y_hat: _Array, weights: _Array, names: Sequence[str] = ("pearson", "spearman", "mse")
) -> dict[str, _Array]:
    """Metrics of each replicate.

    Args:
        y: ``[n]`` true values, all finite.
        y_hat: ``[n]`` predictions, all finite.
        weights: ``[b, n]``.
        names: Which metrics.

    Returns:
        ``[b]`` by name; NaN where undefined. With whole numbers as weights they are the metrics of a table in which every row
        stands that many times.
    """
    compute: dict[str, Callable[[], _Array]] = {
        "pearson": lambda: _correlation(y[None], y_hat[None], weights),
        "spearman": lambda: _correlation(_ranks(y, weights), _ranks(y_hat, weights), weights),
        "mse": lambda: _mean(((y - y_hat) ** 2)[None], weights),
    }
    return {name: compute[name]() for name in names}


def weighted_auroc(positive: NDArray[np.bool_], score: _Array, weights: _Array) -> _Array:
    """``[b]``: probability that a positive scores above a negative, ties counting half, in each replicate.

    Args:
        positive: ``[n]``.
        score: ``[n]``, all finite.
        weights: ``[b, n]``.
    """
    negatives = np.where(positive, 0.0, weights)
    positives = np.where(positive, weights, 0.0)
    # The midrank among negatives is their weight below, and half of that beside.
    wins = (positives * (_ranks(score, negatives))).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return wins / (positives.sum(axis=1) * negatives.sum(axis=1))


def _mean(values: _Array, weights: _Array) -> _Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values * weights).sum(axis=1) / weights.sum(axis=1)


def _correlation(a: _Array, b: _Array, weights: _Array) -> _Array:
    """``[b]``; rows of ``a`` and ``b`` may be one for all."""
    a, b = (x - _mean(x, weights)[:, None] for x in (a, b))
    covariance, va, vb = _mean(a * b, weights), _mean(a * a, weights), _mean(b * b, weights)
    constant = (va <= 1e-24) | (vb <= 1e-24)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(constant, np.nan, covariance / np.sqrt(va * vb))


def _ranks(values: _Array, weights: _Array) -> _Array:
    """``[b, n]``: the weight below each value and half of the weight of its equals."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    if not len(values):
        return weights
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    of_group = np.add.reduceat(weights[:, order], np.flatnonzero(first), axis=1)
    below = np.cumsum(of_group, axis=1) - of_group / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = below[:, np.cumsum(first) - 1]
    return ranks

"""What a prediction is worth, on held-out genes and on held-out pairs separately."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pyg_nsa.cell.evaluation.bootstrap import (
    GeneBootstrap,
    interval,
    weighted_auroc,
    weighted_metrics,
)
from pyg_nsa.cell.evaluation.subsets import SUBSETS, subset_rows, subsets_of

__all__ = ["LETHAL_BELOW", "compare", "compare_models", "evaluate"]

#: Relative growth below which a deletion counts as lethal (1 % of the wildtype's).
LETHAL_BELOW = 0.01


def compare(y: NDArray, y_hat: NDArray) -> dict[str, float]:
    """Pearson, Spearman and mean squared error; NaN where undefined (fewer than two points, or a constant)."""
    known = np.isfinite(y) & np.isfinite(y_hat)
    y, y_hat = y[known].astype(np.float64), y_hat[known].astype(np.float64)
    if len(y) == 0:
        return {"pearson": np.nan, "spearman": np.nan, "mse": np.nan}
    out = {"mse": float(np.mean((y - y_hat) ** 2)), "pearson": np.nan, "spearman": np.nan}
    if len(y) > 1 and np.ptp(y) > 1e-12 and np.ptp(y_hat) > 1e-12:
        out["pearson"] = float(stats.pearsonr(y, y_hat).statistic)
        out["spearman"] = float(stats.spearmanr(y, y_hat).statistic)
    return out


def auroc(positive: NDArray[np.bool_], score: NDArray) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting half."""
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def evaluate(predictions: pd.DataFrame, replicates: int = 0, seed: int = 0) -> pd.DataFrame:
    """Metrics of each model on each part.

    Args:
        predictions: Columns model, part, size, fitness, gene_interaction, fitness_pred, gene_interaction_pred; with
            ``replicates`` also genes (ids joined by ``;``); where the split holds out genes and pairs also held_out (see
            :mod:`pyg_nsa.cell.evaluation.subsets`).
        replicates: Replicates of the bootstrap over genes (:mod:`pyg_nsa.cell.evaluation.bootstrap`); 0: no intervals.
        seed: Seed of the bootstrap.

    Returns:
        Columns model, part, subset (see :func:`~pyg_nsa.cell.evaluation.subsets.subsets_of`), target (``fitness``, ``gene_interaction``, ``lethality``),
        metric, value, n; with ``replicates`` also low and high, a 95 % interval.
    """
    rows = []
    shown = subsets_of(predictions)
    for (model, part), table in predictions.groupby(["model", "part"], sort=False):
        table = table.reset_index(drop=True)
        bootstrap = GeneBootstrap(table["genes"], replicates, seed) if replicates else None
        for subset in shown:
            chosen = subset_rows(table, subset)
            for target in _targets(subset):
                y, y_hat, at = _known(chosen, target)
                if target == "lethality":
                    values = {"auroc": auroc(y < LETHAL_BELOW, -y_hat)}
                else:
                    values = compare(y, y_hat)
                draws = _draws(bootstrap, at, y, y_hat, target, tuple(values)) if bootstrap else {}
                for metric, value in values.items():
                    row = {"model": model, "part": part, "subset": subset, "target": target}
                    row |= {"metric": metric, "value": value, "n": len(y)}
                    if bootstrap:
                        row["low"], row["high"] = interval(draws[metric])
                    rows.append(row)
    columns = ["model", "part", "subset", "target", "metric", "value", "n"]
    return pd.DataFrame(rows, columns=columns + ["low", "high"] * bool(replicates))


def compare_models(
    predictions: pd.DataFrame,
    part: str,
    subset: str,
    target: str,
    metric: str,
    models: tuple[str, str],
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """By how much a metric differs between two models on the instances that both predicted.

    Args:
        predictions: As for :func:`evaluate`.
        part: Part of the split.
        subset: One of :data:`~pyg_nsa.cell.evaluation.subsets.SUBSETS`.
        target: ``fitness``, ``gene_interaction`` or ``lethality``.
        metric: ``pearson``, ``spearman``, ``mse`` or ``auroc``.
        models: The two.
        replicates: Replicates of the bootstrap over genes.
        seed: Its seed.

    Returns:
        First minus second, and its 95 % interval; NaN where undefined. Both models meet the same draws, so that what is hard
        for both does not widen it.
    """
    own = predictions[predictions["part"] == part]
    tables = [own[own["model"] == m].set_index("genes", drop=False) for m in models]
    both = tables[0].index.intersection(tables[1].index)
    tables = [t.loc[both].reset_index(drop=True) for t in tables]
    first, second = (_known(subset_rows(t, subset), target)[2] for t in tables)
    at = np.intersect1d(first, second)
    if not len(at):
        return np.nan, np.nan, np.nan
    bootstrap = GeneBootstrap(tables[0]["genes"], replicates, seed)
    values, draws = [], []
    for table in tables:
        y, y_hat, _ = _known(table.loc[at], target)
        value = auroc(y < LETHAL_BELOW, -y_hat) if metric == "auroc" else compare(y, y_hat)[metric]
        values.append(value)
        draws.append(_draws(bootstrap, at, y, y_hat, target, (metric,))[metric])
    return values[0] - values[1], *interval(draws[0] - draws[1])


def _targets(subset: str) -> Iterator[str]:
    yield "fitness"
    if SUBSETS[subset].size > 1:
        yield "gene_interaction"
    yield "lethality"


def _known(table: pd.DataFrame, target: str) -> tuple[NDArray, NDArray, NDArray]:
    """Labels and predictions that are both known, and where they stand in the table's index."""
    column = "fitness" if target == "lethality" else target
    y, y_hat = (table[c].to_numpy(np.float64) for c in (column, f"{column}_pred"))
    known = np.isfinite(y) & np.isfinite(y_hat)
    return y[known], y_hat[known], table.index.to_numpy()[known]


def _draws(
    bootstrap: GeneBootstrap,
    at: NDArray,
    y: NDArray,
    y_hat: NDArray,
    target: str,
    metrics: Sequence[str],
) -> dict[str, NDArray]:
    """Each metric in all replicates."""
    found: dict[str, list[NDArray]] = {metric: [] for metric in metrics}
    for weights in bootstrap.weights(at):
        if target == "lethality":
            values = {"auroc": weighted_auroc(y < LETHAL_BELOW, -y_hat, weights)}
        else:
            values = weighted_metrics(y, y_hat, weights, metrics)
        for metric, drawn in values.items():
            found[metric].append(drawn)
    return {metric: np.concatenate(drawn) for metric, drawn in found.items()}

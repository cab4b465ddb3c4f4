"""What a prediction is worth, on held-out genes and on held-out pairs separately."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

__all__ = ["LETHAL_BELOW", "compare", "evaluate"]

#: Relative growth below which a deletion counts as lethal (1 % of the wildtype's).
LETHAL_BELOW = 0.01

#: Pairs with a larger |gene_interaction| count as interacting.
INTERACTING_ABOVE = 1e-3


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


def evaluate(predictions: pd.DataFrame) -> pd.DataFrame:
    """Metrics of each model on each part.

    Args:
        predictions: Columns model, part, size, fitness, gene_interaction, fitness_pred, gene_interaction_pred.

    Returns:
        Columns model, part, subset (``singles``, ``pairs``, ``interacting pairs``), target (``fitness``,
        ``gene_interaction``, ``lethality``), metric, value, n.
    """
    rows = []
    for (model, part), table in predictions.groupby(["model", "part"], sort=False):
        pairs = table["size"] >= 2
        subsets: Mapping[str, pd.DataFrame] = {
            "singles": table[table["size"] == 1],
            "pairs": table[pairs],
            "interacting pairs": table[
                pairs & (table["gene_interaction"].abs() > INTERACTING_ABOVE)
            ],
        }
        for subset, chosen in subsets.items():
            targets = ["fitness"] if subset == "singles" else ["fitness", "gene_interaction"]
            for target in targets:
                y, y_hat = (chosen[c].to_numpy(np.float64) for c in (target, f"{target}_pred"))
                n = int((np.isfinite(y) & np.isfinite(y_hat)).sum())
                for metric, value in compare(y, y_hat).items():
                    rows.append((model, part, subset, target, metric, value, n))
            fitness = chosen["fitness"].to_numpy(np.float64)
            score = -chosen["fitness_pred"].to_numpy(np.float64)
            known = np.isfinite(fitness) & np.isfinite(score)
            value = auroc(fitness[known] < LETHAL_BELOW, score[known])
            rows.append((model, part, subset, "lethality", "auroc", value, int(known.sum())))
    return pd.DataFrame(rows, columns=["model", "part", "subset", "target", "metric", "value", "n"])

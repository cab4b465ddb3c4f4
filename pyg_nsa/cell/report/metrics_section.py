"""What a report says about metrics: sentences for readers, and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pyg_nsa.cell.data.splits import SplitKind
from pyg_nsa.cell.evaluation.metrics import compare_models
from pyg_nsa.cell.report.numbers import count, metric_value, plain

__all__ = ["PARTS", "TARGET_WORDS", "headlines", "metric_table", "model_words", "subset_words"]

_MODELS = {
    "hetero_nsa": "masked attention along the relations of the graph (M of the pattern) and self-attention within node types (S), HeteroNSA",
    "hgt": "the same model with PyG’s heterogeneous graph transformer (HGT) instead",
    "embedding": "a learned vector for each gene, without a graph",
    "hetero_conv": "the same model with graph attention layers (GATv2) in PyG’s HeteroConv instead",
    "no_messages": "the same readout of each node’s own features, without any messages",
    "mean": "always predicts the mean label of the training instances of that size; looks at no gene",
    "scope": "no growth where the deletion cuts it off from the nutrients, else growth as before; connections alone, nothing learned",
    "product_of_singles": "multiplies the true fitness of the single deletions, so it predicts no interaction",
}
_TOLD = {
    "product_of_singles": "It is told the fitness of held-out genes, which no other model is: a reference, not a competitor"
}

PARTS = {"train": "training", "val": "validation", "test": "test"}
_SUBSETS = {
    "singles": "single deletions",
    "pairs": "pairs",
    "interacting pairs": "interacting pairs only",
    "new pairs of known genes": "new pairs of known genes",
    "interacting new pairs of known genes": "interacting new pairs of known genes only",
    "new pairs of known genes, new losses": "of these, pairs that take away reactions as no training instance does",
    "interacting new pairs of known genes, new losses": "of these, interacting pairs only",
    "triples": "triples",
    "new triples of known genes": "new triples of known genes",
}
_SUBSETS_OF_BOTH = {
    "pairs": "pairs with a held-out gene",
    "interacting pairs": "interacting pairs with a held-out gene only",
    "triples": "triples with a held-out gene",
}
TARGET_WORDS = {
    "fitness": "fitness",
    "gene_interaction": "gene interaction",
    "lethality": "lethality",
}
_METRICS = {
    "pearson": ("Pearson correlation", "higher"),
    "spearman": ("Spearman correlation", "higher"),
    "mse": ("mean squared error", "lower"),
    "auroc": ("AUROC", "higher"),
}


def told(split_kind: SplitKind) -> set[str]:
    """Models that are told labels of held-out genes; where only pairs are held out, training has the label of every gene."""
    return set() if split_kind == "pair" else set(_TOLD)


def model_words(model: str, split_kind: SplitKind) -> str:
    """What a model is, in words; nothing for one that is not known.

    Args:
        model: Its name.
        split_kind: What the split holds out.
    """
    words = _MODELS.get(model, "")
    return f"{words}. {_TOLD[model]}" if model in told(split_kind) else words


def subset_words(subset: str, split_kind: SplitKind) -> str:
    """What a subset is called; where genes and pairs are held out, also which of them.

    Args:
        subset: Its name in ``metrics.csv``.
        split_kind: What the split holds out.
    """
    words = _SUBSETS.get(subset, subset)
    return _SUBSETS_OF_BOTH.get(subset, words) if split_kind == "both" else words


def headlines(
    metrics: pd.DataFrame,
    predictions: pd.DataFrame,
    models: Sequence[str],
    truth: str,
    split_kind: SplitKind = "gene",
) -> list[str]:
    """An answer to each question that a reader asks first: how well, how sure, compared with what.

    Args:
        metrics: What ``metrics.csv`` says.
        predictions: What ``predictions.csv`` says; differences between models are computed from it.
        models: Names of the models, in order.
        truth: ``simulated``, ``measured`` or ``true``.
        split_kind: What the split holds out.
    """
    questions = (
        ("singles", "fitness", f"Growth after one deletion ({truth} fitness)", "held-out genes"),
        (
            "interacting pairs",
            "gene_interaction",
            f"How two genes interact ({truth}, pairs that do interact)",
            "pairs with a held-out gene" if split_kind == "both" else "held-out pairs",
        ),
        (
            "interacting new pairs of known genes",
            "gene_interaction",
            f"How two known genes interact ({truth}, pairs that do interact)",
            "held-out pairs",
        ),
    )
    out = []
    for subset, target, what, instances in questions:
        found = _pick(metrics, "test", subset, target, "pearson")
        known = {
            m: found[m]
            for m in models
            if m in found and m not in told(split_kind) and math.isfinite(found[m]["value"])
        }
        if not known:
            continue
        best, *others = sorted(known, key=lambda m: -known[m]["value"])
        value, n = known[best]["value"], known[best]["n"]
        errors = {
            m: found["value"]
            for m, found in _pick(metrics, "test", subset, target, "mse").items()
            if m not in told(split_kind) and math.isfinite(found["value"])
        }
        # A correlation asks only for the trend: its winner may still be further off than a guess.
        worse = best != "mean" and errors.get(best, 0.0) > errors.get("mean", math.inf)
        sentence = (
            f"{what}: {best} {'follows' if worse else 'predicts'} it best, with a correlation of {metric_value('pearson', value)}"
            f"{_interval('pearson', known[best], ' (95 % interval {})')} over {count(n)} {instances}."
        )
        if others:
            sentence += _next_best(predictions, subset, target, best, others, known)
        if worse:
            sentence += _worse_than_a_guess(best, errors)
        elif best != "mean" and best in errors and "mean" in errors:
            sentence += (
                f" The mean squared error of {best} is {plain(errors[best])}; always guessing the mean gives "
                f"{plain(errors['mean'])}."
            )
        out.append(sentence)
    return out


def _worse_than_a_guess(best: str, errors: Mapping[str, float]) -> str:
    """A sentence on the model of the highest correlation, whose values are off by more than a guess would be."""
    least = min(errors, key=lambda m: errors[m])
    said = (
        f" But its values are worse than a guess: the mean squared error of {best} is {plain(errors[best])}; always guessing "
        f"the mean gives {plain(errors['mean'])}, which is less"
    )
    rival = (
        "" if least == "mean" else f", and the least, {plain(errors[least])}, is that of {least}"
    )
    return f"{said}{rival}."


def _next_best(
    predictions: pd.DataFrame,
    subset: str,
    target: str,
    best: str,
    others: Sequence[str],
    known: Mapping[str, Mapping[str, float]],
) -> str:
    """A sentence on the model that comes next, and whether it may as well be the best."""
    second = others[0]
    said = f" Next comes {second} with {metric_value('pearson', known[second]['value'])}"
    rest = [f"{m} {metric_value('pearson', known[m]['value'])}" for m in others[1:]]
    said += f" (then {', '.join(rest)})" if rest else ""
    gap, low, high = compare_models(predictions, "test", subset, target, "pearson", (best, second))
    if not (math.isfinite(gap) and math.isfinite(low)):
        return said + "."
    bounds = f"{metric_value('pearson', low)} to {metric_value('pearson', high)}"
    chance = "more than chance explains" if low > 0 else "which may be chance"
    return f"{said}; the difference is {metric_value('pearson', gap)} ({bounds}), {chance}."


def _interval(metric: str, found: Mapping[str, float], words: str = "{}") -> str:
    low, high = found.get("low", math.nan), found.get("high", math.nan)
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return words.format(f"{metric_value(metric, low)} to {metric_value(metric, high)}")


def _pick(
    metrics: pd.DataFrame, part: str, subset: str, target: str, metric: str
) -> dict[str, dict[str, float]]:
    """Value, low, high and n by model."""
    rows = metrics[
        (metrics["part"] == part)
        & (metrics["subset"] == subset)
        & (metrics["target"] == target)
        & (metrics["metric"] == metric)
    ]
    return {
        str(row["model"]): {name: float(row[name]) for name in ("value", "low", "high", "n")}
        for row in rows.to_dict("records")
    }


def metric_table(
    metrics: pd.DataFrame, part: str, models: Sequence[str], split_kind: SplitKind = "gene"
) -> dict[str, Any]:
    """Rows of one part, grouped by subset; per row a cell for each model, and n.

    Args:
        metrics: What ``metrics.csv`` says.
        part: Part of the split.
        models: Names of the models, in order.
        split_kind: What the split holds out.
    """
    knows = told(split_kind)
    own = metrics[metrics["part"] == part]
    shown = [m for m in models if m in set(own["model"])]
    groups = []
    undefined = mixed = absent = unsure = False
    for subset in _in_order(own["subset"], _SUBSETS):
        rows = []
        of_subset = own[own["subset"] == subset]
        for target in _in_order(of_subset["target"], TARGET_WORDS):
            of_target = of_subset[of_subset["target"] == target]
            for metric in _in_order(of_target["metric"], _METRICS):
                found = _pick(own, part, subset, target, metric)
                values = {m: f["value"] for m, f in found.items() if math.isfinite(f["value"])}
                counts = {f["n"] for f in found.values() if math.isfinite(f["n"]) and f["n"] > 0}
                best = _best(metric, {m: v for m, v in values.items() if m not in knows})
                if not counts:
                    continue
                # Undefined is not the same as not predicted at all.
                undefined |= any(m not in values and f["n"] > 0 for m, f in found.items())
                absent |= any(m not in found or not found[m]["n"] > 0 for m in shown)
                mixed |= len(counts) > 1
                unsure |= any(not _interval(metric, found[m]) for m in values)
                label, better = _METRICS.get(metric, (metric, ""))
                rows.append(
                    {
                        "target": TARGET_WORDS.get(target, target.replace("_", " ")),
                        "metric": label,
                        "better": better,
                        "cells": [_cell(m, metric, found, m in best) for m in shown],
                        "n": "–".join(dict.fromkeys(count(n) for n in (min(counts), max(counts)))),
                    }
                )
        if rows:
            groups.append({"name": subset_words(subset, split_kind), "rows": rows})
    return {
        "name": PARTS.get(part, part),
        "models": [(m, m in knows) for m in shown],
        "groups": groups,
        "undefined": undefined,
        "absent": absent,
        "mixed": mixed,
        "unsure": unsure,
        "told": any(m in knows for m in shown),
    }


def _in_order(found: pd.Series, known: Mapping[str, Any]) -> list[str]:
    """Values of a column, known ones first in their order."""
    present = list(dict.fromkeys(found))
    return [v for v in known if v in present] + [v for v in present if v not in known]


def _cell(
    model: str, metric: str, found: Mapping[str, Mapping[str, float]], best: bool
) -> dict[str, Any]:
    own = found.get(model, {})
    value = own.get("value", math.nan)
    if math.isfinite(value):
        sure = _interval(metric, own)
        return {"text": metric_value(metric, value), "sure": sure, "best": best, "why": ""}
    why = "undefined" if own.get("n", 0) > 0 else "absent"
    return {"text": "–", "sure": "", "best": False, "why": why}


def _best(metric: str, values: Mapping[str, float]) -> set[str]:
    """Models with the best value as it is shown (ties included); none if only one has a value."""
    if len(values) < 2 or metric not in _METRICS:
        return set()
    choose = min if _METRICS[metric][1] == "lower" else max
    winner = metric_value(metric, choose(values.values()))
    return {m for m, v in values.items() if metric_value(metric, v) == winner}

"""The table and the figure of a comparison."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyg_nsa.cell.evaluation.subsets import SUBSETS
from pyg_nsa.cell.report.figure_style import BLUE, GREY, INK, VERMILION, as_text, new_figure, quiet

__all__ = [
    "DIFFERENCES",
    "comparison_figure",
    "differences",
    "markdown_table",
    "over_inits",
    "shown_differences",
    "shown_rows",
    "summary",
    "with_every_seed",
]

_ORDER = ["subset", "target", "metric"]

DIFFERENCES = ["model", *_ORDER, "mean", "std", "better", "seeds"]
"""Columns of :func:`differences`."""

_OF_ONE = (
    ("fitness", "pearson"),
    ("fitness", "spearman"),
    ("fitness", "mse"),
    ("lethality", "auroc"),
)
_OF_SEVERAL = (
    *_OF_ONE,
    ("gene_interaction", "pearson"),
    ("gene_interaction", "spearman"),
    ("gene_interaction", "mse"),
)

#: Rows of the printed table: subset, target, metric. Those that no model has a value of are left out.
ROWS = tuple(
    (name, *row)
    for name, subset in SUBSETS.items()
    if not subset.interacting
    for row in (_OF_ONE if subset.size == 1 else _OF_SEVERAL)
)

_PANELS = (
    # Three a row; a row without instances is left out.
    (("singles", "fitness", "pearson"), "single deletions: fitness, Pearson"),
    (("singles", "fitness", "mse"), "single deletions: fitness, MSE"),
    (("singles", "lethality", "auroc"), "single deletions: lethality, AUROC"),
    *(
        ((name, target, metric), f"{name}: {words}")
        for name, subset in SUBSETS.items()
        if subset.size > 1 and not (subset.interacting or subset.new_losses)
        for target, metric, words in (
            ("fitness", "pearson", "fitness, Pearson"),
            ("gene_interaction", "pearson", f"interaction {'ετ'[subset.size - 2]}, Pearson"),
            ("gene_interaction", "mse", f"interaction {'ετ'[subset.size - 2]}, MSE"),
        )
    ),
)
_COLUMNS = 3


def over_inits(metrics: pd.DataFrame) -> pd.DataFrame:
    """Means over the initialisations of each model on each split, which stands in the place of the seed.

    Args:
        metrics: Columns model, split, seed, subset, target, metric, value, n.

    Returns:
        The same columns. A metric that is undefined for some initialisation is NaN.
    """
    grouped = metrics.groupby(["model", "split", *_ORDER], sort=False)
    out = grouped.agg(value=("value", lambda v: v.mean(skipna=False)), n=("n", "max")).reset_index()
    return out.assign(seed=out["split"])


def with_every_seed(metrics: pd.DataFrame, computed: Collection[str]) -> pd.DataFrame:
    """What needs no training is the same with every seed of a split: its rows once more for each seed that others have there.

    Args:
        metrics: Columns model, split, seed, and others.
        computed: Models that need no training.

    Returns:
        The same columns, for :func:`differences`.
    """
    once = metrics["model"].isin(list(computed))
    seeds = metrics.loc[~once, ["split", "seed"]].drop_duplicates()
    repeated = metrics[once].drop(columns="seed").merge(seeds, on="split")
    return pd.concat([metrics[~once], repeated], ignore_index=True)[list(metrics.columns)]


def summary(metrics: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds.

    Args:
        metrics: Columns model, seed, subset, target, metric, value, n; a row for each seed.

    Returns:
        Columns model, subset, target, metric, mean, std (of the sample; NaN for one seed), seeds, n. A metric that is
        undefined for some seed (a constant prediction has no correlation) is NaN.
    """
    grouped = metrics.groupby(["model", *_ORDER], sort=False)["value"]
    out = grouped.agg(
        mean=lambda v: v.mean(skipna=False), std=lambda v: v.std(ddof=1, skipna=False), seeds="size"
    )
    out["n"] = metrics.groupby(["model", *_ORDER], sort=False)["n"].max()
    return out.reset_index()


def differences(
    metrics: pd.DataFrame, models: Sequence[str], failed: Collection[str] = ()
) -> pd.DataFrame:
    """The first model less each other one, seed by seed: what is hard for both (a split, say) does not widen it.

    Args:
        metrics: As for :func:`summary`.
        models: The first one, and those that it is compared with; those without its seeds are left out.
        failed: Models of which the training failed with some seed; they are left out, too.

    Returns:
        Columns model, subset, target, metric, mean, std (of the sample; ``None`` for one seed), better (in how many seeds the
        first one is), seeds. Metrics that are undefined for some seed are left out.
    """
    wide = metrics.pivot(index=[*_ORDER, "seed"], columns="model", values="value")
    rows: list[dict[str, Any]] = []
    others = () if models[0] in failed else [m for m in models[1:] if m not in failed]
    for key, part in wide.groupby(level=_ORDER, sort=False):
        for model in others:
            less = (part[models[0]] - part[model]).to_numpy(np.float64)
            if not np.isfinite(less).all():
                continue
            gain = -less if key[-1] == "mse" else less
            row = {"model": model, **dict(zip(_ORDER, key, strict=True)), "mean": less.mean()}
            row["std"] = less.std(ddof=1) if len(less) > 1 else None
            rows.append({**row, "better": int((gain > 0).sum()), "seeds": len(less)})
    return pd.DataFrame(rows, columns=DIFFERENCES).astype({"std": object})


def shown_differences(table: pd.DataFrame, models: Sequence[str]) -> list[list[str]]:
    """Cells of a printed table of :func:`differences`: subset, target, metric, and of each model but the first
    ``mean ± std (better/seeds)``; nothing where there is one seed alone."""
    known = table[table["seeds"] > 1].set_index(["model", *_ORDER])
    rows = []
    for row in ROWS:
        of_row = {m: known.loc[(m, *row)] for m in models[1:] if (m, *row) in known.index}
        digits = _digits(row[2], [one["std"] for one in of_row.values()])
        cells = []
        for model in models[1:]:
            if model not in of_row:
                cells.append("–")
                continue
            found = of_row[model]
            better = f"{found['better']:.0f}/{found['seeds']:.0f}"
            cells.append(f"{found['mean']:+.{digits}f} ± {found['std']:.{digits}f} ({better})")
        if any(cell != "–" for cell in cells):
            rows.append([*row, *cells])
    return rows


def shown_rows(
    table: pd.DataFrame, models: Sequence[str], failed: Collection[str] = ()
) -> list[list[str]]:
    """Cells of the printed table: subset, target, metric, and ``mean ± std`` of each model.

    Args:
        table: Of :func:`summary`.
        models: Columns, in order.
        failed: Those of which the training failed with some seed; that is said in the place of numbers.
    """
    found = table.set_index(["model", *_ORDER])
    rows = []
    for row in ROWS:
        of_row = [found.loc[(m, *row)] if (m, *row) in found.index else None for m in models]
        digits = _digits(row[2], [values["mean"] for values in of_row if values is not None])
        cells = [_cell(values, digits) for values in of_row]
        if any(cell != "–" for cell in cells):
            shown = ["failed" if m in failed else c for m, c in zip(models, cells, strict=True)]
            rows.append([*row, *shown])
    return rows


def _digits(metric: str, sizes: Sequence[float]) -> int:
    """Digits after the point: of errors as many as leave two of the least one, for models may be told apart there alone."""
    if metric != "mse":
        return 3
    least = min((float(size) for size in sizes if size > 1e-9), default=1.0)
    return int(min(8, max(4, 1 - np.floor(np.log10(least)))))


def _cell(values: pd.Series | None, digits: int) -> str:
    if values is None or not np.isfinite(values["mean"]):
        return "–"
    spread = f" ± {values['std']:.{digits}f}" if np.isfinite(values["std"]) else ""
    return f"{values['mean']:.{digits}f}{spread}"


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a Markdown page."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


_FAR_APART = 50.0
"""Errors of one panel that differ by such a factor are drawn on a logarithmic axis."""


def comparison_figure(
    metrics: pd.DataFrame, models: Sequence[str], caption: str = "", failed: Collection[str] = ()
) -> Figure:
    """One panel for each of the main metrics; a point for each seed, a bar for their mean, a whisker of one std. Where a metric is
    undefined for some seed, that is said instead, as tables have no mean of it.

    Args:
        metrics: As for :func:`summary`.
        models: Rows of the panels, from the top.
        caption: A line below.
        failed: As for :func:`shown_rows`.
    """
    judged = set(metrics[metrics["n"] > 0]["subset"])
    panels = [panel for panel in _PANELS if panel[0][0] in judged] or _PANELS[:_COLUMNS]
    lines = len(panels) // _COLUMNS
    figure = new_figure(12, 1.6 + 0.42 * lines * (len(models) + 1.5))
    axes = figure.subplots(lines, _COLUMNS, sharey=True)
    place = {model: -i for i, model in enumerate(models)}
    for axis, (row, title) in zip(axes.flat, panels, strict=True):
        chosen = metrics[(metrics[_ORDER] == list(row)).all(axis=1)]
        for model in models:
            rows = chosen[chosen["model"] == model]
            values = rows["value"].to_numpy(np.float64)
            y = place[model]
            if nothing := "failed" if model in failed else _undefined(values, rows["n"]):
                axis.annotate(
                    nothing,
                    (0.02, y),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    color=GREY,
                    fontsize=8,
                )
                continue
            mean = values.mean()
            axis.barh(
                y, mean, height=0.6, color=BLUE if model == models[0] else "#B9D7EA", zorder=1
            )
            if len(values) > 1:
                axis.errorbar(
                    mean, y, xerr=values.std(ddof=1), color=INK, capsize=3, lw=1, zorder=2
                )
            axis.plot(values, np.full(len(values), y), "o", ms=3.5, color=VERMILION, zorder=3)
        known = chosen[chosen["value"] > 0]["value"]
        far_apart = row[2] == "mse" and len(known) > 0 and known.max() > _FAR_APART * known.min()
        axis.set_title(f"{title}, logarithmic" if far_apart else title, fontsize=9, loc="left")
        # Rows that hold words alone would not count for the limits.
        axis.set_ylim(0.5 - len(models), 0.5)
        axis.set_yticks([place[m] for m in models], [as_text(m) for m in models], fontsize=8)
        if far_apart:  # else the best models' bars are all of no length
            axis.set_xscale("log")
            axis.set_xlim(left=known.min() / 2)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5))  # small numbers are long
        axis.tick_params(axis="x", labelsize=8)
        quiet(axis)
    if caption:
        figure.supxlabel(as_text(caption), fontsize=8, color=GREY)
    return figure


def _undefined(values: NDArray[np.float64], counts: pd.Series) -> str:
    """What stands in the place of a bar, where the table has no mean either; else nothing."""
    if not (counts > 0).any():
        return "not predicted"
    lost = int((~np.isfinite(values)).sum())
    if lost == len(values):
        return "undefined"
    return f"undefined in {lost} of {len(values)}" if lost else ""

"""The figures of training and predictions: plain functions from tables to matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from pyg_nsa.cell.report.figure_style import (
    BLUE,
    GREY,
    INK,
    PALE,
    VERMILION,
    as_text,
    new_figure,
    panels,
    quiet,
    shorten,
)

__all__ = ["loss_figure", "occupancy_figure", "scatter_figure"]

_MANY = 1500  # points that a panel shows one by one
_DENSITY = LinearSegmentedColormap.from_list("density", ["#B9D7EA", BLUE, "#08233B"])


# ---- loss --------------------------------------------------------------------------------------------------------


def loss_figure(history: pd.DataFrame) -> Figure | None:
    """Training and validation loss by epoch, a panel for each model, with the same axes.

    Args:
        history: Columns model, epoch, train_loss, val_loss; missing values allowed.

    Returns:
        The figure, or ``None`` if there is no finite value at all.
    """
    losses = history[["train_loss", "val_loss"]].to_numpy(float)
    finite = losses[np.isfinite(losses)]
    models = [
        m for m, rows in history.groupby("model", sort=False) if _finite_rows(rows).any(axis=None)
    ]
    if not len(finite) or not models:
        return None
    figure, axes = panels(len(models), 3.6 if len(models) > 1 else 6.0, 3.1, across=3)
    for ax, model in zip(axes, models, strict=True):
        rows = history[history["model"] == model].sort_values("epoch", kind="stable")
        for column, label, style in (
            ("train_loss", "training", {"color": VERMILION, "linestyle": "--", "marker": "s"}),
            ("val_loss", "validation", {"color": BLUE, "linestyle": "-", "marker": "o"}),
        ):
            known = rows[np.isfinite(rows[column].to_numpy(float))]
            size = 3.5 if len(known) <= 40 else 0.0
            x, y = known["epoch"].to_numpy(float), known[column].to_numpy(float)
            ax.plot(x, y, label=label, linewidth=1.5, markersize=size, **style)  # type: ignore[arg-type]
            if column == "val_loss" and len(y):
                best = int(y.argmin())
                ax.plot(
                    x[best],
                    y[best],
                    marker="o",
                    markersize=10,
                    markerfacecolor="none",
                    markeredgecolor=INK,
                    linestyle="none",
                    label="lowest validation loss",
                )
        ax.set_title(as_text(model), fontsize=10, color=INK)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.grid(axis="y", color=PALE, linewidth=0.6)
    if finite.min() > 0 and finite.max() / finite.min() > 30:
        axes[0].set_yscale("log")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.supxlabel("epoch", fontsize=10, color=INK)
    figure.supylabel("loss (standardised labels)", fontsize=10, color=INK)
    return figure


def _finite_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return np.isfinite(rows[["train_loss", "val_loss"]].astype(float))


# ---- predicted against true --------------------------------------------------------------------------------------


def scatter_figure(
    predictions: pd.DataFrame, target: str, *, truth: str = "simulated", what: str = "deletions"
) -> Figure | None:
    """Predicted against true values, models side by side, all with the same axes.

    Few points are drawn one by one; many are counted in hexagons (a logarithmic scale of counts, the same in all panels).
    The axes cover all true values and the bulk of the predictions; predictions beyond are triangles on the edge.

    Args:
        predictions: Columns model, ``target`` and ``{target}_pred``; missing values allowed.
        target: ``"fitness"`` or ``"gene_interaction"``.
        truth: What the true values are: ``"simulated"``, ``"measured"``, …
        what: What is counted, for the titles.

    Returns:
        The figure, or ``None`` if no model has a point.
    """
    points: dict[str, tuple[NDArray, NDArray]] = {}
    for model, rows in predictions.groupby("model", sort=False):
        true, pred = (rows[c].to_numpy(float) for c in (target, f"{target}_pred"))
        known = np.isfinite(true) & np.isfinite(pred)
        if known.any():
            points[str(model)] = (true[known], pred[known])
    if not points:
        return None
    low, high = _limits(list(points.values()))
    many = max(len(true) for true, _ in points.values()) > _MANY
    # "compressed" is matplotlib's layout for axes of a fixed aspect.
    figure, axes = panels(len(points), 2.75, 3.45, layout="compressed")
    hexagons: list[PolyCollection] = []
    for ax, (model, (true, pred)) in zip(axes, points.items(), strict=True):
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        ax.plot([low, high], [low, high], color=GREY, linewidth=0.9, linestyle=":", zorder=3)
        outside = (pred < low) | (pred > high)
        inside = ~outside
        if many and inside.any():
            hexagons.append(
                ax.hexbin(
                    true[inside],
                    pred[inside],
                    gridsize=36,
                    extent=(low, high, low, high),
                    mincnt=1,
                    cmap=_DENSITY,
                    linewidths=0.1,
                    zorder=2,
                )
            )
        elif inside.any():
            alpha = float(np.clip(60 / inside.sum(), 0.15, 0.7))
            ax.scatter(
                true[inside], pred[inside], s=16, color=BLUE, alpha=alpha, linewidths=0, zorder=2
            )
        if outside.any():
            edge = np.where(pred[outside] > high, high, low)
            for way, marker in ((high, "^"), (low, "v")):
                at = edge == way
                ax.scatter(
                    true[outside][at],
                    edge[at],
                    marker=marker,
                    s=24,
                    color=VERMILION,
                    alpha=0.6,
                    linewidths=0,
                    clip_on=False,
                    zorder=4,
                )
            ax.text(
                0.97,
                0.04,
                f"{outside.sum():,} outside",
                transform=ax.transAxes,
                ha="right",
                fontsize=8.5,
                color=VERMILION,
            )
        ax.set_title(f"{as_text(model)}\nn = {len(true):,} {what}", fontsize=9.5, color=INK)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if hexagons:
        top = max(float(h.get_array().max()) for h in hexagons)
        for h in hexagons:
            h.set_norm(LogNorm(1, max(top, 2)))
        bar = figure.colorbar(hexagons[0], ax=axes, pad=0.01, fraction=0.03)
        bar.set_label(f"{what} in a hexagon", fontsize=9, color=INK)
        bar.ax.tick_params(labelsize=8.5, colors=GREY, labelcolor=INK)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.outline.set_visible(False)  # type: ignore[operator]
    name = target.replace("_", " ")
    figure.supxlabel(f"{truth} {name}", fontsize=10, color=INK)
    figure.supylabel(f"predicted {name}", fontsize=10, color=INK)
    return figure


def _limits(points: Sequence[tuple[NDArray, NDArray]]) -> tuple[float, float]:
    """Both axes' limits: all true values, and predictions as far as they are not much wider spread than those."""
    true = np.concatenate([t for t, _ in points])
    low, high = float(true.min()), float(true.max())
    span = high - low
    if span <= 1e-12:
        span = max(1e-3, abs(low))
    near = [np.quantile(pred, [0.002, 0.998]) for _, pred in points]
    low = min(low, max(float(min(q[0] for q in near)), low - span))
    high = max(high, min(float(max(q[1] for q in near)), high + span))
    margin = 0.05 * max(high - low, 1e-6)
    return low - margin, high + margin


# ---- tile occupancy ----------------------------------------------------------------------------------------------


def occupancy_figure(table: pd.DataFrame) -> Figure | None:
    """Share of occupied tiles of each relation, in natural order and reordered.

    Args:
        table: As :func:`pyg_nsa.cell.report.occupancy.tile_occupancy` gives it.

    Returns:
        The figure, or ``None`` if no relation has a tile.
    """
    table = table[table["tiles"] > 0]
    if table.empty:
        return None
    n = len(table)
    figure = new_figure(8.4, 0.9 + 0.42 * n)
    ax = figure.subplots()
    quiet(ax)
    y = np.arange(n)[::-1]
    natural = 100 * table["natural"].to_numpy(float) / table["tiles"].to_numpy(float)
    reordered = 100 * table["reordered"].to_numpy(float) / table["tiles"].to_numpy(float)
    ax.hlines(y, np.minimum(natural, reordered), np.maximum(natural, reordered), color=PALE, lw=5)
    ax.plot(
        natural, y, "o", color="white", markeredgecolor=INK, ms=8, mew=1.4, label="natural order"
    )
    ax.plot(reordered, y, "D", color=BLUE, ms=5.5, label="reordered")
    counts = zip(table["natural"], table["reordered"], table["tiles"], strict=True)
    for at, (before, after, tiles) in zip(y, counts, strict=True):
        ax.annotate(
            f"{before:,.0f} → {after:,.0f} of {tiles:,.0f}",
            (1.0, at),
            xycoords=ax.get_yaxis_transform(),
            xytext=(14, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            annotation_clip=False,
        )
    ax.set_yticks(y, [as_text(shorten(str(r), 44)) for r in table["relation"]])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlim=(0, 102), ylim=(-0.7, n - 0.3))
    ax.set_xlabel("occupied tiles, % of all", fontsize=10, color=INK)
    ax.grid(axis="x", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure

"""The main metrics of each model, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_nsa.cell.report.figure_style import BLUE, GREY, INK, PALE, as_text, new_figure, quiet

__all__ = ["metrics_figure"]

_SHOWN = (
    # subset, target, metric, title, value of a guess
    ("singles", "fitness", "pearson", "fitness of single deletions\nPearson correlation", 0.0),
    ("singles", "lethality", "auroc", "lethality of single deletions\nAUROC", 0.5),
    ("pairs", "fitness", "pearson", "fitness of pairs\nPearson correlation", 0.0),
    (
        "interacting pairs",
        "gene_interaction",
        "pearson",
        "interaction of pairs\nthat interact, Pearson",
        0.0,
    ),
    (
        "new pairs of known genes",
        "fitness",
        "pearson",
        "fitness of new pairs\nof known genes, Pearson",
        0.0,
    ),
    (
        "interacting new pairs of known genes",
        "gene_interaction",
        "pearson",
        "interaction of new pairs\nthat interact, Pearson",
        0.0,
    ),
    ("triples", "gene_interaction", "pearson", "interaction of triples\nPearson correlation", 0.0),
)

_ACROSS = 4  # panels side by side: with more, the letters get too small to read on a page


def metrics_figure(metrics: pd.DataFrame, part: str = "test") -> Figure | None:
    """The main metrics of each model, with their intervals, a panel for each metric.

    Args:
        metrics: Columns model, part, subset, target, metric, value, and low and high where there are intervals.
        part: The part of the split.

    Returns:
        The figure, or ``None`` if no model has a value.
    """
    own = metrics[(metrics["part"] == part) & np.isfinite(metrics["value"])]
    wanted = []
    for subset, target, metric, title, guess in _SHOWN:
        rows = own[
            (own["subset"] == subset) & (own["target"] == target) & (own["metric"] == metric)
        ]
        if len(rows):
            wanted.append((rows.set_index("model"), title, guess))
    models = [m for m in dict.fromkeys(metrics["model"]) if any(m in r.index for r, *_ in wanted)]
    if not wanted:
        return None
    across = min(len(wanted), _ACROSS)
    down = -(-len(wanted) // across)
    figure = new_figure(2.35 * across + 1.4, 0.3 + down * (1.2 + 0.34 * len(models)))
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for ax in grid.flat[len(wanted) :]:
        ax.set_visible(False)
    place = {model: len(models) - 1 - i for i, model in enumerate(models)}
    for ax, (rows, title, guess) in zip(grid.flat, wanted, strict=False):
        quiet(ax)
        ax.axvline(guess, color=GREY, linewidth=0.9, linestyle=":")
        for model, row in rows.iterrows():
            y = place[model]
            low, high = (float(row.get(name, np.nan)) for name in ("low", "high"))
            if np.isfinite(low) and np.isfinite(high):
                ax.plot([low, high], [y, y], color=BLUE, linewidth=2.2, alpha=0.45)
            ax.plot(row["value"], y, "o", color=BLUE, markersize=6)
        ax.set_title(title, fontsize=9, color=INK)
        ax.set_yticks(range(len(models)), [as_text(m) for m in reversed(models)])
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(-0.6, len(models) - 0.4)
        ax.grid(axis="y", color=PALE, linewidth=0.6)
        ax.set_axisbelow(True)
        # All are at most 1: a dot's place means the same in every run's figure.
        ax.set_xlim(max(min(ax.dataLim.x0, guess) - 0.07, -1.05), 1.03)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    return figure

"""How all figures of a report look.

Everything is drawn on figure objects of its own (``matplotlib.figure.Figure`` with the Agg canvas), never through
``pyplot``, so that a report can be written in any thread and leaves a user's plots alone. Colours are those of Okabe & Ito,
which people with colour-blindness tell apart, and no distinction rests on colour alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "DPI",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PALE",
    "PURPLE",
    "VERMILION",
    "as_text",
    "new_figure",
    "panels",
    "quiet",
    "save",
    "shorten",
]

BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#007A57", "#E69F00", "#CC79A7"
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
DPI = 150

Layout = Literal["constrained", "compressed"]


def save(figure: Figure, path: Path) -> bytes:
    """Write a figure as PNG.

    Args:
        figure: What to write.
        path: Where to; its folder is made.

    Returns:
        The bytes of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Tight: constrained layout cuts titles off above panels whose aspect is fixed. Drawings without a layout engine
    # are placed by hand, and the two of a knockout must stay the same size.
    figure.savefig(
        path,
        dpi=DPI,
        facecolor="white",
        metadata={"Software": None},
        bbox_inches="tight" if figure.get_layout_engine() is not None else None,
        pad_inches=0.1,
    )
    return path.read_bytes()


def new_figure(width: float, height: float, layout: Layout = "constrained") -> Figure:
    """A figure of its own canvas; sizes in inches."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(
    n: int, width: float, height: float, across: int = 4, layout: Layout = "constrained"
) -> tuple[Figure, list[Axes]]:
    """``n`` panels of equal axes, at most ``across`` side by side."""
    across = min(n, across)
    down = -(-n // across)
    figure = new_figure(max(width * across, 4.2), height * down, layout)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for ax in axes[n:]:
        ax.set_visible(False)
    for i, ax in enumerate(axes[:n]):
        quiet(ax)
        # With shared axes only the outer panels have tick labels: also those above an empty place.
        ax.tick_params(labelbottom=i + across >= n, labelleft=i % across == 0)
    return figure, axes[:n]


def quiet(ax: Axes) -> None:
    """Axes without a frame, in grey."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=GREY, labelcolor=INK, labelsize=9, length=3)


def as_text(words: object) -> str:
    """Words as they are: matplotlib would read what stands between two dollar signs as mathematics."""
    return str(words).replace("$", r"\$")


def shorten(words: str, length: int) -> str:
    """Words of at most ``length`` letters."""
    return words if len(words) <= length else words[: length - 1] + "…"

"""The figures of a training run's report: plain functions from tables to matplotlib figures.

Everything is drawn on figure objects of its own (``matplotlib.figure.Figure`` with the Agg canvas), never through
``pyplot``, so that a report can be written in any thread and leaves a user's plots alone. Colours are those of Okabe & Ito,
which people with colour-blindness tell apart, and no distinction rests on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path as CurvePath
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

__all__ = [
    "MAX_NODES",
    "Neighbourhood",
    "choose_neighbourhood",
    "knockout_figure",
    "loss_figure",
    "occupancy_figure",
    "save",
    "scatter_figure",
]

MAX_NODES = 40
"""Most nodes that the drawing of a knockout shows."""

BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#007A57", "#E69F00", "#CC79A7"
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
DPI = 150

_Layout = Literal["constrained", "compressed"]

_MANY = 1500  # points that a panel shows one by one
_DENSITY = LinearSegmentedColormap.from_list("density", ["#B9D7EA", BLUE, "#08233B"])


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


def _figure(width: float, height: float, layout: _Layout = "constrained") -> Figure:
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _panels(
    n: int, width: float, height: float, across: int = 4, layout: _Layout = "constrained"
) -> tuple[Figure, list[Axes]]:
    """``n`` panels of equal axes, at most ``across`` side by side."""
    across = min(n, across)
    down = -(-n // across)
    figure = _figure(max(width * across, 4.2), height * down, layout)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for ax in panels[n:]:
        ax.set_visible(False)
    for i, ax in enumerate(panels[:n]):
        _quiet(ax)
        # With shared axes only the outer panels have tick labels: also those above an empty place.
        ax.tick_params(labelbottom=i + across >= n, labelleft=i % across == 0)
    return figure, panels[:n]


def _quiet(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=GREY, labelcolor=INK, labelsize=9, length=3)


def _text(words: object) -> str:
    """Words as they are: matplotlib would read what stands between two dollar signs as mathematics."""
    return str(words).replace("$", r"\$")


def _shorten(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"


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
    figure, panels = _panels(len(models), 3.6 if len(models) > 1 else 6.0, 3.1, across=3)
    for ax, model in zip(panels, models, strict=True):
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
        ax.set_title(_text(model), fontsize=10, color=INK)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.grid(axis="y", color=PALE, linewidth=0.6)
    if finite.min() > 0 and finite.max() / finite.min() > 30:
        panels[0].set_yscale("log")
    handles, labels = panels[0].get_legend_handles_labels()
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
    figure, panels = _panels(len(points), 2.75, 3.45, layout="compressed")
    hexagons: list[PolyCollection] = []
    for ax, (model, (true, pred)) in zip(panels, points.items(), strict=True):
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
        ax.set_title(f"{_text(model)}\nn = {len(true):,} {what}", fontsize=9.5, color=INK)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if hexagons:
        top = max(float(h.get_array().max()) for h in hexagons)
        for h in hexagons:
            h.set_norm(LogNorm(1, max(top, 2)))
        bar = figure.colorbar(hexagons[0], ax=panels, pad=0.01, fraction=0.03)
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
        table: As :func:`pyg_nsa.cell.occupancy.tile_occupancy` gives it.

    Returns:
        The figure, or ``None`` if no relation has a tile.
    """
    table = table[table["tiles"] > 0]
    if table.empty:
        return None
    n = len(table)
    figure = _figure(8.4, 0.9 + 0.42 * n)
    ax = figure.subplots()
    _quiet(ax)
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
    ax.set_yticks(y, [_text(_shorten(str(r), 44)) for r in table["relation"]])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlim=(0, 102), ylim=(-0.7, n - 0.3))
    ax.set_xlabel("occupied tiles, % of all", fontsize=10, color=INK)
    ax.grid(axis="x", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


# ---- the knockout ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbourhood:
    """The part of the network around a knockout that is drawn.

    Attributes:
        nodes: (type, id) of each node, by type.
        deleted: Those that the knockout removes.
        edges: Rows of the attention table between these nodes.
        left_out: How many nodes of the table are not drawn.
    """

    nodes: tuple[tuple[str, str], ...]
    deleted: frozenset[tuple[str, str]]
    edges: pd.DataFrame
    left_out: int


def choose_neighbourhood(
    attention: pd.DataFrame, genes: Sequence[str], max_nodes: int = MAX_NODES
) -> Neighbourhood:
    """The nodes around deleted genes that are bound to them by the strongest attention.

    Starts with the deleted genes and adds, one at a time, the node with the most attention to and from those chosen so
    far (in the wildtype or the knockout, whichever is more), so that what is drawn hangs together. No type takes more than
    45 % of the places while another can have them.

    Args:
        attention: Columns relation, source_type, source, target_type, target, weight_wildtype, weight_knockout.
        genes: The deleted genes.
        max_nodes: Most nodes.

    Returns:
        The neighbourhood. Deleted are the genes, reactions with an edge to or from one of them, and reactions without any
        attention left.
    """
    source = list(zip(attention["source_type"], attention["source"], strict=True))
    target = list(zip(attention["target_type"], attention["target"], strict=True))
    weights = attention[["weight_wildtype", "weight_knockout"]].fillna(0.0)
    strength = weights.max(axis=1).to_numpy(float)
    every = dict.fromkeys([*source, *target])
    neighbours: dict[tuple[str, str], dict[tuple[str, str], float]] = {node: {} for node in every}
    for a, b, weight in zip(source, target, strength, strict=True):
        neighbours[a][b] = neighbours[a].get(b, 0.0) + weight
        neighbours[b][a] = neighbours[b].get(a, 0.0) + weight
    start = [("gene", g) for g in dict.fromkeys(genes) if ("gene", g) in every][:max_nodes]
    cap = max(1, math.ceil(0.45 * max_nodes))
    chosen: dict[tuple[str, str], None] = {}
    pull = dict.fromkeys(every, 0.0)
    room = dict.fromkeys({node_type for node_type, _ in every}, cap)

    def add(node: tuple[str, str]) -> None:
        chosen[node] = None
        room[node[0]] -= 1
        for other, weight in neighbours[node].items():
            pull[other] += weight + 1e-9

    for node in start:
        add(node)
    while len(chosen) < min(max_nodes, len(every)):
        rest = [n for n in every if n not in chosen]
        joined = [n for n in rest if pull[n] > 0]
        if not joined and start:
            break
        roomy = [n for n in joined or rest if room[n[0]] > 0]
        add(max(roomy or joined or rest, key=lambda n: pull[n] or sum(neighbours[n].values())))
    deleted = _deleted(attention, source, target, weights, set(genes))
    inside = np.array([a in chosen and b in chosen for a, b in zip(source, target, strict=True)])
    types = [t for t in ("gene", "reaction", "metabolite") if t in room]
    types += sorted(set(room) - set(types))
    nodes = sorted(chosen, key=lambda n: types.index(n[0]))
    return Neighbourhood(
        tuple(nodes),
        frozenset(deleted & set(chosen)),
        attention[inside.astype(bool)].reset_index(drop=True),
        len(every) - len(chosen),
    )


def _deleted(
    attention: pd.DataFrame,
    source: list[tuple[str, str]],
    target: list[tuple[str, str]],
    weights: pd.DataFrame,
    genes: set[str],
) -> set[tuple[str, str]]:
    """Nodes that are gone: metabolites never are, whatever attention they have left."""
    out = {n for n in {*source, *target} if n[0] == "gene" and n[1] in genes}
    for a, b in zip(source, target, strict=True):
        if a in out and a[0] == "gene" and b[0] == "reaction":
            out.add(b)
        if b in out and b[0] == "gene" and a[0] == "reaction":
            out.add(a)
    totals: dict[tuple[str, str], NDArray] = {}
    for a, b, pair in zip(source, target, weights.to_numpy(float), strict=True):
        for node in (a, b):
            if node[0] == "reaction":
                totals[node] = totals.get(node, np.zeros(2)) + pair
    return out | {n for n, (before, after) in totals.items() if before > 0 and after == 0}


_SIZE = 9.0  # points
_FONT = FontProperties(family="DejaVu Sans", size=_SIZE)
_ROW, _BOX, _GAP = (
    0.36,
    0.25,
    1.45,
)  # inches: pitch of the rows, height of a box, least gap between columns
_STYLE = {
    "gene": ("#D3E7F4", BLUE),
    "reaction": ("#FBE6CC", "#A65300"),
    "metabolite": ("#D2EDE2", GREEN),
}
_OTHER = ("#F2DFEA", "#9B4F77")
_FORWARD, _BACK, _WITHIN = "#3B4A5A", VERMILION, PURPLE


def knockout_figure(
    near: Neighbourhood,
    *,
    weight: str,
    names: Mapping[str, str] | None = None,
    max_edges: int = 160,
) -> Figure:
    """Draw a neighbourhood in columns, one per node type, with edges as wide as their attention.

    The places of the nodes do not depend on ``weight``: the drawings of wildtype and knockout can be laid side by side.

    Args:
        near: What to draw.
        weight: ``"weight_wildtype"`` or ``"weight_knockout"``. Only the latter shows the deleted nodes as such; the
            former gives them a bold outline.
        names: Names of genes by id.
        max_edges: The strongest edges that are drawn; each node's strongest is drawn besides.

    Returns:
        The figure.
    """
    names = names or {}
    knockout = weight == "weight_knockout"
    columns = _columns(near)
    labels = {node: node_label(*node, names=names) for node in near.nodes}
    widths = {t: max(_text_width(labels[n]) for n in nodes) + 0.26 for t, nodes in columns.items()}
    within = {
        t: bool(((near.edges["source_type"] == t) & (near.edges["target_type"] == t)).any())
        for t in columns
    }
    x, left = {}, 0.12
    for node_type in columns:
        left += 1.15 if within[node_type] else 0.0
        x[node_type] = left
        left += widths[node_type] + _GAP
    width = max(left - _GAP + 0.12, 6.4)
    rows = max(len(nodes) for nodes in columns.values())
    foot, head = 0.85, 0.4
    height = rows * _ROW + foot + head
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    y = {}
    for nodes in columns.values():
        pitch = min(rows * _ROW / len(nodes), 2.2 * _ROW)
        middle = foot + rows * _ROW / 2
        for i, node in enumerate(nodes):
            y[node] = middle + pitch * ((len(nodes) - 1) / 2 - i)
    place = {n: (x[n[0]], y[n], widths[n[0]]) for n in near.nodes}
    order = list(columns)
    shown = near.edges.loc[_strongest(near.edges, max_edges)]
    for row in shown.sort_values(weight).to_dict("records"):
        value = row[weight]
        if not value >= 0.005:
            continue
        a, b = (row["source_type"], row["source"]), (row["target_type"], row["target"])
        _draw_edge(ax, place[a], place[b], order.index(b[0]) - order.index(a[0]), float(value))
    for node in near.nodes:
        _draw_node(ax, place[node], node[0], labels[node], node in near.deleted, knockout)
    for node_type in columns:
        plural = node_type if node_type.endswith("s") else f"{node_type}s"
        ax.text(
            x[node_type] + widths[node_type] / 2,
            height - 0.22,
            _text(plural),
            ha="center",
            va="center",
            fontsize=10.5,
            color=_STYLE.get(node_type, _OTHER)[1],
        )
    _draw_legend(ax, width, any(within.values()), bool(near.deleted), knockout)
    return figure


def _strongest(edges: pd.DataFrame, number: int) -> list[int]:
    """Labels of the strongest edges, and of each node's strongest."""
    strength = edges[["weight_wildtype", "weight_knockout"]].fillna(0).max(axis=1)
    order = strength.sort_values(ascending=False, kind="stable").index
    keep = dict.fromkeys(order[:number])
    for end in ("source", "target"):
        ends = edges.loc[order, [f"{end}_type", end]]
        keep |= dict.fromkeys(ends.drop_duplicates().index)
    return list(keep)


def node_label(node_type: str, node_id: str, names: Mapping[str, str] | None = None) -> str:
    """What is written into a node: a gene's name with its id; a reaction with its clause (from the second on) and direction.

    Args:
        node_type: The node's type.
        node_id: Its id in the graph.
        names: Names of genes by id.
    """
    names = names or {}
    if node_type == "gene" and names.get(node_id, node_id) != node_id:
        return _shorten(f"{names[node_id]} ({node_id})", 26)
    if node_type == "reaction" and node_id.count("|") >= 2:
        reaction, clause, direction = node_id.rsplit("|", 2)
        arrow = {"forward": " →", "backward": " ←"}.get(direction, f" {direction}")
        number = f" #{int(clause) + 1}" if clause.isdigit() and clause != "0" else ""
        return _shorten(reaction, 20) + number + arrow
    return _shorten(node_id, 24)


def _columns(near: Neighbourhood) -> dict[str, list[tuple[str, str]]]:
    """Nodes by type, ordered so that few edges cross: each node near the mean place of its neighbours."""
    columns: dict[str, list[tuple[str, str]]] = {}
    for node in near.nodes:
        columns.setdefault(node[0], []).append(node)
    pairs: dict[tuple[str, str], list[tuple[tuple[str, str], float]]] = {n: [] for n in near.nodes}
    for row in near.edges.to_dict("records"):
        a, b = (row["source_type"], row["source"]), (row["target_type"], row["target"])
        weight = 0.05 + max(row["weight_wildtype"], row["weight_knockout"])
        if a[0] != b[0] and weight > 0:
            pairs[a].append((b, weight))
            pairs[b].append((a, weight))
    for _ in range(12):
        for node_type, nodes in columns.items():
            place = {n: (i + 0.5) / len(c) for c in columns.values() for i, n in enumerate(c)}

            def mean(node: tuple[str, str], place: dict = place) -> float:
                total = sum(w for _, w in pairs[node])
                if not total:
                    return place[node]
                return sum(place[other] * w for other, w in pairs[node]) / total

            columns[node_type] = sorted(nodes, key=lambda n: (round(mean(n), 9), place[n]))
    return columns


def _text_width(words: str) -> float:
    """Width in inches."""
    return float(TextPath((0, 0), _text(words), prop=_FONT).get_extents().width) / 72


def _draw_edge(
    ax: Axes,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    way: int,
    value: float,
) -> None:
    """A curve from one box to another; ``way``: columns to the right."""
    (ax_, ay, aw), (bx, by, bw) = start, end
    if way == 0:
        bulge = min(0.22 + 0.16 * abs(by - ay), 1.05)
        points = [(ax_, ay), (ax_ - bulge, ay), (bx - bulge, by), (bx, by)]
        if start == end:
            points = [
                (ax_, ay + 0.06),
                (ax_ - 0.4, ay + 0.15),
                (ax_ - 0.4, ay - 0.15),
                (ax_, ay - 0.06),
            ]
        color = _WITHIN
    else:
        # The two directions of a pair run beside each other.
        shift = 0.045 if way > 0 else -0.045
        a_side, b_side = (ax_ + aw, bx) if way > 0 else (ax_, bx + bw)
        reach = (b_side - a_side) * 0.45
        points = [
            (a_side, ay + shift),
            (a_side + reach, ay + shift),
            (b_side - reach, by + shift),
            (b_side, by + shift),
        ]
        color = _FORWARD if way > 0 else _BACK
    curve = CurvePath(
        points, [CurvePath.MOVETO, CurvePath.CURVE4, CurvePath.CURVE4, CurvePath.CURVE4]
    )
    ax.add_patch(
        FancyArrowPatch(
            path=curve,
            arrowstyle="-|>",
            mutation_scale=6.5,
            linewidth=_line_width(value),
            color=color,
            alpha=0.3 + 0.5 * min(value, 1.0),
            zorder=1,
            shrinkA=0,
            shrinkB=0,
            capstyle="butt",
            joinstyle="miter",
        )
    )


def _line_width(value: float) -> float:
    return 0.35 + 3.6 * min(max(value, 0.0), 1.0)


def _draw_node(
    ax: Axes,
    place: tuple[float, float, float],
    node_type: str,
    label: str,
    deleted: bool,
    knockout: bool,
) -> None:
    x, y, width = place
    fill, edge = _STYLE.get(node_type, _OTHER)
    gone = deleted and knockout
    if gone:
        fill, edge = "#EEEEEE", "#8A8A8A"
    _draw_shape(
        ax,
        node_type,
        (x, y, width),
        facecolor=fill,
        edgecolor=edge,
        linewidth=2.4 if deleted and not knockout else 1.1,
        linestyle="--" if gone else "-",
    )
    color = "#3F3F3F" if gone else INK
    ax.text(
        x + width / 2,
        y - 0.005,
        _text(label),
        ha="center",
        va="center_baseline",
        fontproperties=_FONT,
        color=color,
        zorder=5,
    )
    if gone:
        _draw_cross(ax, x, y, width)


def _draw_cross(ax: Axes, x: float, y: float, width: float) -> None:
    for way in (1, -1):
        ax.plot(
            [x - 0.04, x + width + 0.04],
            [y - way * (_BOX / 2 + 0.01), y + way * (_BOX / 2 + 0.01)],
            color="#9A9A9A",
            linewidth=1.3,
            zorder=4,
        )


def _draw_shape(
    ax: Axes,
    node_type: str,
    place: tuple[float, float, float],
    *,
    facecolor: str,
    edgecolor: str,
    linewidth: float,
    linestyle: str,
) -> None:
    """Genes are pills, reactions rectangles, metabolites hexagons, anything else is slanted."""
    x, y, width = place
    low, high = y - _BOX / 2, y + _BOX / 2
    patch: FancyBboxPatch | Rectangle | Polygon
    if node_type == "gene":
        style = f"round,pad=0,rounding_size={_BOX / 2}"
        patch = FancyBboxPatch((x, low), width, _BOX, boxstyle=style)
    elif node_type == "reaction":
        patch = Rectangle((x, low), width, _BOX)
    elif node_type == "metabolite":
        tip = 0.1
        corners = [(x + tip, high), (x + width - tip, high), (x + width, y)]
        patch = Polygon([*corners, (x + width - tip, low), (x + tip, low), (x, y)], closed=True)
    else:
        tip = 0.07
        patch = Polygon(
            [(x + tip, high), (x + width, high), (x + width - tip, low), (x, low)], closed=True
        )
    patch.set(
        facecolor=facecolor,
        edgecolor=edgecolor,
        linewidth=linewidth,
        linestyle=linestyle,
        zorder=3,
    )
    ax.add_patch(patch)


def _draw_legend(ax: Axes, width: float, within: bool, deleted: bool, knockout: bool) -> None:
    """Two lines under the drawing: directions, then widths and what deleted nodes look like."""
    lines = [("from left to right", _FORWARD), ("from right to left", _BACK)]
    if within:
        lines.append(("within a column", _WITHIN))
    handles = [Line2D([], [], color=c, linewidth=2.2, label=label) for label, c in lines]
    ax.add_artist(
        ax.legend(
            handles=handles,
            loc="lower center",
            bbox_to_anchor=(width / 2, 0.4),
            bbox_transform=ax.transData,
            ncols=3,
            frameon=False,
            fontsize=9,
            title=None,
            borderpad=0,
            columnspacing=1.6,
        )
    )
    scale: list = [
        Line2D([], [], color=_FORWARD, linewidth=_line_width(v), label=f"attention {v:g}")
        for v in (0.1, 0.5, 1.0)
    ]
    if deleted:
        style = {"linestyle": "--", "linewidth": 1.0} if knockout else {"linewidth": 2.4}
        scale.append(
            Rectangle(
                (0, 0),
                1,
                1,
                facecolor="#EEEEEE" if knockout else "white",
                edgecolor="#8A8A8A" if knockout else INK,
                label="deleted (crossed out)" if knockout else "will be deleted",
                **style,  # type: ignore[arg-type]
            )
        )
    ax.legend(
        handles=scale,
        loc="lower center",
        bbox_to_anchor=(width / 2, 0.1),
        bbox_transform=ax.transData,
        ncols=4,
        frameon=False,
        fontsize=9,
        borderpad=0,
        columnspacing=1.6,
    )

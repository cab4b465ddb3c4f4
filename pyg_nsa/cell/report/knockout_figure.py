"""The drawing of a knockout: its neighbourhood in columns, with edges as wide as their attention."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path as CurvePath
from matplotlib.textpath import TextPath

from pyg_nsa.cell.report.figure_style import BLUE, GREEN, INK, PURPLE, VERMILION, as_text, shorten
from pyg_nsa.cell.report.neighbourhood import Neighbourhood

__all__ = ["knockout_figure", "node_label"]

_FONT = FontProperties(family="DejaVu Sans", size=9.0)
_HEAD_FONT = FontProperties(family="DejaVu Sans", size=10.5)
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
    heads = {t: t if t.endswith("s") else f"{t}s" for t in columns}
    x, left = {}, 0.12
    for node_type in columns:
        # A column of short labels is narrower than the word above it.
        room = max(widths[node_type], _text_width(heads[node_type], _HEAD_FONT))
        left += 1.15 if within[node_type] else 0.0
        x[node_type] = left + (room - widths[node_type]) / 2
        left += room + _GAP
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
        ax.text(
            x[node_type] + widths[node_type] / 2,
            height - 0.22,
            as_text(heads[node_type]),
            ha="center",
            va="center",
            fontproperties=_HEAD_FONT,
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
        return shorten(f"{names[node_id]} ({node_id})", 26)
    if node_type == "reaction" and node_id.count("|") >= 2:
        reaction, clause, direction = node_id.rsplit("|", 2)
        arrow = {"forward": " →", "backward": " ←"}.get(direction, f" {direction}")
        number = f" #{int(clause) + 1}" if clause.isdigit() and clause != "0" else ""
        return shorten(reaction, 20) + number + arrow
    return shorten(node_id, 24)


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


def _text_width(words: str, font: FontProperties = _FONT) -> float:
    """Width in inches."""
    return float(TextPath((0, 0), as_text(words), prop=font).get_extents().width) / 72


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
        as_text(label),
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

"""The measurements as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contenders import OURS
from .goals import setting_of

#: One colour for each contender, whatever its place in a panel; a palette that colour-blind readers can tell apart.
_COLOURS = {
    "TransformerConv": "#E69F00",
    "GATv2Conv": "#D55E00",
    "HGTConv": "#CC79A7",
    "SDPA": "#999999",
    "FlexAttention": "#555555",
    "NSAConv": "#56B4E9",
    "MaskedAttentionBlock": "#0072B2",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes the picture: growth with edges (twice), memory, and the heterogeneous layer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(13, 10), layout="constrained")
    growth = (
        ("edges", "More edges and nodes, same mean degree"),
        ("density", "More edges among the same nodes"),
    )
    for axis, (section, title) in zip(axes[0], growth, strict=True):
        _growth(axis, results.get(section, {}).get("rows", []), title)
    lines = {
        line.get_label(): line for axis in axes[0] for line in axis.get_lines()
    }  # both panels have the same contenders, so one legend serves them
    if lines:
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=4, fontsize=9)
    _bars(
        axes[1, 0],
        _first(results, "layer"),
        lambda row: (row.get("memory") or {}).get("step"),
        "Peak memory of a step, one relation",
        "MB, forward + backward",
    )
    _bars(
        axes[1, 1],
        _first(results, "hetero"),
        lambda row: row["step"]["ms"] if row.get("step") else None,
        "Time of a step, four relations of a cell",
        "ms, forward + backward",
    )
    machine = results["machine"]
    figure.suptitle(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"torch_geometric {machine['torch_geometric']}, float32",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _colour(name: str) -> str:
    keys = [key for key in _COLOURS if key in name]
    return _COLOURS[keys[-1]] if keys else "#56B4E9"


def _first(results: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """Rows of a section's first setting."""
    rows = results.get(section, {}).get("rows", [])
    return [row for row in rows if setting_of(row) == setting_of(rows[0])]


def _growth(axis: Any, rows: list[dict[str, Any]], title: str) -> None:
    if not rows:  # a section that was not asked for
        axis.set_axis_off()
        return
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        forward_only = not any(row.get("step") for row in own)
        what = "forward" if forward_only else "step"
        points = [(row["edges"], row[what]["ms"]) for row in own if row.get(what)]
        if points:
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                linewidth=2.5 if own[0]["group"] == OURS else 1.4,
                linestyle="--" if forward_only else "-",
                color=_colour(name),
                label=f"{name} (forward only)" if forward_only else name,
            )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="edges",
        ylabel="ms, forward + backward",
        title=title,
    )
    axis.grid(alpha=0.3)


def _bars(axis: Any, rows: list[dict[str, Any]], value: Any, title: str, label: str) -> None:
    found = [(row["contender"], value(row)) for row in rows]
    found = [(name, number) for name, number in found if number]
    if rows:
        first = rows[0]
        title += f"\n{first['nodes']:,} nodes, {first['edges']:,} edges, {first['heads']} heads"
    axis.set_title(title)
    if not found:
        axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes)
        return
    names = [name for name, _ in found]
    bars = axis.barh(names, [number for _, number in found], color=[_colour(n) for n in names])
    axis.bar_label(
        bars,
        [f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for _, number in found],
        padding=3,
        fontsize=8,
    )
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.margins(x=0.2)
    axis.grid(axis="x", alpha=0.3)

"""What the layers are meant to reach on a CPU, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .contenders import OURS

BLOCK = "MaskedAttentionBlock"
LAYER = "NSAConv"
#: The library's layers that stand for it in comparisons of sizes; the others are variants.
_GROWTH = ("layer", "edges", "density", "nodes", "heads")


def goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each goal and workload: ``goal``, ``where``, ``measured``, ``met``."""
    out: list[dict[str, Any]] = []

    def add(goal: str, where: str, measured: str, met: bool) -> None:
        out.append({"goal": goal, "where": where, "measured": measured, "met": bool(met)})

    kept = [
        {name: {**row, "workload": f"{row['workload']}, memory kept"} for name, row in rows.items()}
        for rows in _comparisons(results.get("kept_memory", {}), "layer")
    ]
    for rows in [*_comparisons(results, "layer"), *kept]:
        # The layer that computes what TransformerConv computes, and the block around one.
        for name in (LAYER, BLOCK):
            _add_ratio(rows, name, "TransformerConv", 15, add)
        ours, other = rows.get(BLOCK), rows.get("TransformerConv")
        memory = [(row or {}).get("memory", {}).get("step") for row in (ours, other)]
        if memory[0] and memory[1]:
            add(
                f"peak memory of a {BLOCK} step at most a fifth of TransformerConv's",
                _where(ours),
                f"1/{memory[1] / memory[0]:.1f}",
                memory[1] >= 5 * memory[0],
            )
    for section in _GROWTH:
        for name in (LAYER, BLOCK):
            _add_closest(results, section, name, add)
    for section, label in (("edges", "nodes grow too"), ("density", "nodes fixed")):
        for name in (LAYER, BLOCK):
            found = results.get(section, {}).get("exponents", {}).get(name)
            if found:
                add(
                    f"time of a {name} step linear in edges: exponent at most 1.1",
                    f"{label}, {found['from']:,} to {found['to']:,} edges",
                    f"{found['exponent']:.2f}",
                    found["exponent"] <= 1.1,
                )
    for rows in _comparisons(results, "hetero"):
        for name in ("HeteroNSAConv", "HeteroMaskedAttentionBlock"):
            _add_ratio(rows, name, "HeteroConv of GATv2Conv", 8, add)
    built = results.get("edge_set")
    if built:
        slowest = max(built["sorted"]["ms"], built["shuffled"]["ms"])
        add(
            "an EdgeSet built in less than 50 ms, and once",
            f"{built['edges']:,} edges, all that attention derives included",
            f"{slowest:.0f} ms, {'once' if built['once'] else 'in every call'}",
            slowest < 50 and built["once"],
        )
    half = results.get("bfloat16")
    if half:
        add(
            "bfloat16 autocast works",
            BLOCK,
            f"relative difference from float32: {half['relative_difference']:.4f}",
            half["finite"] and half["relative_difference"] < 0.05,
        )
    for label, rows in results.get("mask_state", {}).items():
        ours = [row["edge_set"] + row["tiles"] for row in rows]
        add(
            "mask state of a batch is that of one graph",
            label,
            f"{ours[0] / 1e6:.1f} MB for B = {', '.join(str(r['batch']) for r in rows)}",
            len(set(ours)) == 1,
        )
    return out


def _add_ratio(rows: dict[str, Any], name: str, other: str, wanted: int, add: Any) -> None:
    """How many times faster than another layer, in one comparison."""
    ours, theirs = rows.get(name), rows.get(other)
    if ours and theirs and ours.get("step") and theirs.get("step"):
        ratio = theirs["step"]["ms"] / ours["step"]["ms"]
        add(
            f"{name}, forward + backward, at least {wanted} times faster than {other}",
            _where(ours),
            f"{ratio:.1f} times",
            ratio >= wanted,
        )


def _add_closest(results: dict[str, Any], section: str, layer: str, add: Any) -> None:
    """The comparison in which a competitor comes closest to a layer."""
    closest: tuple[float, str] | None = None
    count = 0
    for rows in _comparisons(results, section):
        ours = rows.get(layer)
        if not ours or ours["edges"] < 10_000 or not ours.get("step"):
            continue
        for name, row in rows.items():
            if row["group"] == OURS:
                continue
            # FlexAttention has no backward pass here, so its forward pass stands for itself.
            what = "step" if row.get("step") else "forward"
            if not row.get(what):
                continue
            count += 1
            ratio = row[what]["ms"] / ours[what]["ms"]
            passes = "forward + backward" if what == "step" else "forward"
            if closest is None or ratio < closest[0]:
                closest = (ratio, f"{name} ({passes}), {_where(ours)}")
    if closest:
        add(
            f"{layer} faster than every competitor from 10,000 edges on: section '{section}'",
            f"closest of {count}: {closest[1]}",
            f"{closest[0]:.2f} times",
            closest[0] > 1,
        )


def _comparisons(results: dict[str, Any], section: str) -> Iterable[dict[str, dict[str, Any]]]:
    """Rows by contender, for each setting of a section."""
    grouped: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in results.get(section, {}).get("rows", []):
        grouped.setdefault(setting_of(row), {})[row["contender"]] = row
    return grouped.values()


def setting_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What rows of one comparison share."""
    return tuple(
        row[name] for name in ("workload", "nodes", "edges", "heads", "batch", "channels", "dtype")
    )


def _where(row: dict[str, Any]) -> str:
    return (
        f"{row['workload']}: {row['nodes']:,} nodes, {row['edges']:,} edges, {row['heads']} heads"
    )

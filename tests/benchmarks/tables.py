"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .contenders import OURS
from .goals import setting_of
from .machine import one_line

_BASE = {"hetero": "HeteroConv of GATv2Conv"}


def render(results: dict[str, Any]) -> dict[str, str]:
    """Markdown of each part of the page, by the name of its markers."""
    out = {"machine": _machine(results)}
    if results.get("goals"):
        out["goals"] = table(
            ("goal", "where", "measured", "met"),
            [
                (g["goal"], g["where"], g["measured"], "yes" if g["met"] else "**no**")
                for g in results["goals"]
            ],
        )
    for section in ("layer", "hetero"):
        if section in results:
            out[section] = _comparison(results, section)
    if "layer" in results.get("kept_memory", {}):
        out["kept_memory"] = _comparison(results["kept_memory"], "layer")
    for section, by in (
        ("edges", "edges"),
        ("density", "edges"),
        ("nodes", "nodes"),
        ("heads", "heads"),
        ("batch", "batch"),
    ):
        if section in results:
            out[section] = _growth(results[section], by)
    if "bfloat16" in results:
        out["bfloat16"] = _bfloat16(results["bfloat16"])
    if "profile" in results:
        out["profile"] = _profile(results)
    if "edge_set" in results:
        out["edge_set"] = _edge_set(results["edge_set"])
    if "mask_state" in results:
        out["mask_state"] = _mask_state(results["mask_state"])
    if "ordering" in results:
        out["ordering"] = _ordering(results["ordering"])
    return out


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; columns after the ``left`` first are aligned right if they hold numbers only."""

    def numeric(column: int) -> bool:
        cells = [row[column] for row in rows if row[column] not in ("", "–")]
        beyond = [cell for cell in cells if not cell[:1].isdigit() and cell[:1] not in "[("]
        return column >= left and bool(cells) and not beyond

    rule = ["---:" if numeric(i) else "---" for i in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def ms(summary: dict[str, float] | None) -> str:
    """``median (first to third quartile)`` in ms."""
    if not summary:
        return "–"
    low, mid, high = (_short(summary[k]) for k in ("q1", "ms", "q3"))
    return f"{mid} ({low}–{high})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _why(row: dict[str, Any]) -> str | None:
    if row.get("error"):
        return f"**failed: {row['error']}**".replace("|", "/").replace("\n", " ")
    return f"not run: {row['not_run']}".replace("|", "/") if row.get("not_run") else None


def _machine(results: dict[str, Any]) -> str:
    lines = [f"{results['date']}, {one_line(results['machine'])}."]
    if results.get("command"):
        lines.append(f"Command: `{results['command']}` ({results.get('seconds', 0)} s).")
    speeds = results.get("speeds")
    if speeds:
        lines.append(
            f"Measured: memory bandwidth {speeds['triad_gb_s']:.1f} GB/s (triad), rows gathered from cache "
            f"{speeds['gather_gb_s']:.1f} GB/s, float32 products {speeds['matmul_gflop_s']:.0f} GFLOP/s "
            f"(as narrow as a projection: {speeds['skinny_gflop_s']:.0f})."
        )
    return "\n".join(lines)


def _grouped(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    out: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(setting_of(row), []).append(row)
    return out


def _comparison(results: dict[str, Any], section: str) -> str:
    parts = []
    base_name = _BASE.get(section, "TransformerConv")
    for rows in _grouped(results[section]["rows"]).values():
        first = rows[0]
        base = next((r for r in rows if r["contender"] == base_name), {})
        lines = []
        for row in rows:
            memory = row.get("memory") or {}
            why = _why(row)
            lines.append(
                (
                    _name(row),
                    why or ms(row.get("forward")),
                    "" if why else ms(row.get("step")),
                    _times(base, row, "forward"),
                    _times(base, row, "step"),
                    _mb(memory.get("forward")),
                    _mb(memory.get("step")),
                    _mb(row.get("state_mb")),
                )
            )
        head = (
            "layer",
            "forward, ms",
            "forward + backward, ms",
            "faster, forward",
            "faster, both",
            "peak MB, forward",
            "peak MB, both",
            "graph state, MB",
        )
        parts.append(
            f"**{first['workload']}**: {first['nodes']:,} nodes, {first['edges']:,} edges, "
            f"{first['channels']} channels, {first['heads']} heads, {first['dtype']}; "
            f"times faster than {base_name}.\n\n{table(head, lines)}"
        )
    return "\n\n".join(parts)


def _name(row: dict[str, Any]) -> str:
    return f"**{row['contender']}**" if row["group"] == OURS else row["contender"]


def _times(base: dict[str, Any], row: dict[str, Any], what: str) -> str:
    if not (base.get(what) and row.get(what)):
        return "–"
    return f"{base[what]['ms'] / row[what]['ms']:.2f}"


def _mb(value: float | None) -> str:
    return "–" if value is None else _short(value)


def _growth(section: dict[str, Any], by: str) -> str:
    """A column for each contender: forward and backward in ms (forward alone where there is no more); then memory."""
    groups = list(_grouped(section["rows"]).values())
    notes: list[str] = []

    def duration(row: dict[str, Any]) -> str:
        why = _why(row)
        if why:
            if why not in notes:
                notes.append(why)
            return f"[{notes.index(why) + 1}]"
        return _step_or_forward(*((row.get(what) or {}).get("ms") for what in ("step", "forward")))

    text = _grid(groups, by, duration)
    if notes:
        text += "\n\n" + "; ".join(f"[{i}] {note}" for i, note in enumerate(notes, 1)) + "."
    if section.get("exponents"):
        fitted = (f"{name} {found['exponent']:.2f}" for name, found in section["exponents"].items())
        text += f"\n\nFitted exponents, time against edges: {', '.join(fitted)}."
    measured = [rows for rows in groups if any(row.get("memory") for row in rows)]
    if measured:
        text += "\n\nPeak memory of a step, MB:\n\n" + _grid(measured, by, _peak)
    return text


def _peak(row: dict[str, Any]) -> str:
    return _step_or_forward(*((row.get("memory") or {}).get(what) for what in ("step", "forward")))


def _step_or_forward(step: float | None, forward: float | None) -> str:
    if step is not None:
        return _short(step)
    return "–" if forward is None else f"({_short(forward)})"


def _grid(
    groups: list[list[dict[str, Any]]], by: str, cell: Callable[[dict[str, Any]], str]
) -> str:
    """A row for each size and a column for each contender."""
    sized = ["nodes", "edges"] if by not in ("heads", "batch") else [by, "nodes", "edges"]
    names = {row["contender"]: _name(row) for rows in groups for row in rows}
    lines = []
    for rows in groups:
        by_name = {row["contender"]: row for row in rows}
        sizes = (f"{rows[0][what]:,}" for what in sized)
        lines.append((*sizes, *(cell(by_name[name]) for name in names)))
    return table((*sized, *names.values()), lines, left=0)


def _bfloat16(section: dict[str, Any]) -> str:
    by_type: dict[str, dict[str, dict[str, Any]]] = {}
    for row in section["rows"]:
        by_type.setdefault(row["contender"], {})[row["dtype"]] = row
    lines = []
    for rows in by_type.values():
        full, half = rows["float32"], rows["bfloat16"]
        why = _why(half)
        lines.append(
            (
                _name(full),
                ms(full.get("step")),
                why or ms(half.get("step")),
                _times(full, half, "step"),
            )
        )
    text = table(("layer", "float32, ms", "bfloat16 autocast, ms", "faster"), lines)
    return (
        f"{text}\n\nMaskedAttentionBlock under autocast differs from float32 by "
        f"{section['relative_difference']:.4f} (relative norm); all gradients are "
        f"{'finite' if section['finite'] else '**not finite**'}."
    )


def _profile(results: dict[str, Any]) -> str:
    parts = []
    for layer in results["profile"]["layers"]:
        least = layer["floor"]
        whole = sum(layer["parts"]["whole"].values())
        lines = [
            (
                name if name != "whole" else "**the whole block**",
                _short(times["forward"]),
                _short(times["backward"]),
                _short(sum(times.values())),
                f"{100 * sum(times.values()) / whole:.0f} %",
            )
            for name, times in layer["parts"].items()
        ]
        text = table(("part", "forward, ms", "backward, ms", "both, ms", "of the whole"), lines)
        bound = least["ms"]
        parts.append(
            f"**{layer['nodes']:,} nodes, {layer['edges']:,} edges, {layer['heads']} heads**\n\n{text}\n\n"
            f"Floor {least['floor_ms']:.1f} ms, measured {whole:.1f} ms ({whole / least['floor_ms']:.1f} times): "
            f"{least['projection_gflop']:.2f} GFLOP of projections and MLP and {least['attention_gflop']:.2f} of "
            f"attention {bound['matmul']:.1f} ms, {least['gathered_mb']:.0f} MB gathered {bound['gather']:.1f} ms, "
            f"{least['streamed_mb']:.0f} MB streamed {bound['stream']:.1f} ms."
        )
    return "\n\n".join(parts)


def _edge_set(section: dict[str, Any]) -> str:
    rows = [
        ("from a sorted edge_index", ms(section["sorted"])),
        ("from a shuffled edge_index", ms(section["shuffled"])),
        ("for the same tensor again", ms(section["again"])),
    ]
    caption = f"EdgeSet of {section['edges']:,} edges, with all that attention derives from it:"
    return f"{caption}\n\n{table(('', 'ms'), rows)}"


def _mask_state(section: dict[str, list[dict[str, Any]]]) -> str:
    head = (
        "graph",
        "instances",
        "dense bool, MB",
        "bit matrix, MB",
        "EdgeSet (CPU), MB",
        "tiles (GPU), MB",
        "living nodes, MB",
        "tiles with a pair",
    )
    lines = [
        (
            label,
            str(row["batch"]),
            *(
                _short(row[k] / 1e6)
                for k in ("dense_bool", "bit_matrix", "edge_set", "tiles", "alive")
            ),
            f"{row['num_tiles']:,}",
        )
        for label, rows in section.items()
        for row in rows
    ]
    return table(head, lines)


def _ordering(section: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for label, rows in section.items():
        for row in rows:
            share = row["reordered"] / max(row["natural"], 1)
            lines.append(
                (
                    f"{label}: {row['relation']}",
                    f"{row['pairs']:,}",
                    f"{row['tiles']:,}",
                    f"{row['natural']:,}",
                    f"{row['reordered']:,}",
                    f"{100 * share:.0f} %",
                )
            )
    head = ("relation", "pairs", "tiles", "occupied, natural order", "occupied, reordered", "left")
    return table(head, lines)

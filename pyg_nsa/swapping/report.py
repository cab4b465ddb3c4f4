"""What a swap did, or would do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pyg_nsa.swapping.layers import EdgeType
from pyg_nsa.swapping.problems import show

__all__ = ["RelationRow", "SwapReport", "SwapRow"]

_OPTIMIZER = (
    "Parameters have changed: build the optimizer after the swap (and move the model to its device before that). New parameters "
    "are random; the old ones are not carried over."
)


@dataclass(frozen=True)
class RelationRow:
    """One edge type of a layer.

    Attributes:
        edge_type: The edge type.
        before: The class that computed its messages.
        kind: The edge kind now; None if the edge type is left out (`unmatched: skip`).
        options: Options of the kind that are not defaults.
        chosen_by: `config`, or `default` where the configuration has no `edges`.
        missing: Fields that the kind requires and the call does not pass; alternatives are joined by ` or `.
        missing_is_known: Whether that was seen, or is only what a call has to pass.
        unread: Fields that went into the layer and that the kind does not read.
    """

    edge_type: EdgeType
    before: str
    kind: str | None
    options: dict[str, Any] = field(default_factory=dict)
    chosen_by: str = "config"
    missing: tuple[str, ...] = ()
    missing_is_known: bool = False
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class SwapRow:
    """One layer, before and after.

    Attributes:
        path: Its place in the model.
        also_at: Its other places, where it is shared.
        before: The layer.
        after: What stands there now.
        relations: Its edge types.
        unused: Edge types that the configuration mentions and the layer does not have.
        in_channels: Size of `x` per node type; -1 is taken from the first call.
        out_channels: Size of the output per target node type.
        parameters_before: Number of parameters, without lazy ones.
        parameters_after: The same for what stands there now.
        lazy_before: Parameter tensors that had no size yet.
        lazy_after: The same for what stands there now.
        vanished: Names of parameters that no longer exist, as `named_parameters()` of the model had them.
        config: The configuration of what stands there now.
        tried: Whether it was called as the layer was called, on `data`.
        notes: What differs, in sentences.
        warnings: What would go wrong without a word once the model runs.
    """

    path: str
    also_at: tuple[str, ...]
    before: str
    after: str
    relations: tuple[RelationRow, ...]
    unused: tuple[EdgeType, ...]
    in_channels: dict[str, int]
    out_channels: dict[str, int]
    parameters_before: int
    parameters_after: int
    lazy_before: int
    lazy_after: int
    vanished: tuple[str, ...]
    config: dict[str, Any]
    tried: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SwapReport:
    """All layers of a swap.

    Attributes:
        rows: One for each layer, in the order of the model.
        dry_run: Whether the model was left as it is.
        notes: What concerns the model as a whole.
    """

    rows: tuple[SwapRow, ...]
    dry_run: bool
    notes: tuple[str, ...] = ()

    @property
    def vanished(self) -> tuple[str, ...]:
        """Names of all parameters that no longer exist."""
        return tuple(name for row in self.rows for name in row.vanished)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why a call of the swapped model would fail as it stands, or give something else than is meant; empty if nothing is known."""
        missing = [_missing(row, row.path, known=True) for row in self.rows]
        others = [f"{row.path}: {text}" for row in self.rows for text in row.warnings]
        return (*filter(None, missing), *others)

    def render(self) -> str:
        """The report as plain text: a table of before and after, then what to know about each layer."""
        head = ("layer", "before", "after", "edge types", "channels", "parameters")
        table = [head] + [
            (
                ", ".join((row.path, *row.also_at)),
                row.before,
                row.after,
                str(sum(r.kind is not None for r in row.relations)),
                f"{_sizes(row.in_channels)} -> {_sizes(row.out_channels)}",
                f"{_count(row.parameters_before, row.lazy_before)} -> "
                f"{_count(row.parameters_after, row.lazy_after)}",
            )
            for row in self.rows
        ]
        wide = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip()
            for line in table
        ]
        lines.insert(1, "  ".join("-" * w for w in wide))
        alike: dict[tuple[str, ...], list[SwapRow]] = {}
        for row in self.rows:
            alike.setdefault(tuple(_details(row, "")), []).append(row)
        for rows in alike.values():
            lines += ["", ", ".join(map(_places, rows))]
            lines += _details(rows[0], rows[0].path if len(rows) == 1 else "each of them")
        lines.append("")
        if self.dry_run:
            lines.append("Dry run: the model is as it was.")
        for note in (*self.notes, _OPTIMIZER):
            lines += _wrapped(note, "")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {
            "dry_run": self.dry_run,
            "rows": [asdict(row) for row in self.rows],
            "vanished": list(self.vanished),
            "warnings": list(self.warnings),
            "notes": [*self.notes, _OPTIMIZER],
        }

    def __str__(self) -> str:
        return self.render()


def _places(row: SwapRow) -> str:
    return row.path + (f" (also at {', '.join(row.also_at)})" if row.also_at else "")


def _details(row: SwapRow, called: str) -> list[str]:
    """What there is to say about a layer that the text calls so."""
    lines = []
    operator = row.config.get("operator", "hetero_nsa")
    names = [show(r.edge_type) for r in row.relations]
    wide = max(map(len, names))
    for name, r in zip(names, row.relations, strict=True):
        options = "".join(f", {key}={value!r}" for key, value in r.options.items())
        after = f"{r.kind}{options}" if r.kind else "left out (unmatched: skip)"
        chosen = " [default]" if r.chosen_by == "default" else ""
        if r.kind and operator != "hetero_nsa":
            # It may not read kinds; one that nobody has chosen says nothing then.
            after = operator if chosen else f"{operator} (kind {after})"
            chosen = ""
        lines.append(f"  {name.ljust(wide)}  {r.before} -> {after}{chosen}")
    if row.unused:
        lines += _wrapped(f"specs of edge types it does not have: {_list(row.unused)}", "  ")
    for known, sign in ((True, "WARNING: "), (False, "")):
        if text := _missing(row, called, known):
            lines += _wrapped(sign + text, "  ")
    for text in row.warnings:
        lines += _wrapped(f"WARNING: {text}", "  ")
    if row.tried:
        lines.append(
            "  tried: called as the layer was called on data; outputs have the same shapes"
        )
    for note in row.notes:
        lines += _wrapped(note, "  ")
    prefix = f"{row.path}."
    names = [name.removeprefix(prefix) for name in row.vanished]
    groups: dict[str, list[str]] = {}
    for name in names:
        module, mark, rest = name.rpartition(">.")
        groups.setdefault(module + mark, []).append(rest)
    lines.append(f"  parameters that vanish ({len(names)}):")
    for group, members in groups.items():
        lines += _wrapped(group + (" " if group else "") + ", ".join(members), "    ")
    return lines


def _missing(row: SwapRow, called: str, known: bool) -> str:
    parts = [
        f"{' and '.join(r.missing)} of {show(r.edge_type)}"
        for r in row.relations
        if r.missing and r.missing_is_known is known
    ]
    if not parts:
        return ""
    names = dict.fromkeys(
        name.split(" or ")[0]
        for r in row.relations
        if r.missing_is_known is known
        for name in r.missing
    )
    call = ", ".join(f"{name}_dict=…" for name in names)
    what = "its kinds need, and the call does not pass," if known else "its kinds need"
    return f"{what} {', '.join(parts)}: the model's forward must call {called} with {call}"


def _list(edge_types: Sequence[EdgeType]) -> str:
    return ", ".join(map(show, edge_types))


def _sizes(sizes: dict[str, int]) -> str:
    shown = {t: "lazy" if n < 0 else str(n) for t, n in sizes.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{t} {n}" for t, n in shown.items())


def _count(known: int, lazy: int) -> str:
    if not lazy:
        return f"{known:,}"
    return f"{known:,} + {lazy} lazy" if known else f"{lazy} lazy"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        100,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )

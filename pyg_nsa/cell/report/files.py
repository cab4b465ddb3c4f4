"""The files of a run's folder that a report is made from, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyg_nsa.cell.data.splits import HELD_OUT
from pyg_nsa.cell.data_names import INTERACTING
from pyg_nsa.cell.labels.table import TARGETS

__all__ = ["RunFiles", "RunFolderError", "read_facts", "read_run"]

_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # file: (columns of text, columns of numbers)
    "history.csv": (("model",), ("epoch", "step", "seconds", "train_loss", "val_loss")),
    "predictions.csv": (
        ("model", "part", "genes"),
        ("size", *TARGETS, *(f"{name}_pred" for name in TARGETS)),
    ),
    # Intervals (low, high) may be absent.
    "metrics.csv": (("model", "part", "subset", "target", "metric"), ("value", "n")),
    "attention.csv": (
        ("relation", "source_type", "source", "target_type", "target"),
        ("weight_wildtype", "weight_knockout"),
    ),
    "occupancy.csv": (("relation",), ("rows", "cols", "pairs", "tiles", "natural", "reordered")),
}
#: Columns of predictions.csv that may be absent, of True and False.
_FLAGS = frozenset({"interacting", "new_losses"})

_REQUIRED = ("config.yaml", "run.json", "history.csv", "predictions.csv", "metrics.csv")


class RunFolderError(ValueError):
    """A file of a run folder is missing, or does not say what a report needs."""


@dataclass(frozen=True)
class RunFiles:
    """What the files of a run folder say; ``None`` for optional files that are not there."""

    config: str
    facts: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    metrics: pd.DataFrame
    attention: pd.DataFrame | None
    occupancy: pd.DataFrame | None


def read_run(run: Path) -> RunFiles:
    """Reads what a report needs.

    Args:
        run: The folder of a training run.

    Raises:
        RunFolderError: If a file is missing or broken; the message names it.
    """
    missing = [name for name in _REQUIRED if not (run / name).is_file()]
    if missing:
        raise RunFolderError(
            f"{run / missing[0]}: no such file. A report needs {', '.join(_REQUIRED)} in the run's folder"
            + (f"; also missing: {', '.join(missing[1:])}." if missing[1:] else ".")
        )
    tables = {name: _read_table(run / name) for name in _COLUMNS}
    for name in _REQUIRED[2:]:
        assert tables[name] is not None
    return RunFiles(
        _read_text(run / "config.yaml"),
        read_facts(run),
        tables["history.csv"],  # type: ignore[arg-type]
        tables["predictions.csv"],  # type: ignore[arg-type]
        tables["metrics.csv"],  # type: ignore[arg-type]
        tables["attention.csv"],
        tables["occupancy.csv"],
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: cannot be read as UTF-8 text ({error}).") from error


def read_facts(run: Path) -> dict[str, Any]:
    """What ``run.json`` says of a run.

    Args:
        run: The folder of a training run.

    Raises:
        RunFolderError: The file is missing, or does not say what a report needs.
    """
    path = run / "run.json"
    if not path.is_file():
        raise RunFolderError(f"{path}: no such file; 'pyg-nsa train -o {run}' writes it")
    try:
        facts = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}: not valid JSON ({error}).") from error
    for key, kind in (("title", str), ("label_source", str), ("graph", dict), ("split", dict)):
        value = facts.get(key) if isinstance(facts, dict) else None
        if not isinstance(value, kind):
            raise RunFolderError(
                f"{path}: expected {key!r} to be {'a text' if kind is str else 'an object'}, got {value!r}."
            )
    counts = {
        "graph.nodes": facts["graph"].get("nodes"),
        "graph.edges": facts["graph"].get("edges"),
    }
    counts |= {f"split.{part}": value for part, value in facts["split"].items()}
    for key, value in counts.items():
        if not isinstance(value, dict) or not all(isinstance(n, int) for n in value.values()):
            raise RunFolderError(
                f"{path}: expected {key!r} to be an object of whole numbers, got {value!r}."
            )
    for key in ("knockout", "versions", "seconds", "parameters"):
        facts[key] = facts.get(key) or {}
        if not isinstance(facts[key], dict):
            raise RunFolderError(f"{path}: expected {key!r} to be an object, got {facts[key]!r}.")
    facts["interacting_above"] = facts.get("interacting_above", INTERACTING)
    facts["split_kind"] = facts.get("split_kind", "gene")  # earlier versions did not say
    if facts["split_kind"] not in HELD_OUT:
        raise RunFolderError(
            f"{path}: expected 'split_kind' to be one of {', '.join(map(repr, HELD_OUT))}, got {facts['split_kind']!r}."
        )
    for key in ("created", "organism", "machine"):
        facts[key] = str(facts.get(key) or "")
    return facts


def _read_table(path: Path) -> pd.DataFrame | None:
    """A table with its text columns as text (a gene may be called NA) and its number columns as numbers."""
    if not path.is_file():
        return None
    texts, numbers = _COLUMNS[path.name]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' parser and empty-file errors are ValueErrors
        raise RunFolderError(f"{path}: cannot be read as CSV ({error}).") from error
    lacking = [name for name in (*texts, *numbers) if name not in table.columns]
    if lacking:
        raise RunFolderError(
            f"{path}: no column {', '.join(map(repr, lacking))}. "
            f"Expected {', '.join((*texts, *numbers))}; got {', '.join(map(str, table.columns))}."
        )
    for name in ("low", "high"):
        if path.name == "metrics.csv" and name not in table:
            table[name] = ""
    for name in (*numbers, *(n for n in ("low", "high") if path.name == "metrics.csv")):
        cells = table[name].fillna("").str.strip()
        blank = cells.str.lower().isin(["", "nan", "na", "none"])
        values = pd.to_numeric(cells.mask(blank), errors="coerce")
        wrong = values.isna() & ~blank
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise RunFolderError(
                f"{path}: line {at + 2}, column {name!r}: expected a number or nothing, got {cells[at]!r}."
            )
        table[name] = values.astype(float)
    for name in texts:
        table[name] = table[name].fillna("")
    for name in _FLAGS.intersection(table.columns):
        cells = table[name].fillna("").str.strip().str.lower()
        wrong = ~cells.isin(["true", "false"])
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise RunFolderError(
                f"{path}: line {at + 2}, column {name!r}: expected True or False, got {table[name][at]!r}."
            )
        table[name] = cells == "true"
    return table

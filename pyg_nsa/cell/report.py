"""The report of a training run: ``report.html`` from the files of the run's folder, and nothing else.

Needed files
    ``config.yaml``, ``run.json``, ``history.csv``, ``predictions.csv``, ``metrics.csv``.

Optional files
    ``attention.csv`` (the drawing of a knockout), ``occupancy.csv`` (tiles). Without them their section says why it is empty.

The page is self-contained: its styles are inline, its figures are embedded as base64, and it needs neither a network nor
JavaScript. The same figures lie beside it in ``figures/``.
"""

from __future__ import annotations

import base64
import datetime
import importlib.resources
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pyg_nsa.cell import report_figures as draw
from pyg_nsa.cell.metrics import INTERACTING_ABOVE, LETHAL_BELOW

__all__ = ["RunFolderError", "write_report"]

_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # file: (columns of text, columns of numbers)
    "history.csv": (("model",), ("epoch", "step", "seconds", "train_loss", "val_loss")),
    "predictions.csv": (
        ("model", "part", "genes"),
        ("size", "fitness", "gene_interaction", "fitness_pred", "gene_interaction_pred"),
    ),
    "metrics.csv": (("model", "part", "subset", "target", "metric"), ("value", "n")),
    "attention.csv": (
        ("relation", "source_type", "source", "target_type", "target"),
        ("weight_wildtype", "weight_knockout"),
    ),
    "occupancy.csv": (("relation",), ("rows", "cols", "pairs", "tiles", "natural", "reordered")),
}
_REQUIRED = ("config.yaml", "run.json", "history.csv", "predictions.csv", "metrics.csv")

_MODELS = {
    "hetero_nsa": "masked attention along the relations of the graph, interleaved with self-attention (HeteroNSA)",
    "hetero_conv": "the same model with graph attention layers (GATv2) in PyG’s HeteroConv instead",
    "mean": "always predicts the mean label of the training instances of that size; looks at no gene",
    "product_of_singles": "multiplies the true fitness of the single deletions, so it predicts no interaction. It is told "
    "the fitness of held-out genes, which no other model is: a reference, not a competitor",
}
_TOLD = {"product_of_singles"}  # models that are told labels of held-out genes

_PARTS = {"train": "training", "val": "validation", "test": "test"}
_SUBSETS = {
    "singles": "single deletions",
    "pairs": "pairs",
    "interacting pairs": "interacting pairs only",
}
_TARGETS = {"fitness": "fitness", "gene_interaction": "gene interaction", "lethality": "lethality"}
_METRICS = {
    "pearson": ("Pearson correlation", "higher"),
    "spearman": ("Spearman correlation", "higher"),
    "mse": ("mean squared error", "lower"),
    "auroc": ("AUROC", "higher"),
}


class RunFolderError(ValueError):
    """A file of a run folder is missing, or does not say what a report needs."""


def write_report(run: Path) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into a run folder, from the files in it.

    Args:
        run: The folder of a training run.

    Returns:
        The path of ``report.html``.

    Raises:
        RunFolderError: If a file is missing or broken; the message names it.
    """
    run = Path(run)
    files = _read(run)
    gallery = _Gallery(run / "figures")
    page = _environment().render(_context(files, gallery))
    gallery.remove_stale()
    out = run / "report.html"
    _write(out, page)
    return out


# ---- reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """What the files of a run folder say; ``None`` for optional files that are not there."""

    config: str
    facts: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    metrics: pd.DataFrame
    attention: pd.DataFrame | None
    occupancy: pd.DataFrame | None


def _read(run: Path) -> _Files:
    missing = [name for name in _REQUIRED if not (run / name).is_file()]
    if missing:
        raise RunFolderError(
            f"{run / missing[0]}: no such file. A report needs {', '.join(_REQUIRED)} in the run's folder"
            + (f"; also missing: {', '.join(missing[1:])}." if missing[1:] else ".")
        )
    tables = {name: _read_table(run / name) for name in _COLUMNS}
    for name in _REQUIRED[2:]:
        assert tables[name] is not None
    return _Files(
        _read_text(run / "config.yaml"),
        _read_facts(run / "run.json"),
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


def _read_facts(path: Path) -> dict[str, Any]:
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
    for name in numbers:
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
    return table


# ---- figures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """A figure on the page."""

    file: str
    data: str
    alt: str
    caption: str
    wide: bool


class _Gallery:
    """Writes figures into a folder and gives what the page embeds."""

    names = (
        "loss",
        "fitness_singles",
        "fitness_pairs",
        "gene_interaction_pairs",
        "occupancy",
        "knockout_wildtype",
        "knockout",
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: set[str] = set()

    def add(
        self, name: str, figure: Figure | None, alt: str, caption: str, wide: bool = True
    ) -> _Picture | None:
        """Save a figure; ``None`` stays ``None``."""
        if figure is None:
            return None
        assert name in self.names
        self.written.add(name)
        data = draw.save(figure, self.folder / f"{name}.png")
        encoded = base64.b64encode(data).decode("ascii")
        return _Picture(f"figures/{name}.png", encoded, alt, caption, wide)

    def remove_stale(self) -> None:
        """Remove figures that an earlier report of this folder had and this one has not."""
        for name in set(self.names) - self.written:
            (self.folder / f"{name}.png").unlink(missing_ok=True)


# ---- what the page says ------------------------------------------------------------------------------------------


def _environment() -> jinja2.Template:
    source = importlib.resources.files("pyg_nsa.cell").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = _count
    environment.filters["duration"] = _duration
    environment.filters["moment"] = _moment
    return environment.from_string(source)


def _context(files: _Files, gallery: _Gallery) -> dict[str, Any]:
    facts = files.facts
    source = facts["label_source"].strip()
    simulated = source.lower().startswith("simulat")
    truth = (
        "simulated" if simulated else "measured" if source.lower().startswith("measur") else "true"
    )
    metrics = files.metrics
    models = list(dict.fromkeys([*metrics["model"], *files.predictions["model"]]))
    parts = [p for p in ("test", "val") if p in set(metrics["part"])]
    parts += [p for p in dict.fromkeys(metrics["part"]) if p not in ("test", "val")]
    return {
        "facts": facts,
        "simulated": simulated,
        "truth": truth,
        "label_source": source,
        "split": _split_rows(facts["split"]),
        "evaluated": _evaluated(files.predictions),
        "models": [(m, _MODELS.get(m, ""), _model_facts(m, facts)) for m in models],
        "headlines": _headlines(metrics, models, truth),
        "tables": [_metric_table(metrics, part, models) for part in parts],
        "loss": _loss(files.history, gallery),
        "scatter": _scatter(files.predictions, truth, gallery),
        "knockout": _knockout(files.attention, facts["knockout"], truth, gallery),
        "occupancy": _occupancy(files.occupancy, gallery),
        "config": files.config,
    }


def _split_rows(split: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    order = [p for p in _PARTS if p in split] + [p for p in split if p not in _PARTS]
    return [{"name": _PARTS.get(part, part), **split[part]} for part in order]


def _evaluated(predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """Per part: how many instances of each size were predicted, and how many are lethal or interact."""
    rows = []
    for part, table in predictions.groupby("part", sort=False):
        once = table.drop_duplicates(["genes", "size"])
        pairs = once[once["size"] >= 2]
        rows.append(
            {
                "name": _PARTS.get(str(part), str(part)),
                "singles": int((once["size"] == 1).sum()),
                "pairs": len(pairs),
                "lethal": int((once["fitness"] < LETHAL_BELOW).sum()),
                "interacting": int((pairs["gene_interaction"].abs() > INTERACTING_ABOVE).sum()),
            }
        )
    return rows


def _model_facts(model: str, facts: Mapping[str, Any]) -> str:
    said = []
    if (parameters := facts["parameters"].get(model)) is not None:
        said.append(f"{_count(parameters)} parameters")
    training = facts["seconds"].get("training")
    if isinstance(training, Mapping) and training.get(model) is not None:
        said.append(f"trained for {_duration(training[model])}")
    return ", ".join(said)


def _headlines(metrics: pd.DataFrame, models: Sequence[str], truth: str) -> list[str]:
    """A sentence for each question that a reader asks first."""
    questions = (
        ("singles", "fitness", f"{truth} fitness after one deletion"),
        ("interacting pairs", "gene_interaction", f"{truth} interaction of pairs that do interact"),
    )
    out = []
    for subset, target, what in questions:
        rows = _pick(metrics, "test", subset, target, "pearson")
        found = {m: rows[m] for m in models if m in rows and m not in _TOLD}
        known = {m: (v, n) for m, (v, n) in found.items() if math.isfinite(v)}
        if not known:
            continue
        best = max(known, key=lambda m: known[m][0])
        others = [f"{m} {_value('pearson', v)}" for m, (v, _) in known.items() if m != best]
        sentence = (
            f"For the {what}, {best} has the highest Pearson correlation: {_value('pearson', known[best][0])}"
            f" over {_count(known[best][1])} held-out instances"
        )
        sentence += f" ({', '.join(others)})." if others else "."
        errors = _pick(metrics, "test", subset, target, "mse")
        own, guess = (errors.get(m, (math.nan, 0.0))[0] for m in (best, "mean"))
        if best != "mean" and math.isfinite(own) and math.isfinite(guess):
            sentence += f" Its mean squared error is {_plain(own)}; always guessing the mean gives {_plain(guess)}."
        out.append(sentence)
    return out


def _pick(
    metrics: pd.DataFrame, part: str, subset: str, target: str, metric: str
) -> dict[str, tuple[float, float]]:
    """Value and n by model."""
    rows = metrics[
        (metrics["part"] == part)
        & (metrics["subset"] == subset)
        & (metrics["target"] == target)
        & (metrics["metric"] == metric)
    ]
    return {
        model: (value, n)
        for model, value, n in zip(rows["model"], rows["value"], rows["n"], strict=True)
    }


def _metric_table(metrics: pd.DataFrame, part: str, models: Sequence[str]) -> dict[str, Any]:
    """Rows of one part, grouped by subset; per row a cell for each model, and n."""
    own = metrics[metrics["part"] == part]
    shown = [m for m in models if m in set(own["model"])]
    groups = []
    undefined = mixed = absent = False
    for subset in _in_order(own["subset"], _SUBSETS):
        rows = []
        of_subset = own[own["subset"] == subset]
        for target in _in_order(of_subset["target"], _TARGETS):
            of_target = of_subset[of_subset["target"] == target]
            for metric in _in_order(of_target["metric"], _METRICS):
                found = _pick(own, part, subset, target, metric)
                values = {m: v for m, (v, _) in found.items() if math.isfinite(v)}
                counts = {n for n in (found[m][1] for m in found) if math.isfinite(n) and n > 0}
                best = _best(metric, {m: v for m, v in values.items() if m not in _TOLD})
                if not counts:
                    continue
                # Undefined is not the same as not predicted at all.
                undefined |= any(m not in values and n > 0 for m, (_, n) in found.items())
                absent |= any(m not in found or not found[m][1] > 0 for m in shown)
                mixed |= len(counts) > 1
                label, better = _METRICS.get(metric, (metric, ""))
                rows.append(
                    {
                        "target": _TARGETS.get(target, target.replace("_", " ")),
                        "metric": label,
                        "better": better,
                        "cells": [_cell(m, metric, found, m in best) for m in shown],
                        "n": "–".join(dict.fromkeys(_count(n) for n in (min(counts), max(counts)))),
                    }
                )
        if rows:
            groups.append({"name": _SUBSETS.get(subset, subset), "rows": rows})
    return {
        "name": _PARTS.get(part, part),
        "models": [(m, m in _TOLD) for m in shown],
        "groups": groups,
        "undefined": undefined,
        "absent": absent,
        "mixed": mixed,
        "told": any(m in _TOLD for m in shown),
    }


def _in_order(found: pd.Series, known: Mapping[str, Any]) -> list[str]:
    """Values of a column, known ones first in their order."""
    present = list(dict.fromkeys(found))
    return [v for v in known if v in present] + [v for v in present if v not in known]


def _cell(
    model: str, metric: str, found: Mapping[str, tuple[float, float]], best: bool
) -> dict[str, Any]:
    value, n = found.get(model, (math.nan, 0.0))
    if math.isfinite(value):
        return {"text": _value(metric, value), "best": best, "why": ""}
    return {"text": "–", "best": False, "why": "undefined" if n > 0 else "absent"}


def _best(metric: str, values: Mapping[str, float]) -> set[str]:
    """Models with the best value as it is shown (ties included); none if only one has a value."""
    if len(values) < 2 or metric not in _METRICS:
        return set()
    choose = min if _METRICS[metric][1] == "lower" else max
    winner = _value(metric, choose(values.values()))
    return {m for m, v in values.items() if _value(metric, v) == winner}


# ---- sections with figures ---------------------------------------------------------------------------------------


def _loss(history: pd.DataFrame, gallery: _Gallery) -> dict[str, Any]:
    lowest = []
    for model, rows in history.groupby("model", sort=False):
        known = rows[np.isfinite(rows["val_loss"])]
        if len(known):
            best = known.loc[known["val_loss"].idxmin()]
            lowest.append(f"{model} {_plain(best['val_loss'])} in epoch {_count(best['epoch'])}")
    alt = "Line chart of training and validation loss by epoch"
    alt += f"; lowest validation loss: {'; '.join(lowest)}." if lowest else "."
    picture = gallery.add(
        "loss",
        draw.loss_figure(history),
        alt,
        "Loss by epoch, on standardised labels. Dashed: on training instances as they are drawn; solid: on held-out validation genes. The ring marks the epoch "
        "of the lowest validation loss.",
    )
    return {
        "picture": picture,
        "why": "history.csv has no loss at all, so there is nothing to draw.",
    }


def _scatter(predictions: pd.DataFrame, truth: str, gallery: _Gallery) -> dict[str, Any]:
    part = next((p for p in ("test", "val") if p in set(predictions["part"])), None)
    chosen = predictions[predictions["part"] == part]
    pictures, without = [], []
    for name, target, what, rows in (
        ("fitness_singles", "fitness", "singles", chosen[chosen["size"] == 1]),
        ("fitness_pairs", "fitness", "pairs", chosen[chosen["size"] >= 2]),
        ("gene_interaction_pairs", "gene_interaction", "pairs", chosen[chosen["size"] >= 2]),
    ):
        figure = draw.scatter_figure(rows, target, truth=truth, what=what)
        known = rows[np.isfinite(rows[target]) & np.isfinite(rows[f"{target}_pred"])]
        shown = list(dict.fromkeys(known["model"]))
        missing = [m for m in dict.fromkeys(chosen["model"]) if m not in shown]
        quantity = _TARGETS[target]
        one = {"singles": "single deletions", "pairs": "deleted pairs"}[what]
        caption = f"{quantity.capitalize()} of {one}: predicted against {truth}."
        if missing:
            caption += f" Without predictions here: {', '.join(missing)}."
        counts = [f"{m} (n = {_count((known['model'] == m).sum())})" for m in shown]
        alt = (
            f"Scatter plots of predicted against {truth} {quantity} of {one}: {', '.join(counts)}."
        )
        picture = gallery.add(name, figure, alt, caption)
        if picture is None:
            without.append(f"{quantity} of {one}")
        else:
            pictures.append(picture)
    return {"pictures": pictures, "part": _PARTS.get(part or "", part or ""), "without": without}


def _knockout(
    attention: pd.DataFrame | None, facts: Mapping[str, Any], truth: str, gallery: _Gallery
) -> dict[str, Any]:
    genes = [str(g) for g in facts.get("genes") or []]
    names = {str(k): str(v) for k, v in (facts.get("names") or {}).items()}
    out: dict[str, Any] = {
        "pictures": [],
        "shifts": [],
        "genes": [draw.node_label("gene", g, names) for g in genes],
        "chosen": str(facts.get("chosen") or ""),
        "fitness": _maybe(facts.get("fitness")),
        "fitness_pred": _maybe(facts.get("fitness_pred")),
        "why": "",
    }
    if attention is None:
        out["why"] = "This run has no attention.csv, so there is nothing to draw."
    elif attention.empty:
        out["why"] = "attention.csv has no edges, so there is nothing to draw."
    elif not genes:
        out["why"] = "run.json names no knockout, so there is nothing to draw around."
    if out["why"]:
        return out
    assert attention is not None
    near = draw.choose_neighbourhood(attention, genes)
    who = ", ".join(out["genes"])
    kinds = pd.Series([t for t, _ in near.nodes]).value_counts(sort=False)
    size = ", ".join(f"{n} {t}{'s' if n != 1 else ''}" for t, n in kinds.items())
    gone = [draw.node_label(*n, names=names) for n in near.nodes if n in near.deleted]
    for name, weight, cell in (
        ("knockout_wildtype", "weight_wildtype", "in the wildtype"),
        ("knockout", "weight_knockout", f"after deleting {who}"),
    ):
        alt = f"Network of {size} around {who}, in columns by type; edge width is attention {cell}."
        if name == "knockout" and gone:
            alt += f" Deleted: {', '.join(gone)}."
        figure = draw.knockout_figure(near, weight=weight, names=names)
        picture = gallery.add(
            name,
            figure,
            alt,
            f"Attention {cell}: an arrow ends at the node that listens, and is as wide as its attention.",
        )
        out["pictures"].append(picture)
    out["left_out"] = near.left_out
    out["shifts"] = _shifts(near, names)
    return out


def _shifts(
    near: draw.Neighbourhood, names: Mapping[str, str], top: int = 8
) -> list[dict[str, str]]:
    """Edges between living nodes whose attention changed most."""
    change = near.edges["weight_knockout"] - near.edges["weight_wildtype"]
    rows = []
    for i in change.abs().sort_values(ascending=False, kind="stable").index:
        row = near.edges.loc[i]
        source, target = (row["source_type"], row["source"]), (row["target_type"], row["target"])
        if source in near.deleted or target in near.deleted or not abs(change[i]) >= 5e-4:
            continue
        rows.append(
            {
                "source": draw.node_label(*source, names=names),
                "target": draw.node_label(*target, names=names),
                "relation": row["relation"],
                "before": f"{row['weight_wildtype']:.3f}",
                "after": f"{row['weight_knockout']:.3f}",
            }
        )
        if len(rows) == top:
            break
    return rows


def _occupancy(table: pd.DataFrame | None, gallery: _Gallery) -> dict[str, Any]:
    if table is None:
        return {
            "picture": None,
            "why": "This run has no occupancy.csv, so there is nothing to draw.",
        }
    said = [
        f"{relation}: {_count(before)} of {_count(tiles)} tiles, reordered {_count(after)}"
        for relation, before, after, tiles in zip(
            table["relation"], table["natural"], table["reordered"], table["tiles"], strict=True
        )
    ]
    picture = gallery.add(
        "occupancy",
        draw.occupancy_figure(table),
        f"Dot plot of occupied attention tiles per relation. {'; '.join(said)}.",
        "Tiles of 128 queries × 128 keys that hold at least one pair. A block-sparse attention kernel visits only these, "
        "so fewer is faster. Reordered: the order of the nodes inside of the model, one per node type for all its relations; "
        "everything on this page is in the graph’s own order. A relation and its reverse have the same tiles, transposed.",
    )
    return {
        "picture": picture,
        "why": "occupancy.csv has no relation with tiles, so there is nothing to draw.",
    }


# ---- numbers and files -------------------------------------------------------------------------------------------


def _count(n: Any) -> str:
    return f"{float(n):,.0f}" if isinstance(n, int | float | np.number) else str(n)


def _moment(when: Any) -> str:
    """A date for readers; what is not ISO 8601 stays as it is."""
    try:
        moment = datetime.datetime.fromisoformat(str(when))
    except ValueError:
        return str(when)
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return str(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _value(metric: str, value: float) -> str:
    if metric == "mse":
        return _plain(value)
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _plain(value: float) -> str:
    """Three digits; small and large numbers with a power of ten."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e4:
        digits, power = f"{value:.2e}".split("e")
        return f"{digits}×10{str(int(power)).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{value:#.3g}".rstrip(".").replace("-", "−") if value else "0"


def _maybe(value: Any) -> str:
    return (
        f"{value:.2f}".replace("-", "−")
        if isinstance(value, int | float) and math.isfinite(value)
        else "–"
    )


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

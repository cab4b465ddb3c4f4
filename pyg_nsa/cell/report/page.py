"""The report of a training run: ``report.html`` from the files of the run's folder, and nothing else.

Needed files
    ``config.yaml``, ``run.json``, ``history.csv``, ``predictions.csv``, ``metrics.csv``.

Optional files
    ``attention.csv`` (the drawing of a knockout), ``occupancy.csv`` (tiles). Without them their section says why it is empty.

The page is self-contained: its styles are inline, its figures are embedded as base64, and it needs neither a network nor
JavaScript. The same figures lie beside it in ``figures/``.
"""

from __future__ import annotations

import importlib.resources
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from pyg_nsa.cell.data.splits import HELD_OUT, SplitKind
from pyg_nsa.cell.evaluation.metrics import LETHAL_BELOW
from pyg_nsa.cell.evaluation.subsets import SUBSETS, interacts, subset_rows, subsets_of
from pyg_nsa.cell.labels.table import TARGETS
from pyg_nsa.cell.report.figures import loss_figure, occupancy_figure, scatter_figure
from pyg_nsa.cell.report.files import RunFiles, RunFolderError, read_run
from pyg_nsa.cell.report.gallery import Gallery, Picture
from pyg_nsa.cell.report.knockout_section import knockout_section
from pyg_nsa.cell.report.metrics_figure import metrics_figure
from pyg_nsa.cell.report.metrics_section import (
    PARTS,
    TARGET_WORDS,
    headlines,
    metric_table,
    model_words,
    subset_words,
)
from pyg_nsa.cell.report.numbers import count, duration, moment, plain

__all__ = ["RunFolderError", "write_report"]


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
    files = read_run(run)
    gallery = Gallery(run / "figures")
    page = _environment().render(_context(files, gallery))
    gallery.remove_stale()
    out = run / "report.html"
    _write(out, page)
    return out


# ---- what the page says ------------------------------------------------------------------------------------------


def _environment() -> jinja2.Template:
    source = (
        importlib.resources.files("pyg_nsa.cell.report")
        .joinpath("report.html.j2")
        .read_text("utf-8")
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = count
    environment.filters["duration"] = duration
    environment.filters["moment"] = moment
    return environment.from_string(source)


def _context(files: RunFiles, gallery: Gallery) -> dict[str, Any]:
    facts = files.facts
    source = facts["label_source"].strip()
    simulated = source.lower().startswith("simulat")
    truth = (
        "simulated" if simulated else "measured" if source.lower().startswith("measur") else "true"
    )
    metrics, kind = files.metrics, facts["split_kind"]
    models = list(dict.fromkeys([*metrics["model"], *files.predictions["model"]]))
    parts = [p for p in ("test", "val") if p in set(metrics["part"])]
    parts += [p for p in dict.fromkeys(metrics["part"]) if p not in ("test", "val")]
    return {
        "facts": facts,
        "cell": Path(facts["organism"]).name,  # a page is passed on, a folder is not
        "simulated": simulated,
        "lethal_below": f"{LETHAL_BELOW:g}",
        "truth": truth,
        "label_source": source,
        "split": _split_rows(facts["split"]),
        "held_out": HELD_OUT[kind],
        "triples": any("triples" in counts for counts in facts["split"].values()),
        "evaluated": _evaluated(files.predictions),
        "interacting_above": f"{facts['interacting_above']:g}",
        "models": [(m, model_words(m, kind), _model_facts(m, facts)) for m in models],
        "headlines": headlines(metrics, files.predictions, models, truth, kind),
        "sure": bool(np.isfinite(metrics[["low", "high"]].to_numpy(float)).any()),
        "overview": _overview(metrics, kind, gallery),
        "tables": [metric_table(metrics, part, models, kind) for part in parts],
        "loss": _loss(files.history, kind, gallery),
        "scatter": _scatter(files.predictions, truth, kind, gallery),
        "knockout": knockout_section(files.attention, facts["knockout"], gallery),
        "occupancy": _occupancy(files.occupancy, gallery),
        "config": files.config,
    }


def _split_rows(split: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    order = [p for p in PARTS if p in split] + [p for p in split if p not in PARTS]
    return [{"name": PARTS.get(part, part), **split[part]} for part in order]


def _evaluated(predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """Per part: how many instances of each size were predicted, and how many are lethal or interact."""
    rows = []
    for part, table in predictions.groupby("part", sort=False):
        once = table.drop_duplicates(["genes", "size"])
        pairs = once[once["size"] == 2]
        rows.append(
            {
                "name": PARTS.get(str(part), str(part)),
                "singles": int((once["size"] == 1).sum()),
                "pairs": len(pairs),
                "lethal": int((once["fitness"] < LETHAL_BELOW).sum()),
                "interacting": int(interacts(pairs).sum()),
                "triples": int((once["size"] == 3).sum()),
                "known": len(subset_rows(once, "new pairs of known genes")),
            }
        )
    return rows


def _model_facts(model: str, facts: Mapping[str, Any]) -> str:
    said = []
    if (parameters := facts["parameters"].get(model)) is not None:
        said.append(f"{count(parameters)} parameters")
    training = facts["seconds"].get("training")
    if isinstance(training, Mapping) and training.get(model) is not None:
        said.append(f"trained for {duration(training[model])}")
    return ", ".join(said)


# ---- sections with figures ---------------------------------------------------------------------------------------


def _overview(metrics: pd.DataFrame, split_kind: SplitKind, gallery: Gallery) -> Picture | None:
    return gallery.add(
        "metrics",
        metrics_figure(metrics),
        f"Dot plots of the main metrics of each model on held-out test {HELD_OUT[split_kind]}, with 95 % intervals; the numbers "
        "are in the table below.",
        f"Main metrics on held-out test {HELD_OUT[split_kind]}: a dot for each model, a bar for its 95 % interval. Further right is better; the "
        "dotted line is what a guess gets.",
    )


def _loss(history: pd.DataFrame, split_kind: SplitKind, gallery: Gallery) -> dict[str, Any]:
    lowest = []
    for model, rows in history.groupby("model", sort=False):
        known = rows[np.isfinite(rows["val_loss"])]
        if len(known):
            best = known.loc[known["val_loss"].idxmin()]
            lowest.append(f"{model} {plain(best['val_loss'])} in epoch {count(best['epoch'])}")
    alt = "Line chart of training and validation loss by epoch"
    alt += f"; lowest validation loss: {'; '.join(lowest)}." if lowest else "."
    picture = gallery.add(
        "loss",
        loss_figure(history),
        alt,
        "Loss by epoch, on standardised labels. Dashed: on training instances as they are drawn; solid: on held-out validation "
        f"{HELD_OUT[split_kind]}. The ring marks the epoch of the lowest validation loss.",
    )
    return {
        "picture": picture,
        "why": "history.csv has no loss at all, so there is nothing to draw.",
    }


def _scatter(
    predictions: pd.DataFrame, truth: str, split_kind: SplitKind, gallery: Gallery
) -> dict[str, Any]:
    part = next((p for p in ("test", "val") if p in set(predictions["part"])), None)
    chosen = predictions[predictions["part"] == part]
    pictures, without = [], []
    wanted = [
        (subset, target)
        for subset in subsets_of(chosen)
        if not (SUBSETS[subset].interacting or SUBSETS[subset].new_losses)
        for target in TARGETS
        if target == "fitness" or SUBSETS[subset].size > 1
    ]
    for subset, target in wanted:
        rows = subset_rows(chosen, subset)
        what = {1: "singles", 2: "pairs", 3: "triples"}[SUBSETS[subset].size]
        figure = scatter_figure(rows, target, truth=truth, what=what)
        known = rows[np.isfinite(rows[target]) & np.isfinite(rows[f"{target}_pred"])]
        shown = list(dict.fromkeys(known["model"]))
        missing = [m for m in dict.fromkeys(chosen["model"]) if m not in shown]
        quantity = TARGET_WORDS[target]
        words = subset_words(subset, split_kind)
        one = f"deleted {words}" if words.startswith("pairs") else words
        caption = f"{quantity.capitalize()} of {one}: predicted against {truth}."
        if missing:
            caption += f" Without predictions here: {', '.join(missing)}."
        counts = [f"{m} (n = {count((known['model'] == m).sum())})" for m in shown]
        alt = (
            f"Scatter plots of predicted against {truth} {quantity} of {one}: {', '.join(counts)}."
        )
        picture = gallery.add(f"{target}_{subset.replace(' ', '_')}", figure, alt, caption)
        if picture is None:
            without.append(f"{quantity} of {one}")
        else:
            pictures.append(picture)
    return {"pictures": pictures, "part": PARTS.get(part or "", part or ""), "without": without}


def _occupancy(table: pd.DataFrame | None, gallery: Gallery) -> dict[str, Any]:
    if table is None:
        return {
            "picture": None,
            "why": "This run has no occupancy.csv, so there is nothing to draw.",
        }
    said = [
        f"{relation}: {count(before)} of {count(tiles)} tiles, reordered {count(after)}"
        for relation, before, after, tiles in zip(
            table["relation"], table["natural"], table["reordered"], table["tiles"], strict=True
        )
    ]
    picture = gallery.add(
        "occupancy",
        occupancy_figure(table),
        f"Dot plot of occupied attention tiles per relation. {'; '.join(said)}.",
        "Tiles of 128 queries × 128 keys that hold at least one pair. A block-sparse attention kernel visits only these, "
        "so fewer is faster. Reordered: the order of the nodes inside of the model, one per node type for all its relations; "
        "everything on this page is in the graph’s own order. A relation and its reverse have the same tiles, transposed.",
    )
    return {
        "picture": picture,
        "why": "occupancy.csv has no relation with tiles, so there is nothing to draw.",
    }


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

"""A comparison from beginning to end: who, on which terms, trained, judged, and written down."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.splits import HELD_OUT
from pyg_nsa.cell.evaluation.cells import Cell, run_cells
from pyg_nsa.cell.evaluation.compare import Match, datasets, plan
from pyg_nsa.cell.evaluation.comparison_page import (
    DIFFERENCES,
    comparison_figure,
    differences,
    markdown_table,
    over_inits,
    shown_differences,
    shown_rows,
    summary,
    with_every_seed,
)
from pyg_nsa.cell.evaluation.contenders import computed_names, contenders_of
from pyg_nsa.cell.evaluation.held_out import computed_baselines
from pyg_nsa.cell.files.sealed_file import write_atomically
from pyg_nsa.cell.files.whole_files import write_csv, write_json
from pyg_nsa.cell.report.figure_style import save
from pyg_nsa.cell.training.run_facts import machine, versions

__all__ = ["run_comparison"]

_METRICS = ["model", "split", "seed", "subset", "target", "metric", "value", "n"]


def run_comparison(
    configs: Mapping[str, CellConfig],
    folder: Path,
    *,
    seeds: int = 3,
    match: Match = "parameters",
    cache: Path | None = None,
    dry_run: bool = False,
    progress: bool = True,
    console: Console | None = None,
    command: str = "",
    new_splits: bool = False,
    inits: int = 1,
) -> dict[str, Any]:
    """Trains several models with several seeds, and writes one table and one figure.

    Args:
        configs: Configurations by name; with a single one its baselines take part too. Baselines that need no training
            are computed where one of them names them.
        folder: Writes ``comparison.csv`` (a row for each model that was trained), ``comparison.json``, ``comparison.md`` and ``comparison.png``,
            after every trained model; what is done in it is not trained again.
        seeds: How many seeds, from the configuration's on.
        match: See :func:`~pyg_nsa.cell.evaluation.compare.plan`.
        cache: Where graphs and labels are kept between runs.
        dry_run: Only list what would be trained.
        progress: Show progress bars.
        console: Where to print (default: standard output).
        command: What was called, for the files.
        new_splits: Whether each seed makes a split of its own, so that standard deviations include the choice of genes.
        inits: How many initialisations each split gets; their metrics are averaged before anything else is done with them.

    Returns:
        What ``comparison.json`` holds; of a dry run ``match`` and ``cells``. A cell of a model whose training failed has ``failed``,
        what it failed with.

    Raises:
        CompareError: Configurations that can't be compared.
        ConfigError: A configuration does not fit the graph.
        MatchError: No width has the wanted number of parameters.
    """
    console = console or Console(width=None if Console().is_terminal else 120)
    dataset_of = datasets(cache, progress)
    contenders = contenders_of(configs)
    first = contenders[0].config
    console.print(f"graph and labels of {first.data.model}")
    cells = plan(
        contenders, match, folder, seeds, dataset_of, new_splits, inits, progress, not dry_run
    )
    console.print(_plan_table(cells))
    if dry_run:
        return {"match": match, "cells": [_cell_facts(cell) for cell in cells]}
    names = computed_names(configs)
    seeds_of_splits = dict.fromkeys(cell.split for cell in cells)
    computed = [
        computed_baselines(
            names, dataset_of(first), first.model_copy(update={"seed": seed})
        ).assign(seed=seed, split=seed)
        for seed in seeds_of_splits
    ]
    found: list[pd.DataFrame] = []
    failed: dict[Path, str] = {}
    points, facts = pd.DataFrame(), {}
    before = {cell.folder for cell in cells if cell.done}
    # What is done comes first, so that no file that is written on the way holds less than the last one did.
    cells.sort(key=lambda cell: not cell.done)
    for cell, result in run_cells(cells, dataset_of, console, progress):
        if isinstance(result, str):
            failed[cell.folder] = result
        else:
            found.append(result.assign(seed=cell.seed, split=cell.split))
        known = [*found, *(table for table in computed if len(table))]
        metrics = pd.concat(known) if known else pd.DataFrame(columns=_METRICS)
        points = over_inits(metrics) if inits > 1 else metrics
        facts = _facts(cells, points, first, match, seeds, inits, command, failed)
        if cell.folder not in before or cell is cells[-1]:
            write_csv(folder / "comparison.csv", metrics[_METRICS])
            _write(folder, points, facts)
    models, lost = facts["models"], _failed_models(facts)
    over = f"{seeds} {'split' if new_splits else 'seed'}{'s' * (seeds > 1)}"
    rows = shown_rows(summary(points), models, lost)
    held_out = f"held-out {HELD_OUT[first.data.split]}"
    console.print(_table(f"{held_out}, mean ± std over {over}", models, rows))
    rows = _shown_differences(facts)
    if rows:
        title = (
            f"{models[0]} less the others on the same {over}: mean ± std, in how many it is better"
        )
        console.print(_table(title, models[1:], rows))
    for note in _notes(facts):
        console.print(note, markup=False)
    console.print(f"written: {folder / 'comparison.png'}, .csv, .json, .md")
    return facts


def _table(title: str, models: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title)
    for name in ("subset", "target", "metric", *models):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _plan_table(cells: Sequence[Cell]) -> Table:
    table = Table(title="to compare")
    for title in (
        "model",
        "operator",
        "width",
        "parameters",
        "steps",
        "minutes at most",
        "seeds",
        "done",
    ):
        table.add_column(title)
    for name in dict.fromkeys(cell.contender.name for cell in cells):
        mine = [cell for cell in cells if cell.contender.name == name]
        one = mine[0].contender
        how = one.config.training
        steps = how.epochs * how.steps_per_epoch
        table.add_row(
            one.name,
            one.model,
            str(one.config.operator.hidden_channels),
            f"{one.parameters:,}",
            f"{steps:,}",
            "–" if how.max_minutes is None else f"{how.max_minutes:g}",
            ", ".join(str(cell.seed) for cell in mine),
            str(sum(cell.done for cell in mine)),
        )
    return table


def _cell_facts(cell: Cell, failed: Mapping[Path, str] | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "model": cell.contender.name,
        "operator": cell.contender.model,
        "split": cell.split,
        "seed": cell.seed,
        "width": cell.contender.config.operator.hidden_channels,
        "parameters": cell.contender.parameters,
        "done": cell.done,
        "folder": str(cell.folder),
    }
    if cell.done:
        known = json.loads((cell.folder / "cell.json").read_text(encoding="utf-8"))
        facts |= {name: known[name] for name in ("steps", "instances", "minutes", "val_loss")}
    if failed and cell.folder in failed:
        facts["failed"] = failed[cell.folder]
    return facts


def _facts(
    cells: Sequence[Cell],
    metrics: pd.DataFrame,
    first: CellConfig,
    match: Match,
    seeds: int,
    inits: int,
    command: str,
    failed: Mapping[Path, str],
) -> dict[str, Any]:
    trained = list(dict.fromkeys(cell.contender.name for cell in cells))
    known = set(metrics["model"])
    failed_models = {cell.contender.name for cell in cells if cell.folder in failed}
    begun = known | failed_models
    models = [m for m in trained if m in begun] + sorted(known - set(trained))
    table = summary(metrics).astype(object)
    table = table.where(table.notna(), None)  # JSON has no NaN
    less = differences(with_every_seed(metrics, known - set(trained)), models, failed_models)
    return {
        "command": command,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "organism": first.data.model,
        "split": first.data.split,
        "split_seeds": sorted({cell.split for cell in cells}),
        "match": match,
        "seeds": seeds,
        "inits": inits,
        "models": models,
        "cells": [_cell_facts(cell, failed) for cell in cells],
        "summary": table.to_dict("records"),
        "differences": less.to_dict("records"),
        "versions": versions(),
        "machine": machine(),
    }


def _shown_differences(facts: dict[str, Any]) -> list[list[str]]:
    table = pd.DataFrame(facts["differences"], columns=DIFFERENCES)
    return shown_differences(table, facts["models"])


def _write(folder: Path, metrics: pd.DataFrame, facts: dict[str, Any]) -> None:
    models, lost = facts["models"], _failed_models(facts)
    write_json(folder / "comparison.json", facts)
    text = _heading(facts) + markdown_table(
        ["subset", "target", "metric", *models], shown_rows(summary(metrics), models, lost)
    )
    rows = _shown_differences(facts)
    if rows:
        text += f"\n{models[0]} less the others on the same seeds: mean ± standard deviation, and in how many it is better.\n\n"
        text += markdown_table(["subset", "target", "metric", *models[1:]], rows)
    for note in _notes(facts):
        text += f"\n{note}\n"
    write_atomically(folder / "comparison.md", text.encode())
    points = "splits" if len(facts["split_seeds"]) > 1 else "seeds"
    held_out = HELD_OUT[facts["split"]]
    cell = Path(facts["organism"]).name
    caption = f"{cell}, held-out {held_out}; points: {points}, bar: mean, whisker: one standard deviation; better is more, of MSE less"
    save(comparison_figure(metrics, models, caption, lost), folder / "comparison.png")


def _heading(facts: dict[str, Any]) -> str:
    terms = pd.DataFrame(facts["cells"])
    lines = [f"`{facts['command']}`", ""] if facts["command"] else []
    done = terms[terms["done"]]
    rows = [
        [
            name,
            str(part["width"].iloc[0]),
            f"{part['parameters'].iloc[0]:,}",
            f"{part['steps'].mean():,.0f}",
            f"{part['instances'].mean():,.0f}",
            f"{part['minutes'].mean():.1f}",
        ]
        for name, part in done.groupby("model", sort=False)
    ]
    titles = ["model", "width", "parameters", "steps", "instances seen", "minutes"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        "\n".join(
            [
                *lines,
                f"{facts['machine']}; {versions}. {_seeds(facts)}; "
                f"{'as configured' if facts['match'] == 'none' else 'equal ' + facts['match']}. "
                f"Held out: {HELD_OUT[facts['split']]}.",
                "",
            ]
        )
        + "\n"
        + markdown_table(titles, rows)
        + "\n"
    )


def _failed_models(facts: dict[str, Any]) -> set[str]:
    """Models of which the training failed, with some seed at least: a mean of the others would flatter them."""
    return {cell["model"] for cell in facts["cells"] if "failed" in cell}


def _notes(facts: dict[str, Any]) -> list[str]:
    """What is to be said below the tables."""
    notes = [
        f"{c['model']} failed with seed {c['seed']} on split {c['split']}: {c['failed'].splitlines()[0]}"
        f" ({Path(c['folder']) / 'failed.txt'})"
        for c in facts["cells"]
        if "failed" in c
    ]
    few = _few_seeds(facts)
    return [*notes, few] if few else notes


def _few_seeds(facts: dict[str, Any]) -> str:
    """A warning where some model has been trained with one or two seeds alone, so far; else nothing."""
    name = "split" if len(facts["split_seeds"]) > 1 else "seed"
    done = Counter(
        model for model, _ in {(c["model"], c[name]) for c in facts["cells"] if c["done"]}
    )
    few = min(done.values(), default=0) < 3
    return "Standard deviations of fewer than three seeds say little." if few else ""


def _seeds(facts: dict[str, Any]) -> str:
    splits, inits = facts["split_seeds"], facts["inits"]
    if inits > 1:
        return f"Splits: {', '.join(map(str, splits))}; means of {inits} initialisations each"
    if len(splits) > 1:
        return f"Seeds and splits: {', '.join(map(str, splits))}"
    return f"Seeds: {facts['seeds']}, split {splits[0]}"

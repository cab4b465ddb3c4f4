"""The main job: from a configuration to a trained model, metrics beside the baselines, and a report."""

from __future__ import annotations

import functools
import io
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table
from ruamel.yaml import YAML

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.known_labels import check_known, part_lines
from pyg_nsa.cell.data.splits import HELD_OUT, Split, make_split
from pyg_nsa.cell.evaluation.metrics import evaluate
from pyg_nsa.cell.files.cache import cache_folder, open_dataset
from pyg_nsa.cell.files.sealed_file import write_atomically
from pyg_nsa.cell.files.whole_files import write_csv, write_json
from pyg_nsa.cell.models.baselines import BASELINES
from pyg_nsa.cell.network.stopped import what_stops
from pyg_nsa.cell.report.knockout import (
    choose_knockout,
    explain_knockout,
    has_attention,
)
from pyg_nsa.cell.report.occupancy import tile_occupancy
from pyg_nsa.cell.report.page import write_report
from pyg_nsa.cell.training.checkpoint import CheckpointError, differences, read_checkpoint
from pyg_nsa.cell.training.distributed import is_first
from pyg_nsa.cell.training.earlier_run import earlier_run, remove_run
from pyg_nsa.cell.training.experiment import (
    builders,
    evaluation_instances,
    prediction_rows,
    run_experiment,
    validation_instances,
    with_new_losses,
)
from pyg_nsa.cell.training.run_facts import run_facts
from pyg_nsa.cell.training.run_lock import run_lock
from pyg_nsa.cell.training.trainer import Trained
from pyg_nsa.plain_values import plain_values

__all__ = ["cache_folder", "run_training"]

_REPLICATES = 1000  # of the intervals in metrics.csv


def run_training(
    config: CellConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    config_text: str | None = None,
    progress: bool = True,
    console: Console | None = None,
    resume: bool = False,
) -> Path:
    """Trains the model and its baselines, evaluates them on what the split holds out, and writes a report.

    Args:
        config: What to do.
        folder: The run's folder: ``config.yaml``, a folder for each model (:mod:`pyg_nsa.cell.training.experiment`), ``predictions.csv``,
            ``metrics.csv``, ``report.html`` and figures.
        cache: Where graphs and labels are kept between runs (default: :func:`cache_folder`).
        config_text: The configuration as its author wrote it, for ``config.yaml``.
        progress: Show progress bars.
        console: Where to print (default: standard output).
        resume: Go on with what is in ``folder``: models that are done are not trained again. ``False`` starts anew, and
            removes the run that is there once graph, labels and split are made and all models can be built.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: ``resume``, and the folder's run is of another configuration, graph or split.
        ConfigError: The configuration does not fit the graph.
        FolderInUseError: Another process is at work in ``folder``.
        ModelFileError: The metabolic model can't be read.
        NotFiniteError: The loss or its gradient became NaN or infinite.
        TrainingInterrupted: Ctrl-C; ``resume`` goes on.
        ValueError: No training instance has a known label.
    """
    if console is None:
        # Piped into a file there is no terminal to ask for its width, and tables should stay whole.
        console = Console(width=None if Console().is_terminal else 160, quiet=not is_first())
    with run_lock(folder):
        return _run(config, folder, cache, config_text, progress, console, resume)


def _run(
    config: CellConfig,
    folder: Path,
    cache: Path | None,
    config_text: str | None,
    progress: bool,
    console: Console,
    resume: bool,
) -> Path:
    models = builders(config)
    if resume:
        _check_config(folder, config)
        _print_found(console, folder, list(models))
    # Where a run is already, it stays as it is until all is read that this one needs.
    held = is_first() and bool(earlier_run(folder))
    if is_first() and not held:
        _write_config(folder, config, config_text)
    start = time.monotonic()
    console.print(f"[bold]1/3[/] graph and labels of {config.data.model}")
    dataset = open_dataset(config, cache, progress=progress)
    label_seconds = time.monotonic() - start
    split = make_split(dataset.table, config.data.split, config.data.fractions, config.seed)
    _print_data(console, dataset, split, label_seconds)
    check_known(split, dataset.table)
    pairs = config.data.evaluation_pairs
    parts = {
        p: evaluation_instances(dataset, split, p, pairs, config.seed) for p in ("val", "test")
    }
    validation = validation_instances(dataset, parts["val"], config.seed)
    for build in models.values():
        build(config, dataset.graph)  # what does not fit the graph is refused before any is trained
    if held:
        if not resume:
            remove_run(folder)
        _write_config(folder, config, config_text)
    trained: dict[str, Trained] = {}
    predictions = []
    for name, build in models.items():
        console.print(f"[bold]2/3[/] training and predicting with {name}")
        trained[name], table = run_experiment(
            name,
            build,
            dataset,
            split,
            config,
            folder / name,
            parts=parts,
            validation=validation,
            resume=resume,
            progress=progress,
            track=functools.partial(track, description="predicting", console=console)
            if progress
            else None,
        )
        predictions.append(table)
    for name in config.baselines:
        if name in BASELINES:
            for part, index in parts.items():
                y_hat = BASELINES[name](dataset, split.train, index)
                predictions.append(prediction_rows(dataset, split, name, part, index, y_hat))
    report = folder / "report.html"
    if not is_first():
        return report
    console.print("[bold]3/3[/] metrics and report")
    metrics = _write_results(config, folder, dataset, split, trained, predictions, label_seconds)
    write_report(folder)
    _print_metrics(console, metrics, f"held-out test {HELD_OUT[split.kind]}")
    console.print(f"report: {report}")
    return report


def _write_results(
    config: CellConfig,
    folder: Path,
    dataset: PerturbationDataset,
    split: Split,
    trained: dict[str, Trained],
    predictions: list[pd.DataFrame],
    label_seconds: float,
) -> pd.DataFrame:
    """All that the report is made from; returns the metrics."""
    table = with_new_losses(pd.concat(predictions, ignore_index=True), dataset, split)
    # Written last: where this is broken off, no report is made of files of two runs.
    (folder / "run.json").unlink(missing_ok=True)
    write_csv(folder / "predictions.csv", table)
    metrics = evaluate(table, replicates=_REPLICATES, seed=config.seed)
    write_csv(folder / "metrics.csv", metrics)
    history = pd.concat([t.history.assign(model=name) for name, t in trained.items()])
    write_csv(folder / "history.csv", history)
    main = next(iter(trained))
    knockout = choose_knockout(table, main)
    knockout["stops"] = what_stops(dataset.graph, knockout["genes"])
    (folder / "attention.csv").unlink(missing_ok=True)
    if has_attention(trained[main].module):
        attention, names = explain_knockout(
            trained[main].module,
            dataset.graph,
            knockout["genes"],
            config.data.model,
            knockout["stops"],
        )
        write_csv(folder / "attention.csv", attention)
        knockout["names"] = names
    occupancy = tile_occupancy(dataset.graph, method=config.node_order)
    write_csv(folder / "occupancy.csv", occupancy)
    facts = run_facts(config, dataset, split, trained, label_seconds)
    facts |= {"model": main, "knockout": knockout}
    write_json(folder / "run.json", facts)
    return metrics


# ---- going on --------------------------------------------------------------------------------------------------------


def _write_config(folder: Path, config: CellConfig, text: str | None) -> None:
    """Before anything is trained: a run that is killed still says what it was."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = plain_values(config)
    # At once: other processes of this run may be reading what was there.
    write_atomically(folder / "config.yaml", (text or _as_yaml(config)).encode())
    write_json(folder / "config.json", whole)


def _as_yaml(config: CellConfig) -> str:
    stream = io.StringIO()
    YAML(typ="safe").dump(plain_values(config, exclude_unset=True), stream)
    return stream.getvalue()


def _check_config(folder: Path, config: CellConfig) -> None:
    """Before anything is built: is this the run of the folder?

    Raises:
        CheckpointError: It is another one.
    """
    file = folder / "config.json"
    if not file.is_file():
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{file}: not valid JSON ({error}); train anew, with --force instead of --resume"
        ) from error
    changes = differences(before, plain_values(config))
    if changes:
        lines = "".join(f"\n    {change}" for change in changes)
        raise CheckpointError(
            f"{folder}: cannot be resumed, since what matters for the result has changed in the configuration:{lines}\n"
            "Undo the changes, or train anew: into another folder (-o), or with --force instead of --resume."
        )


def _print_found(console: Console, folder: Path, models: list[str]) -> None:
    console.print(f"[bold]resuming[/] {folder}")
    for name in models:
        last = folder / name / "last.ckpt"
        if not last.is_file():
            said = "not begun"
        else:
            state = read_checkpoint(last, to_resume=True)
            at = f"epoch {state['epoch']}, step {state['global_step']}"
            if not state["pyg_nsa"]["finished"]:
                said = f"interrupted in {at}"
            elif (folder / name / "predictions.csv").is_file():
                said = f"done ({at})"
            else:
                said = f"trained ({at}), not evaluated"
        console.print(f"    {name}: {said}")


# ---- printing --------------------------------------------------------------------------------------------------------


def _print_data(
    console: Console, dataset: PerturbationDataset, split: Split, seconds: float
) -> None:
    nodes = ", ".join(f"{dataset.graph[t].num_nodes:,} {t}s" for t in dataset.graph.node_types)
    console.print(f"    {nodes}; {len(dataset):,} labelled instances ({seconds:.1f} s)")
    console.print(f"    {dataset.sizes}")
    for line in part_lines(split, dataset.table):
        console.print(f"    {line}")


def _print_metrics(console: Console, metrics: pd.DataFrame, title: str) -> None:
    table = Table(title=title)
    # Folded where it is too wide, not cut: hetero_nsa and hetero_conv must not become one name.
    for name in ("subset", "target", "metric"):
        table.add_column(name, overflow="fold")
    models = list(dict.fromkeys(metrics["model"]))
    for name in models:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("n", justify="right")
    test = metrics[metrics["part"] == "test"]
    for (subset, target, metric), rows in test.groupby(["subset", "target", "metric"], sort=False):
        by_model = rows.set_index("model")
        values = [by_model["value"].get(m, np.nan) for m in models]
        shown = ["–" if not np.isfinite(v) else f"{v:.4f}" for v in values]
        table.add_row(subset, target, metric, *shown, str(int(rows["n"].max())))
    console.print(table)

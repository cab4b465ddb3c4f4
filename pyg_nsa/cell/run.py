"""The main job: from a configuration to a trained model, metrics beside the baselines, and a report."""

from __future__ import annotations

import datetime
import importlib.metadata
import io
import json
import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from ruamel.yaml import YAML

from pyg_nsa.cell.attention_map import attention_around
from pyg_nsa.cell.baselines import BASELINES
from pyg_nsa.cell.batch import PerturbationCollate
from pyg_nsa.cell.build import build_hetero_conv, build_model
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.dataset import PerturbationDataset
from pyg_nsa.cell.metrics import evaluate
from pyg_nsa.cell.occupancy import tile_occupancy
from pyg_nsa.cell.report import write_report
from pyg_nsa.cell.splits import Split, split_by_gene
from pyg_nsa.cell.training import Trained, predict, train

__all__ = ["cache_folder", "run_training"]

logger = logging.getLogger(__name__)

_VALIDATION = 256  # instances of the validation loss, which is computed after every epoch


def cache_folder() -> Path:
    """Where graphs and labels are kept: ``PYG_NSA_CACHE``, or ``~/.cache/pyg_nsa``."""
    given = os.environ.get("PYG_NSA_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "pyg_nsa"


def run_training(
    config: CellConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    config_text: str | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Path:
    """Trains the model and its baselines, evaluates them on held-out genes, and writes a report.

    Args:
        config: What to do.
        folder: The run's folder: checkpoints, ``predictions.csv``, ``metrics.csv``, ``report.html`` and figures.
        cache: Where graphs and labels are kept between runs (default: :func:`cache_folder`).
        config_text: The configuration as its author wrote it, for the report.
        progress: Show progress bars.
        console: Where to print (default: standard output).

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: The configuration does not fit the graph.
        ModelFileError: The metabolic model can't be read.
    """
    # Piped into a file there is no terminal to ask for its width, and tables should stay whole.
    console = console or Console(width=None if Console().is_terminal else 120)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    console.print(f"[bold]1/4[/] graph and labels of {config.data.model}")
    dataset = PerturbationDataset(
        cache or cache_folder(),
        config.data.model,
        labels=config.data.labels,
        gene_tables=config.data.gene_tables or None,
        proxies=config.data.proxies,
        features=config.data.features,
        progress=progress,
    )
    label_seconds = time.monotonic() - start
    split = split_by_gene(dataset.table, config.data.fractions, config.seed)
    _print_data(console, dataset, split, label_seconds)
    builders = {"hetero_nsa": build_model}
    if "hetero_conv" in config.baselines:
        builders["hetero_conv"] = build_hetero_conv
    parts = {
        part: _evaluated(dataset, split, part, config.data.evaluation_pairs, config.seed)
        for part in ("val", "test")
    }
    validation = _for_validation_loss(dataset, parts["val"], _VALIDATION, config.seed)
    trained: dict[str, Trained] = {}
    predictions = []
    for name, build in builders.items():
        console.print(f"[bold]2/4[/] training {name}")
        # Each model starts from the seed, so that what else is trained does not change it.
        lightning.seed_everything(config.seed, verbose=False)
        model = build(config, dataset.graph)
        trained[name] = train(
            model, dataset, split, config, folder / name, validation=validation, progress=progress
        )
        console.print(f"[bold]3/4[/] predicting held-out genes with {name}")
        for part, index in parts.items():
            y_hat = predict(
                trained[name].module,
                dataset[index],
                4 * config.training.batch_size,  # no gradients to keep
                (lambda it: track(it, description=part, console=console)) if progress else None,  # noqa: B023
            )
            predictions.append(_prediction_rows(dataset, name, part, index, y_hat))
    for name in config.baselines:
        if name in BASELINES:
            for part, index in parts.items():
                y_hat = BASELINES[name](dataset.table, split.train, index)
                predictions.append(_prediction_rows(dataset, name, part, index, y_hat))
    console.print("[bold]4/4[/] metrics and report")
    table = pd.concat(predictions, ignore_index=True)
    table.to_csv(folder / "predictions.csv", index=False)
    metrics = evaluate(table)
    metrics.to_csv(folder / "metrics.csv", index=False)
    history = pd.concat([t.history.assign(model=name) for name, t in trained.items()])
    history.to_csv(folder / "history.csv", index=False)
    knockout = _knockout(table)
    _write_attention(trained["hetero_nsa"], dataset, knockout, folder)
    tile_occupancy(dataset.graph, method=config.node_order).to_csv(
        folder / "occupancy.csv", index=False
    )
    (folder / "config.yaml").write_text(config_text or _as_yaml(config))
    facts = _facts(config, dataset, split, trained, label_seconds, knockout)
    (folder / "run.json").write_text(json.dumps(facts, indent=2))
    report = write_report(folder)
    _print_metrics(console, metrics)
    console.print(f"report: {report}")
    return report


# ---- choosing what is evaluated --------------------------------------------------------------------------------------


def _evaluated(
    dataset: PerturbationDataset, split: Split, part: str, num_pairs: int, seed: int
) -> NDArray[np.int64]:
    """All singles of a part and some of its pairs, half of them interacting."""
    singles, pairs = split.part(part, 1), split.part(part, 2)
    if 0 < num_pairs < len(pairs):
        generator = np.random.default_rng(seed)
        interacting = pairs[dataset.table.interacting[pairs]]
        half = min(len(interacting), num_pairs // 2)
        chosen = generator.choice(interacting, half, replace=False)
        others = np.setdiff1d(pairs, interacting)
        rest = min(len(others), num_pairs - half)
        pairs = np.concatenate([chosen, generator.choice(others, rest, replace=False)])
    return np.sort(np.concatenate([singles, pairs]))


def _for_validation_loss(
    dataset: PerturbationDataset, index: NDArray[np.int64], size: int, seed: int
) -> NDArray[np.int64]:
    """Singles and pairs in equal parts, as far as there are.

    Many pairs share a gene, so that pairs alone would measure a handful of genes.
    """
    generator = np.random.default_rng(seed)
    single = dataset.table.sizes[index] < 2
    parts = [index[single], index[~single]]
    counts = [min(len(part), size // 2) for part in parts]
    chosen = [generator.choice(p, n, replace=False) for p, n in zip(parts, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def _prediction_rows(
    dataset: PerturbationDataset,
    model: str,
    part: str,
    index: NDArray[np.int64],
    y_hat: NDArray[np.float64],
) -> pd.DataFrame:
    table = dataset.table
    sizes = table.sizes[index]
    return pd.DataFrame(
        {
            "model": model,
            "part": part,
            "index": index,
            "size": sizes,
            "genes": [";".join(table.ids(int(i))) for i in index],
            "fitness": table.fitness[index],
            "gene_interaction": table.gene_interaction[index],
            "fitness_pred": y_hat[:, 0],
            # A single deletion has no interaction to predict.
            "gene_interaction_pred": np.where(sizes >= 2, y_hat[:, 1], np.nan),
        }
    )


def _knockout(predictions: pd.DataFrame) -> pd.Series:
    """The held-out single deletion with the largest effect that the model saw coming best."""
    rows = predictions.query("model == 'hetero_nsa' and part == 'test' and size == 1")
    if rows.empty:
        rows = predictions.query("model == 'hetero_nsa' and part == 'test'")
    harmful = rows[rows["fitness"] < 0.5]
    rows = harmful if len(harmful) else rows
    error = (rows["fitness"] - rows["fitness_pred"]).abs()
    return rows.loc[error.idxmin()]


def _write_attention(
    trained: Trained, dataset: PerturbationDataset, knockout: pd.Series, folder: Path
) -> None:
    batch = PerturbationCollate(dataset.graph)([dataset.get(int(knockout["index"]))])
    module = trained.module.cpu()
    table = attention_around(module.model, dataset.graph, batch)
    table.to_csv(folder / "attention.csv", index=False)


# ---- what is said about a run ----------------------------------------------------------------------------------------


def _facts(
    config: CellConfig,
    dataset: PerturbationDataset,
    split: Split,
    trained: dict[str, Trained],
    label_seconds: float,
    knockout: pd.Series,
) -> dict[str, Any]:
    graph = dataset.graph
    packages = ("pyg-nsa", "torch", "torch-geometric", "lightning", "cobra", "highspy")
    genes = str(knockout["genes"]).split(";")
    return {
        "title": config.title,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "organism": config.data.model,
        "graph": {
            "nodes": {t: int(graph[t].num_nodes) for t in graph.node_types},
            "edges": {" ".join(t): int(graph[t].edge_index.size(1)) for t in graph.edge_types},
        },
        "split": split.counts(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
        "seconds": {
            "labels": round(label_seconds, 1),
            "training": {name: round(t.seconds, 1) for name, t in trained.items()},
        },
        "parameters": {
            name: sum(p.numel() for p in t.module.model.parameters()) for name, t in trained.items()
        },
        "label_source": "simulated by FBA"
        if config.data.labels.startswith("simulated")
        else f"measured ({Path(config.data.labels).name})",
        "knockout": {
            "genes": genes,
            "names": {},
            "fitness": float(knockout["fitness"]),
            "fitness_pred": float(knockout["fitness_pred"]),
            "chosen": "of the held-out deletions that harm growth, the one whose effect the model predicted best",
        },
    }


def _as_yaml(config: CellConfig) -> str:
    stream = io.StringIO()
    YAML(typ="safe").dump(config.model_dump(mode="json", exclude_unset=True), stream)
    return stream.getvalue()


def _print_data(
    console: Console, dataset: PerturbationDataset, split: Split, seconds: float
) -> None:
    nodes = ", ".join(f"{dataset.graph[t].num_nodes:,} {t}s" for t in dataset.graph.node_types)
    console.print(f"    {nodes}; {len(dataset):,} labelled instances ({seconds:.1f} s)")
    for name, counts in split.counts().items():
        console.print(
            f"    {name}: {counts['genes']:,} genes, {counts['singles']:,} singles, {counts['pairs']:,} pairs"
        )


def _print_metrics(console: Console, metrics: pd.DataFrame) -> None:
    table = Table(title="held-out test genes")
    for name in ("subset", "target", "metric"):
        table.add_column(name)
    models = list(dict.fromkeys(metrics["model"]))
    for name in models:
        table.add_column(name, justify="right")
    table.add_column("n", justify="right")
    test = metrics[metrics["part"] == "test"]
    for (subset, target, metric), rows in test.groupby(["subset", "target", "metric"], sort=False):
        by_model = rows.set_index("model")
        values = [by_model["value"].get(m, np.nan) for m in models]
        shown = ["–" if not np.isfinite(v) else f"{v:.4f}" for v in values]
        table.add_row(subset, target, metric, *shown, str(int(rows["n"].max())))
    console.print(table)

"""Several models with several seeds, on equal terms: on one split, or each seed on a split of its own.

A comparison is a folder. Each (model, seed) is an experiment of its own in it (:mod:`pyg_nsa.cell.training.experiment`), under a name that
holds a hash of its configuration: what is done is never trained again, and other settings never mix with it. The split, and the
held-out instances that are judged, are the same for all models.
"""

from __future__ import annotations

import functools
import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import Split, make_split
from pyg_nsa.cell.data_files import by_content
from pyg_nsa.cell.evaluation.equal_terms import count_parameters, match_parameters
from pyg_nsa.cell.evaluation.metrics import evaluate
from pyg_nsa.cell.evaluation.same_instances import instances_apart
from pyg_nsa.cell.evaluation.step_times import (
    for_as_long,
    known_step_times,
    measure_step_times,
    save_step_times,
    training_step,
)
from pyg_nsa.cell.files.cache import dataset_options, open_dataset
from pyg_nsa.cell.models.baselines import BASELINES
from pyg_nsa.cell.training.checkpoint import graph_fingerprint, relevant, training_fingerprint
from pyg_nsa.cell.training.experiment import (
    Builder,
    builders,
    evaluation_instances,
    prediction_rows,
    run_experiment,
    validation_instances,
    with_new_losses,
)
from pyg_nsa.cell.training.interrupt import TrainingInterrupted

__all__ = [
    "Cell",
    "CompareError",
    "Contender",
    "Match",
    "computed_baselines",
    "computed_names",
    "contenders_of",
    "datasets",
    "plan",
    "run_cells",
]

Match = Literal["parameters", "time", "none"]

_SHARED = (
    "model",
    "labels",
    "split",
    "fractions",
    "evaluation_pairs",
)  # what makes a split, in `data`

# Settings of `data` that decide which instances there are, by their names in `dataset_options`.
_NAMES = {
    "model": "data.model",
    "labels": "data.labels",
    "unknown_labels": "data.unknown_labels",
    "gene_tables": "data.gene_tables",
    "unknown": "data.unknown_genes",
}


class CompareError(ValueError):
    """Configurations that can't be compared."""


@dataclass(frozen=True)
class Contender:
    """A model that takes part.

    Attributes:
        name: What it is called in tables.
        config: Its configuration, on the terms of the comparison.
        model: Its name in checkpoints: that of an operator or baseline.
        build: What builds it.
        parameters: How many it has; 0 until :func:`plan` has counted.
        data: What graph, labels and split are, as a hash.
    """

    name: str
    config: CellConfig
    model: str
    build: Builder
    parameters: int = 0
    data: str = ""

    @property
    def key(self) -> str:
        """Name of its folder, with a hash of all that its result depends on."""
        config = by_content(self.config).model_dump(mode="json", exclude={"node_order"})
        return self._named([self.model, self.data, relevant(config)])

    @property
    def earlier_key(self) -> str:
        """What :attr:`key` was in versions up to 0.1.0, which hashed where files lie, and settings that change no result."""
        unread = {"title", "baselines", "node_order"}
        config = self.config.model_dump(mode="json", exclude=unread)
        return self._named([self.model, self.data, config])

    def _named(self, content: list[Any]) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.name}-{digest}"


@dataclass(frozen=True)
class Cell:
    """One (model, seed) of a comparison.

    Attributes:
        contender: The model; the seed of its configuration is that of the split.
        seed: Seed of initialisation and sampling.
        folder: Where its experiment is.
    """

    contender: Contender
    seed: int
    folder: Path

    @property
    def split(self) -> int:
        """Seed of the split."""
        return self.contender.config.seed

    @property
    def done(self) -> bool:
        """Whether it is trained and its predictions are there."""
        return (self.folder / "predictions.csv").is_file() and (self.folder / "cell.json").is_file()


def contenders_of(configs: Mapping[str, CellConfig]) -> list[Contender]:
    """Who is compared: each configuration; with a single one also the baselines that it names and that are trained.

    Args:
        configs: Configurations by name. The first sets the terms.

    Raises:
        CompareError: None, configurations with different splits, or one that is called like a baseline that is computed.
    """
    if not configs:
        raise CompareError("nothing to compare: give at least one configuration")
    (first_name, first), *others = configs.items()
    for name, config in others:
        said, wanted = by_content(config).data, by_content(first).data
        for field in _SHARED:
            if getattr(said, field) != getattr(wanted, field):
                mine, theirs = getattr(config.data, field), getattr(first.data, field)
                raise CompareError(
                    f"{name}: data.{field} is {mine!r}, but {theirs!r} in {first_name}; models are compared on one split, so "
                    "make them equal"
                )
        if config.seed != first.seed:
            raise CompareError(
                f"{name}: seed is {config.seed}, but {first.seed} in {first_name}; it makes the split, so make them equal"
            )
    if len(configs) > 1:
        _check_names(configs)
        return [
            Contender(name, config, *next(iter(builders(config).items())))
            for name, config in configs.items()
        ]
    return [Contender(name, first, name, build) for name, build in builders(first).items()]


def computed_names(configs: Mapping[str, CellConfig]) -> list[str]:
    """The baselines that need no training and that a configuration names."""
    named = dict.fromkeys(b for config in configs.values() for b in config.baselines)
    return [name for name in named if name in BASELINES]


def _check_names(configs: Mapping[str, CellConfig]) -> None:
    """Tables and figures tell models apart by their names."""
    for name in computed_names(configs):
        if name in configs:
            by = next(n for n, config in configs.items() if name in config.baselines)
            raise CompareError(
                f"a configuration is called {name!r}, as is a baseline that takes part (baselines in {by}), and names tell the "
                f"models of a comparison apart: rename the file, or leave {name} out of all baselines (--set 'baselines=[]')"
            )


def plan(
    contenders: Sequence[Contender],
    match: Match,
    folder: Path,
    seeds: int,
    dataset_of: Callable[[CellConfig], PerturbationDataset],
    new_splits: bool = False,
    inits: int = 1,
    progress: bool = True,
    keep: bool = True,
) -> list[Cell]:
    """Puts the contenders on equal terms, and lists what is to be trained.

    Args:
        contenders: Who takes part. The first sets the terms.
        match: ``parameters``: the others get the width that gives the first one's number of parameters; ``time``: they get as
            many steps as take as long as the first one's, by the median time of a step, measured in turns
            (:mod:`~pyg_nsa.cell.evaluation.step_times`); ``none``: as configured.
        folder: Folder of the comparison.
        seeds: How many, from the configuration's seed on.
        dataset_of: The dataset of a configuration.
        new_splits: Whether each seed makes a split of its own; else all have that of the configuration's seed.
        inits: How many initialisations there are of each, with the seeds that follow.
        progress: Show a progress bar where steps are timed.
        keep: Keep the times of steps in the folder, so that a comparison that goes on trains for as long as before.

    Raises:
        CompareError: The contenders' data come to other instances.
        MatchError: No width has the number of parameters.
    """
    first = contenders[0]
    for k in range(seeds if new_splits else 1):
        _check_instances(contenders, k, dataset_of)
    wanted = count_parameters(first.config, first.build, dataset_of(first.config).graph)
    seconds = _step_times(contenders, folder, dataset_of, progress, keep) if match == "time" else {}
    out = []
    for contender in contenders:
        graph, config, count = dataset_of(contender.config).graph, contender.config, wanted
        if match == "time":
            mine, its = seconds[contender.name], seconds[first.name]
            config = for_as_long(config, mine, first.config, its)
        if contender is not first:
            if match == "parameters":
                config, count = match_parameters(config, contender.build, graph, wanted)
            else:
                count = count_parameters(config, contender.build, graph)
        out.append(replace(contender, config=config, parameters=count))
    # All models with one seed, then with the next: a part of a comparison is one, too.
    return [
        _cell(c, folder, k, k + number, new_splits, dataset_of)
        for k in range(seeds)
        for number in range(inits)
        for c in out
    ]


def _check_instances(
    contenders: Sequence[Contender],
    split: int,
    dataset_of: Callable[[CellConfig], PerturbationDataset],
) -> None:
    """Makes sure that all are trained and judged on the same instances, with the same labels.

    Args:
        contenders: Who takes part.
        split: What is added to the seed for the split.
        dataset_of: The dataset of a configuration.
    """
    first, *others = contenders
    dataset = dataset_of(first.config)
    seed = first.config.seed + split
    for other in others:
        its = dataset_of(other.config)
        if its is dataset:
            continue
        ours, theirs = (
            _compared_parts(d, c.config.model_copy(update={"seed": seed}))
            for d, c in ((dataset, first), (its, other))
        )
        if lines := instances_apart(dataset.table, its.table, ours, theirs):
            mine, yours = dataset_options(first.config), dataset_options(other.config)
            apart = ", ".join(
                sorted(_NAMES[k] for k in mine if k in _NAMES and mine[k] != yours[k])
            )
            raise CompareError(
                f"{other.name}: its data come to other instances than those of {first.name}, on the split with seed {seed}:"
                + "".join(f"\n    {line}" for line in lines)
                + f"\nModels are compared on the same instances, and these settings are not the same: {apart}. Make them equal, "
                "or leave out of data.labels what only one of the graphs has."
            )


def _compared_parts(
    dataset: PerturbationDataset, config: CellConfig
) -> dict[str, NDArray[np.int64]]:
    split, parts = split_and_parts(dataset, config)
    return {"train": split.train, **parts}


def _step_times(
    contenders: Sequence[Contender],
    folder: Path,
    dataset_of: Callable[[CellConfig], PerturbationDataset],
    progress: bool,
    keep: bool,
) -> dict[str, float]:
    keys = {c.name: c.key for c in contenders}
    known = known_step_times(folder, keys)
    if known is None:
        known = known_step_times(folder, {c.name: c.earlier_key for c in contenders})
    if known is None:
        steps = {c.name: training_step(c.config, c.build, dataset_of(c.config)) for c in contenders}
        known = measure_step_times(steps, progress=progress)
        if keep:
            save_step_times(folder, keys, known)
    return known


def _cell(
    contender: Contender,
    folder: Path,
    split: int,
    init: int,
    new_split: bool,
    dataset_of: Callable[[CellConfig], PerturbationDataset],
) -> Cell:
    config = contender.config
    seed = config.seed + init
    if new_split:
        config = config.model_copy(update={"seed": config.seed + split})
    known = replace(contender, config=config, data=_data_of(dataset_of(config), config))
    # By settings as they are now, or as an earlier version called it.
    found, earlier = (folder / "cells" / k / f"seed-{seed}" for k in (known.key, known.earlier_key))
    return Cell(known, seed, earlier if earlier.is_dir() and not found.is_dir() else found)


def run_cells(
    cells: Sequence[Cell],
    dataset_of: Callable[[CellConfig], PerturbationDataset],
    console: Console,
    progress: bool = True,
) -> Iterator[tuple[Cell, pd.DataFrame | str]]:
    """Trains what is not done, and yields the metrics of each cell on what the split holds out.

    A model whose training fails does not keep the others from theirs; the traceback is in its folder.

    Args:
        cells: Of :func:`plan`.
        dataset_of: The dataset of a configuration.
        console: Where to say what is going on.
        progress: Show progress bars.

    Yields:
        A cell, and the table of :func:`pyg_nsa.cell.evaluation.metrics.evaluate` for its part ``test``; or what its training failed with.

    Raises:
        OSError: A file can't be written or read, which would be so for the others too.
        TrainingInterrupted: Ctrl-C.
    """
    for number, cell in enumerate(cells, 1):
        name = f"{number}/{len(cells)} {cell.contender.name}, seed {cell.seed}, split {cell.split}"
        if cell.done:
            console.print(f"[bold]{name}[/]: done before")
        else:
            console.print(f"[bold]{name}[/]")
            if failure := _failure(cell, dataset_of(cell.contender.config), progress, console):
                console.print(f"{name}: failed: {failure}", markup=False)
                yield cell, failure
                continue
        table = pd.read_csv(
            cell.folder / "predictions.csv",
            keep_default_na=False,
            na_values=[""],
            dtype={"genes": str},
        )
        table = table[table["part"] == "test"].assign(model=cell.contender.name)
        config = cell.contender.config
        if config.data.split == "both":
            dataset = dataset_of(config)
            table = with_new_losses(table, dataset, split_and_parts(dataset, config)[0])
        yield cell, evaluate(table)


def _failure(cell: Cell, dataset: PerturbationDataset, progress: bool, console: Console) -> str:
    """Trains a cell; what that failed with, else nothing. Text, since an error keeps the model's memory by its traceback."""
    record = cell.folder / "failed.txt"
    try:
        _run(cell, dataset, progress, console)
    except (TrainingInterrupted, OSError):
        raise
    except Exception as error:  # an operator of a plugin may raise anything
        cell.folder.mkdir(parents=True, exist_ok=True)
        record.write_text(traceback.format_exc(), encoding="utf-8")
        return f"{type(error).__name__}: {error}"
    record.unlink(missing_ok=True)
    return ""


def _run(cell: Cell, dataset: PerturbationDataset, progress: bool, console: Console) -> None:
    config = cell.contender.config
    split, parts = split_and_parts(dataset, config)
    trained, _ = run_experiment(
        cell.contender.model,
        cell.contender.build,
        dataset,
        split,
        config,
        cell.folder,
        seed=cell.seed,
        parts=parts,
        validation=validation_instances(dataset, parts["val"], config.seed),
        resume=True,
        progress=progress,
        track=functools.partial(track, description="predicting", console=console)
        if progress
        else None,
    )
    history = trained.history
    steps = int(history["step"].max())
    facts = {
        "seed": cell.seed,
        "parameters": cell.contender.parameters,
        "steps": steps,
        "instances": steps * config.training.batch_size,
        "minutes": trained.seconds / 60,
        "val_loss": float(history["val_loss"].min()),
        "config": config.model_dump(mode="json"),
    }
    partial = cell.folder / "cell.json.part"
    partial.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    partial.replace(cell.folder / "cell.json")


def _data_of(dataset: PerturbationDataset, config: CellConfig) -> str:
    split, parts = split_and_parts(dataset, config)
    digest = hashlib.sha256(graph_fingerprint(dataset.graph).encode())
    digest.update(training_fingerprint(dataset.table, split).encode())
    for index in parts.values():
        digest.update(np.ascontiguousarray(index).tobytes())
        digest.update(np.ascontiguousarray(dataset.table.y[index]).tobytes())
    if split.kind == "both":
        digest.update(b"held_out")  # predictions without this column are of an earlier version
    return digest.hexdigest()


def split_and_parts(
    dataset: PerturbationDataset, config: CellConfig
) -> tuple[Split, dict[str, NDArray[np.int64]]]:
    """The split, and the held-out instances that are judged: the same for all contenders, by the configuration's seed."""
    split = make_split(dataset.table, config.data.split, config.data.fractions, config.seed)
    pairs = config.data.evaluation_pairs
    return split, {
        part: evaluation_instances(dataset, split, part, pairs, config.seed)
        for part in ("val", "test")
    }


def computed_baselines(
    names: Sequence[str], dataset: PerturbationDataset, config: CellConfig
) -> pd.DataFrame:
    """Metrics of the baselines that need no training, on the part ``test``.

    Args:
        names: Of :func:`computed_names`.
        dataset: The dataset.
        config: For the split.
    """
    split, parts = split_and_parts(dataset, config)
    tables = [
        prediction_rows(
            dataset,
            split,
            n,
            "test",
            parts["test"],
            BASELINES[n](dataset, split.train, parts["test"]),
        )
        for n in names
    ]
    if not tables:
        return pd.DataFrame()
    return evaluate(with_new_losses(pd.concat(tables, ignore_index=True), dataset, split))


def datasets(cache: Path | None, progress: bool) -> Callable[[CellConfig], PerturbationDataset]:
    """Opens each dataset once; configurations may differ in what makes it."""
    known: dict[str, PerturbationDataset] = {}

    def of(config: CellConfig) -> PerturbationDataset:
        key = json.dumps(dataset_options(config), sort_keys=True)
        if key not in known:
            known[key] = open_dataset(config, cache, progress=progress)
        return known[key]

    return of

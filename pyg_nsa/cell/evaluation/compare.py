"""Several models with several seeds, on equal terms: on one split, or each seed on a split of its own.

A comparison is a folder. Each (model, seed) is an experiment of its own in it (:mod:`pyg_nsa.cell.training.experiment`), under a name that
holds a hash of its configuration: what is done is never trained again, and other settings never mix with it. The split, and the
held-out instances that are judged, are the same for all models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.evaluation.cells import Cell
from pyg_nsa.cell.evaluation.contenders import CompareError, Contender
from pyg_nsa.cell.evaluation.equal_terms import count_parameters, match_parameters
from pyg_nsa.cell.evaluation.held_out import data_fingerprint, split_and_parts
from pyg_nsa.cell.evaluation.same_instances import instances_apart
from pyg_nsa.cell.evaluation.step_times import (
    for_as_long,
    known_step_times,
    measure_step_times,
    save_step_times,
    training_step,
)
from pyg_nsa.cell.files.cache import dataset_options, open_dataset

__all__ = ["Match", "datasets", "plan"]

Match = Literal["parameters", "time", "none"]

# Settings of `data` that decide which instances there are, by their names in `dataset_options`.
_NAMES = {
    "model": "data.model",
    "labels": "data.labels",
    "unknown_labels": "data.unknown_labels",
    "interacting_above": "data.interacting_above",
    "gene_tables": "data.gene_tables",
    "unknown": "data.unknown_genes",
}


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
    known = replace(contender, config=config, data=data_fingerprint(dataset_of(config), config))
    # By settings as they are now, or as an earlier version called it.
    found, earlier = (folder / "cells" / k / f"seed-{seed}" for k in (known.key, known.earlier_key))
    return Cell(known, seed, earlier if earlier.is_dir() and not found.is_dir() else found)


def datasets(cache: Path | None, progress: bool) -> Callable[[CellConfig], PerturbationDataset]:
    """Opens each dataset once; configurations may differ in what makes it."""
    known: dict[str, PerturbationDataset] = {}

    def of(config: CellConfig) -> PerturbationDataset:
        key = json.dumps(dataset_options(config), sort_keys=True)
        if key not in known:
            known[key] = open_dataset(config, cache, progress=progress)
        return known[key]

    return of

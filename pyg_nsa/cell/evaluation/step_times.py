"""How long a training step of each of several models takes, measured so that a busy machine is fair to all of them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import PerturbationLoader
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import make_split
from pyg_nsa.cell.files.whole_files import write_json
from pyg_nsa.cell.training.experiment import Builder
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.cell.training.trainer import run_once, training_sampler

__all__ = [
    "for_as_long",
    "known_step_times",
    "measure_step_times",
    "save_step_times",
    "training_step",
]

_ROUNDS = 12
_WARM_UP = 2


def measure_step_times(
    steps: Mapping[str, Callable[[], None]], rounds: int = _ROUNDS, progress: bool = True
) -> dict[str, float]:
    """Median seconds of each step, all of them in turns: whatever else the machine does, it does to all.

    Args:
        steps: What to time, by name.
        rounds: How often each is called; two more calls come first and do not count.
        progress: Show a progress bar.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task("timing a step of each model", total=(rounds + _WARM_UP) * len(steps))
        for number in range(rounds + _WARM_UP):
            for name, step in steps.items():
                started = time.perf_counter()
                try:
                    step()
                except Exception as error:
                    error.add_note(f"({name}, of which a step was timed before any training)")
                    raise
                if number >= _WARM_UP:
                    seconds[name].append(time.perf_counter() - started)
                bar.advance(task)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def training_step(
    config: CellConfig, build: Builder, dataset: PerturbationDataset
) -> Callable[[], None]:
    """One step of a training, batch, loss, gradients and optimiser, as often as it is called.

    Args:
        config: How to train.
        build: What builds the model.
        dataset: What it is trained on.
    """
    how = config.training
    split = make_split(dataset.table, config.data.split, config.data.fractions, config.seed)
    sampler = training_sampler(dataset, split, config, config.seed)
    loader = PerturbationLoader(dataset, batch_size=how.batch_size, sampler=sampler)
    with torch.random.fork_rng(devices=[]):
        model = build(config, dataset.graph)
    labels = torch.from_numpy(dataset.table.y[split.train])
    module = CellModule(model, dataset.graph, how, labels, 1)
    # A few again and again: what is kept of a deletion once it is known is found out in the calls that do not count.
    batches = itertools.cycle(list(itertools.islice(loader, _WARM_UP)))
    run_once(module, batches)
    # Lightning's accelerator="auto" trains there.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).train()
    optimizer = module.configure_optimizers()

    def step() -> None:
        batch = next(batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=how.precision == "bf16-mixed"):
            loss = module.loss(batch.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), how.gradient_clip)
        optimizer.step()

    return step


def for_as_long(
    config: CellConfig, seconds: float, first: CellConfig, first_seconds: float
) -> CellConfig:
    """A configuration with as many steps as take as long as those of the first one.

    The number of epochs becomes the first one's too; the epochs get longer or shorter.

    Args:
        config: The configuration.
        seconds: What a step of it takes.
        first: The first one.
        first_seconds: What a step of that takes.
    """
    wanted = first.training
    mine = max(1, round(wanted.steps_per_epoch * first_seconds / seconds))
    training = config.training.model_copy(
        update={
            "epochs": wanted.epochs,
            "instances_per_epoch": mine * config.training.batch_size,
            "max_minutes": None,
            "patience": None,
        }
    )
    return config.model_copy(update={"training": training})


def known_step_times(folder: Path, keys: Mapping[str, str]) -> dict[str, float] | None:
    """What :func:`save_step_times` wrote, if it is of the same models; else ``None``.

    Args:
        folder: Folder of the comparison.
        keys: What each model is, by name.
    """
    file = folder / "step_times.json"
    try:
        saved: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if {name: one["model"] for name, one in saved.items()} == dict(keys):
            return {name: float(one["seconds"]) for name, one in saved.items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def save_step_times(folder: Path, keys: Mapping[str, str], seconds: Mapping[str, float]) -> None:
    """Keeps the times, so that a comparison that goes on trains for as many steps as before.

    Args:
        folder: Folder of the comparison.
        keys: What each model is, by name.
        seconds: Of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = {name: {"model": keys[name], "seconds": seconds[name]} for name in keys}
    write_json(folder / "step_times.json", saved)

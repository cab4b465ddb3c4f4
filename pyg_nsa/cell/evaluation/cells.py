"""The trainings of a comparison, one for each model and seed: what is done stays, and one that fails does not stop the others."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.evaluation.contenders import Contender
from pyg_nsa.cell.evaluation.held_out import split_and_parts
from pyg_nsa.cell.evaluation.metrics import evaluate
from pyg_nsa.cell.files.whole_files import write_json
from pyg_nsa.cell.training.experiment import run_experiment, validation_instances, with_new_losses
from pyg_nsa.cell.training.interrupt import TrainingInterrupted
from pyg_nsa.plain_values import plain_values

__all__ = ["Cell", "run_cells"]


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


def run_cells(
    cells: Sequence[Cell],
    dataset_of: Callable[[CellConfig], PerturbationDataset],
    console: Console,
    progress: bool = True,
) -> Iterator[tuple[Cell, pd.DataFrame | str]]:
    """Trains what is not done, and yields the metrics of each cell on what the split holds out.

    A model whose training fails does not keep the others from theirs; the traceback is in its folder.

    Args:
        cells: Of :func:`~pyg_nsa.cell.evaluation.compare.plan`.
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
        "config": plain_values(config),
    }
    write_json(cell.folder / "cell.json", facts)

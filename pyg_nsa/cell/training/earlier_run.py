"""What an earlier run left in its folder: whether it is there, and how it goes. It imports no torch."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

__all__ = ["earlier_run", "remove_experiment", "remove_run"]

_CHECKPOINTS = ("last.ckpt", "best.ckpt")
_MARKS = ("run.json", "predictions.csv", *(f"*/{name}" for name in _CHECKPOINTS))
_RESULTS = (  # run.json first: a report is made of nothing that lacks it
    "run.json",
    "report.html",
    "metrics.csv",
    "predictions.csv",
    "history.csv",
    "attention.csv",
    "occupancy.csv",
)


def earlier_run(folder: Path) -> list[Path]:
    """Files that only a run leaves: results and checkpoints; none where no run has come that far.

    Args:
        folder: The run's folder; it need not be there.
    """
    return [file for mark in _MARKS for file in sorted(folder.glob(mark))]


def remove_run(folder: Path) -> None:
    """Removes an earlier run: its results, its report, and what was trained, also models that are configured no more.

    Files of other names stay, such as the batches of failed trainings.

    Args:
        folder: The run's folder.
    """
    from pyg_nsa.cell.report.gallery import Gallery  # matplotlib, only for this

    for name in _RESULTS:
        (folder / name).unlink(missing_ok=True)
    Gallery(folder / "figures").remove_stale()
    for experiment in {file.parent for file in earlier_run(folder)}:
        remove_experiment(experiment)
        with contextlib.suppress(OSError):  # something else is in it
            experiment.rmdir()


def remove_experiment(folder: Path) -> None:
    """Removes a training and what was predicted with it: that first, since it is nothing without its checkpoint.

    Args:
        folder: Where logs and checkpoints are.
    """
    for name in ("predictions.csv", *_CHECKPOINTS, "history.csv"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "logs", ignore_errors=True)

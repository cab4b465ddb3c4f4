"""What makes resumed training the same as uninterrupted training, bit for bit.

Lightning saves parameters, optimiser and counters. This adds the rest: the place in the epoch, the states of the random number
generators, the history, and checkpoints that are whole at any moment.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pyg_nsa.cell.config import CheckpointEvery
from pyg_nsa.cell.data.batch import PerturbationBatch, PerturbationLoader
from pyg_nsa.cell.files.whole_files import write_csv
from pyg_nsa.cell.training.interrupt import StopRequest, TrainingInterrupted

__all__ = ["AtomicCheckpoints", "History", "LastCheckpoint", "RandomStates", "ResumableLoader"]


class ResumableLoader(PerturbationLoader):
    """A :class:`PerturbationLoader` that can go on in the middle of an epoch.

    The batches that were had before are made again and dropped; that costs a fraction of a millisecond each. It draws
    nothing from torch's global generator, which belongs to the model.

    Args:
        *args: As for :class:`PerturbationLoader`.
        **kwargs: Likewise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("generator", torch.Generator())
        super().__init__(*args, **kwargs)
        self._given = 0
        self._skip = 0

    def __iter__(self) -> Iterator[PerturbationBatch]:  # type: ignore[override]
        skip, self._skip = self._skip, 0
        self._given = skip
        for batch in islice(super().__iter__(), skip, None):
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were given; 0 after the last one, for the next epoch begins at its start."""
        return {"batches": self._given % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next epoch begin in the middle."""
        self._skip = state["batches"]


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the file and renames: a process that is killed leaves the old checkpoint or the new one, no part of any."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Saves; as Lightning asks."""
        partial = f"{path}.part"
        try:
            super().save_checkpoint(checkpoint, partial, storage_options)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)  # a full disk would stay full
            raise


class RandomStates(Callback):
    """Saves the states of torch's, NumPy's and Python's generators, of every process, and restores them."""

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """States of all processes, by rank."""
        mine = _generator_states()
        everyone = [mine]
        if dist.is_available() and dist.is_initialized():
            everyone = [mine] * dist.get_world_size()
            dist.all_gather_object(everyone, mine)
        return {"processes": everyone}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until the first batch: what comes before may draw numbers."""
        self._restored = state_dict["processes"]

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Restores them."""
        if self._restored is not None and trainer.global_rank < len(self._restored):
            _restore_generators(self._restored[trainer.global_rank])
        self._restored = None


def _generator_states() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - other libraries draw from it
    version, state, next_gauss = random.getstate()
    out = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss],
        "python": [version, list(state), next_gauss],
    }
    if torch.cuda.is_available():
        out["cuda"] = torch.cuda.get_rng_state()
    return out


def _restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, state, next_gauss = states["python"]
    random.setstate((version, tuple(state), next_gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


class History(Callback):
    """One row per epoch, also written to a file.

    Args:
        path: Where to: a CSV file, written anew after every epoch.
    """

    COLUMNS = ("epoch", "step", "seconds", "train_loss", "val_loss", "learning_rate")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """All rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on behind those rows."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Adds a row; validation of the epoch ran before."""
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "seconds": pl_module.elapsed(),
                "train_loss": pl_module.epoch_loss(),
                "val_loss": float(trainer.callback_metrics.get("val_loss", float("nan"))),
                "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            }
        )
        if trainer.is_global_zero:
            write_csv(self.path, self.table())

    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows, columns=list(self.COLUMNS))


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt``: after every epoch, every so often within one, and when training is asked to stop.

    Args:
        path: The file.
        identity: What the checkpoint says of itself (:func:`pyg_nsa.cell.training.checkpoint.identity`); goes into every checkpoint of
            this training.
        every: How often within an epoch.
        stop: Whether to stop.

    Raises:
        TrainingInterrupted: From within training, once the checkpoint is there.
    """

    def __init__(
        self, path: Path, identity: dict[str, Any], every: CheckpointEvery, stop: StopRequest
    ) -> None:
        self.path = path
        self.identity = identity
        self.every = every
        self.stop = stop
        self.finished = False
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Says what it is."""
        checkpoint["pyg_nsa_config"] = self.identity["pyg_nsa_config"]
        checkpoint["pyg_nsa"] = {**self.identity["pyg_nsa"], "finished": self.finished}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Starts the clock, and listens to signals."""
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        self.stop.listen()
        if trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False):
            raise TrainingInterrupted(f"stopped before step {trainer.global_step + 1}")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves in the middle of an epoch, if it is time."""
        if batch_idx + 1 >= trainer.num_training_batches:
            return  # Validation comes now; a checkpoint from before it would skip it when resumed.
        steps, minutes = self.every.steps, self.every.minutes
        due = steps is not None and trainer.global_step - self._saved_step >= steps
        due |= minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        # Processes have different clocks and get signals at different times, and must do the same.
        agree = trainer.strategy.reduce_boolean_decision
        if agree(due or self.stop.requested, all=False):
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Saves at the end of an epoch."""
        self.finished = bool(trainer.should_stop) or trainer.current_epoch + 1 >= trainer.max_epochs
        self._save(trainer)
        self._stop_if_asked(trainer)

    def _save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _stop_if_asked(self, trainer: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False):
            raise TrainingInterrupted(
                f"stopped in epoch {trainer.current_epoch}, at step {trainer.global_step}; saved to {self.path}",
                self.path,
            )

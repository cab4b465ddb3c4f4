"""Training of a cell model in Lightning: standardised labels, masked loss, schedule."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.config import TrainingConfig
from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.labels.table import TARGETS
from pyg_nsa.cell.models.model import HeteroCellNSA
from pyg_nsa.cell.training.distributed import (
    from_first,
    joint_mean,
    seed_apart,
    total_over_processes,
)
from pyg_nsa.cell.training.dropout_fade import DropoutFade
from pyg_nsa.cell.training.failed_batch import NotFiniteError, not_finite_error

__all__ = ["CellModule", "NotFiniteError", "label_range", "label_statistics"]


def label_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each label, missing values left out; 1 in place of a zero deviation."""
    mean, std = [], []
    for column in y.double().t():
        known = column[column.isfinite()]
        mean.append(known.mean() if known.numel() else torch.zeros((), dtype=torch.double))
        deviation = known.std() if known.numel() > 1 else torch.zeros((), dtype=torch.double)
        std.append(deviation if deviation > 1e-6 else torch.ones((), dtype=torch.double))
    return torch.stack(mean).float(), torch.stack(std).float()


def label_range(y: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each label, missing values left out; infinite where there is none."""
    known = [column[column.isfinite()] for column in y.float().t()]
    low = [float(values.min()) if values.numel() else -math.inf for values in known]
    high = [float(values.max()) if values.numel() else math.inf for values in known]
    return torch.tensor(low), torch.tensor(high)


class CellModule(lightning.LightningModule):
    """Lightning's view of a :class:`HeteroCellNSA`.

    The loss is the mean squared error of standardised labels; missing labels do not count. Statistics come from the
    training split alone and are saved in the checkpoint. Predictions are kept within the range of the training labels: no deletion
    grows less than not at all. A target that is not trained is not predicted.

    Args:
        model: The model.
        graph: The base graph, the same for all batches; not part of the checkpoint.
        config: How to train.
        y_train: ``[n, 2]`` labels of the training split as it is sampled.
        steps: Number of optimiser steps that the schedule spans.
    """

    def __init__(
        self,
        model: HeteroCellNSA,
        graph: HeteroData,
        config: TrainingConfig,
        y_train: Tensor,
        steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.graph = graph
        self.config = config
        self.steps = steps
        mean, std = label_statistics(y_train)
        self.register_buffer("label_mean", mean)
        self.register_buffer("label_std", std)
        low, high = label_range(y_train)
        self.register_buffer("label_low", low)
        self.register_buffer("label_high", high)
        self.register_buffer("label_weight", torch.tensor([1.0, config.interaction_weight]))
        #: Folder for what :class:`NotFiniteError` is about; ``None``: nothing is written.
        self.failures: Path | None = None
        #: What a checkpoint says of itself; see :mod:`pyg_nsa.cell.training.checkpoint`.
        self.identity: dict[str, Any] = {}
        self._started: float | None = None
        self._elapsed = 0.0
        self._losses = (0.0, 0)
        self._batch: PerturbationBatch | None = None
        self._fade: DropoutFade | None = None

    def transfer_batch_to_device(
        self, batch: PerturbationBatch, device: torch.device, dataloader_idx: int
    ) -> PerturbationBatch:
        """Lightning's hook: a batch knows how to move itself."""
        return batch.to(device)

    def loss(self, batch: PerturbationBatch) -> Tensor:
        """Weighted mean squared error over known labels.

        Raises:
            NotFiniteError: The loss is NaN or infinite.
        """
        prediction, _ = self.model(self.graph, batch)
        wanted = (batch.y - self.label_mean) / self.label_std
        known = wanted.isfinite()
        weight = known * self.label_weight
        # A batch without any label gives a zero loss that still reaches every parameter.
        error = (prediction - wanted.nan_to_num()).square() * weight
        # Over the joint batch: the same value on all processes, so that all of them stop if it is not finite.
        loss = joint_mean(error.sum(), weight.sum())
        if not bool(loss.isfinite()):
            raise self._not_finite("the loss", loss.item(), batch)
        return loss

    def _not_finite(self, what: str, value: float, batch: PerturbationBatch) -> NotFiniteError:
        return not_finite_error(
            what, value, batch, self.graph, self, self.global_step, self.identity, self.failures
        )

    def training_step(self, batch: PerturbationBatch, batch_idx: int) -> Tensor:
        """One step."""
        self._batch = batch
        loss = self.loss(batch)
        if batch_idx == 0:
            self._losses = (0.0, 0)
        total, count = self._losses
        # The joint batch, of which other processes have their shares.
        size = self.config.batch_size
        size = max(min(size, self.config.instances_per_epoch - batch_idx * size), 1)
        self._losses = (total + loss.item() * size, count + size)
        self.log("train_loss", loss, prog_bar=True, on_step=True, batch_size=len(batch))
        return loss

    def epoch_loss(self) -> float:
        """Mean training loss of this epoch so far, also over the batches before an interruption."""
        total, count = self._losses
        return total / count if count else math.nan

    def validation_step(self, batch: PerturbationBatch, batch_idx: int) -> None:
        """Validation loss."""
        loss = self.loss(batch)
        # Not Lightning's sync_dist: it cuts the mean of the processes' batch sizes down to a whole number.
        size = total_over_processes(len(batch), self.device)
        self.log("val_loss", loss, prog_bar=True, batch_size=size)

    def predict_step(self, batch: PerturbationBatch, batch_idx: int = 0) -> Tensor:
        """``[B, 2]`` in the labels' units, within their range in training; NaN for a target that is not trained."""
        prediction, _ = self.model(self.graph, batch)
        told = prediction.float() * self.label_std + self.label_mean
        return told.clamp(self.label_low, self.label_high).masked_fill(
            ~self._is_trained(), math.nan
        )

    def untrained_targets(self) -> tuple[str, ...]:
        """Targets that nothing was learned of: no training instance has a known label, or their weight in the loss is 0."""
        trained = self._is_trained().tolist()
        return tuple(name for name, yes in zip(TARGETS, trained, strict=True) if not yes)

    def _is_trained(self) -> Tensor:
        return self.label_low.isfinite() & (self.label_weight > 0)  # both are in the checkpoint

    def on_train_start(self) -> None:
        """Starts the clock of ``max_minutes``; time before an interruption counts."""
        self._started = time.monotonic() - self._elapsed
        seed_apart()

    def restore_dropout(self) -> None:
        """Gives the model back the dropouts that it had before a training."""
        if self._fade is not None:
            self._fade.scale(1.0)
            self._fade = None

    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self._elapsed if self._started is None else time.monotonic() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the clock and the losses of an epoch that has begun."""
        total, count = self._losses
        checkpoint["pyg_nsa_progress"] = {"seconds": self.elapsed(), "losses": [total, count]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from there."""
        saved = checkpoint["pyg_nsa_progress"]
        self._elapsed = float(saved["seconds"])
        self._losses = (float(saved["losses"][0]), int(saved["losses"][1]))

    def progress(self) -> float:
        """Share of the training that is done, by steps or by time, whichever is further.

        All processes must call this together: they go by the clock of the first, so that their learning rates agree and they
        stop at the same step.
        """
        done = self.global_step / max(self.steps, 1)
        if self.config.max_minutes is not None:
            minutes = from_first(self.elapsed() / 60, self.device)
            done = max(done, minutes / self.config.max_minutes)
        return min(done, 1.0)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradient's norm.

        Raises:
            NotFiniteError: It is NaN or infinite: one step on, so would be the parameters.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        if not bool(norm.isfinite()):
            assert self._batch is not None
            raise self._not_finite("the norm of the gradient", norm.item(), self._batch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate, and how much of the dropout is left."""
        warm = min(1.0, (self.global_step + 1) / max(1, min(50, self.steps // 10)))
        done = self.progress()
        rate = self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizers().param_groups:
            group["lr"] = rate
        if self.config.dropout_fade is not None:
            start, end = self.config.dropout_fade
            self._fade = self._fade or DropoutFade(self.model)
            self._fade.scale(min(max((end - done) / (end - start), 0.0), 1.0))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops when the time is up; Lightning validates once more before it ends."""
        if self.progress() >= 1.0:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

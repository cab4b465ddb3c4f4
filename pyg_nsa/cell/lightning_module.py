"""Training of a cell model in Lightning: standardised labels, masked loss, schedule."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.batch import PerturbationBatch
from pyg_nsa.cell.config import TrainingConfig
from pyg_nsa.cell.model import HeteroCellNSA

__all__ = ["CellModule", "NotFiniteError", "label_statistics"]


class NotFiniteError(RuntimeError):
    """The loss became NaN or infinite."""


def label_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each label, missing values left out; 1 in place of a zero deviation."""
    mean, std = [], []
    for column in y.double().t():
        known = column[column.isfinite()]
        mean.append(known.mean() if known.numel() else torch.zeros((), dtype=torch.double))
        deviation = known.std() if known.numel() > 1 else torch.zeros((), dtype=torch.double)
        std.append(deviation if deviation > 1e-6 else torch.ones((), dtype=torch.double))
    return torch.stack(mean).float(), torch.stack(std).float()


class CellModule(lightning.LightningModule):
    """Lightning's view of a :class:`HeteroCellNSA`.

    The loss is the mean squared error of standardised labels; missing labels do not count. Statistics come from the
    training split alone and are saved in the checkpoint.

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
        self.register_buffer("label_weight", torch.tensor([1.0, config.interaction_weight]))
        self._started: float | None = None

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
        loss = error.sum() / weight.sum().clamp(min=1e-12)
        if not bool(loss.isfinite()):
            raise NotFiniteError(
                f"the loss is {loss.item()} at step {self.global_step}, in the batch of instances "
                f"{batch.index.tolist()}; try a smaller training.learning_rate or training.gradient_clip"
            )
        return loss

    def training_step(self, batch: PerturbationBatch, batch_idx: int) -> Tensor:
        """One step."""
        loss = self.loss(batch)
        self.log(
            "train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch)
        )
        return loss

    def validation_step(self, batch: PerturbationBatch, batch_idx: int) -> None:
        """Validation loss."""
        self.log("val_loss", self.loss(batch), prog_bar=True, batch_size=len(batch))

    def predict_step(self, batch: PerturbationBatch, batch_idx: int = 0) -> Tensor:
        """``[B, 2]`` in the labels' units."""
        prediction, _ = self.model(self.graph, batch)
        return prediction.float() * self.label_std + self.label_mean

    def on_train_start(self) -> None:
        """Starts the clock of ``max_minutes``."""
        self._started = time.monotonic()

    def progress(self) -> float:
        """Share of the training that is done, by steps or by time, whichever is further."""
        done = self.global_step / max(self.steps, 1)
        if self.config.max_minutes is not None and self._started is not None:
            minutes = (time.monotonic() - self._started) / 60
            done = max(done, minutes / self.config.max_minutes)
        return min(done, 1.0)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate."""
        warm = min(1.0, (self.global_step + 1) / max(1, min(50, self.steps // 10)))
        rate = self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.progress()))
        for group in self.optimizers().param_groups:
            group["lr"] = rate

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
        )

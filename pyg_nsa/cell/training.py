"""Training of one model with Lightning, and its predictions."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray

from pyg_nsa.cell.batch import PerturbationLoader
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.dataset import PerturbationDataset
from pyg_nsa.cell.lightning_module import CellModule
from pyg_nsa.cell.model import HeteroCellNSA
from pyg_nsa.cell.splits import MixedSampler, Split

__all__ = ["Trained", "predict", "train"]


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        module: The model as Lightning trained it, in evaluation mode.
        history: Columns epoch, step, seconds, train_loss, val_loss; one row per epoch.
        checkpoint: The best checkpoint; it holds the configuration.
        seconds: Duration of the training.
    """

    module: CellModule
    history: pd.DataFrame
    checkpoint: Path
    seconds: float


class _ConfigInCheckpoint(Callback):
    """Puts the configuration into every checkpoint, so that a checkpoint says what it is."""

    def __init__(self, config: CellConfig) -> None:
        self.config = config

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["pyg_nsa_config"] = self.config.model_dump(mode="json")


class _History(Callback):
    """One row per epoch, with the seconds since the start."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.start = time.monotonic()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        values = trainer.callback_metrics
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "seconds": time.monotonic() - self.start,
                "train_loss": np.nan,
                "val_loss": float(values.get("val_loss", np.nan)),
            }
        )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        # The epoch's mean is known only now; validation of the same epoch ran before.
        value = trainer.callback_metrics.get("train_loss")
        if value is not None and self.rows and self.rows[-1]["epoch"] == trainer.current_epoch:
            self.rows[-1]["train_loss"] = float(value)


def train(
    model: HeteroCellNSA,
    dataset: PerturbationDataset,
    split: Split,
    config: CellConfig,
    folder: Path,
    *,
    validation: NDArray[np.int64],
    progress: bool = True,
) -> Trained:
    """Trains a model on the training part of a split.

    Args:
        model: The model.
        dataset: All instances.
        split: Its parts.
        config: How to train.
        folder: Where logs and checkpoints go.
        validation: Instances of the validation loss.
        progress: Show a progress bar.

    Raises:
        NotFiniteError: The loss became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    how = config.training
    sampler = MixedSampler(
        dataset.table,
        split.train,
        rates=config.data.rates,
        size=how.instances_per_epoch,
        seed=config.seed,
    )
    train_loader = PerturbationLoader(dataset, how.batch_size, sampler=sampler)
    val_loader = PerturbationLoader(dataset[validation], how.batch_size)
    # Statistics of what training sees: an epoch of the mixture, not of the nearly constant table.
    drawn = np.fromiter(iter(sampler), dtype=np.int64)
    sampler.set_epoch(0)
    y_train = torch.from_numpy(dataset.table.y[drawn])
    steps = how.epochs * len(train_loader)
    module = CellModule(model, dataset.graph, how, y_train, steps)
    _run_once(module, val_loader)
    history = _History()
    best = ModelCheckpoint(
        folder, filename="best", monitor="val_loss", enable_version_counter=False
    )
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    callbacks: list[Callback] = [best, last, history, _ConfigInCheckpoint(config)]
    if how.patience is not None:
        callbacks.append(EarlyStopping("val_loss", patience=how.patience))
    if progress:
        callbacks.append(RichProgressBar(leave=True))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Data loading is a slice of an array: worker processes would cost more than they save.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        trainer = lightning.Trainer(
            max_epochs=how.epochs,
            accelerator="auto",
            devices=1,
            precision=how.precision,
            gradient_clip_val=how.gradient_clip,
            callbacks=callbacks,
            logger=CSVLogger(folder, name="", version=""),
            log_every_n_steps=1,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        start = time.monotonic()
        trainer.fit(module, train_loader, val_loader)
    seconds = time.monotonic() - start
    path = Path(best.best_model_path or last.best_model_path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    module.eval()
    columns = ["epoch", "step", "seconds", "train_loss", "val_loss"]
    return Trained(module, pd.DataFrame(history.rows, columns=columns), path, seconds)


def predict(
    module: CellModule, dataset: PerturbationDataset, batch_size: int, track: Any = None
) -> NDArray[np.float64]:
    """``[len(dataset), 2]``: predicted fitness and gene_interaction, in the labels' units."""
    loader: Iterable[Any] = PerturbationLoader(dataset, batch_size)
    out = []
    module.eval()
    with torch.no_grad():
        for batch in loader if track is None else track(loader):
            out.append(module.predict_step(batch.to(module.device)).cpu())
    return torch.cat(out).double().numpy()


def _run_once(module: CellModule, loader: PerturbationLoader) -> None:
    """Lets lazy layers take their sizes, before an optimiser asks for the parameters."""
    with torch.no_grad():
        module.model(module.graph, next(iter(loader)))

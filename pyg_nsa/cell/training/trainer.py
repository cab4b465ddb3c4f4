"""Training of one model with Lightning, and its predictions."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from numpy.typing import NDArray

from pyg_nsa.cell.config import CellConfig, TrainingConfig
from pyg_nsa.cell.data.batch import PerturbationLoader
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import MixedSampler, Split
from pyg_nsa.cell.models.model import HeteroCellNSA
from pyg_nsa.cell.training.checkpoint import (
    check_fits,
    check_same,
    identity,
    labels_fingerprint,
    read_checkpoint,
    training_fingerprint,
)
from pyg_nsa.cell.training.distributed import (
    SharedBatches,
    broadcast_module,
    gather,
    is_first,
    placement,
    share,
)
from pyg_nsa.cell.training.earlier_run import remove_experiment
from pyg_nsa.cell.training.interrupt import TrainingInterrupted, stop_on_signals
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.cell.training.resuming import (
    AtomicCheckpoints,
    History,
    LastCheckpoint,
    RandomStates,
    ResumableLoader,
)

__all__ = ["Trained", "predict", "run_once", "train", "training_sampler"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        module: The model as Lightning trained it, in evaluation mode, with the parameters of the epoch that ``training.keep`` names.
        history: Columns epoch, step, seconds, train_loss, val_loss, learning_rate; one row per epoch.
        checkpoint: That epoch's checkpoint; it holds the configuration.
        seconds: Duration of the training, that before an interruption included.
        fresh: Whether this call trained at all; ``False`` if training had finished before.
    """

    module: CellModule
    history: pd.DataFrame
    checkpoint: Path
    seconds: float
    fresh: bool = True


def train(
    model: HeteroCellNSA,
    dataset: PerturbationDataset,
    split: Split,
    config: CellConfig,
    folder: Path,
    *,
    validation: NDArray[np.int64],
    progress: bool = True,
    name: str = "hetero_nsa",
    seed: int | None = None,
    resume: bool = False,
) -> Trained:
    """Trains a model on the training part of a split.

    Args:
        model: The model.
        dataset: All instances.
        split: Its parts.
        config: How to train.
        folder: Where logs and checkpoints go: ``last.ckpt`` (where training stands), ``best.ckpt`` (what ``training.keep`` names),
            ``history.csv``, and ``logs/`` for CSV and, where it is installed, TensorBoard.
        validation: Instances of the validation loss.
        progress: Show a progress bar.
        name: Name of the model, for the checkpoint.
        seed: Seed of the sampling (default: ``config.seed``).
        resume: Go on from ``last.ckpt`` if there is one; ``False`` starts anew and removes what an earlier training left.

    Raises:
        CheckpointError: ``resume``, and the checkpoint belongs to another configuration, graph or split.
        NotFiniteError: The loss or its gradient became NaN or infinite.
        TrainingInterrupted: By Ctrl-C or SIGTERM, once ``last.ckpt`` is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    how = config.training
    seed = config.seed if seed is None else seed
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    identified = identity(
        config,
        dataset.graph,
        name=name,
        seed=seed,
        instances=training_fingerprint(dataset.table, split),
        labels=labels_fingerprint(dataset.table),
    )
    finished = False
    resume = resume and last.is_file()
    if resume:
        state = read_checkpoint(last, to_resume=True)
        check_same(state, identified, last)
        finished = state["pyg_nsa"]["finished"]
        logger.info(
            "%s: going on from epoch %d, step %d", last, state["epoch"], state["global_step"]
        )
    elif is_first():
        remove_experiment(folder)
    module, train_loader, val_loader = _prepare(model, dataset, split, config, validation, seed)
    module.failures, module.identity = folder, identified
    history = History(folder / "history.csv")
    if resume:
        check_fits(state, module.state_dict(), last)
    if finished:
        _restore(history, module, state)
    else:
        with stop_on_signals() as stop, _quiet():
            lasting = LastCheckpoint(last, identified, how.checkpoint_every, stop)
            trainer = _trainer(how, folder, history, lasting, progress)
            try:
                trainer.fit(module, train_loader, val_loader, ckpt_path=last if resume else None)
            finally:  # Lightning has no hook of the module's for a training that was interrupted
                module.restore_dropout()
        # Asked when the last checkpoint was written already: what comes next is not to begin. One process may have been asked alone.
        if gather(np.array([stop.requested])).any():
            raise TrainingInterrupted(
                f"stopped after the training of {name}; saved to {last}", last
            )
    if is_first():  # other machines may not see its files
        module.load_state_dict(read_checkpoint(best if best.is_file() else last)["state_dict"])
    broadcast_module(module)
    module.eval()
    path = best if best.is_file() else last
    return Trained(module, history.table(), path, module.elapsed(), fresh=not finished)


def training_sampler(
    dataset: PerturbationDataset, split: Split, config: CellConfig, seed: int
) -> MixedSampler:
    """What an epoch of training draws.

    Args:
        dataset: All instances.
        split: Its parts.
        config: How they are mixed, and how many are drawn.
        seed: Of the draws.
    """
    return MixedSampler(
        dataset.table,
        split.train,
        rates=config.data.rates,
        size=config.training.instances_per_epoch,
        seed=seed,
    )


def _prepare(
    model: HeteroCellNSA,
    dataset: PerturbationDataset,
    split: Split,
    config: CellConfig,
    validation: NDArray[np.int64],
    seed: int,
) -> tuple[CellModule, ResumableLoader, ResumableLoader]:
    """The module and the loaders of training and validation."""
    how = config.training
    sampler = training_sampler(dataset, split, config, seed)
    train_loader = ResumableLoader(dataset, batch_sampler=SharedBatches(sampler, how.batch_size))
    val_loader = ResumableLoader(
        dataset[validation], batch_sampler=SharedBatches(range(len(validation)), how.batch_size)
    )
    # Statistics of what training sees: an epoch of the mixture, not of the nearly constant table.
    drawn = np.fromiter(iter(sampler), dtype=np.int64)
    sampler.set_epoch(0)
    y_train = torch.from_numpy(dataset.table.y[drawn])
    module = CellModule(model, dataset.graph, how, y_train, how.epochs * len(train_loader))
    run_once(module, val_loader)
    return module, train_loader, val_loader


def _trainer(
    how: TrainingConfig, folder: Path, history: History, last: LastCheckpoint, progress: bool
) -> lightning.Trainer:
    # Without a monitor the newest epoch replaces the one before.
    monitor = "val_loss" if how.keep == "best" else None
    best = ModelCheckpoint(folder, filename="best", monitor=monitor, enable_version_counter=False)
    # Checkpoints of an epoch come after all that they hold.
    callbacks: list[Callback] = [RandomStates(), history, best, last]
    if how.patience is not None:
        callbacks.append(EarlyStopping("val_loss", patience=how.patience))
    if progress:
        callbacks.append(RichProgressBar(leave=True))
    return lightning.Trainer(
        max_epochs=how.epochs,
        accelerator="auto",
        **placement(how),
        precision=how.precision,
        gradient_clip_val=how.gradient_clip,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=_loggers(folder),
        log_every_n_steps=1,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _loggers(folder: Path) -> list[Logger]:
    """CSV always, TensorBoard where it is installed; one ``version_N`` for each time that training was started or resumed."""
    csv = CSVLogger(folder, name="logs")
    loggers: list[Logger] = [csv]
    if any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        loggers.append(TensorBoardLogger(folder, name="logs", version=csv.version))
    return loggers


def _restore(history: History, module: CellModule, state: dict[str, Any]) -> None:
    """History and clock of a training that has finished."""
    history.load_state_dict(state["callbacks"][history.state_key])
    module.on_load_checkpoint(state)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on what is meant to be so."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Data loading is a slice of an array: worker processes would cost more than they save.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # Losses are those of the joint batch already, on every process.
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        yield


def predict(
    module: CellModule, dataset: PerturbationDataset, batch_size: int, track: Any = None
) -> NDArray[np.float64]:
    """``[len(dataset), 2]``: predicted fitness and gene_interaction, in the labels' units.

    Several processes share the work: all must call this, and all get the whole.
    """
    mine = dataset[share(np.arange(len(dataset)))]
    loader: Iterable[Any] = PerturbationLoader(mine, batch_size)
    out = [torch.empty(0, 2)]
    module.eval()
    with torch.no_grad():
        for batch in loader if track is None else track(loader):
            out.append(module.predict_step(batch.to(module.device)).cpu())
    return gather(torch.cat(out).double().numpy())


def run_once(module: CellModule, loader: Iterable[Any]) -> None:
    """Lets lazy layers take their sizes, before an optimiser or a checkpoint asks for the parameters."""
    with torch.no_grad():
        module.model(module.graph, next(iter(loader)))

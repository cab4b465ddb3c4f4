"""One experiment: one model, trained on one split with one seed, and its predictions of held-out instances.

A folder holds all of it, so that it can be continued after an interruption and is never trained twice:

``last.ckpt``
    Where training stands; :mod:`pyg_nsa.cell.training.trainer` goes on from it.
``best.ckpt``
    The parameters with the lowest validation loss, or with ``training.keep: last`` those of the last epoch.
``history.csv``
    One row per epoch.
``predictions.csv``
    Written last: an experiment with this file is done.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import HELD_OUT_BY, Split
from pyg_nsa.cell.files.sealed_file import write_atomically
from pyg_nsa.cell.labels.table import TARGETS
from pyg_nsa.cell.models.build import TRAINED_BASELINES, build_model
from pyg_nsa.cell.training.distributed import is_first
from pyg_nsa.cell.training.trainer import Trained, predict, train

__all__ = [
    "Builder",
    "builder_of",
    "builders",
    "evaluation_instances",
    "prediction_rows",
    "run_experiment",
    "validation_instances",
    "with_new_losses",
]

logger = logging.getLogger(__name__)

Builder = Callable[[CellConfig, HeteroData], Any]
"""Makes a model, its parameters drawn from torch's global generator."""

_VALIDATION = 256  # instances of the validation loss, which is computed after every epoch


def builders(config: CellConfig) -> dict[str, Builder]:
    """What is trained, by name: the model (named after its operator) and those of its baselines that are trained."""
    named = {b: TRAINED_BASELINES[b] for b in config.baselines if b in TRAINED_BASELINES}
    main = config.operator.operator
    return {main: build_model, **{name: build for name, build in named.items() if name != main}}


def builder_of(name: str, config: CellConfig) -> Builder:
    """What builds the model of this name, as it stands in checkpoints and tables.

    Raises:
        ValueError: There is none.
    """
    known = {**TRAINED_BASELINES, config.operator.operator: build_model}
    if name not in known:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(known)}")
    return known[name]


def run_experiment(
    name: str,
    build: Builder,
    dataset: PerturbationDataset,
    split: Split,
    config: CellConfig,
    folder: Path,
    *,
    seed: int | None = None,
    parts: Mapping[str, NDArray[np.int64]] | None = None,
    validation: NDArray[np.int64] | None = None,
    resume: bool = False,
    progress: bool = True,
    track: Callable[[Any], Any] | None = None,
) -> tuple[Trained, pd.DataFrame]:
    """Trains one model on one split and predicts held-out instances.

    Args:
        name: What the model is called in tables.
        build: Makes the model, with the seed set.
        dataset: All instances.
        split: Which of them are for training.
        config: How to train.
        folder: Where everything of this experiment goes.
        seed: Seed of initialisation and sampling (default: ``config.seed``). The split is given, and so are the
            evaluated instances: with another seed they stay the same.
        parts: Instances to predict, by part (default: :func:`evaluation_instances` of ``val`` and ``test``).
        validation: Instances of the validation loss (default: :func:`validation_instances` of ``parts["val"]``).
        resume: Go on from what is in ``folder``: nothing is trained where the experiment is done, and training continues
            where it was interrupted. ``False`` starts anew.
        progress: Show a progress bar.
        track: Wraps the loader of the predictions, to draw a progress bar.

    Returns:
        The trained model, and predictions with the columns of :func:`prediction_rows`.

    Raises:
        CheckpointError: ``resume``, and what is in ``folder`` belongs to another configuration or graph.
        NotFiniteError: The loss became NaN or infinite.
        TrainingInterrupted: Ctrl-C; a checkpoint is there to go on from.
    """
    seed = config.seed if seed is None else seed
    if parts is None:
        pairs = config.data.evaluation_pairs
        parts = {
            p: evaluation_instances(dataset, split, p, pairs, config.seed) for p in ("val", "test")
        }
    if validation is None:
        validation = validation_instances(dataset, parts["val"], config.seed)
    # Each model starts from the seed, so that what else is trained does not change it.
    lightning.seed_everything(seed, verbose=False)
    model = build(config, dataset.graph)
    trained = train(
        model,
        dataset,
        split,
        config,
        folder,
        validation=validation,
        progress=progress,
        name=name,
        seed=seed,
        resume=resume,
    )
    done = folder / "predictions.csv"
    if not trained.fresh and _are_of(done, folder / "last.ckpt"):
        table = _read(done)
        told = {"interacting"} | ({"held_out"} if split.kind == "both" else set())
        if told <= set(table):  # else of a version that did not tell
            logger.info("%s: done before, read from %s", name, done)
            return trained, table
    tables = []
    for part, index in parts.items():
        batch_size = 4 * config.training.batch_size  # no gradients to keep
        y_hat = predict(trained.module, dataset[index], batch_size, track)
        tables.append(prediction_rows(dataset, split, name, part, index, y_hat))
    text = pd.concat(tables, ignore_index=True).to_csv(index=False)
    if is_first():
        write_atomically(done, text.encode())
    # Through the text, so that a resumed run computes with the same digits.
    return trained, _read(io.StringIO(text))


def _are_of(predictions: Path, checkpoint: Path) -> bool:
    """Whether predictions are there and were made with this checkpoint, and not with one that it replaced."""
    return predictions.is_file() and predictions.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns


def _read(source: Path | io.StringIO) -> pd.DataFrame:
    """Predictions as they were written; a gene may be called NA."""
    numbers = (*TARGETS, *(f"{name}_pred" for name in TARGETS))
    return pd.read_csv(
        source,
        dtype={"model": str, "part": str, "genes": str, "held_out": str},
        keep_default_na=False,
        na_values={name: [""] for name in numbers},
        float_precision="round_trip",
    )


# ---- choosing what is evaluated --------------------------------------------------------------------------------------


def evaluation_instances(
    dataset: PerturbationDataset, split: Split, part: str, num_pairs: int, seed: int
) -> NDArray[np.int64]:
    """All singles of a part, some of its pairs and as many triples, half of them interacting.

    Instances of more genes are left out, with a warning.

    Args:
        dataset: All instances.
        split: Its parts.
        part: ``"train"``, ``"val"`` or ``"test"``.
        num_pairs: How many pairs (and triples), with a new gene and of known genes each; 0 for all.
        seed: Seed of the choice.

    Returns:
        Ascending int64 instance numbers.
    """
    generator = np.random.default_rng(seed)
    found = [split.part(part, 1)]
    for size in (2, 3):
        for by in HELD_OUT_BY:
            index = split.held_out(part, by, size)
            found.append(_some(index, dataset.table.interacting[index], num_pairs, generator))
    more = int((split.sizes[split.part(part)] > 3).sum())
    if more:
        logger.warning(
            "%s part: %d instances of more than three genes are not evaluated.", part, more
        )
    return np.sort(np.concatenate(found))


def _some(
    index: NDArray[np.int64],
    interacting: NDArray[np.bool_],
    number: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """At most a number of instances (0: all), half of them interacting, as far as there are."""
    if not 0 < number < len(index):
        return index
    half = min(int(interacting.sum()), number // 2)
    chosen = generator.choice(index[interacting], half, replace=False)
    others = index[~interacting]
    rest = min(len(others), number - half)
    return np.concatenate([chosen, generator.choice(others, rest, replace=False)])


def validation_instances(
    dataset: PerturbationDataset, index: NDArray[np.int64], seed: int, size: int = _VALIDATION
) -> NDArray[np.int64]:
    """Instances of the validation loss: singles and others in equal parts, as far as there are.

    Many pairs share a gene, so that pairs (and triples) alone would measure a handful of genes.

    Args:
        dataset: All instances.
        index: Numbers of the instances to choose from.
        seed: Seed of the choice.
        size: How many at most.

    Returns:
        Ascending int64 instance numbers.
    """
    generator = np.random.default_rng(seed)
    single = dataset.table.sizes[index] < 2
    parts = [index[single], index[~single]]
    counts = [min(len(part), size // 2) for part in parts]
    chosen = [generator.choice(p, n, replace=False) for p, n in zip(parts, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def prediction_rows(
    dataset: PerturbationDataset,
    split: Split,
    model: str,
    part: str,
    index: NDArray[np.int64],
    y_hat: NDArray[np.float64],
) -> pd.DataFrame:
    """Predictions beside the labels, one row per instance.

    Args:
        dataset: All instances.
        split: Its parts.
        model: Name of the model.
        part: Name of the part.
        index: ``n`` instance numbers.
        y_hat: ``[n, 2]``: predicted fitness and gene_interaction.

    Returns:
        Columns model, part, index, size (number of genes), genes (ids joined by ``;``), fitness, gene_interaction,
        fitness_pred, gene_interaction_pred, interacting (bool); and held_out, what is new in an instance (``"gene"`` or ``"pair"``), where the split
        holds out both.
    """
    table = dataset.table
    sizes = table.sizes[index]
    rows = pd.DataFrame(
        {
            "model": model,
            "part": part,
            "index": index,
            "size": sizes,
            "genes": [";".join(table.ids(int(i))) for i in index],
            "fitness": table.fitness[index],
            "gene_interaction": table.gene_interaction[index],
            "fitness_pred": y_hat[:, 0],
            # A single deletion has no interaction to predict.
            "gene_interaction_pred": np.where(sizes >= 2, y_hat[:, 1], np.nan),
            "interacting": table.interacting[index],
        }
    )
    if split.kind == "both":
        known = np.isin(index, split.held_out(part, "pair"))
        rows["held_out"] = np.where(known, "pair", "gene")
    return rows


def with_new_losses(rows: pd.DataFrame, dataset: PerturbationDataset, split: Split) -> pd.DataFrame:
    """Predictions with the column new_losses: whether no training instance takes away the same reactions.

    It follows from graph and split, so it is not kept with an experiment's predictions.

    Args:
        rows: With the column index.
        dataset: All instances.
        split: Its parts; predictions of one that does not hold out pairs beside genes stay as they are.
    """
    if split.kind != "both":
        return rows
    lost = dataset.lost_reactions
    seen = np.isin(lost[rows["index"].to_numpy()], lost[split.train])
    return rows.assign(new_losses=~seen)

"""What a comparison holds out: the split and the instances that are judged, the same for all of its models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.known_labels import check_known
from pyg_nsa.cell.data.splits import Split, make_split
from pyg_nsa.cell.evaluation.metrics import evaluate
from pyg_nsa.cell.models.baselines import BASELINES
from pyg_nsa.cell.training.checkpoint import graph_fingerprint, training_fingerprint
from pyg_nsa.cell.training.experiment import (
    evaluation_instances,
    prediction_rows,
    with_new_losses,
)

__all__ = ["computed_baselines", "data_fingerprint", "split_and_parts"]

# All models of a comparison ask for the same few splits, of hundreds of thousands of pairs.
_KNOWN: WeakKeyDictionary[
    PerturbationDataset, dict[tuple[object, ...], tuple[Split, dict[str, NDArray[np.int64]]]]
] = WeakKeyDictionary()


def data_fingerprint(dataset: PerturbationDataset, config: CellConfig) -> str:
    """What graph, labels and split are, as a hash."""
    split, parts = split_and_parts(dataset, config)
    digest = hashlib.sha256(graph_fingerprint(dataset.graph).encode())
    digest.update(training_fingerprint(dataset.table, split).encode())
    for index in parts.values():
        digest.update(np.ascontiguousarray(index).tobytes())
        digest.update(np.ascontiguousarray(dataset.table.y[index]).tobytes())
    if split.kind == "both":
        digest.update(b"held_out")  # predictions without this column are of an earlier version
    return digest.hexdigest()


def split_and_parts(
    dataset: PerturbationDataset, config: CellConfig
) -> tuple[Split, dict[str, NDArray[np.int64]]]:
    """The split, and the held-out instances that are judged: the same for all contenders, by the configuration's seed."""
    data = config.data
    key = (data.split, tuple(data.fractions), data.evaluation_pairs, config.seed)
    known = _KNOWN.setdefault(dataset, {})
    if key not in known:
        split = make_split(dataset.table, data.split, data.fractions, config.seed)
        check_known(split, dataset.table)
        known[key] = (
            split,
            {
                part: evaluation_instances(dataset, split, part, data.evaluation_pairs, config.seed)
                for part in ("val", "test")
            },
        )
    return known[key]


def computed_baselines(
    names: Sequence[str], dataset: PerturbationDataset, config: CellConfig
) -> pd.DataFrame:
    """Metrics of the baselines that need no training, on the part ``test``.

    Args:
        names: Of :func:`~pyg_nsa.cell.evaluation.contenders.computed_names`.
        dataset: The dataset.
        config: For the split.
    """
    split, parts = split_and_parts(dataset, config)
    tables = [
        prediction_rows(
            dataset,
            split,
            n,
            "test",
            parts["test"],
            BASELINES[n](dataset, split.train, parts["test"]),
        )
        for n in names
    ]
    if not tables:
        return pd.DataFrame()
    return evaluate(with_new_losses(pd.concat(tables, ignore_index=True), dataset, split))

"""What test_distributed.py does once by itself and once in two processes: ``torchrun --nproc-per-node 2 two_processes.py``."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as dist
from benchmarks.processes import Loss, measure_here
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import Perturbation, PerturbationBatch, PerturbationCollate
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import split_by_gene
from pyg_nsa.cell.models.build import TRAINED_BASELINES, build_model
from pyg_nsa.cell.training import lightning_module
from pyg_nsa.cell.training.distributed import rank_and_size
from pyg_nsa.cell.training.interrupt import TrainingInterrupted
from pyg_nsa.cell.training.lightning_module import CellModule, NotFiniteError
from pyg_nsa.cell.training.trainer import predict, train
from pyg_nsa.load import load_config

TEXTBOOK = Path(__file__).parents[2] / "pyg_nsa" / "cell" / "textbook.yaml"
PREDICTED = 7  # an odd number, for two processes


def small_config(**training: Any) -> CellConfig:
    """Two epochs of batches with 4, 4 and 1 instances: one process has nothing to do in the last."""
    config = load_config(TEXTBOOK, CellConfig)
    how = {"epochs": 2, "instances_per_epoch": 9, "batch_size": 4, **training}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=how),
            "operator": config.operator.model_copy(update={"hidden_channels": 8}),
            "data": config.data.model_copy(
                update={"features": ["degree"], "evaluation_pairs": PREDICTED}
            ),
        }
    )


def open_dataset(cache: Path) -> PerturbationDataset:
    return PerturbationDataset(cache, "textbook", features=["degree"], progress=False)


#: Every model that a configuration can train: how its readout differs, and what builds it.
MODELS = {
    "hetero_nsa": ({}, build_model),
    "hetero_nsa, wildtype alone": (
        {"deletion": True, "copies": False, "epistasis": True},
        build_model,
    ),
    **{name: ({"deletion": True}, build) for name, build in TRAINED_BASELINES.items()},
}


def make_module(dataset: PerturbationDataset, name: str = "hetero_nsa") -> CellModule:
    """A model in float64, the same in every process."""
    readout, build = MODELS[name]
    config = small_config()
    config = config.model_copy(update={"readout": config.readout.model_copy(update=readout)})
    lightning.seed_everything(config.seed, verbose=False)
    model = build(config, dataset.graph)
    with torch.no_grad():  # lazy layers take their sizes, in float32
        model(dataset.graph, PerturbationCollate(dataset.graph)([dataset.get(0)]))
    graph = dataset.graph.clone().apply(lambda x: x.double() if x.is_floating_point() else x)
    y_train = torch.from_numpy(dataset.table.y)
    return CellModule(model, graph, config.training, y_train, 1).double()


def cases(dataset: PerturbationDataset) -> dict[str, list[Perturbation]]:
    """Joint batches; of two processes the first gets instances 0, 2, …, the second 1, 3, …"""
    table = dataset.table
    singles = [dataset.get(int(i)) for i in np.flatnonzero(table.sizes == 1)[::20]]
    pairs = [dataset.get(int(i)) for i in np.flatnonzero(table.interacting)[::100]]
    unknown = torch.full((2,), torch.nan)
    every_gene = torch.arange(int(dataset.graph["gene"].num_nodes))
    return {
        "different numbers of labels": [
            x for two in zip(pairs, singles, strict=False) for x in two
        ][:7],
        "no interacting pair": singles[:3],
        "no label on one process": [pairs[0], replace(pairs[1], y=unknown), singles[0]],
        "no label at all": [replace(item, y=unknown) for item in pairs[:2]],
        "nothing for one process": pairs[:1],
        "no gene left on one process": [pairs[0], replace(pairs[1], genes=every_gene), pairs[2]],
    }


def my_share(dataset: PerturbationDataset, items: list[Perturbation]) -> PerturbationBatch:
    rank, size = rank_and_size()
    batch = PerturbationCollate(dataset.graph)(items[rank::size])
    return replace(batch, y=batch.y.double())


def gradients(dataset: PerturbationDataset, name: str) -> dict[str, Any]:
    """Loss and gradients of each case; one DDP for all, which fails if one of them leaves a parameter out."""
    module = make_module(dataset, name)
    loss: nn.Module = Loss(module)
    if rank_and_size()[1] > 1:
        loss = DistributedDataParallel(loss, find_unused_parameters=False)
    found = {}
    for case, items in cases(dataset).items():
        module.zero_grad(set_to_none=True)
        value = loss(my_share(dataset, items))
        value.backward()
        # A copy: DDP writes the next gradients to the same place.
        grads = {
            n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()
        }
        found[case] = {"loss": value.detach(), "gradients": grads}
    return found


def overflow(dataset: PerturbationDataset) -> str:
    """The error where one instance, so one process, has a loss that is not finite."""
    module = make_module(dataset)
    items = cases(dataset)["different numbers of labels"]
    items[1] = replace(items[1], y=torch.full((2,), 1e30))
    batch = my_share(dataset, items)
    batch = replace(batch, y=batch.y**8)
    try:
        module.loss(batch)
    except NotFiniteError as error:
        return str(error)
    return ""


def training(dataset: PerturbationDataset, folder: Path, **how: Any) -> dict[str, Any]:
    """A training by Lightning, its losses, and predictions of the trained model."""
    config = small_config(**how)
    split = split_by_gene(dataset.table, config.data.fractions, config.seed)
    lightning.seed_everything(config.seed, verbose=False)
    model = build_model(config, dataset.graph)
    trained = train(
        model, dataset, split, config, folder, validation=split.val[:PREDICTED], progress=False
    )
    history = trained.history
    return {
        "steps": history["step"].tolist(),
        "losses": history[["train_loss", "val_loss"]].to_numpy(),
        "predictions": predict(trained.module, dataset[split.test[:PREDICTED]], 4),
    }


def asked_alone(dataset: PerturbationDataset, folder: Path, rank: int) -> str:
    """What a training says that one process was asked to stop, by SIGTERM in its second step."""
    real = CellModule.on_train_batch_start

    def asked(self: CellModule, batch: Any, batch_idx: int) -> None:
        if self.global_step == 1 and rank_and_size()[0] == rank:
            signal.raise_signal(signal.SIGTERM)
        real(self, batch, batch_idx)

    CellModule.on_train_batch_start = asked  # type: ignore[method-assign]
    try:
        training(dataset, folder)
    except TrainingInterrupted as error:
        return str(error)
    finally:
        CellModule.on_train_batch_start = real  # type: ignore[method-assign]
    return ""


def clock_of(rank: int, hours: float) -> SimpleNamespace:
    """A clock that runs ahead by ``hours`` at each look, on one process."""
    looks = iter(range(10**9))
    if rank_and_size()[0] != rank:
        return SimpleNamespace(monotonic=lambda: 0.0)
    return SimpleNamespace(monotonic=lambda: 3600.0 * hours * next(looks))


def main(cache: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=300))
    rank, _ = rank_and_size()
    dataset = open_dataset(cache)
    folder = out / f"folder-of-{rank}"  # as on two machines that share no disk
    found = {
        "gradients": {name: gradients(dataset, name) for name in MODELS},
        "overflow": overflow(dataset),
        "training": training(dataset, folder / "training"),
        "random": torch.rand(4),
        "asked": [asked_alone(dataset, folder / f"asked {one}", one) for one in range(2)],
    }
    real = lightning_module.time
    for name, first in (("first clock ahead", 0), ("second clock ahead", 1)):
        lightning_module.time = clock_of(first, hours=1.0)
        found[name] = training(dataset, folder / name, max_minutes=1.0)
    lightning_module.time = real
    # As under Ray Train: a process group and these variables, but no torchrun.
    del os.environ["TORCHELASTIC_RUN_ID"]
    found["other launcher"] = training(dataset, folder / "other launcher")
    found["benchmark"] = measure_here(small_config(), cache, batch_size=4, steps=2, warm_up=1)
    torch.save(found, out / f"found-by-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

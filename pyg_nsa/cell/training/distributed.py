"""Several processes that train one model, each on its share of every batch.

A launcher starts them (torchrun, SLURM, or Lightning itself), and DDP averages their gradients. A batch of the
configuration is the joint one: every process takes its share of it, and the loss is one mean over all its known labels. So
gradients, learning rates and results are those of one process, to rounding, whatever the number of processes.

In a program of one process all of this changes nothing and communicates nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from pyg_nsa.cell.config import TrainingConfig

__all__ = [
    "SharedBatches",
    "broadcast_module",
    "from_first",
    "gather",
    "is_first",
    "joint_mean",
    "placement",
    "rank_and_size",
    "seed_apart",
    "share",
    "total_over_processes",
]


def rank_and_size() -> tuple[int, int]:
    """This process's number and how many there are; ``(0, 1)`` until a process group exists."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this process is the one that prints and writes files.

    Before there is a process group the launcher's variables tell (``RANK``, ``LOCAL_RANK``, ``SLURM_PROCID``).
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return getattr(rank_zero_only, "rank", 0) == 0


def placement(how: TrainingConfig) -> dict[str, Any]:
    """Arguments of Lightning's ``Trainer`` that say where it runs.

    ``auto`` takes what the launcher says (torchrun, SLURM's ``srun``) or the process group that there is already (Ray Train
    makes one), and one device where there is neither.

    Args:
        how: Its ``devices``, ``num_nodes`` and ``strategy``.

    Raises:
        ValueError: The launcher started different numbers of processes on different machines.
    """
    nodes, devices = _launched()
    nodes = nodes if how.num_nodes == "auto" else how.num_nodes
    devices = devices if how.devices == "auto" else how.devices
    return {
        "num_nodes": nodes,
        "devices": devices,
        "strategy": "ddp" if nodes * devices > 1 else how.strategy,
        # Batches are shared out here: Lightning's own sampler repeats instances to make all shares equal.
        "use_distributed_sampler": False,
    }


def _launched() -> tuple[int, int]:
    """Machines, and processes on each, that a launcher started; ``(1, 1)`` without one."""
    if TorchElasticEnvironment.detect():
        size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        names = "WORLD_SIZE and LOCAL_WORLD_SIZE"
    elif (
        dist.is_available() and dist.is_initialized()
    ):  # by the program that called us, as Ray Train does
        size = dist.get_world_size()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        names = "WORLD_SIZE and LOCAL_WORLD_SIZE"
    elif SLURMEnvironment.detect():
        size, nodes = (int(os.environ.get(f"SLURM_{name}", 1)) for name in ("NTASKS", "NNODES"))
        here = int(os.environ.get("SLURM_NTASKS_PER_NODE", size // nodes))
        names = "SLURM_NTASKS and SLURM_NTASKS_PER_NODE"
    else:
        return 1, 1
    if here < 1 or size % here:
        raise ValueError(
            f"{names}: {size} processes in all and {here} on this machine; Lightning needs the same number on every "
            "machine. Start as many on each, for example with torchrun's --nproc-per-node or SLURM's --ntasks-per-node."
        )
    return size // here, here


class SharedBatches(BatchSampler):
    """The batches of an epoch, each divided among the processes; for a ``DataLoader``'s ``batch_sampler``.

    Every process draws the same epoch and takes each ``size``-th instance of each batch. So no instance is left out or
    comes twice, in training and in evaluation, and all processes have the same number of batches. A last batch with fewer
    instances than processes leaves some with an empty share, which yields an empty list.

    Args:
        sampler: Yields instances, in the same order on every process: ``range(n)``, or a sampler whose order depends on
            seed and epoch alone. Its ``set_epoch`` is called by Lightning, or by your own loop.
        batch_size: Instances in a batch, of all processes together.
        rank: Number of this process, and
        size: number of processes; by default those of the process group when an epoch begins.

    Raises:
        ValueError: When an epoch begins: there are more processes than instances in a batch.
    """

    def __init__(
        self,
        sampler: Sampler[int] | Iterable[int],
        batch_size: int,
        rank: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.rank = rank
        self.size = size

    def __iter__(self) -> Iterator[list[int]]:
        # Not before: the process group comes into being after the loaders.
        rank, size = rank_and_size()
        rank, size = (
            rank if self.rank is None else self.rank,
            size if self.size is None else self.size,
        )
        if self.batch_size < size:
            raise ValueError(
                f"batch_size {self.batch_size} is shared by {size} processes, and some would have nothing to do. "
                f"Set training.batch_size to {size} or more, or start fewer processes."
            )
        for batch in super().__iter__():
            yield batch[rank::size]


def joint_mean(total: Tensor, weight: Tensor) -> Tensor:
    """A weighted mean over the joint batch, for DDP.

    DDP averages gradients over processes. The mean of the processes' means is not the mean of the joint batch when they
    have different numbers of labels, so each divides by the weights of all.

    Args:
        total: Scalar, this process's sum of weighted errors.
        weight: Scalar, this process's sum of weights; no gradient goes there.

    Returns:
        Scalar: ``sum(total) / sum(weight)`` over all processes, 0 where nothing has a weight. Its gradient is this
        process's part of the mean's, times the number of processes, so that their average is the gradient of the mean.
    """
    _, size = rank_and_size()
    weight = weight.detach()
    if size == 1:
        return total / weight.clamp(min=1e-12)
    both = torch.stack([total.detach(), weight])
    dist.all_reduce(both)
    value = both[0] / both[1].clamp(min=1e-12)
    mine = size * total / both[1].clamp(min=1e-12)
    return _WithValue.apply(mine, value)  # type: ignore[no-any-return]


class _WithValue(torch.autograd.Function):
    """The gradient goes to ``mine``, and the value is the same on all processes to the last bit."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def from_first(value: float, device: torch.device | str = "cpu") -> float:
    """What the first process has; its clock decides for all. All processes must call this.

    Args:
        value: This process's value.
        device: One that the process group can send from.
    """
    _, size = rank_and_size()
    if size == 1:
        return value
    sent = torch.tensor(value, dtype=torch.float32, device=device)
    dist.broadcast(sent, src=0)
    return float(sent)


def total_over_processes(value: int, device: torch.device | str = "cpu") -> int:
    """The sum of what the processes have. All processes must call this.

    Args:
        value: This process's value.
        device: One that the process group can send from.
    """
    _, size = rank_and_size()
    if size == 1:
        return value
    total = torch.tensor(value, dtype=torch.long, device=device)
    dist.all_reduce(total)
    return int(total)


def seed_apart() -> None:
    """Gives each process random numbers of its own, so that dropout does not hit the same places in all shares of a batch."""
    rank, size = rank_and_size()
    if size > 1:
        torch.manual_seed(torch.initial_seed() + rank)


def share(index: NDArray[Any]) -> NDArray[Any]:
    """This process's share of an array, divided as :class:`SharedBatches` divides a batch."""
    rank, size = rank_and_size()
    return index[rank::size]


def gather(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows for all, from rows for each :func:`share`. All processes must call this, and all get the whole.

    Args:
        rows: ``[len(share), ...]``.
    """
    _, size = rank_and_size()
    if size == 1:
        return rows
    parts: list[NDArray[Any]] = [rows] * size
    dist.all_gather_object(parts, rows)
    whole = np.empty((sum(map(len, parts)), *rows.shape[1:]), rows.dtype)
    for rank, part in enumerate(parts):
        whole[rank::size] = part
    return whole


def broadcast_module(module: torch.nn.Module) -> None:
    """Gives all processes the first one's parameters and buffers. All processes must call this."""
    _, size = rank_and_size()
    if size == 1:
        return
    states = [{name: value.cpu() for name, value in module.state_dict().items()}]
    dist.broadcast_object_list(states, src=0)
    module.load_state_dict(states[0])

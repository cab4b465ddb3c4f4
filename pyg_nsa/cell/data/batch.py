"""Batches of perturbed copies of one base graph.

The base graph is stored and sent to the device once; a batch only says which of its nodes live in each instance:
``[B, N]`` bool per node type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.deletion import DeletionRule

__all__ = ["Perturbation", "PerturbationBatch", "PerturbationCollate", "PerturbationLoader"]


@dataclass(frozen=True, eq=False)
class Perturbation:
    """One instance.

    Attributes:
        index: Its number in the label table.
        genes: [D] int64, deleted genes.
        y: [2] float32: fitness, gene_interaction; NaN where missing.
    """

    index: int
    genes: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class PerturbationBatch:
    """``B`` instances on one base graph.

    Attributes:
        alive_dict: Per node type [B, N] bool, ``True`` for nodes that the instance keeps.
        y: [B, 2] float32: fitness, gene_interaction; NaN where missing.
        genes: Per instance [D] int64, its deleted genes.
        index: [B] int64, the instances' numbers in the label table.
    """

    alive_dict: dict[str, Tensor]
    y: Tensor
    genes: list[Tensor]
    index: Tensor

    def __len__(self) -> int:
        return self.y.size(0)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{t}={list(alive.shape)}" for t, alive in self.alive_dict.items())
        return f"PerturbationBatch({len(self)} instances, alive: {shapes})"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PerturbationBatch:
        """The batch on another device.

        Args:
            device: Where to.
            non_blocking: Whether copies from pinned memory may run in the background.
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PerturbationBatch:
        """The batch in page-locked memory; a ``DataLoader`` with ``pin_memory=True`` calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> PerturbationBatch:
        return replace(
            self,
            alive_dict={t: function(alive) for t, alive in self.alive_dict.items()},
            y=function(self.y),
            genes=[function(genes) for genes in self.genes],
            index=function(self.index),
        )


class PerturbationCollate:
    """Makes a :class:`PerturbationBatch` of instances; one index operation per node type, whatever the batch size.

    Args:
        graph: The base graph.
    """

    def __init__(self, graph: HeteroData) -> None:
        self.rule = DeletionRule(graph)

    def __call__(self, items: Sequence[Perturbation]) -> PerturbationBatch:
        """Collate ``B`` instances; none at all is the empty share of a process in a small batch."""
        genes = [item.genes for item in items]
        count = [len(g) for g in genes]
        instance = torch.from_numpy(np.repeat(np.arange(len(items)), np.array(count, np.int64)))
        return PerturbationBatch(
            alive_dict=self.rule.alive(
                torch.cat([*genes, torch.empty(0, dtype=torch.long)]), instance, len(items)
            ),
            y=torch.stack([item.y for item in items]) if items else torch.empty(0, 2),
            genes=genes,
            index=torch.tensor([item.index for item in items], dtype=torch.long),
        )


class PerturbationLoader(DataLoader):
    """A ``torch.utils.data.DataLoader`` that yields :class:`PerturbationBatch`.

    Args:
        dataset: A :class:`pyg_nsa.cell.data.dataset.PerturbationDataset`, or a selection of one.
        batch_size: Instances a batch.
        shuffle: Whether to shuffle every epoch.
        graph: The base graph; ``dataset.graph`` by default.
        **kwargs: Further arguments of ``DataLoader``, such as ``sampler`` and ``num_workers``.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool | None = None,
        *,
        graph: HeteroData | None = None,
        **kwargs: Any,
    ) -> None:
        # Lightning rebuilds loaders with its own sampler from the attributes and arguments that it finds; a
        # collate_fn that comes back is that same object.
        kwargs.pop("collate_fn", None)
        self.graph = dataset.graph if graph is None else graph
        super().__init__(
            dataset, batch_size, shuffle, collate_fn=PerturbationCollate(self.graph), **kwargs
        )

"""Graphs of a batch as segments: which rows belong together in full attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Segments"]


class Segments:
    """Rows of a node type, grouped by graph. Rows that are in no segment (padding) neither send nor receive.

    Attributes:
        ptr: ``[B + 1]`` int64 on the CPU or a GPU; graph ``b`` owns positions ``ptr[b]:ptr[b + 1]`` of the order.
        index: ``[M]`` int64 or ``None``: the row at each position; ``None`` when all rows are in order already.
        num_rows: Number of rows, those outside of every segment included.
    """

    def __init__(self, ptr: Tensor, num_rows: int, index: Tensor | None = None) -> None:
        self.ptr = ptr
        self.num_rows = num_rows
        self.index = index
        self._lengths: list[int] | None = None
        # Derived forms of other modules (GPU tiles), so that they are computed once too.
        self.derived: dict[str, Any] = {}

    @classmethod
    def single(cls, num_rows: int, device: torch.device | str | None = None) -> Segments:
        """One graph that owns all rows."""
        out = cls(torch.tensor([0, num_rows], device=device), num_rows)
        out._lengths = [num_rows]
        return out

    @classmethod
    def from_batch(
        cls,
        batch: Tensor | None,
        num_rows: int,
        mask: Tensor | None = None,
        num_graphs: int | None = None,
        device: torch.device | str | None = None,
    ) -> Segments:
        """Groups rows by PyG's ``batch`` vector.

        Args:
            batch: ``[N]`` int64, the graph of each row in any order; ``None``: one graph.
            num_rows: ``N``.
            mask: ``[N]`` bool, real rows (``False``: padding or deleted).
            num_graphs: Number of graphs (default: the largest value of ``batch`` plus one).
            device: Where to put the indices when neither tensor says it.

        Raises:
            ValueError: A length differs from ``num_rows``.
        """
        for name, tensor in (("batch", batch), ("mask", mask)):
            if tensor is not None and tensor.shape != (num_rows,):
                raise ValueError(
                    f"{name} must have shape [{num_rows}] (one entry per row of x), got {list(tensor.shape)}"
                )
        if batch is None and mask is None:
            return cls.single(num_rows, device)
        if batch is None:
            assert mask is not None
            living = mask.nonzero().view(-1)
            return cls(torch.tensor([0, living.numel()], device=mask.device), num_rows, living)
        index: Tensor | None = None
        if mask is not None and not bool(mask.all()):
            index = mask.nonzero().view(-1)
            batch = batch[index]
        if batch.numel() > 1 and bool((batch[1:] < batch[:-1]).any()):
            order = torch.sort(batch, stable=True).indices
            batch = batch[order]
            index = order if index is None else index[order]
        if num_graphs is None:
            num_graphs = int(batch[-1]) + 1 if batch.numel() else 1
        bounds = torch.arange(num_graphs + 1, device=batch.device)
        return cls(torch.searchsorted(batch.contiguous(), bounds), num_rows, index)

    @property
    def num_graphs(self) -> int:
        """Number of segments."""
        return self.ptr.numel() - 1

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each segment (one transfer from the device, then kept)."""
        if self._lengths is None:
            self._lengths = self.ptr.diff().tolist()
        return self._lengths

    def gather(self, x: Tensor) -> Tensor:
        """``[N, ...]`` to ``[M, ...]``: the rows in segment order."""
        # index_select knows that rows go one by one: the backward pass of x[index] would sort them first.
        return x if self.index is None else x.index_select(0, self.index)

    def scatter(self, x: Tensor) -> Tensor:
        """``[M, ...]`` back to ``[N, ...]``; rows outside of every segment are zero."""
        if self.index is None:
            return x
        return x.new_zeros((self.num_rows, *x.shape[1:])).index_copy(0, self.index, x)

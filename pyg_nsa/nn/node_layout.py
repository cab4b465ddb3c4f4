"""How the rows of a node type are organised: graphs of a batch, padding, deleted nodes, and the edges' numbering.

Two numberings are met in data with deleted nodes. *Compact*: deleted nodes are removed and the rest relabelled, and
padding rows at the end of each graph keep ``x`` at its full height; edge indices count the real nodes only, so in a
batch they are shifted by the real ``ptr`` while the rows of ``x`` and of dense masks stride by the padded height.
*Wildtype*: nothing is relabelled and ``pert_mask`` marks the deleted rows. This module turns either into rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from pyg_nsa.attention import Segments
from pyg_nsa.attention.edges import check_bool_mask

__all__ = ["NodeLayout", "Numbering"]

Numbering = Literal["auto", "compact", "wildtype"]


class NodeLayout:
    """The rows of one node type in one call.

    Args:
        node_type: Name, for messages.
        shape: Leading shape of ``x``: ``(N,)``, or ``(B, N)`` for B copies of one base graph.
        device: Where ``x`` is.
        mask: bool, real rows (``True``) against padding rows.
        pert_mask: bool, deleted nodes in wildtype numbering.
        batch: ``[N]`` graph of each row.
        ptr: ``[B + 1]`` ranges of the *edges'* numbering (PyG's ``ptr``).
        x_ptr: ``[B + 1]`` ranges of the rows of ``x`` (``follow_batch=["x"]``); needed only where it can't be
            derived from an equal height of all graphs.
        numbering: Which numbering the data must have; ``"auto"`` accepts either and refuses a mixture.

    Raises:
        ValueError: Lengths that do not fit, or a batch that mixes the two numberings.
        TypeError: A mask that is not boolean.
    """

    def __init__(
        self,
        node_type: str,
        shape: tuple[int, ...],
        device: torch.device,
        *,
        mask: Tensor | None = None,
        pert_mask: Tensor | None = None,
        batch: Tensor | None = None,
        ptr: Tensor | None = None,
        x_ptr: Tensor | None = None,
        numbering: Numbering = "auto",
    ) -> None:
        self.node_type = node_type
        self.shape = shape
        self.device = device
        self.pert_mask = pert_mask
        self.num_rows = shape[-1]
        for name, value in (("mask", mask), ("pert_mask", pert_mask)):
            if value is None:
                continue
            check_bool_mask(value, f"'{name}' of node type '{node_type}'")
            if tuple(value.shape) != shape:
                raise ValueError(
                    f"'{name}' of node type '{node_type}' must have shape {list(shape)} (one entry per row of "
                    f"x), got {list(value.shape)}"
                )
        self.row_ptr, self.index_ptr = self._resolve_ptr(batch, ptr, x_ptr)
        self.batch = batch if batch is not None and batch.numel() == self.num_rows else None
        #: Whether graphs carry padding rows because deleted nodes were removed.
        self.is_compact = False
        #: bool like ``x``'s rows; ``None``: every row is a living node.
        self.alive = self._resolve_alive(mask, pert_mask, numbering)

    @property
    def is_shared(self) -> bool:
        """Whether ``x`` is ``[B, N, C]``: B copies of one base graph."""
        return len(self.shape) == 2

    @property
    def num_graphs(self) -> int | None:
        """Number of graphs where the call says it."""
        if self.is_shared:
            return self.shape[0]
        return None if self.row_ptr is None else self.row_ptr.numel() - 1

    def rows(self, index: Tensor) -> Tensor:
        """Rows of ``x`` for indices in the edges' numbering."""
        if self.row_ptr is None or self.index_ptr is None or self.row_ptr is self.index_ptr:
            return index
        graph = torch.searchsorted(self.index_ptr, index.contiguous(), right=True) - 1
        size = int(self.index_ptr[-1])
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
            raise ValueError(
                f"edge index out of range for node type '{self.node_type}': found {int(index.max())}, but the "
                f"batch has {size} nodes (valid: 0 to {size - 1})"
            )
        return self.row_ptr[graph] + index - self.index_ptr[graph]

    @cached_property
    def segments(self) -> Segments:
        """Living rows grouped by graph, for full attention in the layout ``[N, C]``."""
        batch = self.batch
        if batch is None and self.row_ptr is not None and self.row_ptr.numel() > 2:
            if self.alive is None:
                return Segments(self.row_ptr, self.num_rows)
            batch = self._graph_of_row()
        return Segments.from_batch(
            batch, self.num_rows, self.alive, num_graphs=self.num_graphs, device=self.device
        )

    def node_ids(self) -> Tensor:
        """``[N]`` (or ``[B, N]``): the base graph's node behind each row; 0 for padding rows.

        Raises:
            ValueError: Compact data without ``pert_mask``, from which the identities can't be read.
        """
        if self.is_shared:
            return torch.arange(self.num_rows, device=self.device).expand(self.shape)
        if self.row_ptr is None:
            if self.batch is not None:
                raise ValueError(
                    f"learned embeddings of node type '{self.node_type}' need to know where each graph starts: "
                    f"pass ptr_dict (PyG batches carry it), not only batch_dict"
                )
            position = torch.arange(self.num_rows, device=self.device)
        else:
            position = (
                torch.arange(self.num_rows, device=self.device) - self.row_ptr[self._graph_of_row()]
            )
        if not self.is_compact:
            return position
        if self.pert_mask is None:
            raise ValueError(
                f"learned embeddings of node type '{self.node_type}' need to know which nodes were removed: "
                "the data is in compact numbering (it has padding rows) but holds no 'pert_mask'"
            )
        assert self.alive is not None
        # Survivors keep their order, so the i-th real row of a graph is its i-th node that was not deleted.
        ids = torch.zeros_like(position)
        ids[self.alive] = position[~self.pert_mask]
        return ids

    # ---- resolving ---------------------------------------------------------------------------------------------------

    def _resolve_ptr(
        self, batch: Tensor | None, ptr: Tensor | None, x_ptr: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        num_rows = self.num_rows
        if self.is_shared:
            for name, value in (("ptr", ptr), ("batch", batch)):
                if value is not None:
                    raise ValueError(
                        f"'{name}' of node type '{self.node_type}' does not go with x of shape [B, N, C]: there "
                        "the first axis is the batch, and all graphs share one base graph"
                    )
            return None, None
        if torch.compiler.is_compiling():
            # Values can't be read inside a compiled graph: rows are taken to be in the edges' numbering.
            return (x_ptr if x_ptr is not None else ptr,) * 2
        if ptr is None and x_ptr is None:
            if batch is not None and batch.numel() != num_rows:
                raise ValueError(
                    f"'batch' of node type '{self.node_type}' has {batch.numel()} entries but x has {num_rows} "
                    "rows: pass ptr_dict too (data in compact numbering), as collect(data) does"
                )
            return None, None
        if x_ptr is not None:
            if int(x_ptr[-1]) != num_rows:
                raise ValueError(
                    f"'x_ptr' of node type '{self.node_type}' ends at {int(x_ptr[-1])} but x has {num_rows} rows"
                )
            return x_ptr, x_ptr if ptr is None or torch.equal(ptr, x_ptr) else ptr
        assert ptr is not None
        num_nodes, num_graphs = int(ptr[-1]), ptr.numel() - 1
        if num_nodes == num_rows:
            return ptr, ptr
        if num_nodes < num_rows and num_rows % num_graphs == 0:
            height = num_rows // num_graphs
            if int(ptr.diff().max()) <= height:
                return torch.arange(num_graphs + 1, device=ptr.device) * height, ptr
        raise ValueError(
            f"x of node type '{self.node_type}' has {num_rows} rows, but 'ptr' counts {num_nodes} nodes in "
            f"{num_graphs} graphs, and they are not of one padded height; batch with follow_batch=['x'] and pass "
            "x_ptr_dict"
        )

    def _graph_of_row(self) -> Tensor:
        if self.batch is not None:
            return self.batch
        assert self.row_ptr is not None
        graphs = torch.arange(self.row_ptr.numel() - 1, device=self.device)
        return graphs.repeat_interleave(self.row_ptr.diff(), output_size=self.num_rows)

    def _resolve_alive(
        self, mask: Tensor | None, pert_mask: Tensor | None, numbering: Numbering
    ) -> Tensor | None:
        if self.is_shared or torch.compiler.is_compiling():
            if mask is None or pert_mask is None:
                return mask if pert_mask is None else ~pert_mask
            return mask & ~pert_mask
        padded = self._num_padding_rows(mask, pert_mask)
        if mask is None and pert_mask is None and padded is None:
            return None
        if padded is None:
            padded = torch.zeros(
                1 if self.row_ptr is None else self.row_ptr.numel() - 1,
                dtype=torch.long,
                device=self.device,
            )
        deleted = self._count(pert_mask, padded.numel())
        compact = padded > 0
        wildtype = ~compact & (deleted > 0)
        self._check_numbering(compact, wildtype, padded, deleted, pert_mask, numbering)
        self.is_compact = bool(compact.any())
        if self.is_compact:
            alive = self._real_rows(padded)
            if mask is not None and not torch.equal(mask, alive):
                raise ValueError(
                    f"'mask' of node type '{self.node_type}' marks {int(mask.sum())} real rows, but the edges' "
                    f"numbering counts {int(alive.sum())}: in compact numbering the padding rows are the last "
                    "rows of each graph"
                )
        else:
            alive = torch.ones(self.num_rows, dtype=torch.bool, device=self.device)
            if mask is not None:
                alive = alive & mask
            if pert_mask is not None:
                alive = alive & ~pert_mask
        return None if bool(alive.all()) else alive

    def _num_padding_rows(self, mask: Tensor | None, pert_mask: Tensor | None) -> Tensor | None:
        """Padding rows of each graph, ``None`` if there are none."""
        if self.row_ptr is not None and self.index_ptr is not None:
            if self.row_ptr is self.index_ptr and mask is None:
                return None
            padded = self.row_ptr.diff() - self.index_ptr.diff()
            if bool(padded.any()) or self.row_ptr.numel() > 2:
                return padded
        # One graph without a ptr. Padding is a tail of False that pert_mask counts but does not point at.
        if mask is None or pert_mask is None or torch.equal(mask, ~pert_mask):
            return None
        tail = int((~mask).sum())
        if tail == 0 or bool(mask[self.num_rows - tail :].any()):
            return None
        return torch.tensor([tail], device=self.device)

    def _count(self, flags: Tensor | None, num_graphs: int) -> Tensor:
        if flags is None:
            return torch.zeros(num_graphs, dtype=torch.long, device=self.device)
        if num_graphs == 1:
            return flags.sum().view(1)
        counts = torch.zeros(num_graphs, dtype=torch.long, device=self.device)
        return counts.index_add(0, self._graph_of_row(), flags.long())

    def _real_rows(self, padded: Tensor) -> Tensor:
        position = torch.arange(self.num_rows, device=self.device)
        if self.row_ptr is None:
            return position < self.num_rows - padded[0]
        graph = self._graph_of_row()
        return position < (self.row_ptr[1:] - padded)[graph]

    def _check_numbering(
        self,
        compact: Tensor,
        wildtype: Tensor,
        padded: Tensor,
        deleted: Tensor,
        pert_mask: Tensor | None,
        numbering: Numbering,
    ) -> None:
        name = f"node type '{self.node_type}'"
        if bool((padded < 0).any()):
            graph = int((padded < 0).nonzero()[0])
            raise ValueError(
                f"{name}: graph {graph} has fewer rows of x than its edges' numbering has nodes "
                f"({-int(padded[graph])} too few)"
            )
        if bool(compact.any()) and bool(wildtype.any()):
            raise ValueError(
                f"{name} mixes two numberings in one batch: graph {int(compact.nonzero()[0])} is compact (deleted "
                f"nodes removed, padding rows at the end) and graph {int(wildtype.nonzero()[0])} is wildtype "
                "(nothing relabelled, pert_mask marks the deleted); make all graphs of a data set alike"
            )
        wrong = compact & (padded != deleted) if pert_mask is not None else compact & False
        if bool(wrong.any()):
            graph = int(wrong.nonzero()[0])
            raise ValueError(
                f"{name} mixes two numberings: graph {graph} has {int(padded[graph])} padding rows, but its "
                f"pert_mask marks {int(deleted[graph])} deleted nodes; in compact numbering the two are equal"
            )
        found = "compact" if bool(compact.any()) else "wildtype" if bool(wildtype.any()) else None
        if numbering != "auto" and found not in (None, numbering):
            raise ValueError(
                f"{name}: the configuration says numbering: {numbering}, but the data is in {found} numbering; "
                f"set numbering: {found} (or auto) or convert the data"
            )

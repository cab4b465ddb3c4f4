"""Which rows of a node type belong to which graph of a batch, in the numbering of ``x`` and in that of the edges.

The two differ where graphs have padding rows: edges count the real nodes, rows of ``x`` stride by the padded height.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.nn.cut_rows import how_to_cut

__all__ = ["RowRanges", "ranges_fit"]


class RowRanges:
    """The graphs of one node type's rows.

    Args:
        node_type: Name, for messages.
        num_rows: Rows of ``x``, N.
        device: Where ``x`` is.
        batch: ``[N]`` graph of each row.
        ptr: ``[B + 1]`` ranges of the *edges'* numbering (PyG's ``ptr``).
        x_ptr: ``[B + 1]`` ranges of the rows of ``x``; see :class:`~pyg_nsa.nn.node_layout.NodeLayout`.
        n_id: ``[N]``, another tensor that is as long as there are rows.
        needs_ptr: Whether the ranges are needed inside a compiled graph, too, where only ``batch`` is given.

    Attributes:
        num_rows: N.
        device: Where ``x`` is.
        row_ptr: ``[B + 1]`` ranges of the rows of ``x``; ``None`` where the call names no graphs.
        index_ptr: ``[B + 1]`` ranges of the edges' numbering; the same object where the two agree.

    Raises:
        ValueError: Fields that do not fit each other, or the rows.
        TypeError: Fields that are no tensors of integers.
    """

    def __init__(
        self,
        node_type: str,
        num_rows: int,
        device: torch.device,
        *,
        batch: Tensor | None = None,
        ptr: Tensor | None = None,
        x_ptr: Tensor | None = None,
        n_id: Tensor | None = None,
        needs_ptr: bool = False,
    ) -> None:
        name = f"node type '{node_type}'"
        for field, value in (("batch", batch), ("ptr", ptr), ("x_ptr", x_ptr)):
            if value is not None:
                _check_field(field, value, name)
        self.num_rows = num_rows
        self.device = device
        self._graph = batch if batch is not None and batch.numel() == num_rows else None
        self.row_ptr: Tensor | None = None
        self.index_ptr: Tensor | None = None
        if ptr is None and x_ptr is None:
            if batch is None:
                return
            if batch.numel() != num_rows:
                mend = how_to_cut("batch", batch.numel(), num_rows) or (
                    ": pass ptr_dict too (data in compact numbering), as collect(data) does"
                )
                raise ValueError(
                    f"'batch' of {name} has {batch.numel()} entries but x has {num_rows} rows{mend}"
                )
            # A compiled graph does without, and stays one.
            if not torch.compiler.is_compiling() or needs_ptr:
                self.row_ptr = self.index_ptr = _ptr_of(batch, name)
        elif x_ptr is not None:
            self.row_ptr, self.index_ptr = _of_x_ptr(x_ptr, ptr, num_rows, name)
            self._check_batch(x_ptr, "x_ptr", name)
        else:
            assert ptr is not None
            if torch.compiler.is_compiling():
                text = f"in a compiled graph, compact data of {name} need x_ptr_dict: batch with follow_batch=['x']"
                torch._assert_async(ptr[-1] == _counted(num_rows, batch, n_id), text)
                self.row_ptr = self.index_ptr = ptr
            else:
                num_nodes = int(ptr[-1])  # once, since it waits for a GPU
                if self._graph is None or num_nodes <= num_rows:
                    self.row_ptr, self.index_ptr = _of_ptr(ptr, num_nodes, num_rows, name)
                self._check_batch(self.row_ptr, "ptr", name)

    def _check_batch(self, row_ptr: Tensor | None, field: str, name: str) -> None:
        if self._graph is None or torch.compiler.is_compiling():
            return
        if row_ptr is None or not ranges_fit(row_ptr, self._graph):
            raise ValueError(
                f"'{field}' and 'batch' of {name} do not fit: 'batch' has the graph of each row of x, and '{field}' says others. "
                f"PyG leaves '{field}' as it was where a batch is sampled, cut or put in another order; leave {field}_dict out, "
                "batch_dict says it all (collect(data) does so)"
            )

    @property
    def num_graphs(self) -> int | None:
        """Number of graphs where the call says it."""
        return None if self.row_ptr is None else self.row_ptr.numel() - 1

    @property
    def differ(self) -> bool:
        """Whether the edges' numbering differs from that of the rows of ``x``."""
        return self.row_ptr is not self.index_ptr

    @property
    def are_in_any_order(self) -> bool:
        """Whether the rows' graphs are known, but not that each graph's rows follow each other."""
        return self.row_ptr is None and self._graph is not None

    @property
    def are_named(self) -> bool:
        """Whether the call says of which graph each row is."""
        return self.row_ptr is not None or self._graph is not None

    @property
    def batch(self) -> Tensor | None:
        """``[N]`` graph of each row; ``None`` where the call names no graphs."""
        return self.graph_of_row() if self.are_named else None

    def graph_of_row(self) -> Tensor:
        """``[N]`` graph of each row; all 0 where the call names no graphs."""
        if self._graph is None:
            position = torch.arange(self.num_rows, device=self.device)
            if self.row_ptr is None:
                return torch.zeros_like(position)
            self._graph = torch.searchsorted(self.row_ptr, position, right=True) - 1
        return self._graph

    def count(self, flags: Tensor) -> Tensor:
        """``[B]`` number of flagged rows of each graph.

        Args:
            flags: ``[N]`` bool.
        """
        counts = torch.zeros(self.num_graphs or 1, dtype=torch.long, device=self.device)
        return counts.index_add(0, self.graph_of_row(), flags.long())

    def before(self, padding: Tensor) -> Tensor:
        """``[N]`` bool: rows before the last ``padding[graph]`` rows of their graph.

        Args:
            padding: ``[B]`` int64.
        """
        position = torch.arange(self.num_rows, device=self.device)
        if self.row_ptr is None:
            return position < self.num_rows - padding
        return position < (self.row_ptr[1:] - padding)[self.graph_of_row()]


def ranges_fit(ptr: Tensor, batch: Tensor) -> bool:
    """Whether the ranges say of rows in ascending order what ``batch`` says; of others ``False``, nearly always.

    Args:
        ptr: ``[B + 1]``.
        batch: ``[N]`` graph of each row.
    """
    # By the first row of each graph, which takes no look at every row.
    graphs = torch.arange(ptr.numel(), device=batch.device, dtype=batch.dtype)
    return torch.equal(torch.searchsorted(batch.contiguous(), graphs), ptr.long())


def _check_field(field: str, value: Tensor, name: str) -> None:
    """``batch`` names a graph for each row, ``ptr`` and ``x_ptr`` where each graph begins and the last one ends."""
    is_tensor = isinstance(value, Tensor)
    counts = is_tensor and value.dim() == 1 and value.dtype in (torch.int64, torch.int32)
    if counts and (field == "batch" or value.numel()):
        return
    shape = "[N]" if field == "batch" else "[B + 1]"
    got = f"{value.dtype} of shape {list(value.shape)}" if is_tensor else type(value).__name__
    text = (
        f"'{field}' of {name} must be int64 of shape {shape}, as a batch of PyG has it, got {got}"
    )
    raise (ValueError if is_tensor and value.dtype == torch.int64 else TypeError)(text)


def _of_x_ptr(x_ptr: Tensor, ptr: Tensor | None, num_rows: int, name: str) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling():
        return x_ptr, x_ptr if ptr is None else ptr
    if int(x_ptr[-1]) != num_rows:
        raise ValueError(f"'x_ptr' of {name} ends at {int(x_ptr[-1])} but x has {num_rows} rows")
    if ptr is not None and ptr.numel() != x_ptr.numel():
        raise ValueError(
            f"'ptr' of {name} is for {ptr.numel() - 1} graphs but 'x_ptr' for {x_ptr.numel() - 1}"
        )
    return x_ptr, x_ptr if ptr is None or torch.equal(ptr, x_ptr) else ptr


def _of_ptr(ptr: Tensor, num_nodes: int, num_rows: int, name: str) -> tuple[Tensor, Tensor]:
    num_graphs = ptr.numel() - 1
    if num_nodes == num_rows:
        return ptr, ptr
    if num_nodes < num_rows and num_rows % num_graphs == 0:
        height = num_rows // num_graphs
        if int(ptr.diff().max()) <= height:
            return torch.arange(num_graphs + 1, device=ptr.device) * height, ptr
    raise ValueError(
        f"x of {name} has {num_rows} rows, but 'ptr' counts {num_nodes} nodes in {num_graphs} graphs, and they "
        "are not of one padded height; batch with follow_batch=['x'] and pass x_ptr_dict"
    )


def _counted(num_rows: int, *of_rows: Tensor | None) -> int | Tensor:
    """The number of rows, for a check inside of a compiled graph."""
    # Where Dynamo finds that it equals the length of another tensor, Inductor names it by that tensor, and has no such name unless
    # the tensor is in the graph too.
    for tensor in of_rows:
        if tensor is not None and tensor.numel() == num_rows:
            return torch.ones_like(tensor).sum()
    return num_rows


# How many graphs there are is read, so a compiled graph ends before it and another begins after it.
@torch.compiler.disable(reason="the number of graphs is read from batch_dict")  # type: ignore[untyped-decorator]
def _ptr_of(batch: Tensor, name: str) -> Tensor | None:
    """``[B + 1]``, or ``None`` where the rows are not in the order of their graphs."""
    if batch.numel() and int(batch.min()) < 0:
        raise ValueError(f"'batch' of {name} is negative; it counts graphs from 0")
    if batch.numel() == 0 or bool((batch[1:] < batch[:-1]).any()):
        return None
    graphs = torch.arange(int(batch[-1]) + 2, device=batch.device)
    return torch.searchsorted(batch.contiguous(), graphs)

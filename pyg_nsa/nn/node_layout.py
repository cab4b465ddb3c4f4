"""How the rows of a node type are organised: graphs of a batch, padding, deleted nodes, and the edges' numbering.

Two numberings are met in data with deleted nodes. *Compact*: deleted nodes are removed and the rest relabelled, and
padding rows at the end of each graph keep ``x`` at its full height; edge indices count the real nodes only, so in a
batch they are shifted by the real ``ptr`` while the rows of ``x`` and of dense masks stride by the padded height.
*Wildtype*: nothing is relabelled and ``pert_mask`` marks the deleted rows. This module turns either into rows.

Rows are resolved with tensor operations alone, and values are read only to check them. Inside a compiled graph, where
values can't be read, the checks are left out.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pyg_nsa.attention import Segments
from pyg_nsa.attention.edges import check_bool_mask
from pyg_nsa.nn.node_order import places

__all__ = ["NodeLayout", "Numbering"]

Numbering = Literal["auto", "compact", "wildtype"]


_ATTRIBUTES = (
    "node_type",
    "shape",
    "device",
    "pert_mask",
    "n_id",
    "num_rows",
    "found",
    "order",
    "place",
    "row_ptr",
    "index_ptr",
    "alive",
    "_says_nodes",
    "_graph",
    "_compact",
    "_segments",
)


class NodeLayout:
    """The rows of one node type in one call.

    Args:
        node_type: Name, for messages.
        shape: Leading shape of ``x``: ``(N,)``, or ``(B, N)`` for B copies of one base graph.
        device: Where ``x`` is.
        mask: bool, real rows (``True``) against padding rows.
        pert_mask: bool, deleted nodes by their place in the base graph, in either numbering.
        batch: ``[N]`` graph of each row.
        ptr: ``[B + 1]`` ranges of the *edges'* numbering (PyG's ``ptr``).
        x_ptr: ``[B + 1]`` ranges of the rows of ``x`` (``follow_batch=["x"]``); needed only where it can't be
            derived from an equal height of all graphs, and inside a compiled graph.
        n_id: ``[N]`` int64, the base graph's node of each row (PyG's ``NeighborLoader`` gives it); in padding rows and those
            of deleted nodes it may hold anything.
        numbering: Which numbering the data must have; ``"auto"`` accepts either and refuses a mixture.

    Attributes:
        row_ptr: ``[B + 1]`` ranges of the rows of ``x``; ``None`` where the call names no graphs.
        index_ptr: ``[B + 1]`` ranges of the edges' numbering; the same object where the two agree.
        alive: bool like the rows, living nodes; ``None``: every row is one.
        found: The numbering that the data shows; ``None`` where nothing is deleted or both would look alike.
        order: ``[N]`` the row of ``x`` at each place, where the rows were put in another order (:meth:`in_order`).
        place: ``[N]`` the place of each row of ``x``, likewise.

    Raises:
        ValueError: Lengths that do not fit, a batch that mixes the two numberings, or ``n_id`` of copies of one base graph.
        TypeError: A mask that is not boolean, or ``n_id`` that is not int64.
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
        n_id: Tensor | None = None,
        numbering: Numbering = "auto",
    ) -> None:
        self.node_type = node_type
        self.shape = shape
        self.device = device
        self.pert_mask = pert_mask
        self.n_id = n_id
        self.num_rows = shape[-1]
        self.found: Numbering | None = None
        self.order: Tensor | None = None
        self.place: Tensor | None = None
        for name, value in (("mask", mask), ("pert_mask", pert_mask)):
            if value is None:
                continue
            check_bool_mask(
                value, f"'{name}' of node type '{node_type}'", f"{name}_dict['{node_type}']"
            )
            if tuple(value.shape) != shape:
                raise ValueError(
                    f"'{name}' of node type '{node_type}' must have shape {list(shape)} (one entry per row of "
                    f"x), got {list(value.shape)}"
                )
        if n_id is not None:
            self._check_n_id(n_id)
        for name, value in (("batch", batch), ("ptr", ptr), ("x_ptr", x_ptr)):
            if value is not None:
                self._check_graph_field(name, value)
        # Masks are by the place in the base graph, so rows that they describe are its nodes, one by one.
        self._says_nodes = self.is_shared or any(v is not None for v in (n_id, mask, pert_mask))
        self.row_ptr, self.index_ptr = self._resolve_ptr(
            batch, ptr, x_ptr, mask is not None and pert_mask is not None
        )
        self._graph = batch if batch is not None and batch.numel() == self.num_rows else None
        self._compact: Tensor | None = None  # [B] bool: graphs whose deleted nodes were removed
        self.alive = self._resolve_alive(mask, pert_mask, numbering)
        self._segments: Segments | None = None

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

    @property
    def is_translated(self) -> bool:
        """Whether the edges' numbering differs from the rows."""
        return self.row_ptr is not self.index_ptr or self.place is not None

    def rows(self, index: Tensor) -> Tensor:
        """Rows for indices in the edges' numbering."""
        rows = self._rows_of_x(index)
        return rows if self.place is None else self.place[rows]

    def _rows_of_x(self, index: Tensor) -> Tensor:
        if self.row_ptr is self.index_ptr:
            return index
        assert self.row_ptr is not None and self.index_ptr is not None
        if index.numel() and not torch.compiler.is_compiling():
            size = int(self.index_ptr[-1])
            low, high = (int(v) for v in torch.aminmax(index))
            if low < 0 or high >= size:
                raise ValueError(
                    f"edge index out of range for node type '{self.node_type}': found {low if low < 0 else high}, "
                    f"but the edges' numbering counts {size} nodes (valid: 0 to {size - 1})"
                )
        graph = torch.searchsorted(self.index_ptr, index.contiguous(), right=True) - 1
        return self.row_ptr[graph] + index - self.index_ptr[graph]

    @property
    def segments(self) -> Segments:
        """Living rows grouped by graph, for full attention in the layout ``[N, C]``."""
        if self._segments is None:
            if self.row_ptr is not None and self.alive is None and self.order is None:
                self._segments = Segments(self.row_ptr, self.num_rows)
            else:
                graph = self._graph if self.row_ptr is None else self._graph_of_row()
                if graph is not None and self.order is not None:
                    graph = graph[self.order]
                self._segments = Segments.from_batch(
                    graph, self.num_rows, self.alive, self.num_graphs, self.device
                )
        return self._segments

    def node_ids(self) -> Tensor:
        """``[N]``: the base graph's node behind each row (behind a padding row: any).

        Raises:
            ValueError: Data from which the identities can't be read.
        """
        ids = self._node_ids_of_x()
        return ids if self.order is None else ids[self.order]

    def unknown_rows(self, num_nodes: int) -> int | None:
        """The rows of a graph of which nothing says which nodes of the base graph they are, if there is such a graph.

        Without ``n_id`` and masks they are told by their place, which takes all ``num_nodes``. More rows than that are not
        looked for here.

        Args:
            num_nodes: Number of nodes of the base graph.
        """
        if self._says_nodes or (self.row_ptr is None and self._graph is not None):
            return None  # rows in any order of their graphs: node_ids refuses them
        if self.row_ptr is None:
            return self.num_rows if 0 < self.num_rows < num_nodes else None
        if torch.compiler.is_compiling():
            return None
        rows = self.row_ptr.diff()
        few = rows[(rows > 0) & (rows < num_nodes)]
        return int(few[0]) if few.numel() else None

    def in_order(self, order: Tensor) -> NodeLayout:
        """The layout of the rows put in another order.

        Args:
            order: ``[N]`` int64, the row at each place. Or, for a batch of graphs or with ``n_id``, the order of the base
                graph's nodes (more or fewer than there are rows): it is applied inside of each graph, to the nodes that the
                graph has.

        Raises:
            ValueError: An order that fits neither.
        """
        assert self.order is None
        if order.dtype != torch.int64 or order.dim() != 1:
            raise ValueError(
                f"'order' of node type '{self.node_type}' must be int64 of shape [N], got {order.dtype} of shape "
                f"{list(order.shape)}"
            )
        if order.numel() != self.num_rows:
            order = self._order_in_graphs(order)
        out = NodeLayout.__new__(NodeLayout)
        for name in _ATTRIBUTES:  # torch 2.11 can't trace copy.copy
            setattr(out, name, getattr(self, name))
        out.order, out.place = order, places(order)
        out.alive = None if self.alive is None else self.alive.index_select(-1, order)
        out._segments = None
        return out

    def _order_in_graphs(self, order: Tensor) -> Tensor:
        """``[N]``: the rows of each graph in the order of the base graph's nodes, graph after graph."""
        if self.row_ptr is None and self.n_id is None:
            raise ValueError(
                f"'order' of node type '{self.node_type}' has {order.numel()} entries but there are {self.num_rows} "
                "rows; an order of the base graph's nodes goes with a batch that has ptr_dict or x_ptr_dict, or with a part of "
                "the graph that has n_id_dict"
            )
        place, ids = places(order), self._node_ids_of_x()
        # Padding rows stand for no node; they come last in their graph, whatever their number.
        known = (ids >= 0) & (ids < order.numel())
        place = torch.where(known, place[ids.masked_fill(~known, 0)], order.numel())
        return torch.sort(self._graph_of_row() * (order.numel() + 1) + place, stable=True).indices

    def _node_ids_of_x(self) -> Tensor:
        if self.n_id is not None:
            return self.n_id
        position = torch.arange(self.num_rows, device=self.device)
        if self.is_shared:
            return position
        if self.row_ptr is None and self._graph is not None:
            start = self._start_in_order(self._graph)
        elif self.row_ptr is None:
            start = torch.zeros_like(position)
        else:
            start = self.row_ptr[self._graph_of_row()]
        if self._compact is None:
            return position - start
        graph = self._graph_of_row()
        if self.pert_mask is None:
            if not torch.compiler.is_compiling() and not bool(self._compact.any()):
                return position - start
            raise ValueError(
                f"learned embeddings of node type '{self.node_type}' need to know which nodes were removed: "
                "the data is in compact numbering (it has padding rows) but holds no 'pert_mask'"
            )
        # Survivors keep their order, so the i-th real row of a graph is its i-th node that was not deleted.
        survivors_first = torch.sort(2 * graph + self.pert_mask.long(), stable=True).indices
        return torch.where(self._compact[graph], survivors_first, position) - start

    def _start_in_order(self, graph: Tensor) -> Tensor:
        """``[N]`` the first row of each row's graph, where :meth:`_resolve_ptr` found no order of the rows, or could not look."""
        text = (
            f"learned embeddings of node type '{self.node_type}' need to know where each graph starts: pass "
            "ptr_dict (PyG batches carry it), or sort the rows so that batch_dict ascends; or pass n_id_dict, the "
            "base graph's node of each row"
        )
        if not torch.compiler.is_compiling():
            raise ValueError(text)
        torch._assert_async((graph[1:] >= graph[:-1]).all(), text)
        graph = graph.contiguous()
        return torch.searchsorted(graph, graph)

    def _check_graph_field(self, field: str, value: Tensor) -> None:
        """``batch`` names a graph for each row, ``ptr`` and ``x_ptr`` where each graph begins and the last one ends."""
        is_tensor = isinstance(value, Tensor)
        counts = is_tensor and value.dim() == 1 and value.dtype in (torch.int64, torch.int32)
        if counts and (field == "batch" or value.numel()):
            return
        shape = "[N]" if field == "batch" else "[B + 1]"
        got = f"{value.dtype} of shape {list(value.shape)}" if is_tensor else type(value).__name__
        text = f"'{field}' of node type '{self.node_type}' must be int64 of shape {shape}, as a batch of PyG has it, got {got}"
        raise (ValueError if is_tensor and value.dtype == torch.int64 else TypeError)(text)

    def _check_n_id(self, n_id: Tensor) -> None:
        name = f"'n_id' of node type '{self.node_type}'"
        meaning = "the base graph's node of each row of x, as PyG's NeighborLoader gives it"
        if not isinstance(n_id, Tensor) or n_id.dtype != torch.int64:
            got = n_id.dtype if isinstance(n_id, Tensor) else type(n_id).__name__
            raise TypeError(f"{name} must be int64 of shape [N] ({meaning}), got {got}")
        if self.is_shared:
            raise ValueError(
                f"{name} does not go with x of shape [B, N, C]: there the rows are all nodes of the base graph, in its order"
            )
        if tuple(n_id.shape) != self.shape:
            raise ValueError(
                f"{name} must have shape {list(self.shape)} ({meaning}), got {list(n_id.shape)}"
            )

    # ---- resolving ---------------------------------------------------------------------------------------------------

    def _resolve_ptr(
        self,
        batch: Tensor | None,
        ptr: Tensor | None,
        x_ptr: Tensor | None,
        has_both_masks: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        num_rows, name = self.num_rows, f"node type '{self.node_type}'"
        if self.is_shared:
            for field, value in (("ptr", ptr), ("x_ptr", x_ptr), ("batch", batch)):
                if value is not None:
                    raise ValueError(
                        f"'{field}' of {name} does not go with x of shape [B, N, C]: there the first axis is the "
                        "batch, and all graphs share one base graph"
                    )
            return None, None
        if ptr is None and x_ptr is None:
            if batch is None:
                return None, None
            if batch.numel() != num_rows:
                raise ValueError(
                    f"'batch' of {name} has {batch.numel()} entries but x has {num_rows} rows: pass ptr_dict too "
                    "(data in compact numbering), as collect(data) does"
                )
            # A compiled graph does without, and stays one, unless the masks are to tell the numbering of each graph.
            if not torch.compiler.is_compiling() or has_both_masks:
                ptr = _ptr_of(batch, name)
            return ptr, ptr
        if torch.compiler.is_compiling():
            if x_ptr is None:
                assert ptr is not None
                text = f"in a compiled graph, compact data of {name} need x_ptr_dict: batch with follow_batch=['x']"
                torch._assert_async(ptr[-1] == self._counted_rows(batch), text)
                return ptr, ptr
            return x_ptr, x_ptr if ptr is None else ptr
        if x_ptr is not None:
            if int(x_ptr[-1]) != num_rows:
                raise ValueError(
                    f"'x_ptr' of {name} ends at {int(x_ptr[-1])} but x has {num_rows} rows"
                )
            if ptr is not None and ptr.numel() != x_ptr.numel():
                raise ValueError(
                    f"'ptr' of {name} is for {ptr.numel() - 1} graphs but 'x_ptr' for {x_ptr.numel() - 1}"
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
            f"x of {name} has {num_rows} rows, but 'ptr' counts {num_nodes} nodes in {num_graphs} graphs, and they "
            "are not of one padded height; batch with follow_batch=['x'] and pass x_ptr_dict"
        )

    def _counted_rows(self, batch: Tensor | None) -> int | Tensor:
        """The number of rows, for a check inside of a compiled graph."""
        # Where Dynamo finds that it equals the length of another tensor, Inductor names it by that tensor, and has no such name unless
        # the tensor is in the graph too.
        for of_rows in (batch, self.n_id):
            if of_rows is not None and of_rows.numel() == self.num_rows:
                return torch.ones_like(of_rows).sum()
        return self.num_rows

    def _graph_of_row(self) -> Tensor:
        """``[N]`` graph of each row; all 0 where the call names no graphs."""
        if self._graph is None:
            position = torch.arange(self.num_rows, device=self.device)
            if self.row_ptr is None:
                return torch.zeros_like(position)
            self._graph = torch.searchsorted(self.row_ptr, position, right=True) - 1
        return self._graph

    def _count(self, flags: Tensor) -> Tensor:
        """``[B]`` number of flagged rows of each graph."""
        counts = torch.zeros(self.num_graphs or 1, dtype=torch.long, device=self.device)
        return counts.index_add(0, self._graph_of_row(), flags.long())

    def _resolve_alive(
        self, mask: Tensor | None, pert_mask: Tensor | None, numbering: Numbering
    ) -> Tensor | None:
        if self.is_shared or (self.row_ptr is None and self._graph is not None):
            # One base graph, or rows in any order: nothing can have been relabelled.
            if mask is None or pert_mask is None:
                return mask if pert_mask is None else ~pert_mask
            return mask & ~pert_mask
        if mask is None and pert_mask is None and not self.is_translated:
            return None
        if self.is_translated:
            assert self.row_ptr is not None and self.index_ptr is not None
            padding = self.row_ptr.diff() - self.index_ptr.diff()
        else:
            padding = torch.zeros(self.num_graphs or 1, dtype=torch.long, device=self.device)
        ambiguous = torch.zeros_like(padding, dtype=torch.bool)
        if mask is not None and pert_mask is not None:
            # Without num_nodes the two masks tell: compact data masks as many rows at the end as pert_mask marks elsewhere.
            lost = self._count(~mask)
            at_end = self._count(mask != self._before(lost)) == 0
            looks_compact = at_end & (lost == self._count(pert_mask)) & (lost > 0)
            ambiguous = looks_compact & (self._count(mask == pert_mask) == 0)
            if not self.is_translated:
                # Rows at the end that pert_mask marks too are the same in either numbering: as the others of the batch.
                compact = looks_compact & ~ambiguous
                padding = torch.where(compact | (ambiguous & compact.any()), lost, padding)
        compact = padding > 0
        real = self._before(padding)
        if not torch.compiler.is_compiling():
            deleted = None if pert_mask is None else self._count(pert_mask)
            self._check(padding, deleted, ambiguous, real, mask, numbering)
        if self.is_translated or pert_mask is not None:
            self._compact = compact
        alive = real
        if mask is not None:
            alive = alive & mask
        if pert_mask is not None:
            alive = alive & ~(pert_mask & ~compact[self._graph_of_row()])
        if torch.compiler.is_compiling():
            return alive
        return None if bool(alive.all()) else alive

    def _before(self, padding: Tensor) -> Tensor:
        """``[N]`` bool: rows before the last ``padding[graph]`` rows of their graph."""
        position = torch.arange(self.num_rows, device=self.device)
        if self.row_ptr is None:
            return position < self.num_rows - padding
        return position < (self.row_ptr[1:] - padding)[self._graph_of_row()]

    def _check(
        self,
        padding: Tensor,
        deleted: Tensor | None,
        ambiguous: Tensor,
        real: Tensor,
        mask: Tensor | None,
        numbering: Numbering,
    ) -> None:
        name = f"node type '{self.node_type}'"
        if bool((padding < 0).any()):
            graph = int((padding < 0).nonzero()[0])
            raise ValueError(
                f"{name}: graph {graph} has fewer rows of x than its edges' numbering has nodes "
                f"({-int(padding[graph])} too few)"
            )
        compact = padding > 0
        wildtype = compact & False if deleted is None else ~compact & (deleted > 0) & ~ambiguous
        if bool(compact.any()) and bool(wildtype.any()):
            raise ValueError(
                f"{name} mixes two numberings in one batch: graph {int(compact.nonzero()[0])} is compact (deleted "
                f"nodes removed, padding rows at the end) and graph {int(wildtype.nonzero()[0])} is wildtype "
                "(nothing relabelled, pert_mask marks the deleted); make all graphs of a data set alike"
            )
        if deleted is not None and bool((wrong := compact & (padding != deleted)).any()):
            graph = int(wrong.nonzero()[0])
            raise ValueError(
                f"{name} mixes two numberings: graph {graph} has {int(padding[graph])} padding rows, but its "
                f"pert_mask marks {int(deleted[graph])} deleted nodes; in compact numbering the two are equal"
            )
        self.found = (
            "compact" if bool(compact.any()) else "wildtype" if bool(wildtype.any()) else None
        )
        if self.found == "compact" and mask is not None and not torch.equal(mask, real):
            raise ValueError(
                f"'mask' of {name} marks {int(mask.sum())} real rows, but the edges' numbering counts "
                f"{int(real.sum())}: in compact numbering the padding rows are the last rows of each graph"
            )
        if numbering != "auto" and self.found not in (None, numbering):
            raise ValueError(
                f"{name}: the configuration says numbering: {numbering}, but the data is in {self.found} numbering; "
                f"set numbering: {self.found} (or auto) or convert the data"
            )


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

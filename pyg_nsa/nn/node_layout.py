"""How the rows of a node type are organised: graphs of a batch, padding, deleted nodes, and the edges' numbering.

Data with deleted nodes come in either of two numberings (:mod:`pyg_nsa.nn.numbering`). In the compact one edge indices count the real
nodes only, so in a batch they are shifted by the real ``ptr`` while the rows of ``x`` and of dense masks stride by the padded height.
This module turns either into rows.

Rows are resolved with tensor operations alone, and values are read only to check them. Inside a compiled graph, where
values can't be read, the checks are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.attention import Segments
from pyg_nsa.attention.edges import check_bool_mask
from pyg_nsa.nn.cut_rows import how_to_cut
from pyg_nsa.nn.node_order import places
from pyg_nsa.nn.numbering import Numbering, living_rows, unmarked
from pyg_nsa.nn.row_ranges import RowRanges

__all__ = ["NodeLayout"]

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
    "alive",
    "_says_nodes",
    "_ranges",
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
        alive: bool like the rows, ``[N]`` or ``[B, N]`` for copies, living nodes; ``None``: every row is one.
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
                    f"x), got {list(value.shape)}{self._how_to_cut(name, value)}"
                )
        if n_id is not None:
            self._check_n_id(n_id)
        # Masks are by the place in the base graph, so rows that they describe are its nodes, one by one.
        self._says_nodes = self.is_shared or any(v is not None for v in (n_id, mask, pert_mask))
        self._compact: Tensor | None = None  # [B] bool: graphs whose deleted nodes were removed
        if self.is_shared:
            for field, value in (("ptr", ptr), ("x_ptr", x_ptr), ("batch", batch)):
                if value is not None:
                    raise ValueError(
                        f"'{field}' of node type '{node_type}' does not go with x of shape [B, N, C]: there the first axis "
                        "is the batch, and all graphs share one base graph"
                    )
            self._ranges = RowRanges(node_type, self.num_rows, device)
            self.alive = unmarked(mask, pert_mask)
        else:
            # In a compiled graph, too, the masks are to tell the numbering of each graph.
            both = mask is not None and pert_mask is not None
            self._ranges = RowRanges(
                node_type,
                self.num_rows,
                device,
                batch=batch,
                ptr=ptr,
                x_ptr=x_ptr,
                n_id=n_id,
                needs_ptr=both,
            )
            self.alive, self._compact, self.found = living_rows(
                self._ranges, mask, pert_mask, numbering, f"node type '{node_type}'"
            )
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
        return self._ranges.num_graphs

    @property
    def names_graphs(self) -> bool:
        """Whether the call says of which graph each row is."""
        return self.is_shared or self._ranges.are_named

    @property
    def row_ptr(self) -> Tensor | None:
        """``[B + 1]`` ranges of the rows of ``x``; ``None`` where the call names no graphs."""
        return self._ranges.row_ptr

    @property
    def is_translated(self) -> bool:
        """Whether the edges' numbering differs from the rows."""
        return self._ranges.differ or self.place is not None

    def rows(self, index: Tensor) -> Tensor:
        """Rows for indices in the edges' numbering."""
        rows = self._rows_of_x(index)
        return rows if self.place is None else self.place[rows]

    def _rows_of_x(self, index: Tensor) -> Tensor:
        row_ptr, index_ptr = self._ranges.row_ptr, self._ranges.index_ptr
        if row_ptr is index_ptr:
            return index
        assert row_ptr is not None and index_ptr is not None
        if index.numel() and not torch.compiler.is_compiling():
            size = int(index_ptr[-1])
            low, high = (int(v) for v in torch.aminmax(index))
            if low < 0 or high >= size:
                raise ValueError(
                    f"edge index out of range for node type '{self.node_type}': found {low if low < 0 else high}, "
                    f"but the edges' numbering counts {size} nodes (valid: 0 to {size - 1})"
                )
        graph = torch.searchsorted(index_ptr, index.contiguous(), right=True) - 1
        return row_ptr[graph] + index - index_ptr[graph]

    @property
    def segments(self) -> Segments:
        """Living rows grouped by graph, for full attention in the layout ``[N, C]``."""
        if self._segments is None:
            if self.row_ptr is not None and self.alive is None and self.order is None:
                self._segments = Segments(self.row_ptr, self.num_rows)
            else:
                graph = self._ranges.batch
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
        if self._says_nodes or self._ranges.are_in_any_order:
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
        return torch.sort(
            self._ranges.graph_of_row() * (order.numel() + 1) + place, stable=True
        ).indices

    def _node_ids_of_x(self) -> Tensor:
        if self.n_id is not None:
            return self.n_id
        position = torch.arange(self.num_rows, device=self.device)
        if self.is_shared:
            return position
        if self._ranges.are_in_any_order:
            start = self._start_in_order(self._ranges.graph_of_row())
        elif self.row_ptr is None:
            start = torch.zeros_like(position)
        else:
            start = self.row_ptr[self._ranges.graph_of_row()]
        if self._compact is None:
            return position - start
        graph = self._ranges.graph_of_row()
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
        """``[N]`` the first row of each row's graph, where :class:`RowRanges` found no order of the rows, or could not look."""
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
                f"{self._how_to_cut('n_id', n_id)}"
            )

    def _how_to_cut(self, field: str, value: Tensor) -> str:
        if self.is_shared or value.dim() != 1:
            return ""
        return how_to_cut(field, value.numel(), self.num_rows)

"""The pair set of masked attention: which (query, key) pairs attend.

An :class:`EdgeSet` is the sparse form of a boolean attention mask. In PyG's flow an edge ``(src, dst)`` carries a
message from ``src`` to ``dst``, so the target is the *query* and the source is the *key*. Pairs are unique and sorted
by (query, key), which is CSR over queries; the transpose (CSR over keys, used by every backward pass) is computed at
first use and kept. An edge set is built once per graph and shared by every layer, head and epoch.

No float matrix of size ``num_queries * num_keys`` exists here, and no boolean one is built; one that the data brings is
read once (:meth:`EdgeSet.from_dense`).
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pyg_nsa.attention.index_range import in_range
from pyg_nsa.attention.pair_checks import check_merged, check_pairs_in_csr
from pyg_nsa.plain_index import plain_index

__all__ = ["EdgeSet"]

#: Edge sets by the tensor that they were built from, as long as that tensor lives: ``{tensor: (version, {options: set})}``.
_BUILT: WeakIdKeyDictionary = WeakIdKeyDictionary()


class EdgeSet:
    """Unique (query, key) pairs in CSR form, with what merged into each.

    Use the constructors :meth:`from_edge_index` and :meth:`from_dense`. ``EdgeSet(row, col, rowptr, …)`` of tensors that are in this
    form already checks them, once (not inside a compiled graph, where values can't be read).

    Attributes:
        row: ``[P]`` int64, the query (target node) of each pair; ascending.
        col: ``[P]`` int64, the key (source node) of each pair; ascending inside a row.
        rowptr: ``[num_queries + 1]`` int64; the pairs of query ``i`` are ``rowptr[i]:rowptr[i + 1]``.
        num_queries: Number of queries (target nodes).
        num_keys: Number of keys (source nodes).
        edge_of: ``[M]`` int64 or ``None``: the input edge behind each raw pair, before merging.
        pair_of: ``[M]`` int64 or ``None``: the pair into which that raw pair was merged.
        num_edges: Number of input edges, the length that :meth:`coalesce` expects.
        derived: What was computed from the pairs, by name, so that it is computed once. The set may be shared by all relations, layers
            and calls with one index tensor (:meth:`from_edge_index`): put in only what follows from the pairs and the numbers of nodes,
            never from attributes or deleted nodes. It may be missing where it was put before, in a set that was moved or renumbered.

    Under ``torch.compile`` sizes must be static, so there ``row`` and ``col`` keep one slot per raw pair; the first
    ``rowptr[-1]`` slots are used and the others hold ``num_queries`` and ``num_keys``.

    Raises:
        TypeError: A tensor that is no int64 vector.
        ValueError: Lengths or devices that do not fit, numbers that are no rows, or pairs that are not unique and sorted.
    """

    def __init__(
        self,
        row: Tensor,
        col: Tensor,
        rowptr: Tensor,
        num_queries: int,
        num_keys: int,
        edge_of: Tensor | None = None,
        pair_of: Tensor | None = None,
        num_edges: int | None = None,
        *,
        _is_sound: bool = False,
    ) -> None:
        self.row = row
        self.col = col
        self.rowptr = rowptr
        self.num_queries = num_queries
        self.num_keys = num_keys
        self.edge_of = edge_of
        self.pair_of = pair_of
        self.num_edges = row.numel() if num_edges is None else num_edges
        self._transpose: tuple[Tensor, Tensor, Tensor] | None = None
        self._edge_order: tuple[Tensor | None] | None = None
        self.derived: dict[str, Any] = {}
        if not _is_sound and not torch.compiler.is_compiling():
            check_pairs_in_csr(row, col, rowptr, num_queries, num_keys)
            check_merged(edge_of, pair_of, row, self.num_edges)

    # ---- construction ------------------------------------------------------------------------------------------------

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        num_keys: int,
        num_queries: int,
        *,
        symmetrize: bool = False,
        self_loops: bool = False,
    ) -> EdgeSet:
        """Builds the pair set from PyG's ``edge_index``.

        A second call with the same tensor object returns the same edge set, unless torch has written to the tensor in
        between; so layers and epochs share the work. (A write behind torch's back, through NumPy or
        ``edge_index.data[…]``, goes unnoticed: pass ``edge_index.clone()`` then.)

        Args:
            edge_index: ``[2, E]`` integer tensor; row 0 holds sources (keys), row 1 targets (queries). Directed,
                undirected, bipartite, duplicated and unsorted are all fine.
            num_keys: Number of source nodes.
            num_queries: Number of target nodes.
            symmetrize: Add the reversed pair of every edge; it carries the same edge attribute.
            self_loops: Add the diagonal; it carries the edge attribute zero.

        Raises:
            TypeError: ``edge_index`` is not an integer tensor.
            ValueError: Its shape is not ``[2, E]``; an index is negative or too large; ``symmetrize`` or
                ``self_loops`` is asked for between node sets of different size.
        """
        if not isinstance(edge_index, Tensor):
            raise TypeError(
                f"edge_index must be a torch.Tensor of shape [2, E], got {type(edge_index).__name__}"
            )
        if edge_index.dtype.is_floating_point or edge_index.dtype == torch.bool:
            raise TypeError(
                f"edge_index must hold integers (torch.int64), got {edge_index.dtype}; "
                "a dense mask goes to EdgeSet.from_dense"
            )
        if edge_index.dim() != 2 or edge_index.size(0) != 2:
            raise ValueError(
                f"edge_index must have shape [2, E] (sources, targets), got {list(edge_index.shape)}"
            )
        if (symmetrize or self_loops) and num_keys != num_queries:
            option = "symmetrize" if symmetrize else "self_loops"
            raise ValueError(
                f"{option} needs source and target nodes of one type, got {num_keys} sources and "
                f"{num_queries} targets"
            )
        edge_index = plain_index(edge_index)
        built = _built_from(edge_index)
        options = (num_keys, num_queries, symmetrize, self_loops)
        if built is not None and options in built:
            return built[options]
        key, query = in_range(edge_index.long(), num_keys, num_queries)
        with kept_tensors():
            edge_of = torch.arange(key.numel(), device=key.device)
            num_edges = edge_of.numel()
            if symmetrize:
                key, query = torch.cat([key, query]), torch.cat([query, key])
                edge_of = edge_of.repeat(2)
            if self_loops:
                diagonal = torch.arange(num_queries, device=key.device)
                key, query = torch.cat([key, diagonal]), torch.cat([query, diagonal])
            out = cls._from_raw_pairs(query, key, num_queries, num_keys, edge_of, num_edges)
        if built is not None:
            built[options] = out
        return out

    @classmethod
    def from_dense(
        cls, mask: Tensor, *, symmetrize: bool = False, self_loops: bool = False
    ) -> EdgeSet:
        """Builds the pair set from a dense boolean mask that the data already holds.

        Args:
            mask: ``[num_sources, num_targets]`` bool, ``mask[src, dst] = True`` (the transpose of an attention mask).
            symmetrize: Add the reversed pairs.
            self_loops: Add the diagonal.

        Raises:
            TypeError: The mask is not boolean.
            ValueError: The mask is not a matrix.
        """
        check_bool_mask(mask, "mask")
        if mask.dim() != 2:
            raise ValueError(
                f"a dense mask must have shape [num_sources, num_targets], got {list(mask.shape)}"
            )
        return cls.from_edge_index(
            mask.nonzero().t(),
            mask.size(0),
            mask.size(1),
            symmetrize=symmetrize,
            self_loops=self_loops,
        )

    @classmethod
    def empty(
        cls, num_keys: int, num_queries: int, device: torch.device | str | None = None
    ) -> EdgeSet:
        """The pair set of a relation without edges."""
        nothing = torch.empty(2, 0, dtype=torch.long, device=device)
        return cls.from_edge_index(nothing, num_keys, num_queries)

    @classmethod
    def _from_raw_pairs(
        cls,
        query: Tensor,
        key: Tensor,
        num_queries: int,
        num_keys: int,
        edge_of: Tensor,
        num_edges: int,
    ) -> EdgeSet:
        # One sort of a combined index; torch.unique would give a data-dependent shape, which breaks compiled graphs.
        width = num_keys + 1  # one column more than there are keys, for the slots that no pair uses
        combined, order = torch.sort(query * width + key, stable=True)
        # Without an assignment to a slice, whose size torch 2.11 could not follow where it depends on data.
        is_first = combined != torch.cat([combined.new_full((1,), -1), combined])[:-1]
        slot = is_first.long().cumsum(0) - 1
        if torch.compiler.is_compiling():
            unused = num_queries * width + num_keys
            pairs = torch.full_like(combined, unused).scatter(0, slot, combined)
        else:
            pairs = combined[is_first]
        pair_of = torch.empty_like(slot).scatter(0, order, slot)
        starts = torch.arange(num_queries + 1, device=pairs.device) * width
        rowptr = torch.searchsorted(pairs, starts)
        row = torch.div(pairs, width, rounding_mode="floor")
        return cls(
            row,
            pairs - row * width,
            rowptr,
            num_queries,
            num_keys,
            edge_of,
            pair_of,
            num_edges,
            _is_sound=True,
        )

    # ---- use ---------------------------------------------------------------------------------------------------------

    @property
    def num_pairs(self) -> int:
        """Number of unique pairs (under ``torch.compile``: of slots)."""
        return self.row.numel()

    @property
    def device(self) -> torch.device:
        """Where the indices are."""
        return self.row.device

    def transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same pairs sorted by (key, query).

        Returns:
            ``(rowptr_t, row_t, perm)``: ``rowptr_t`` ``[num_keys + 1]``, the query ``row_t`` ``[P]`` of each pair in
            that order, and ``perm`` ``[P]`` so that ``values[perm]`` brings values of pairs into that order.
        """
        if self._transpose is None:
            with kept_tensors():
                sorted_col, perm = torch.sort(self.col, stable=True)
                bounds = torch.arange(self.num_keys + 1, device=self.device)
                self._transpose = (torch.searchsorted(sorted_col, bounds), self.row[perm], perm)
        return self._transpose

    def coalesce(self, edge_attr: Tensor) -> Tensor:
        """Brings attributes of input edges into the order of the pairs; merged edges are summed, with gradients.

        Args:
            edge_attr: ``[E]`` or ``[E, F]`` in the order of the input edges (PyG's sparse form).

        Returns:
            ``[P, F]`` (``F = 1`` for a vector), in this edge set's order.

        Raises:
            ValueError: The first dimension is not the number of input edges.
        """
        if edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        if edge_attr.size(0) != self.num_edges:
            raise ValueError(
                f"edge attributes must have one row per edge: expected {self.num_edges} rows, "
                f"got shape {list(edge_attr.shape)}"
            )
        if self.edge_of is None or self.pair_of is None:
            return edge_attr
        order = self._one_edge_each()
        if order is not None:
            return edge_attr.index_select(0, order)
        out = edge_attr.new_zeros(self.num_pairs, edge_attr.size(1))
        raw = edge_attr[self.edge_of]
        return out.index_add(0, self.pair_of[: raw.size(0)], raw)

    def _one_edge_each(self) -> Tensor | None:
        """The edge of each pair, if each has one, found once.

        In a compiled graph that depends on data, and a GPU would have to be waited for, so there nobody knows.
        """
        if torch.compiler.is_compiling() or self.edge_of is None or self.pair_of is None:
            return None
        if self.device.type != "cpu" or type(self.edge_of) is not Tensor:
            return None
        if self._edge_order is None:
            order = None
            if self.edge_of.numel() == self.pair_of.numel() == self.num_pairs:
                with kept_tensors():
                    order = _order_of(self.edge_of, self.pair_of)
            self._edge_order = (order,)
        return self._edge_order[0]

    def without_unused_slots(self) -> EdgeSet:
        """The pairs alone, where a compiled graph left slots. Their number is read, so a compiled graph may end here."""
        if self.pair_of is None or self.pair_of.numel() != self.num_pairs:
            return self  # slots are as many as raw pairs
        used: Any = self.rowptr[-1].item()  # int() would be a constant to torch.export
        return EdgeSet(
            self.row[:used],
            self.col[:used],
            self.rowptr,
            self.num_queries,
            self.num_keys,
            self.edge_of,
            self.pair_of,
            self.num_edges,
            _is_sound=True,
        )

    def edge_index(self) -> Tensor:
        """``[2, P]`` int64: sources (keys) and targets (queries) of the pairs."""
        return torch.stack([self.col, self.row])

    def to(self, device: torch.device | str) -> EdgeSet:
        """A copy on another device (itself when it is there already)."""
        row = self.row.to(device)
        if row is self.row:  # "cuda" is the current one of several devices
            return self

        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device)

        out = EdgeSet(
            row,
            self.col.to(device),
            self.rowptr.to(device),
            self.num_queries,
            self.num_keys,
            move(self.edge_of),
            move(self.pair_of),
            self.num_edges,
            _is_sound=True,
        )
        if self._transpose is not None:
            out._transpose = tuple(t.to(device) for t in self._transpose)  # type: ignore[assignment]
        return out

    def __repr__(self) -> str:
        return (
            f"EdgeSet(num_queries={self.num_queries}, num_keys={self.num_keys}, num_pairs={self.num_pairs}, "
            f"device={self.device})"
        )


def _order_of(edge_of: Tensor, pair_of: Tensor) -> Tensor | None:
    """The edge of each pair, where there are as many of both; nothing where a pair has none, and another has two."""
    order = torch.full_like(edge_of, -1).scatter_(0, pair_of, edge_of)
    return order if bool((order >= 0).all()) else None


def kept_tensors() -> contextlib.AbstractContextManager[None]:
    """Around what an edge set keeps: validation may come first, and training can't use what inference mode made."""
    return (
        contextlib.nullcontext() if torch.compiler.is_compiling() else torch.inference_mode(False)
    )


def _built_from(edge_index: Tensor) -> dict[Any, EdgeSet] | None:
    """Edge sets built from this tensor in its present state; ``None`` where nothing can be kept."""
    if torch.compiler.is_compiling() or type(edge_index) is not Tensor or edge_index.is_inference():
        return None  # subclasses and tensors of inference mode count no versions
    # edge_index.data = … brings other memory and counts no version.
    state = (edge_index._version, edge_index.data_ptr(), edge_index.shape)
    known = _BUILT.get(edge_index)
    if known is None or known[0] != state:
        known = _BUILT[edge_index] = (state, {})
    sets: dict[Any, EdgeSet] = known[1]
    return sets


def check_bool_mask(mask: Tensor, what: str, value: str | None = None) -> None:
    """Checks that a mask is a boolean tensor.

    Args:
        mask: The mask.
        what: What it is, for the message.
        value: How the caller writes it in Python (default: ``what``, the name of an argument).

    Raises:
        TypeError: It is not; the message says how to convert it.
    """
    value = what if value is None else value
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"{what} must be a boolean tensor, got {type(mask).__name__}; convert it once: "
            f"torch.as_tensor({value}, dtype=torch.bool)"
        )
    if mask.dtype != torch.bool:
        raise TypeError(
            f"{what} must be a boolean tensor, got {mask.dtype} where torch.bool is expected; convert it once: {value}.bool() if "
            f"it holds 1 and 0, {value} > -1e9 if it holds 0 and -inf (an additive mask)"
        )

"""What one relation's edge term may read: the relation's own fields and the layout of its two ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import is_sparse, to_edge_index

from pyg_nsa.attention.edges import EdgeSet, check_bool_mask
from pyg_nsa.nn.adjacency import matrix_values
from pyg_nsa.nn.node_layout import NodeLayout
from pyg_nsa.plain_index import plain_index

__all__ = ["RelationInputs"]


@dataclass(frozen=True)
class RelationInputs:
    """Inputs of one relation in one call.

    Attributes:
        edge_type: ``(source type, relation, target type)``.
        src: Layout of the source nodes (the keys).
        dst: Layout of the target nodes (the queries).
        fields: What the caller passed for this edge type, by field name (``edge_index``, ``stoichiometry``, …).
    """

    edge_type: tuple[str, str, str]
    src: NodeLayout
    dst: NodeLayout
    fields: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether the caller passed this field."""
        return self.fields.get(name) is not None

    def field(self, name: str, why: str = "") -> Any:
        """A field of this relation.

        Raises:
            ValueError: It is missing; the message names the field, the edge type and the fields that are there.
        """
        value = self.fields.get(name)
        if value is None:
            present = ", ".join(sorted(k for k, v in self.fields.items() if v is not None))
            raise ValueError(
                f"edge type {self.edge_type} has no '{name}'{why}; pass {name}_dict={{{self.edge_type}: …}} or "
                f"store it as data[{self.edge_type}].{name}. Fields present: {present or 'none'}"
            )
        return value

    def edge_attr(self, name: str, matrices: Sequence[str] = ()) -> Tensor:
        """A numeric edge attribute ``[E]`` or ``[E, F]`` in floating point.

        Integers come as float32 where that holds each of them exactly (up to 2**24), and else as float64 (up to 2**53). In a compiled
        graph, where values can't be read, all of 32 and 64 bits come as float64.

        Args:
            name: The field.
            matrices: Fields of edges; where the attribute is missing and the first of them that is there is a sparse matrix with
                values (``adj_t``), these are the attribute, as for PyG's convs.

        Raises:
            ValueError: It is missing, or holds NaN, infinite values or integers beyond 2**53.
            TypeError: It is not a tensor of numbers.
        """
        value = self.fields.get(name)
        if value is None:
            edges = next((self.fields[field] for field in matrices if self.has(field)), None)
            value = matrix_values(edges)
        if value is None:
            value = self.field(name)  # raises
        if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_complex():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"'{name}' of edge type {self.edge_type} must be a tensor of numbers, got {got}"
            )
        if value.dim() not in (1, 2):
            raise ValueError(
                f"'{name}' of edge type {self.edge_type} must have shape [E] or [E, F] (PyG's sparse form), got "
                f"{list(value.shape)}; edge attributes are never dense matrices here"
            )
        if not value.is_floating_point():
            return self._exactly(name, value)
        if not torch.compiler.is_compiling() and not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).reshape(value.size(0), -1).any(-1).nonzero()[0])
            raise ValueError(
                f"'{name}' of edge type {self.edge_type} is NaN or infinite at edge {bad}; clean the data "
                "(torch.nan_to_num) or drop those edges"
            )
        return value

    def _exactly(self, name: str, value: Tensor) -> Tensor:
        """Integers in floating point; float32 where it will do, since sums of float64 take twice as long."""
        if value.dtype.itemsize < 4:
            return value.float()
        signed = value.dtype in (torch.int32, torch.int64)  # torch finds no extremes of the others
        if signed and not torch.compiler.is_compiling():
            low, high = (int(v) for v in torch.aminmax(value)) if value.numel() else (0, 0)
            if max(-low, high) <= 2**24:
                return value.float()
            if max(-low, high) > 2**53:
                raise ValueError(
                    f"'{name}' of edge type {self.edge_type} holds integers from {low} to {high}, and beyond 2**53 floating-point "
                    f"numbers leave integers out: subtract what all have in common ({name} - {low}), or take a larger unit "
                    "(seconds for nanoseconds)"
                )
        return value.double()

    def edges_from_index(
        self, name: str, *, symmetrize: bool = False, self_loops: bool = False
    ) -> EdgeSet:
        """The pairs of a ``[2, E]`` index field in the edges' numbering; an :class:`EdgeSet` is taken as it is.

        Calls and relations with the same tensor get the same set, with the same :attr:`EdgeSet.derived`.

        Raises:
            ValueError: An ``EdgeSet``, and pairs are to be added.
        """
        index = self.field(name)
        if isinstance(index, EdgeSet):
            if symmetrize or self_loops:
                asked = " and ".join(
                    k for k, v in (("symmetrize", symmetrize), ("self_loops", self_loops)) if v
                )
                raise ValueError(
                    f"edge type {self.edge_type}: {asked} can't act on an EdgeSet, whose pairs are made; pass an edge_index, or make "
                    f"the EdgeSet with it: EdgeSet.from_edge_index(edge_index, {self.src.num_rows}, {self.dst.num_rows}, "
                    f"symmetrize={symmetrize}, self_loops={self_loops}), and leave the option out"
                )
            return index
        self._check_same_type(symmetrize, self_loops)
        if is_sparse(index):  # SparseTensor or torch.sparse; PyG stores either transposed
            index = to_edge_index(index)[0].flip(0)
        try:
            return EdgeSet.from_edge_index(
                self.rows(index),
                self.src.num_rows,
                self.dst.num_rows,
                symmetrize=symmetrize,
                self_loops=self_loops,
            )
        except (ValueError, TypeError) as error:
            raise type(error)(f"'{name}' of edge type {self.edge_type}: {error}") from None

    def rows(self, index: Tensor) -> Tensor:
        """``[2, E]`` in the edges' numbering as rows of the two ends' ``x``, which :class:`EdgeSet` counts in.

        The two differ where graphs of a batch have padding rows, and where a stack puts rows in another order.
        """
        if not (self.src.is_translated or self.dst.is_translated):
            return index
        well_formed = isinstance(index, Tensor) and index.dim() == 2 and index.size(0) == 2
        if not well_formed or index.is_floating_point() or index.dtype == torch.bool:
            return index  # EdgeSet names what is wrong with it
        src, dst = plain_index(index).long()
        return torch.stack([self.src.rows(src), self.dst.rows(dst)])

    def edges_from_dense(
        self, name: str, *, symmetrize: bool = False, self_loops: bool = False
    ) -> EdgeSet:
        """The pairs of a dense boolean mask, ``mask[src, dst] = True``.

        One graph: ``[N_src, N_dst]``. A PyG batch stacks the graphs' masks along dim 0: ``[B * N_src, N_dst]``.
        """
        mask = self.field(name)
        label = f"'{name}' of edge type {self.edge_type}"
        check_bool_mask(mask, label, f"{name}_dict[{self.edge_type}]")
        self._check_same_type(symmetrize, self_loops)
        src, dst = self.src, self.dst
        num_graphs = src.num_graphs or dst.num_graphs or 1
        num_graphs = 1 if src.is_shared else num_graphs
        height = dst.num_rows // num_graphs
        if (
            mask.dim() != 2
            or mask.size(0) != src.num_rows
            or mask.size(1) * num_graphs != dst.num_rows
        ):
            stacked = f" stacked for {num_graphs} graphs" if num_graphs > 1 else ""
            raise ValueError(
                f"{label} must have shape [{src.num_rows}, {height}] (rows: source nodes '{src.node_type}'"
                f"{stacked}, columns: target nodes '{dst.node_type}' of one graph), got {list(mask.shape)}"
            )
        # One size for both in a compiled graph; of a tuple torch 2.11 would not know that they are alike.
        row, col = mask.nonzero().unbind(1)
        if num_graphs > 1:
            col = col + torch.div(row, src.num_rows // num_graphs, rounding_mode="floor") * height
        return EdgeSet.from_edge_index(
            torch.stack([row, col]),
            src.num_rows,
            dst.num_rows,
            symmetrize=symmetrize,
            self_loops=self_loops,
        )

    def _check_same_type(self, symmetrize: bool, self_loops: bool) -> None:
        if (symmetrize or self_loops) and self.edge_type[0] != self.edge_type[2]:
            option = "symmetrize" if symmetrize else "self_loops"
            raise ValueError(
                f"option '{option}' of edge type {self.edge_type} needs source and target of one node type; "
                "declare the reverse relation as an edge type of its own instead"
            )

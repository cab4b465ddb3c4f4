"""The arguments of one heterogeneous call, sorted by relation and node type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet
from pyg_nsa.attention.renumbering import permute_rows, renumbered
from pyg_nsa.nn.call_checks import check_arguments, check_graphs, check_rows
from pyg_nsa.nn.call_fields import (
    NODE_FIELDS,
    NOTHING_READ,
    ORDER,
    POSITIONAL,
    TERM_FIELDS,
    ReadFields,
)
from pyg_nsa.nn.conv_arguments import EDGES, Parameters, by_place, edge_places, parameters, takes
from pyg_nsa.nn.dead_rows import without_dead_nan
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.node_layout import NodeLayout
from pyg_nsa.nn.numbering import Numbering
from pyg_nsa.nn.relation_inputs import RelationInputs
from pyg_nsa.nn.term_calls import DeclaredMessage, message_of, pairs_of

__all__ = ["EdgeType", "HeteroInputs"]

EdgeType = tuple[str, str, str]


class HeteroInputs:
    """One call's arguments in HeteroConv's form: ``(x_dict, edge_index_dict, *args_dict, **{name}_dict)``.

    Keeps what is computed once per call and used by every layer: the layout of each node type and the pair set of each
    relation.

    Args:
        owner: Class name for messages.
        args_dict: Positional dictionaries: node features, edge indices, edge attributes, more.
        kwargs_dict: Dictionaries by keyword; each name ends in ``_dict``.
        numbering: See :class:`~pyg_nsa.nn.node_layout.NodeLayout`.
        read: Names of the fields that relations read; those of nodes, such as ``pos``, go to PyG convs whose forward takes them, only.

    Raises:
        ValueError: A keyword that does not end in ``_dict`` (HeteroConv's error), or one that is nearly the name of a node field.
        TypeError: No node features, or an argument that is no dictionary.
    """

    def __init__(
        self,
        owner: str,
        args_dict: Sequence[Mapping[Any, Any]],
        kwargs_dict: Mapping[str, Mapping[Any, Any]],
        numbering: Numbering = "auto",
        read: ReadFields = NOTHING_READ,
    ) -> None:
        for name in kwargs_dict:
            if not name.endswith("_dict"):
                raise ValueError(
                    f"Keyword arguments in '{owner}' need to end with '_dict' (got '{name}')"
                )
        self.owner = owner
        self.args_dict = args_dict
        self.named: dict[str, Mapping[Any, Any]] = {
            k.removesuffix("_dict"): v for k, v in kwargs_dict.items()
        }
        fields = dict(self.named)
        for name, values in zip(POSITIONAL, args_dict, strict=False):
            fields.setdefault(name, values)
        if "x" not in fields:
            raise TypeError(f"'{owner}' needs node features: pass x_dict first or by keyword")
        if not isinstance(fields["x"], Mapping):
            raise TypeError(
                f"'{owner}' takes node features as a dictionary by node type (x_dict), got "
                f"{type(fields['x']).__name__}; of a HeteroData: conv(**conv.collect(data))"
            )
        check_arguments(owner, args_dict, self.named, read.anywhere)
        self.fields = fields
        self.x_dict: Mapping[str, Tensor] = fields["x"]
        self.numbering = numbering
        self.read = read
        self._layouts: dict[str, NodeLayout] = {}
        self._rows: dict[str, Tensor] = {}
        self._pairs: dict[EdgeType, EdgeSet] = {}
        self._has_layouts = any(name in self.named for name in NODE_FIELDS)
        # The call as it was given, where this one is in another order.
        self._given: HeteroInputs | None = None

    def has_edges(self, edge_type: EdgeType) -> bool:
        """Whether any edge-level argument was passed for this edge type."""
        for values in (*self.args_dict, *self.named.values()):
            if edge_type in values:
                return True
        return False

    def layout(self, node_type: str) -> NodeLayout:
        """How the rows of a node type are organised (resolved once per call).

        Raises:
            TypeError: ``x`` is no tensor, or a mask is not boolean.
            ValueError: ``x`` is neither ``[N, F]`` nor ``[B, N, F]``, or see :class:`~pyg_nsa.nn.node_layout.NodeLayout`.
        """
        if node_type not in self._layouts:
            x = self.x_dict[node_type]
            check_rows(node_type, x)
            options = {
                name: self.named[name].get(node_type) for name in NODE_FIELDS if name in self.named
            }
            check_graphs(node_type, self.x_dict, self.named)
            layout = NodeLayout(
                node_type, tuple(x.shape[:-1]), x.device, numbering=self.numbering, **options
            )
            self._check_numbering(layout)
            self._layouts[node_type] = layout
        return self._layouts[node_type]

    def rows(self, node_type: str) -> Tensor:
        """``x`` of a node type for layers of this package; NaN and infinite values of dead rows are 0 (found once per call)."""
        if self._given is not None:  # in which x is as its layouts say
            return self._given.rows(node_type)
        if node_type not in self._rows:
            alive = self.layout(node_type).alive
            self._rows[node_type] = without_dead_nan(self.x_dict[node_type], alive)
        return self._rows[node_type]

    def in_order(self) -> HeteroInputs:
        """The same call as blocks see it whose rows are in the order that ``order_dict`` says; itself without one.

        Layouts and pair sets are those of the ordered rows. ``edge_set_dict``, which
        :meth:`~pyg_nsa.HeteroNSA.prepare` makes together with the order, is taken as it is.
        """
        orders = self.named.get(ORDER)
        if not orders:
            return self
        # One by one: torch 2.11 can't trace an update of __dict__.
        out = HeteroInputs.__new__(HeteroInputs)
        out.args_dict, out.named, out.fields = self.args_dict, self.named, self.fields
        out.x_dict, out.numbering, out._has_layouts = self.x_dict, self.numbering, self._has_layouts
        out.owner, out.read = self.owner, self.read
        out._given = self
        out._pairs, out._rows = {}, {}
        out._layouts = {
            t: self.layout(t).in_order(orders[t]) if orders.get(t) is not None else self.layout(t)
            for t in self.x_dict
        }
        return out

    def into_order(self, node_type: str, x: Tensor) -> Tensor:
        """Rows ``[*, N, C]`` as the call has them, in the order of this view."""
        layout = self.layout(node_type)
        if layout.order is None or layout.place is None:
            return x
        return permute_rows(x, layout.order, layout.place)

    def out_of_order(self, node_type: str, x: Tensor) -> Tensor:
        """The inverse of :meth:`into_order`."""
        layout = self.layout(node_type)
        if layout.order is None or layout.place is None:
            return x
        return permute_rows(x, layout.place, layout.order)

    def _check_numbering(self, layout: NodeLayout) -> None:
        for other in self._layouts.values():
            if None not in (other.found, layout.found) and other.found != layout.found:
                raise ValueError(
                    f"the data mixes two numberings: node type '{other.node_type}' is {other.found} and node type "
                    f"'{layout.node_type}' is {layout.found}; make all node types of a data set alike"
                )

    def relation(self, edge_type: EdgeType) -> RelationInputs:
        """What the edge term of a relation may read."""
        fields = {name: d[edge_type] for name, d in self.fields.items() if edge_type in d}
        return RelationInputs(
            edge_type, self.layout(edge_type[0]), self.layout(edge_type[2]), fields
        )

    def pairs(self, relation: RelationInputs, term: EdgeTerm, kind: str) -> EdgeSet:
        """The pair set of a relation, computed by the first layer that asks and shared by the others.

        Args:
            relation: The relation.
            term: What finds its pairs.
            kind: Name of the kind that built the term, for messages.
        """
        edge_type = relation.edge_type
        if edge_type not in self._pairs:
            edges = relation.fields.get("edge_set")
            if edges is not None and self._given is None and self.named.get(ORDER):
                raise ValueError(
                    f"edge_set of edge type {edge_type} was prepared for rows in the order of order_dict, which only a "
                    "stack of blocks follows; leave both out, or say pattern='M' (or another)"
                )
            if edges is None and self._given is None:
                edges = pairs_of(term, relation, kind)
            elif edges is None:
                # Whatever a term does to find its pairs, it does it on the data as they are.
                edges = renumbered(
                    pairs_of(term, self._given.relation(edge_type), kind),  # type: ignore[union-attr]
                    relation.dst.place,
                    relation.src.place,
                )
            self._pairs[edge_type] = edges
        return self._pairs[edge_type]

    def run_conv(
        self,
        edge_type: EdgeType,
        conv: nn.Module,
        x_dict: Mapping[str, Tensor] | None = None,
        declared: DeclaredMessage | None = None,
    ) -> Any:
        """Calls a PyG conv for one relation, with arguments chosen as HeteroConv chooses them.

        Rows and edges that came by name go by place where the conv's forward has no such names.

        Where the call names dead rows or graphs, edges at dead rows are left out, indices are brought to the rows of ``x``,
        and dead rows get zero; unless the conv takes ``mask`` or ``pert_mask`` itself.

        Args:
            edge_type: The relation.
            conv: Whose forward is to be called.
            x_dict: Node features that replace the call's (those of a later layer).
            declared: What the conv's kind promises of its messages; ``None`` for a conv of the user's own.

        Raises:
            ValueError: Deleted nodes in a form that a PyG conv can't leave out; messages of a declared kind that are not as
                promised.
            TypeError: Messages of a declared kind that are no tensor.
        """
        if self._given is not None:
            # A conv reads any of the call's fields in its own way, so it gets all of them, and x, as they were given.
            src, _, dst = edge_type
            rows = self.x_dict if x_dict is None else x_dict
            rows = {t: self.out_of_order(t, rows[t]) for t in (src, dst) if t in rows}
            return self.into_order(dst, self._given.run_conv(edge_type, conv, rows, declared))
        edge_level: dict[Any, Any] = {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        accepted: Parameters | None = None
        for place, values in enumerate(self.args_dict):
            if place == 0 and x_dict is not None:
                values = x_dict
            found, value = _pick(values, edge_type)
            if found:
                args.append(value)
                if edge_type in values:
                    edge_level[len(args) - 1] = value
        for name, values in self.named.items():
            if name == ORDER:
                continue
            if name == "x" and x_dict is not None:
                values = x_dict
            if name in NODE_FIELDS or name in TERM_FIELDS:
                accepted = parameters(conv) if accepted is None else accepted
                if name not in accepted:
                    continue
            elif name in self.read.of_nodes and edge_type not in values:
                accepted = parameters(conv) if accepted is None else accepted
                if not takes(accepted, name):
                    continue
            found, value = _pick(values, edge_type)
            if found:
                kwargs[name] = value
                if edge_type in values:
                    edge_level[name] = value
        takes_care = accepted is not None and ("mask" in accepted or "pert_mask" in accepted)
        leaves_out = self._has_layouts and not takes_care
        if leaves_out:
            for place, value in self._living_edges(edge_type, conv, edge_level).items():
                if isinstance(place, int):
                    args[place] = value
                else:
                    kwargs[place] = value
        if not args:
            args, kwargs = by_place(parameters(conv) if accepted is None else accepted, kwargs)
        if declared is None:
            out = conv(*args, **kwargs)
        else:
            given = self.x_dict if x_dict is None else x_dict
            ends = [given.get(t) for t in (edge_type[0], edge_type[2])]
            out = message_of(conv, args, kwargs, declared, ends)
        return self._without_dead_rows(edge_type[2], out) if leaves_out else out

    def _living_edges(
        self, edge_type: EdgeType, conv: nn.Module, edge_level: dict[Any, Any]
    ) -> dict[Any, Any]:
        """Edge-level arguments with edges at dead rows left out, and indices as rows of ``x``."""
        src, _, dst = edge_type
        if src not in self.x_dict or dst not in self.x_dict:
            return edge_level
        relation = self.relation(edge_type)
        ends = (relation.src, relation.dst)
        if all(end.alive is None and not end.is_translated for end in ends):
            return edge_level
        places: tuple[Any, ...] = (EDGES[0], 1, *EDGES[1:], *edge_places(parameters(conv)))
        place_of_index = next((p for p in places if _is_index(edge_level.get(p))), None)
        if place_of_index is None or relation.src.is_shared:
            raise ValueError(
                f"edge type {edge_type} is a PyG conv module, which can leave out deleted nodes and padding only where its "
                "edges are an edge_index [2, E] and x is [N, F]; declare an edge kind for it, such as 'adjacency_mask', "
                "or pass data without dead rows"
            )
        index = relation.rows(edge_level[place_of_index])
        num_edges = index.size(1)
        keep = torch.ones(num_edges, dtype=torch.bool, device=index.device)
        for end, rows in zip(ends, index, strict=True):
            if end.alive is not None:
                keep = keep & end.alive[rows]
        out = {}
        for place, value in edge_level.items():
            if place == place_of_index:
                out[place] = index[:, keep]
            elif isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == num_edges:
                out[place] = value[keep]
        return out

    def _without_dead_rows(self, node_type: str, out: Any) -> Any:
        """A conv's output with zeros in dead rows."""
        if node_type not in self.x_dict:
            return out
        alive = self.layout(node_type).alive
        if alive is None or not isinstance(out, Tensor) or out.shape[: alive.dim()] != alive.shape:
            return out
        return out.masked_fill(~alive.view(*alive.shape, *[1] * (out.dim() - alive.dim())), 0.0)


def _pick(values: Mapping[Any, Any], edge_type: EdgeType) -> tuple[bool, Any]:
    """What a dictionary holds for a relation: the edge's entry, else its node type's, else a (source, target) pair."""
    src, _, dst = edge_type
    if edge_type in values:
        return True, values[edge_type]
    if src == dst and src in values:
        return True, values[src]
    if src in values or dst in values:
        return True, (values.get(src), values.get(dst))
    return False, None


def _is_index(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.dim() == 2
        and value.size(0) == 2
        and not value.is_floating_point()
    )


def attach_zero_gradient(out: dict[str, Tensor], module: nn.Module) -> None:
    """Adds zero times each parameter of ``module`` to one output, in place of ``out``'s entry.

    A parameter that a batch did not use then has a zero gradient instead of none, which distributed training needs
    (DistributedDataParallel waits for every parameter).
    """
    if not torch.is_grad_enabled():
        return
    parameters = [p for p in module.parameters() if p.requires_grad and not nn.parameter.is_lazy(p)]
    for name, value in out.items():
        if parameters and isinstance(value, Tensor) and value.is_floating_point():
            # Sums of nothing: a lazy layer's bias is memory that nothing was written to, and zero times NaN is NaN.
            nothing = sum(p.flatten()[:0].sum() for p in parameters)
            out[name] = value + nothing.to(value.dtype)  # type: ignore[union-attr]
            return

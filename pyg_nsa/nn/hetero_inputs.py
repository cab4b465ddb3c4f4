"""The arguments of one heterogeneous call, sorted by relation and node type."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.node_layout import NodeLayout, Numbering
from pyg_nsa.nn.relation_inputs import RelationInputs

__all__ = ["NODE_FIELDS", "EdgeType", "HeteroInputs"]

EdgeType = tuple[str, str, str]

#: Keyword arguments (without ``_dict``) that say how the rows of a node type are organised.
NODE_FIELDS = ("mask", "pert_mask", "batch", "ptr", "x_ptr")

#: Fields of relations that only edge terms read; a PyG conv gets them only if its forward names them.
_TERM_FIELDS = ("edge_set", "hyperedge_index", "adj_mask", "inc_mask", "stoichiometry")

_POSITIONAL = ("x", "edge_index", "edge_attr")


class HeteroInputs:
    """One call's arguments in HeteroConv's form: ``(x_dict, edge_index_dict, *args_dict, **{name}_dict)``.

    Keeps what is computed once per call and used by every layer: the layout of each node type and the pair set of each
    relation.

    Args:
        owner: Class name for messages.
        args_dict: Positional dictionaries: node features, edge indices, edge attributes, more.
        kwargs_dict: Dictionaries by keyword; each name ends in ``_dict``.
        numbering: See :class:`~pyg_nsa.nn.node_layout.NodeLayout`.

    Raises:
        ValueError: A keyword that does not end in ``_dict`` (HeteroConv's error).
        TypeError: No node features.
    """

    def __init__(
        self,
        owner: str,
        args_dict: Sequence[Mapping[Any, Any]],
        kwargs_dict: Mapping[str, Mapping[Any, Any]],
        numbering: Numbering = "auto",
    ) -> None:
        for name in kwargs_dict:
            if not name.endswith("_dict"):
                raise ValueError(
                    f"Keyword arguments in '{owner}' need to end with '_dict' (got '{name}')"
                )
        self.args_dict = args_dict
        self.named: dict[str, Mapping[Any, Any]] = {
            k.removesuffix("_dict"): v for k, v in kwargs_dict.items()
        }
        fields = dict(self.named)
        for name, values in zip(_POSITIONAL, args_dict, strict=False):
            fields.setdefault(name, values)
        if "x" not in fields:
            raise TypeError(f"'{owner}' needs node features: pass x_dict first or by keyword")
        self.fields = fields
        self.x_dict: Mapping[str, Tensor] = fields["x"]
        self.numbering = numbering
        self._layouts: dict[str, NodeLayout] = {}
        self._pairs: dict[EdgeType, EdgeSet] = {}
        #: Modules that this call had no input for; their parameters get a zero gradient.
        self.skipped: list[nn.Module] = []

    def has_edges(self, edge_type: EdgeType) -> bool:
        """Whether any edge-level argument was passed for this edge type."""
        return any(edge_type in d for d in (*self.args_dict, *self.named.values()))

    def layout(self, node_type: str) -> NodeLayout:
        """How the rows of a node type are organised (resolved once per call)."""
        if node_type not in self._layouts:
            x = self.x_dict[node_type]
            options = {
                name: self.named[name].get(node_type) for name in NODE_FIELDS if name in self.named
            }
            self._layouts[node_type] = NodeLayout(
                node_type, tuple(x.shape[:-1]), x.device, numbering=self.numbering, **options
            )
        return self._layouts[node_type]

    def relation(self, edge_type: EdgeType) -> RelationInputs:
        """What the edge term of a relation may read."""
        fields = {name: d[edge_type] for name, d in self.fields.items() if edge_type in d}
        return RelationInputs(
            edge_type, self.layout(edge_type[0]), self.layout(edge_type[2]), fields
        )

    def pairs(self, relation: RelationInputs, term: EdgeTerm) -> EdgeSet:
        """The pair set of a relation, computed by the first layer that asks and shared by the others."""
        if relation.edge_type not in self._pairs:
            prepared = relation.fields.get("edge_set")
            self._pairs[relation.edge_type] = (
                term.pairs(relation) if prepared is None else prepared
            )
        return self._pairs[relation.edge_type]

    def conv_arguments(
        self, edge_type: EdgeType, conv: nn.Module, x_dict: Mapping[str, Tensor] | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of a PyG conv for one relation, chosen as HeteroConv chooses them.

        Args:
            edge_type: The relation.
            conv: Whose forward is to be called.
            x_dict: Node features that replace the call's (those of a later layer).
        """
        positional = list(self.args_dict)
        named = dict(self.named)
        if x_dict is not None:
            if positional:
                positional[0] = x_dict
            else:
                named["x"] = x_dict
        args = [v for d in positional if (v := _pick(d, edge_type)) is not _NOTHING]
        accepted = _accepted_names(conv)
        kwargs = {}
        for name, d in named.items():
            if name in (*NODE_FIELDS, *_TERM_FIELDS) and name not in accepted:
                continue
            value = _pick(d, edge_type)
            if value is not _NOTHING:
                kwargs[name] = value
        return args, kwargs


_NOTHING = object()


def _pick(values: Mapping[Any, Any], edge_type: EdgeType) -> Any:
    """What a dictionary holds for a relation: the edge's entry, else its node type's, else a (source, target) pair."""
    src, _, dst = edge_type
    if edge_type in values:
        return values[edge_type]
    if src == dst and src in values:
        return values[src]
    if src in values or dst in values:
        return (values.get(src), values.get(dst))
    return _NOTHING


def _accepted_names(conv: nn.Module) -> Iterable[str]:
    return inspect.signature(conv.forward).parameters


def attach_zero_gradient(out: dict[str, Tensor], modules: Iterable[nn.Module]) -> None:
    """Adds zero times each parameter of ``modules`` to one output, in place of ``out``'s entry.

    A parameter that a batch did not use then has a zero gradient instead of none, which distributed training needs
    (DistributedDataParallel waits for every parameter).
    """
    if not torch.is_grad_enabled():
        return
    parameters = [
        p
        for m in modules
        for p in m.parameters()
        if p.requires_grad and not nn.parameter.is_lazy(p)
    ]
    if not parameters:
        return
    for name, value in out.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            zero = sum((p * 0.0).sum() for p in parameters)
            out[name] = value + zero
            return

"""HeteroNSAConv: HeteroConv, with declared edge kinds beside conv modules, and with blocks on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import HeteroConv

from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.load import load_config
from pyg_nsa.nn.call_checks import check_edge_types, check_ends
from pyg_nsa.nn.collecting import collect, fields_read, wanted_fields, wanted_now
from pyg_nsa.nn.declared import check_sizes, checked_dims, current_config
from pyg_nsa.nn.grouping import Aggr, check_aggr, group
from pyg_nsa.nn.hetero_inputs import EdgeType, HeteroInputs, attach_zero_gradient
from pyg_nsa.nn.hetero_nsa import HeteroNSA
from pyg_nsa.nn.made_from import describe_config, describe_relations
from pyg_nsa.nn.node_order import NodeOrder
from pyg_nsa.nn.nsa_conv import check_heads
from pyg_nsa.nn.numbering import Numbering
from pyg_nsa.nn.option_checks import check_numbering
from pyg_nsa.nn.relation_attention import RelationAttention
from pyg_nsa.nn.relation_sums import add_messages
from pyg_nsa.nn.relations import Relation, as_relations, build_relation
from pyg_nsa.nn.term_calls import declared_messages
from pyg_nsa.nn.unread_fields import warn_of_unread
from pyg_nsa.registry import Registry

__all__ = ["HeteroNSAConv"]


class HeteroNSAConv(HeteroConv):
    r"""A superset of :class:`torch_geometric.nn.HeteroConv`: same call, and each edge type may be declared.

    Values of ``convs`` are PyG conv modules, declared edge kinds, or a mix:

    .. code-block:: python

        conv = HeteroNSAConv({
            ('gene', 'physical', 'gene'): 'adjacency_mask',
            ('reaction', 'rmr', 'metabolite'): {'kind': 'stoichiometry_bias'},
            ('gene', 'gpr', 'reaction'): SAGEConv((-1, -1), 64),
        }, hidden_channels=64)
        out_dict = conv(x_dict, edge_index_dict, stoichiometry_dict=stoichiometry_dict)
        out_dict = conv(**conv.collect(data))

    Without ``pattern`` it is one bare step as HeteroConv is: messages, grouped by ``aggr``; no norm, no residual, no
    MLP. With a pattern such as ``"MSMS"`` it is that stack of blocks (:class:`HeteroNSA`).

    Args:
        convs: What each edge type is: a conv module, a kind's name, a spec, or ``{"kind": …, "options": …}``; or a
            list of specs.
        aggr: HeteroConv's values (``"sum"``, ``"mean"``, ``"min"``, ``"max"``, ``"cat"``, ``None``), or any
            ``torch_geometric.nn.aggr.Aggregation`` (learned grouping).
        pattern: ``None`` for one bare step, or one letter per block.
        hidden_channels: Size of the messages of declared kinds (and of the rows of a stack).
        in_channels: Size of ``x``: one number, one for each node type, or ``-1`` to take it from the first call.
        out_channels: Size of a stack's output; of a bare step's messages (default: ``hidden_channels``).
        heads: Number of heads of declared kinds.
        dropout: Dropout of messages and in MLPs.
        mlp_ratio: Hidden size of each MLP of a stack as a multiple of ``hidden_channels``; 0: none.
        sab_types: Node types that get self-attention in S blocks (default: all).
        induced_points: Induced points of each SAB; ``None``: exact.
        num_nodes: Node types of a stack that get learned embeddings, with the number of nodes of the base graph
            (:class:`HeteroNSA`).
        numbering: Numbering of data with deleted nodes; ``"auto"`` recognises it.
        registry: Where kinds are looked up (default: the installed plugins).
        edge_attr_dims: Columns of the attribute that the kind of an edge type reads, such as ``{(…): 3}`` for ``edge_attr``
            ``[E, 3]`` (default: taken from the first call). With ``in_channels``, all parameters are there before it.

    Shapes:
        HeteroConv's: ``conv(x_dict, edge_index_dict, *args_dict, **{name}_dict)`` gives ``out_dict`` with the target
        node types (a stack: all node types).

    Raises:
        ValueError: See :class:`HeteroNSA`; a keyword that does not end in ``_dict``; declared kinds without
            ``hidden_channels``.
        ConfigError: Edge types, kinds or options that are wrong: all of them, each with its edge type.
    """

    def __init__(
        self,
        convs: Mapping[EdgeType, Relation] | Sequence[EdgeSpec],
        aggr: Aggr = "sum",
        pattern: str | None = None,
        *,
        hidden_channels: int | None = None,
        in_channels: int | Mapping[str, int] = -1,
        out_channels: int | None = None,
        heads: int = 4,
        dropout: float = 0.0,
        mlp_ratio: float = 2.0,
        sab_types: Sequence[str] | None = None,
        induced_points: int | None = None,
        num_nodes: Mapping[str, int] | None = None,
        numbering: Numbering = "auto",
        registry: Registry | None = None,
        edge_attr_dims: Mapping[EdgeType, int] | None = None,
    ) -> None:
        relations = as_relations(convs, registry)
        check_sizes("in_channels", in_channels, relations)
        edge_attr_dims = checked_dims(edge_attr_dims, relations)
        check_aggr(aggr)
        check_numbering(numbering)
        declares = any(isinstance(relation, EdgeSpec) for relation in relations.values())
        name, size = "hidden_channels", hidden_channels
        if size is None or (pattern is None and out_channels is not None):
            name, size = "out_channels", out_channels
        if size is None and (pattern is not None or declares):
            raise ValueError(
                "hidden_channels is needed: it is the size of the messages of declared edge kinds, such as "
                "HeteroNSAConv({…}, hidden_channels=64)"
            )
        stack = None
        modules: dict[EdgeType, nn.Module] = {}
        if pattern is not None:
            assert size is not None
            stack = HeteroNSA(
                in_channels,
                size,
                relations,
                pattern,
                heads,
                aggr,
                out_channels,
                dropout,
                mlp_ratio,
                sab_types,
                induced_points,
                num_nodes,
                numbering,
                registry,
                edge_attr_dims,
            )
        else:
            stack_only = dict(
                num_nodes=num_nodes, sab_types=sab_types, induced_points=induced_points
            )
            given = [option for option, value in stack_only.items() if value]
            if given:
                raise ValueError(
                    f"{given[0]} belongs to a stack of blocks: say pattern='MS' (or another), or leave {given[0]} out"
                )
            if declares:
                assert size is not None
                check_heads(size, heads, name)
            for edge_type, relation in relations.items():
                if isinstance(relation, EdgeSpec):
                    assert size is not None
                    src, dst = (_size_of(in_channels, t) for t in (edge_type[0], edge_type[2]))
                    dim = edge_attr_dims.get(edge_type, -1)
                    relation = build_relation(
                        relation, (src, dst), size, heads, dropout, registry, dim
                    )
                modules[edge_type] = relation
        # The convs of a stack, and a learned grouping, are in its blocks.
        in_blocks = stack is not None and isinstance(aggr, nn.Module)
        super().__init__(modules, None if in_blocks else aggr)  # type: ignore[arg-type]
        self.relations = relations
        self.declared_messages = declared_messages(relations, size or 0)
        self.wanted = wanted_fields(relations, registry)
        self.read = fields_read(self.wanted)
        self._told: set[str] = set()
        # Of which `wanted` holds.
        self._known = dict(self.convs.items())
        if stack is None:  # else the stack says it
            describe_relations(self, relations, registry, heads, aggr)
        self.pattern = pattern
        self.numbering = numbering
        self.stack = stack
        #: The configuration that this module was built from, if it was.
        self.config: HeteroNSAConfig | None = None

    @classmethod
    def from_config(
        cls,
        config: HeteroNSAConfig | Mapping[str, Any] | str | Path,
        *,
        registry: Registry | None = None,
        edge_attr_dims: Mapping[EdgeType, int] | None = None,
    ) -> HeteroNSAConv:
        """Builds the operator that a configuration declares.

        Args:
            config: A configuration, a mapping, or the path of a YAML, JSON or TOML file.
            registry: Where kinds are looked up (default: the installed plugins).
            edge_attr_dims: As in the constructor; ``build_operator(config, data)`` takes them from the data.

        Raises:
            ConfigError: All problems of the configuration at once, with file, line and path.
            ValueError: The configuration names another operator.
        """
        if not isinstance(config, HeteroNSAConfig):
            config = load_config(config, registry=registry)
        if config.operator != "hetero_nsa":
            raise ValueError(
                f"this configuration is for operator '{config.operator}'; HeteroNSAConv is operator 'hetero_nsa'"
            )
        config = current_config(config, config.registry(registry))
        out = cls(
            config.edges,
            config.aggr,
            config.pattern,
            hidden_channels=config.hidden_channels,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            heads=config.heads,
            dropout=config.dropout,
            mlp_ratio=config.mlp_ratio,
            sab_types=config.sab.node_types,
            induced_points=config.sab.induced_points,
            num_nodes=config.num_nodes,
            numbering=config.numbering,
            registry=config.registry(registry),
            edge_attr_dims=edge_attr_dims,
        )
        out.config = config
        describe_config(out, config, config.registry(registry))
        return out

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        super().reset_parameters()
        if self.stack is not None:
            self.stack.reset_parameters()
        if isinstance(self.aggr, nn.Module):
            self.aggr.reset_parameters()

    def collect(self, data: Any) -> dict[str, dict[Any, Any]]:
        """The keyword arguments of a call, gathered from a ``HeteroData`` or a batch of them.

        A declared kind gets the fields that it reads. A conv module gets the edges, under whatever name its forward takes them, and
        the fields of its edges (``edge_weight``) and nodes (``pos``) that its forward names; ``edge_attr`` not if it was built
        without edge attributes (``edge_dim=None``, ``lin_edge`` that is ``None``, and what PyG's convs have in their place). Of a
        forward with ``**kwargs`` nobody can tell what it takes beside the edges, so it gets the edges alone.

        Modules that were put into ``convs`` of a bare step after it was made, or taken out, count; a stack stays as it was made.

        ``adj_t`` stands in for edges that have no index (PyG's ``ToSparseTensor``), and its values for the attribute that was moved into it.

        Raises:
            ValueError: A field that a relation's kind requires is missing.
        """
        if self.stack is not None:
            return self.stack.collect(data)
        self._look_at_convs()
        return collect(data, self.wanted)

    def _look_at_convs(self) -> None:
        """Brings ``wanted`` up to date where others put modules into ``convs``, as may be done with a HeteroConv."""
        convs = dict(self.convs.items())
        if convs == self._known:
            return
        self.wanted = wanted_now(self.wanted, self._known, convs)
        self.read = fields_read(self.wanted)
        # Of a module in the place of what a kind built, the kind promises nothing.
        promised = self.declared_messages.items()
        self.declared_messages = {e: m for e, m in promised if convs.get(e) is self._known[e]}
        self._known = convs

    def prepare(
        self, data: Any, node_order: NodeOrder | Mapping[str, Tensor] = "natural"
    ) -> dict[str, dict[Any, Any]]:
        """:meth:`collect` for a graph that many calls share; with a stack also its pair sets and an order of its nodes.

        See :meth:`HeteroNSA.prepare`. A bare step (``pattern=None``) finds its pair sets again by itself, as long as it is
        given the same ``edge_index`` tensors.

        Raises:
            ValueError: A field is missing, or an order is asked for without a stack, whose blocks would follow it.
            ImportError: scipy, which finds the order, is not installed.
        """
        if self.stack is not None:
            return self.stack.prepare(data, node_order)
        if node_order != "natural":
            raise ValueError(
                "a bare step (pattern=None) keeps the order of the data; an order of the nodes belongs to a stack, "
                "for example pattern='M'"
            )
        return self.collect(data)

    def forward(self, *args_dict: Any, **kwargs_dict: Any) -> dict[str, Tensor]:
        """Runs the operator; the call is HeteroConv's.

        Args:
            *args_dict: ``x_dict``, ``edge_index_dict`` (values: ``[2, E]``, ``SparseTensor``, or for declared kinds an
                :class:`~pyg_nsa.EdgeSet`), and further arguments of PyG convs.
            **kwargs_dict: Arguments by name, each ending in ``_dict``: ``edge_attr_dict``, ``hyperedge_index_dict``,
                ``adj_mask_dict``, ``inc_mask_dict``, ``stoichiometry_dict`` by edge type; ``mask_dict``,
                ``pert_mask_dict``, ``batch_dict``, ``ptr_dict``, ``x_ptr_dict``, ``n_id_dict`` (see :class:`HeteroNSA`)
                by node type. One by edge type that no relation reads is warned of, once.

        Returns:
            Rows of each target node type; edge types without input are skipped.
        """
        if self.stack is None and not torch.compiler.is_compiling():
            self._look_at_convs()
        inputs = HeteroInputs(
            type(self).__name__, args_dict, kwargs_dict, self.numbering, self.read
        )
        if self.stack is not None:
            return self.stack.run(inputs)
        warn_of_unread(inputs, self.wanted, self._told)
        declared = [e for e, conv in self.convs.items() if isinstance(conv, RelationAttention)]
        check_ends(inputs.fields, declared)
        convs: dict[EdgeType, nn.Module] = {}
        for edge_type, conv in self.convs.items():
            has_ends = edge_type[0] in inputs.x_dict and edge_type[2] in inputs.x_dict
            if inputs.has_edges(edge_type) and (
                has_ends or not isinstance(conv, RelationAttention)
            ):
                convs[edge_type] = conv
        # HeteroConv passes over edge types that it lacks; text is none.
        if not convs and any(isinstance(key, str) for key in inputs.fields.get("edge_index", ())):
            check_edge_types(inputs.fields, self.relations)
        complete = len(convs) == len(self.convs)
        messages: dict[str, list[Tensor]] = {dst: [] for _, _, dst in convs}
        if self.aggr == "sum":
            attended = {t for e in declared if e in convs for t in (e[0], e[2])}
            rows = {t: inputs.rows(t) for t in attended}
            sums, convs = add_messages(convs, rows, inputs, {})
            for dst, message in sums.items():
                messages[dst].append(message)
        for edge_type, conv in convs.items():
            src, _, dst = edge_type
            if isinstance(conv, RelationAttention):
                message = conv((inputs.rows(src), inputs.rows(dst)), inputs)
            else:
                message = inputs.run_conv(
                    edge_type, conv, declared=self.declared_messages.get(edge_type)
                )
            messages[dst].append(message)
        out = {t: group(m, self.aggr) for t, m in messages.items()}
        if not complete:
            attach_zero_gradient(out, self)
        return out

    def __repr__(self) -> str:
        if self.pattern is None:
            return f"{type(self).__name__}(num_relations={len(self.relations)})"
        return (
            f"{type(self).__name__}(num_relations={len(self.relations)}, pattern='{self.pattern}')"
        )


def _size_of(in_channels: int | Mapping[str, int], node_type: str) -> int:
    return in_channels if isinstance(in_channels, int) else in_channels.get(node_type, -1)

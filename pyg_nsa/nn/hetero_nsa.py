"""HeteroNSA: the interleaved heterogeneous stack."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.utils.hetero import check_add_self_loops

from pyg_nsa.attention.renumbering import renumbered
from pyg_nsa.config import EdgeSpec
from pyg_nsa.nn.call_checks import check_edge_types, check_ends
from pyg_nsa.nn.collecting import collect, fields_read, wanted_fields
from pyg_nsa.nn.declared import check_sizes, checked_dims
from pyg_nsa.nn.grouping import Aggr
from pyg_nsa.nn.hetero_inputs import EdgeType, HeteroInputs, attach_zero_gradient
from pyg_nsa.nn.hetero_masked_attention_block import HeteroMaskedAttentionBlock
from pyg_nsa.nn.made_from import describe_relations
from pyg_nsa.nn.node_input import NodeInput
from pyg_nsa.nn.node_order import NodeOrder, check_orders, node_orders, places
from pyg_nsa.nn.nsa_conv import check_heads
from pyg_nsa.nn.nsa_encoder import check_pattern
from pyg_nsa.nn.numbering import Numbering
from pyg_nsa.nn.option_checks import check_at_least_one, check_num_nodes, check_numbering
from pyg_nsa.nn.relation_attention import RelationAttention
from pyg_nsa.nn.relations import Relation, as_relations, build_relation
from pyg_nsa.nn.self_attention_block import SelfAttentionBlock
from pyg_nsa.nn.term_calls import declared_messages
from pyg_nsa.nn.unread_fields import warn_of_unread
from pyg_nsa.registry import Registry

__all__ = ["HeteroNSA"]


class HeteroNSA(nn.Module):
    r"""Interleaved masked and self-attention over a heterogeneous graph.

    Input projection (and learned embeddings) per node type, then one block per letter of ``pattern``: ``M`` is masked
    attention along every declared relation (:class:`HeteroMaskedAttentionBlock`), ``S`` is self-attention among the
    nodes of a type (:class:`SelfAttentionBlock`). MAB and SAB as in the Set Transformer (Lee et al. 2019) and in
    edge-set attention (Buterez et al., Nature Communications 2025).

    .. code-block:: python

        model = HeteroNSA(-1, 64, {
            ('gene', 'physical', 'gene'): 'adjacency_mask',
            ('gene', 'gpr', 'reaction'): 'incidence_mask',
            ('reaction', 'rmr', 'metabolite'): 'stoichiometry_bias',
        }, pattern='MSMS')
        out_dict = model(**model.collect(data))

    Args:
        in_channels: Size of ``x``: one number, one for each node type, or ``-1`` to take it from the first call.
        hidden_channels: Size of the rows inside the stack.
        edges: What each edge type is: a kind's name, a spec, ``{"kind": …, "options": …}``, or a PyG conv from
            ``hidden_channels`` to ``hidden_channels`` (each M block gets its own copy, reset); or a list of specs.
        pattern: One letter per block.
        heads: Number of heads; must divide ``hidden_channels``.
        aggr: How the messages of several relations are grouped: ``"sum"``, ``"mean"``, ``"min"``, ``"max"``, or a
            ``torch_geometric.nn.aggr.Aggregation``.
        out_channels: Size of the output rows (default: ``hidden_channels``, without a projection).
        dropout: Dropout of messages and in MLPs.
        mlp_ratio: Hidden size of each MLP as a multiple of ``hidden_channels``; 0: none.
        sab_types: Node types that get self-attention in S blocks (default: all).
        induced_points: Induced points of each SAB; ``None``: exact.
        num_nodes: Node types that get learned embeddings, with the number of nodes of the base graph. In a call each of its
            graphs has all of them as rows, in their order, or ``n_id_dict`` says which they are.
        numbering: Numbering of data with deleted nodes; ``"auto"`` recognises it.
        registry: Where kinds are looked up (default: the installed plugins).
        edge_attr_dims: Columns of the attribute that the kind of an edge type reads (default: taken from the first call).

    Shapes:
        The call is HeteroConv's, ``model(x_dict, edge_index_dict, *args_dict, **{name}_dict)``; ``x`` is ``[N, F]``, or
        ``[B, N, F]`` for B copies of one base graph (edges of the base graph, ``mask_dict`` ``[B, N]`` of living
        nodes). The result holds ``[N, out_channels]`` for every node type in ``x_dict``. ``order_dict`` (``[N]`` int64
        permutations, see :meth:`prepare`) numbers the rows differently inside of the stack and changes nothing else; with a
        PyG batch it may be the order of the base graph's nodes. ``n_id_dict`` (``[N]`` int64: the base graph's node of each
        row, as PyG's ``NeighborLoader`` gives it) says whose learned embedding a row gets.

    Raises:
        ValueError: Bad pattern, heads, node types, or data that does not fit; see the messages.
        ConfigError: Edge types, kinds or options that are wrong: all of them, each with its edge type.
    """

    def __init__(
        self,
        in_channels: int | Mapping[str, int],
        hidden_channels: int,
        edges: Mapping[EdgeType, Relation] | Sequence[EdgeSpec],
        pattern: str = "MS",
        heads: int = 4,
        aggr: Aggr = "sum",
        out_channels: int | None = None,
        dropout: float = 0.0,
        mlp_ratio: float = 2.0,
        sab_types: Sequence[str] | None = None,
        induced_points: int | None = None,
        num_nodes: Mapping[str, int] | None = None,
        numbering: Numbering = "auto",
        registry: Registry | None = None,
        edge_attr_dims: Mapping[EdgeType, int] | None = None,
    ) -> None:
        super().__init__()
        check_heads(hidden_channels, heads, "hidden_channels")
        self.relations = as_relations(edges, registry)
        check_sizes("in_channels", in_channels, self.relations)
        edge_attr_dims = checked_dims(edge_attr_dims, self.relations)
        for edge_type, relation in self.relations.items():
            check_add_self_loops(relation, [edge_type])
        self.wanted = wanted_fields(self.relations, registry)
        self.read = fields_read(self.wanted)
        self._told: set[str] = set()
        describe_relations(self, self.relations, registry, heads, aggr)
        # Declared order, never a set's: initialisation depends on it.
        self.node_types = list(
            dict.fromkeys(t for src, _, dst in self.relations for t in (src, dst))
        )
        self.pattern = check_pattern(pattern)
        self.hidden_channels = hidden_channels
        self.heads = heads
        self.numbering = numbering
        check_numbering(numbering)
        if out_channels is not None:
            check_at_least_one("out_channels", out_channels)
        if num_nodes is None:
            num_nodes = {}
        check_num_nodes(num_nodes)
        if isinstance(sab_types, str):
            raise TypeError(f"sab_types is a list of node types: sab_types=['{sab_types}']")
        sab_types = self.node_types if sab_types is None else list(sab_types)
        for what, names in (("sab_types", sab_types), ("num_nodes", num_nodes)):
            unknown = [t for t in names if t not in self.node_types]
            if unknown:
                raise ValueError(
                    f"{what} names node type '{unknown[0]}', which no edge type has; "
                    f"node types: {', '.join(self.node_types)}"
                )
        self.inputs = ModuleDict(
            {
                t: NodeInput(
                    t,
                    in_channels if isinstance(in_channels, int) else in_channels.get(t, -1),
                    hidden_channels,
                    num_nodes.get(t),
                )
                for t in self.node_types
            }
        )
        self.blocks = nn.ModuleList()
        first = True
        for letter in pattern:
            if letter == "S":
                self.blocks.append(
                    ModuleDict(
                        {
                            t: SelfAttentionBlock(
                                hidden_channels, heads, mlp_ratio, dropout, induced_points
                            )
                            for t in self.node_types
                            if t in sab_types
                        }
                    )
                )
                continue
            convs = {
                edge_type: self._conv(
                    value, first, dropout, registry, edge_attr_dims.get(edge_type, -1)
                )
                for edge_type, value in self.relations.items()
            }
            aggr_of_block = aggr if first else _own_copy(aggr)
            self.blocks.append(
                HeteroMaskedAttentionBlock(
                    convs,
                    self.node_types,
                    hidden_channels,
                    aggr_of_block,
                    mlp_ratio,
                    dropout,
                    declared_messages(self.relations, hidden_channels),
                )
            )
            first = False
        self.outputs: ModuleDict | None = None
        if out_channels is not None:
            self.outputs = ModuleDict(
                {t: nn.Linear(hidden_channels, out_channels) for t in self.node_types}
            )

    def _conv(
        self,
        value: nn.Module | EdgeSpec,
        is_first: bool,
        dropout: float,
        registry: Registry | None,
        edge_attr_dim: int,
    ) -> nn.Module:
        if isinstance(value, EdgeSpec):
            size = self.hidden_channels
            return build_relation(
                value, (size, size), size, self.heads, dropout, registry, edge_attr_dim
            )
        return value if is_first else _own_copy(value)

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for module in self.inputs.values():
            module.reset_parameters()
        for block in self.blocks:
            for module in block.values() if isinstance(block, ModuleDict) else [block]:
                module.reset_parameters()
        if self.outputs is not None:
            for module in self.outputs.values():
                module.reset_parameters()

    def collect(self, data: Any) -> dict[str, dict[Any, Any]]:
        """The keyword arguments of a call, gathered from a ``HeteroData`` or a batch of them.

        Of node types with learned embeddings that includes ``n_id``, which sampled batches hold.

        Raises:
            ValueError: A field that a relation's kind requires is missing.
        """
        embedded = [t for t, entrance in self.inputs.items() if entrance.embedding is not None]
        return collect(data, self.wanted, embedded)

    def prepare(
        self, data: Any, node_order: NodeOrder | Mapping[str, Tensor] = "natural"
    ) -> dict[str, dict[Any, Any]]:
        """Like :meth:`collect`, with the pair set of each declared relation built once (``edge_set_dict``).

        For a base graph that many calls share: pass the result again with other ``x_dict`` and ``mask_dict``.

        On a GPU the time of masked attention goes with the tiles of 128 x 128 that hold a pair. Another order of the nodes
        can halve their number. Rows are put in that order once, after the input projection, and back once, at the end, so
        that everything in a call and in its result keeps the numbering of ``data``, as do all parameters; only the pair
        sets in ``edge_set_dict`` are in the new one. The order itself is in the result as ``order_dict``.

        Args:
            data: The base graph, or a batch.
            node_order: ``"natural"`` (of the data), ``"rcm"``, ``"packed"`` (fewest tiles; see
                :mod:`pyg_nsa.nn.node_order`), or ``[N]`` int64 for each node type, such as the ``order_dict`` of an
                earlier call.

        Raises:
            ValueError: A field that a relation's kind requires is missing, or orders that do not fit.
            ImportError: scipy, which finds the order, is not installed.
        """
        arguments = self.collect(data)
        inputs = HeteroInputs(type(self).__name__, (), arguments, self.numbering, self.read)
        convs = {
            t: c for b in self.blocks if not isinstance(b, ModuleDict) for t, c in b.convs.items()
        }
        edge_sets = {
            edge_type: inputs.pairs(inputs.relation(edge_type), conv.term, conv.kind)
            for edge_type, conv in convs.items()
            if isinstance(conv, RelationAttention) and inputs.has_edges(edge_type)
        }
        if node_order == "natural":
            return {**arguments, "edge_set_dict": edge_sets}
        num_rows = {t: x.size(0) for t, x in inputs.x_dict.items()}
        if isinstance(node_order, str):
            index = {t: edges.edge_index() for t, edges in edge_sets.items()}
            orders = node_orders(index, num_rows, node_order)
        else:
            check_orders(node_order, num_rows)
            orders = dict(node_order)
        orders = {t: order.to(inputs.x_dict[t].device) for t, order in orders.items()}
        place = {t: places(order) for t, order in orders.items()}
        edge_sets = {
            edge_type: renumbered(edges, place.get(edge_type[2]), place.get(edge_type[0]))
            for edge_type, edges in edge_sets.items()
        }
        return {**arguments, "edge_set_dict": edge_sets, "order_dict": orders}

    def forward(self, *args_dict: Any, **kwargs_dict: Any) -> dict[str, Tensor]:
        """Runs the stack; see the class for shapes."""
        return self.run(
            HeteroInputs(type(self).__name__, args_dict, kwargs_dict, self.numbering, self.read)
        )

    def run(self, inputs: HeteroInputs) -> dict[str, Tensor]:
        """Runs the stack on arguments that are sorted already."""
        check_edge_types(inputs.fields, self.relations)
        check_ends(inputs.fields, self.relations)
        warn_of_unread(inputs, self.wanted, self._told)
        h: dict[str, Tensor] = {}
        for node_type in self.node_types:
            if node_type in inputs.x_dict:
                h[node_type] = self.inputs[node_type](
                    inputs.rows(node_type), inputs.layout(node_type)
                )
        # Embeddings and features know the nodes by their given rows; from here to the end rows are in the call's order.
        inputs = inputs.in_order()
        h = {t: inputs.into_order(t, x) for t, x in h.items()}
        for block in self.blocks:
            if not isinstance(block, ModuleDict):
                h = block(h, inputs)
                continue
            for node_type, sab in block.items():
                if node_type in h:
                    layout = inputs.layout(node_type)
                    if layout.is_shared:
                        h[node_type] = sab(h[node_type], mask=layout.alive)
                    else:
                        h[node_type] = sab(h[node_type], segments=layout.segments)
        if self.outputs is not None:
            h = {t: self.outputs[t](x) for t, x in h.items()}
        # Copies of one tensor that no block touched are one memory, which nobody could write to.
        h = {t: inputs.out_of_order(t, x).contiguous() for t, x in h.items()}
        complete = all(t in h for t in self.node_types) and all(
            inputs.has_edges(t) for t in self.relations
        )
        if not complete:
            attach_zero_gradient(h, self)
        return h

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(hidden_channels={self.hidden_channels}, pattern='{self.pattern}', "
            f"heads={self.heads}, num_relations={len(self.relations)})"
        )


def _own_copy(module: Any) -> Any:
    """A copy with parameters of its own, freshly initialised; values that are no modules as they are."""
    if not isinstance(module, nn.Module):
        return module
    module = copy.deepcopy(module)
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    return module

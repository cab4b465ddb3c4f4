"""Attention along the edges of one relation, with TransformerConv's constructor and call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_sparse, to_edge_index

from pyg_nsa.attention import EdgeSet, attention_weights
from pyg_nsa.attention.partial import partial_edge_attention
from pyg_nsa.attention.projected import fits, projected_attention
from pyg_nsa.nn.dropout import dropout
from pyg_nsa.nn.explanation import is_explained, parts_of_pairs, show_weights, wants_weights
from pyg_nsa.nn.option_checks import check_fraction
from pyg_nsa.nn.projection import apply, is_plain, project
from pyg_nsa.scalars import is_whole

__all__ = ["NSAConv", "check_heads"]


def check_heads(channels: int, heads: int, what: str) -> int:
    """Channels of one head.

    Raises:
        TypeError: One of them is no whole number.
        ValueError: ``heads`` does not divide ``channels``; the message names the nearest number that does.
    """
    for name, value in ((what, channels), ("heads", heads)):
        if not is_whole(value):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
    if heads < 1 or channels < 1:
        raise ValueError(f"{what} and heads must be positive, got {channels} and {heads}")
    if channels % heads:
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        nearest = min(divisors, key=lambda d: (abs(d - heads), d))
        raise ValueError(
            f"heads must divide {what}: {what}={channels} is not a multiple of heads={heads}; "
            f"nearest number of heads that divides it: {nearest}"
        )
    return channels // heads


class NSAConv(MessagePassing):
    r"""Dot-product attention over the edges of one relation, with a learned bias from edge attributes.

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{W}_1 \mathbf{x}_i + \sum_{j \in \mathcal{N}(i)} \alpha_{ij}
        \mathbf{W}_2 \mathbf{x}_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j \left( \frac{(\mathbf{W}_3 \mathbf{x}_i)^{\top}
        (\mathbf{W}_4 \mathbf{x}_j)}{\sqrt{d}} + \mathbf{w}_5^{\top} \mathbf{a}_{ij} \right)

    Constructor and call are those of :class:`torch_geometric.nn.TransformerConv` (Shi et al. 2021), and without edge
    attributes the result is, too (parameters have the same names, so its ``state_dict`` loads). Three things differ:
    edge attributes enter as one projected number per head that is added to the logit (not to keys and values);
    dropout acts on the messages, not on attention probabilities, which FlexAttention never materialises; and an edge
    that occurs twice is one pair with the attributes summed. It works as a value of
    :class:`torch_geometric.nn.HeteroConv`, in :func:`torch_geometric.nn.to_hetero`, and with the edge masks and
    attention weights that :class:`torch_geometric.explain.Explainer` asks for.

    Args:
        in_channels: Size of each input row, a tuple for sources and targets, or ``-1`` to take it from the first call.
        out_channels: Size of each head's output.
        heads: Number of heads.
        concat: Concatenate the heads (otherwise their mean).
        beta: Combine message and skip connection with a learned gate, as TransformerConv does.
        dropout: Dropout probability of the messages.
        edge_dim: Number of edge attributes.
        bias: Whether the linear layers learn an additive bias.
        root_weight: Whether to add the projected target row.
        **kwargs: Only ``aggr="add"`` and ``flow="source_to_target"`` of PyG's MessagePassing are known.

    Shapes:
        - **x:** ``[N, F_in]``, or a tuple ``([N_src, F_src], [N_dst, F_dst])``; also ``[B, N, F]`` for B copies of one
          graph that share ``edge_index``
        - **edge_index:** ``[2, E]``, a ``SparseTensor``, or an :class:`~pyg_nsa.EdgeSet`
        - **edge_attr:** ``[E]`` or ``[E, edge_dim]``
        - **output:** ``[N_dst, heads * out_channels]`` (``[N_dst, out_channels]`` if not ``concat``)

    Raises:
        ValueError: An index out of range, or edge attributes that do not fit.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        for name, only in (("aggr", "add"), ("flow", "source_to_target"), ("node_dim", 0)):
            if kwargs.pop(name, only) not in (only, "sum" if name == "aggr" else only):
                raise ValueError(f"NSAConv supports {name}={only!r} only")
        if kwargs:
            raise TypeError(f"NSAConv got unknown arguments: {', '.join(sorted(kwargs))}")
        check_fraction("dropout", dropout)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.beta = beta and root_weight
        self.dropout = dropout
        self.edge_dim = edge_dim
        self.root_weight = root_weight
        src, dst = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        width = heads * out_channels
        self.lin_key = Linear(src, width, bias=bias)
        self.lin_query = Linear(dst, width, bias=bias)
        self.lin_value = Linear(src, width, bias=bias)
        # A constant per head would cancel in the softmax, so this projection has no additive term.
        self.lin_edge = None if edge_dim is None else Linear(edge_dim, heads, bias=False)
        out = width if concat else out_channels
        self.lin_skip = Linear(dst, out, bias=bias) if root_weight else None
        self.lin_beta = Linear(3 * out, 1, bias=False) if self.beta else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for module in self.children():
            module.reset_parameters()  # type: ignore[operator]

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | SparseTensor | EdgeSet,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
        *,
        bias: Tensor | None = None,
        alive: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """Runs the layer.

        Args:
            x: Rows of the nodes, or ``(source, target)``.
            edge_index: The edges, source to target.
            edge_attr: Attributes of the edges, in their order.
            return_attention_weights: Any bool: also return ``(edge_index, weights [P, heads])`` of the unique pairs.
            bias: ``[P, heads]``, added to the logits of the edge set's pairs.
            alive: bool masks of living source and target rows; dead rows neither send nor receive.
        """
        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        edges, bias = self._attended(x_src, x_dst, edge_index, edge_attr, bias)
        asks_weights = isinstance(return_attention_weights, bool)
        query = key = None
        explained = is_explained(self)
        if not asks_weights and not explained and self._is_compiled(x_src, x_dst):
            # Message and skip connection are one sum unless something comes between them.
            dropped = self.training and self.dropout > 0
            as_one = self.lin_skip is not None and self.concat and not self.beta and not dropped
            out = self._compiled(x_src, x_dst, edges, bias, alive, as_one)
            if as_one:
                return out
            skip = None if self.lin_skip is None else apply(self.lin_skip, x_dst)
        else:
            query, key, value, skip = self._project(x_src, x_dst)
            parts = parts_of_pairs(self, edges) if explained else None
            out = partial_edge_attention(
                query, key, value, edges, parts, bias, alive_keys=alive[0], alive_queries=alive[1]
            ).flatten(-2)
            if explained and wants_weights(self):
                pairs, weights = _pairs_and_weights(query, key, edges, bias, alive)
                show_weights(self, weights, pairs, out)
        if not self.concat:
            out = out.unflatten(-1, (self.heads, -1)).mean(dim=-2)
        out = dropout(out, self.dropout, self.training)
        if skip is None:
            # The attention's gradient reads its output, into which users may write (`F.relu(out, inplace=True)`).
            out = out.clone() if out.requires_grad else out
        else:
            if self.lin_beta is not None:
                gate = self.lin_beta(torch.cat([out, skip, out - skip], dim=-1)).sigmoid()
                out = gate * skip + (1 - gate) * out
            else:
                out = out + skip
        if query is not None and key is not None and asks_weights:
            pairs, weights = _pairs_and_weights(query, key, edges, bias, alive)
            return out, (pairs.edge_index(), weights)
        return out

    def attention_weights(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | SparseTensor | EdgeSet,
        edge_attr: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        alive: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor, Tensor]:
        """The weights with which a call of the layer would attend; see :meth:`forward` for the arguments.

        Returns:
            ``[2, P]``, source and target of each unique pair, and ``[P, heads]`` (``[B, P, heads]`` for B copies of a graph).
        """
        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        edges, bias = self._attended(x_src, x_dst, edge_index, edge_attr, bias)
        query, key, *_ = self._project(x_src, x_dst)
        pairs, weights = _pairs_and_weights(query, key, edges, bias, alive)
        return pairs.edge_index(), weights

    def _attended(
        self,
        x_src: Tensor,
        x_dst: Tensor,
        edge_index: Tensor | SparseTensor | EdgeSet,
        edge_attr: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[EdgeSet, Tensor | None]:
        """Pairs, and what is added to their logits ``[P, heads]``."""
        if is_sparse(edge_index):
            (row, col), value = to_edge_index(edge_index)
            edge_index = torch.stack([col, row])  # PyG stores adj_t: rows are targets
            if edge_attr is None and self.lin_edge is not None:
                edge_attr = value
        edges = (
            edge_index
            if isinstance(edge_index, EdgeSet)
            else EdgeSet.from_edge_index(edge_index, x_src.size(-2), x_dst.size(-2))
        )
        if self.lin_edge is not None:
            if edge_attr is None:
                raise ValueError(
                    f"this NSAConv was made with edge_dim={self.edge_dim} and needs edge_attr"
                )
            projected = self.lin_edge(edges.coalesce(edge_attr).to(self.lin_edge.weight.dtype))
            bias = projected if bias is None else bias + projected
        elif edge_attr is not None:
            raise ValueError(
                "this NSAConv got edge_attr but was made without edge_dim; say edge_dim= in its constructor"
            )
        return edges, bias

    def _is_compiled(self, x_src: Tensor, x_dst: Tensor) -> bool:
        """Whether the CPU's kernels do projections and attention as one."""
        layers = [self.lin_key, self.lin_value, self.lin_query, self.lin_skip]
        given: list[Any] = [layer for layer in layers if layer is not None]
        if not all(is_plain(layer) for layer in given):
            return False
        return fits(x_src, x_dst, *((layer.weight, layer.bias) for layer in given))

    def _compiled(
        self,
        x_src: Tensor,
        x_dst: Tensor,
        edges: EdgeSet,
        bias: Tensor | None,
        alive: tuple[Tensor | None, Tensor | None],
        with_skip: bool,
    ) -> Tensor:
        """Messages ``[N_dst, heads * out_channels]``, with the skip connection's rows added or without."""
        layers: list[Any] = [self.lin_key, self.lin_value, self.lin_query]
        key, value, query = ((layer.weight, layer.bias) for layer in layers)
        skip = (self.lin_skip.weight, self.lin_skip.bias) if with_skip and self.lin_skip else None
        return projected_attention(
            x_src,
            x_dst,
            key,
            value,
            query,
            skip,
            edges,
            self.heads,
            bias,
            alive_queries=alive[1],
            alive_keys=alive[0],
        )

    def _project(
        self, x_src: Tensor, x_dst: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Query, key and value ``[N, heads, out_channels]``, and the skip connection's row if there is one."""
        on_targets = [self.lin_query] if self.lin_skip is None else [self.lin_query, self.lin_skip]
        on_sources = [self.lin_key, self.lin_value]
        if x_src is x_dst:
            key, value, query, *skip = project(x_src, *on_sources, *on_targets)
        else:
            key, value = project(x_src, *on_sources)
            query, *skip = project(x_dst, *on_targets)
        query, key, value = (
            t.unflatten(-1, (self.heads, self.out_channels)) for t in (query, key, value)
        )
        return query, key, value, skip[0] if skip else None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if (
            self.lin_skip is None
        ):  # TransformerConv has one even where root_weight=False never uses it
            for name in ("weight", "bias"):
                state_dict.pop(f"{prefix}lin_skip.{name}", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"


def _pairs_and_weights(
    query: Tensor,
    key: Tensor,
    edges: EdgeSet,
    bias: Tensor | None,
    alive: tuple[Tensor | None, Tensor | None],
) -> tuple[EdgeSet, Tensor]:
    """The pairs, and the weight of each; in a compiled graph too, where ``edges`` may have slots besides."""
    pairs = edges.without_unused_slots()
    bias = None if bias is None else bias[: pairs.num_pairs]
    return pairs, _weights(query, key, pairs, bias, alive)


def _weights(
    query: Tensor,
    key: Tensor,
    edges: EdgeSet,
    bias: Tensor | None,
    alive: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    """``[P, heads]`` (``[B, P, heads]`` for B copies of a graph); pairs of dead rows have weight 0."""
    if query.dim() == 4:
        sources, targets = ([None] * len(query) if a is None else list(a) for a in alive)
        singles = zip(query, key, sources, targets, strict=True)
        return torch.stack([_weights(q, k, edges, bias, (src, dst)) for q, k, src, dst in singles])
    for mask, end in zip(alive, (edges.col, edges.row), strict=True):
        if mask is not None:
            bias = query.new_zeros(edges.num_pairs, query.size(1)) if bias is None else bias
            bias = bias.masked_fill(~mask[end, None], float("-inf"))
    return attention_weights(query, key, edges, bias)

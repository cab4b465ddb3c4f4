"""Attention along one relation whose pairs and bias an edge term declares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_nsa.attention import EdgeSet
from pyg_nsa.attention.joint import RelationCall, fits_joint
from pyg_nsa.compiled.dropping import STEPS, steps_of
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.explanation import by_edges, is_explained
from pyg_nsa.nn.hetero_inputs import EdgeType, HeteroInputs
from pyg_nsa.nn.nsa_conv import NSAConv, check_heads
from pyg_nsa.nn.projection import apply, check_columns, check_dtype, is_plain
from pyg_nsa.nn.term_calls import bias_of

__all__ = ["RelationAttention"]


class RelationAttention(nn.Module):
    r"""The message of one relation ``(A, rel, B)``: queries from B, keys and values from A, own projections.

    .. math::
        \mathbf{m}_i = \mathbf{W}_o \sum_{j} \mathrm{softmax}_j \left( s\,\mathbf{q}_i \cdot \mathbf{k}_j + b_{ij}
        \right) \mathbf{v}_j

    No projection adds a constant after the sum, so a target without a source gets a zero message.

    Args:
        edge_type: The relation.
        in_channels: Sizes of source and target rows; ``-1`` is taken from the first call.
        out_channels: Size of the message.
        heads: Number of heads; must divide ``out_channels``.
        term: Pairs and bias.
        kind: Name of the edge kind that built it, for messages.
        edge_dropout: Fraction of pairs dropped before the softmax while training.
        dropout: Dropout of the message.
    """

    def __init__(
        self,
        edge_type: EdgeType,
        in_channels: tuple[int, int],
        out_channels: int,
        heads: int,
        term: EdgeTerm,
        kind: str,
        edge_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        head_dim = check_heads(out_channels, heads, "out_channels")
        self.edge_type = edge_type
        self.kind = kind
        self.edge_dropout = edge_dropout
        self.conv = NSAConv(in_channels, head_dim, heads, dropout=dropout, root_weight=False)
        self.lin_out = nn.Linear(out_channels, out_channels, bias=False)
        self.term = term

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        self.conv.reset_parameters()
        self.lin_out.reset_parameters()
        self.term.reset_parameters()

    def forward(
        self, x: tuple[Tensor, Tensor], inputs: HeteroInputs, start: Tensor | None = None
    ) -> Tensor:
        """The message ``[N_dst, out_channels]`` (``[B, N_dst, out_channels]`` in the shared layout).

        Args:
            x: Rows of sources and targets.
            inputs: The call.
            start: What the message is added to.
        """
        edges, bias, alive = self._attended(x, inputs)
        if is_explained(self.conv):
            edges = by_edges(edges, inputs.relation(self.edge_type))
        return apply(self.lin_out, self.conv(x, edges, bias=bias, alive=alive), start)

    def as_call(
        self, x: tuple[Tensor, Tensor], inputs: HeteroInputs, start: Tensor | None = None
    ) -> RelationCall | None:
        """The same for :func:`~pyg_nsa.attention.joint.summed_messages`, or nothing if that would not be the same.

        It is not if a hook or an explainer waits for a message, or dropout takes all of it.

        Args:
            x: Rows of sources and targets.
            inputs: The call.
            start: What the messages of all relations to the target are added to.
        """
        conv = self.conv
        layers = [conv.lin_key, conv.lin_value, conv.lin_query, self.lin_out]
        p = conv.dropout if conv.training else 0.0
        dropped = steps_of(p)
        plain = is_plain(self, RelationAttention) and is_plain(conv, NSAConv)
        plain = plain and not is_explained(conv)
        if (
            (p != 0 and not 0 < dropped < STEPS)
            or not plain
            or not all(is_plain(layer) for layer in layers)
        ):
            return None
        key, value, query, out = ((layer.weight, layer.bias) for layer in layers)
        if not fits_joint(x, (key, value, query, out), start):
            return None
        edges, bias, (alive_keys, alive_queries) = self._attended(x, inputs)
        src, _, dst = self.edge_type
        return RelationCall(
            src,
            dst,
            key,
            value,
            query,
            out[0],
            edges,
            conv.heads,
            bias,
            alive_keys,
            alive_queries,
            dropped,
        )

    def _attended(
        self, x: tuple[Tensor, Tensor], inputs: HeteroInputs
    ) -> tuple[EdgeSet, Tensor | None, tuple[Tensor | None, Tensor | None]]:
        """Pairs, their bias, and which sources and targets are alive."""
        relation = inputs.relation(self.edge_type)
        ends = ((relation.src, self.conv.lin_key), (relation.dst, self.conv.lin_query))
        for (layout, linear), rows in zip(ends, x, strict=True):
            if rows.size(-1) == 0:
                raise ValueError(
                    f"x of node type '{layout.node_type}' has no columns, so edge type {self.edge_type} has nothing to attend "
                    "by: give it features, or use a stack with learned embeddings (pattern='M', "
                    f"num_nodes={{'{layout.node_type}': <nodes of the base graph>}})"
                )
            check_dtype(layout.node_type, rows, linear)
            check_columns(layout.node_type, rows, linear)
        if inputs.has_edges(self.edge_type):
            edges = inputs.pairs(relation, self.term, self.kind)
            bias = bias_of(self.term, relation, edges, self.conv.heads, self.kind)
        else:  # a stack treats a missing relation as one without edges
            edges = EdgeSet.empty(relation.src.num_rows, relation.dst.num_rows, x[1].device)
            bias = None
        if self.training and self.edge_dropout > 0:
            bias = self._drop_pairs(edges, bias, x[1])
        return edges, bias, (relation.src.alive, relation.dst.alive)

    def _drop_pairs(self, edges: EdgeSet, bias: Tensor | None, like: Tensor) -> Tensor:
        # Drawn on the CPU, so that one seed drops the same pairs on every device; -inf removes a pair from the softmax.
        dropped = torch.rand(edges.num_pairs) < self.edge_dropout
        if bias is None:
            bias = like.new_zeros(edges.num_pairs, self.conv.heads)
        return bias.masked_fill(dropped.to(bias.device)[:, None], float("-inf"))

"""MAB over several relations: the M of a heterogeneous stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict

from pyg_nsa.nn.feed_forward import FeedForward
from pyg_nsa.nn.grouping import Aggr, check_aggr, group
from pyg_nsa.nn.hetero_inputs import EdgeType, HeteroInputs
from pyg_nsa.nn.projection import is_plain, normed
from pyg_nsa.nn.relation_attention import RelationAttention
from pyg_nsa.nn.relation_sums import add_messages
from pyg_nsa.nn.term_calls import DeclaredMessage

__all__ = ["HeteroMaskedAttentionBlock"]


class HeteroMaskedAttentionBlock(nn.Module):
    r"""Messages of every relation, grouped by target type; then one residual and one MLP per node type.

    .. math::
        \mathbf{x}_t \leftarrow \mathbf{x}_t + \bigoplus_{(s, r, t)} \mathbf{m}^{(s, r, t)}, \qquad
        \mathbf{x}_t \leftarrow \mathbf{x}_t + \mathrm{MLP}_t(\mathrm{LN}(\mathbf{x}_t))

    Args:
        convs: The module of each relation: :class:`RelationAttention`, or a PyG conv from ``channels`` to ``channels``.
        node_types: All node types, in a fixed order.
        channels: Size of each row.
        aggr: How messages are grouped; must keep the size (not ``"cat"`` or ``None``).
        mlp_ratio: Hidden size of the MLP as a multiple of ``channels``; 0: none.
        dropout: Dropout in the MLP.
        declared: What the kinds of declared relations promise of their messages.
    """

    def __init__(
        self,
        convs: Mapping[EdgeType, nn.Module],
        node_types: Sequence[str],
        channels: int,
        aggr: Aggr = "sum",
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        declared: Mapping[EdgeType, DeclaredMessage] | None = None,
    ) -> None:
        super().__init__()
        if aggr in ("cat", None):
            raise ValueError(
                f"aggr={aggr!r} changes the size of the rows, which a residual block can't; use sum, mean, min, max or "
                "an Aggregation, or pattern=None for one bare step"
            )
        self.aggr = check_aggr(aggr)
        self.norms = ModuleDict({t: nn.LayerNorm(channels) for t in node_types})
        self.convs = ModuleDict(dict(convs))
        self.declared = dict(declared or {})
        self.feed_forwards = ModuleDict(
            {t: FeedForward(channels, mlp_ratio, dropout) for t in node_types}
        )

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        for modules in (self.norms, self.convs, self.feed_forwards):
            for module in modules.values():
                module.reset_parameters()
        if isinstance(self.aggr, nn.Module):
            self.aggr.reset_parameters()

    def forward(self, x_dict: Mapping[str, Tensor], inputs: HeteroInputs) -> dict[str, Tensor]:
        """One block; dead rows come out as they went in."""
        branches = {t: normed(self.norms[t], x) for t, x in x_dict.items()}
        rows = {t: h for t, (h, _) in branches.items()}
        x_dict = {t: x for t, (_, x) in branches.items()}
        convs: dict[EdgeType, nn.Module] = {
            t: c for t, c in self.convs.items() if t[0] in rows and t[2] in rows
        }
        total = dict(x_dict)
        if self.aggr == "sum":  # needs no message of its own: each one is added to what is there
            total, convs = add_messages(convs, rows, inputs, total)
        messages: dict[str, list[Tensor]] = {}
        for edge_type, conv in convs.items():
            src, _, dst = edge_type
            if isinstance(conv, RelationAttention):
                pair = rows[src], rows[dst]
                last = conv.lin_out
                fits = isinstance(last, nn.Linear) and last.out_features == total[dst].size(-1)
                # The same for one message, unless a hook waits for it.
                if self.aggr == "sum" and fits and is_plain(conv, RelationAttention):
                    total[dst] = conv(pair, inputs, total[dst])
                    continue
                message = conv(pair, inputs)
            elif inputs.has_edges(edge_type):
                message = inputs.run_conv(edge_type, conv, rows, self.declared.get(edge_type))
            else:
                continue
            messages.setdefault(dst, []).append(message)
        out = {}
        for node_type, x in x_dict.items():
            h = total[node_type]
            if node_type in messages:
                message = group(messages[node_type], self.aggr)
                if message.shape != x.shape:
                    raise ValueError(
                        f"a block needs messages of the size of its rows: those to node type '{node_type}' have shape "
                        f"{list(message.shape)} after grouping, its rows {list(x.shape)}; give conv modules "
                        f"out_channels={x.size(-1)} and an aggr that keeps the size"
                    )
                h = h + message
            h = self.feed_forwards[node_type](h)
            alive = inputs.layout(node_type).alive
            out[node_type] = h if alive is None else torch.where(alive[..., None], h, x)
        return out

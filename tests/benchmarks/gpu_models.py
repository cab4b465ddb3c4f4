"""The cell model with three kinds of masked attention; all else is the same.

Each operator has input projections and learned embeddings, one masked step (M) over the cell's four relations, and one
self-attention block (S) for each node type, pyg_nsa's in all of them: only M differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import pad
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, TransformerConv
from torch_geometric.nn.module_dict import ModuleDict

from pyg_nsa import HeteroNSA, SelfAttentionBlock
from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.models.model import HeteroCellNSA
from pyg_nsa.cell.models.union_operator import UnionOperator
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.nn.feed_forward import FeedForward
from pyg_nsa.nn.node_input import NodeInput
from pyg_nsa.nn.node_layout import NodeLayout
from pyg_nsa.nn.node_order import NodeOrder

from .dense_attention import dense_mask
from .hetero_layers import kinds


def cell_data(graph: HeteroData, features: int = 8) -> HeteroData:
    """A workload's graph as the cell model wants it: features, and ``hyperedge_index`` of relations between types."""
    generator = torch.Generator().manual_seed(0)
    for node_type in graph.node_types:
        nodes = graph[node_type].num_nodes
        graph[node_type].x = torch.randn(nodes, features, generator=generator)
    for edge_type in graph.edge_types:
        if edge_type[0] != edge_type[2]:
            graph[edge_type].hyperedge_index = graph[edge_type].edge_index
    return graph


def perturbations(graph: HeteroData, size: int, seed: int = 0) -> PerturbationBatch:
    """``size`` instances, each without two random genes."""
    generator = torch.Generator().manual_seed(seed)
    nodes = graph["gene"].num_nodes
    genes = [torch.randperm(nodes, generator=generator)[:2] for _ in range(size)]
    owner = torch.arange(size).repeat_interleave(2)
    return PerturbationBatch(
        alive_dict=DeletionRule(graph).alive(torch.cat(genes), owner, size),
        y=torch.randn(size, 2, generator=generator),
        genes=genes,
        index=torch.arange(size),
    )


def build(name: str, graph: HeteroData, channels: int, heads: int) -> HeteroCellNSA:
    """The model of a contender."""
    sizes = {t: int(graph[t].num_nodes) for t in graph.node_types}
    operator: nn.Module
    # The cell model's default; the other operators know no order of nodes.
    order: NodeOrder = "packed" if name == "HeteroNSA" else "natural"
    if name == "HeteroNSA":
        operator = HeteroNSA(-1, channels, kinds(graph), pattern="MS", heads=heads, num_nodes=sizes)
    elif name == "FlexAttention, dense masks":
        first = DenseFlexOperator(graph, channels, heads, sizes)
        operator = WithSelfAttention(first, sizes, channels, heads)
    elif name == "HeteroConv of TransformerConv":
        layer = HeteroConv(
            {
                t: TransformerConv(
                    (channels, channels),
                    channels // heads,
                    heads,
                    edge_dim=1 if "stoichiometry" in graph[t] else None,
                )
                for t in graph.edge_types
            }
        )
        first = UnionOperator([layer], list(sizes), channels, sizes)
        operator = WithSelfAttention(first, sizes, channels, heads)
    else:
        raise ValueError(f"no contender '{name}'")
    return HeteroCellNSA(operator, list(sizes), channels, node_order=order)


class WithSelfAttention(nn.Module):
    """An operator, and a self-attention block for each node type after it."""

    def __init__(
        self, first: nn.Module, sizes: Mapping[str, int], channels: int, heads: int
    ) -> None:
        super().__init__()
        self.first = first
        self.blocks = ModuleDict({t: SelfAttentionBlock(channels, heads) for t in sizes})

    def prepare(self, data: HeteroData) -> dict[str, Any]:
        return self.first.prepare(data)

    def forward(self, mask_dict: Mapping[str, Tensor], **arguments: Any) -> dict[str, Tensor]:
        rows = self.first(mask_dict=mask_dict, **arguments)
        return {t: self.blocks[t](x, mask=mask_dict[t]) for t, x in rows.items()}


class DenseFlexOperator(nn.Module):
    """One masked block by FlexAttention with a dense boolean mask for each instance, as it is written today.

    The masks of a batch are the base graph's without the instance's dead nodes, so they and their BlockMasks are made for
    each batch. The stoichiometry is left out, which spares this operator a dense bias.

    Args:
        graph: The base graph.
        channels: Size of all rows.
        heads: Number of heads.
        sizes: Number of nodes of each type.
        _compile: As for ``create_block_mask``: ``False`` runs FlexAttention uncompiled, to test it.
    """

    def __init__(
        self,
        graph: HeteroData,
        channels: int,
        heads: int,
        sizes: Mapping[str, int],
        _compile: bool = True,
    ) -> None:
        super().__init__()
        self.compiled = _compile
        self.heads = heads
        self.inputs = ModuleDict({t: NodeInput(t, -1, channels, n) for t, n in sizes.items()})
        self.norms = ModuleDict({t: nn.LayerNorm(channels) for t in sizes})
        self.feed_forwards = ModuleDict({t: FeedForward(channels) for t in sizes})
        self.lin_query = ModuleDict({t: nn.Linear(channels, channels) for t in graph.edge_types})
        self.lin_key = ModuleDict({t: nn.Linear(channels, channels) for t in graph.edge_types})
        self.lin_value = ModuleDict({t: nn.Linear(channels, channels) for t in graph.edge_types})
        self.lin_out = ModuleDict(
            {t: nn.Linear(channels, channels, bias=False) for t in graph.edge_types}
        )
        self.attend = torch.compile(flex_attention, dynamic=False) if _compile else flex_attention

    def prepare(self, data: HeteroData) -> dict[str, Any]:
        masks = {
            t: dense_mask(data[t].edge_index.cpu(), data[t[0]].num_nodes, data[t[2]].num_nodes).to(
                data[t].edge_index.device
            )
            for t in data.edge_types
        }
        return {"x_dict": dict(data.x_dict), "adj_mask_dict": masks}

    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        adj_mask_dict: Mapping[tuple[str, str, str], Tensor],
        mask_dict: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        h = {}
        for node_type, x in x_dict.items():
            layout = NodeLayout(node_type, tuple(x.shape[:2]), x.device)
            h[node_type] = self.inputs[node_type](x, layout)
        normed = {t: self.norms[t](x) for t, x in h.items()}
        messages = {t: torch.zeros_like(x) for t, x in h.items()}
        for edge_type, base in adj_mask_dict.items():
            src, _, dst = edge_type
            mask = base & mask_dict[dst][:, :, None] & mask_dict[src][:, None, :]
            message = self._message(edge_type, normed[src], normed[dst], mask)
            messages[dst] = messages[dst] + message
        out = {t: self.feed_forwards[t](x + messages[t]) for t, x in h.items()}
        return {t: torch.where(mask_dict[t][..., None], out[t], x) for t, x in h.items()}

    def _message(
        self, edge_type: tuple[str, str, str], source: Tensor, target: Tensor, mask: Tensor
    ) -> Tensor:
        q, k, v = (
            lin[edge_type](rows).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for lin, rows in (
                (self.lin_query, target),
                (self.lin_key, source),
                (self.lin_value, source),
            )
        )
        size = q.size(-1)
        scale = size**-0.5
        # FlexAttention takes no fewer than 16 channels a head.
        q, k, v = (pad(t, (0, max(0, 16 - size))) for t in (q, k, v))

        def mask_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            # Kernels compute addresses in the type of their parts, and 50 masks of 6,607 rows have more than 2**31 entries.
            return mask[b.long(), query.long(), key]

        blocks = create_block_mask(
            mask_mod,
            mask.size(0),
            None,
            *mask.shape[1:],
            device=str(mask.device),
            _compile=self.compiled,
        )
        out = self.attend(q, k, v, block_mask=blocks, scale=scale)
        return self.lin_out[edge_type](out[..., :size].transpose(1, 2).flatten(-2))

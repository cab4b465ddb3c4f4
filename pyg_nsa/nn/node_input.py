"""The entrance of a stack: features and learned embeddings of one node type."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from pyg_nsa.nn.node_layout import NodeLayout
from pyg_nsa.nn.projection import check_dtype

__all__ = ["NodeInput"]


class NodeInput(nn.Module):
    """Projected features plus, where ``num_nodes`` is given, a learned embedding of each node of the base graph.

    Args:
        node_type: Name, for messages.
        in_channels: Size of ``x``; ``-1`` is taken from the first call.
        channels: Size of the result.
        num_nodes: Number of nodes of the base graph; ``None``: no embedding.
    """

    def __init__(
        self, node_type: str, in_channels: int, channels: int, num_nodes: int | None
    ) -> None:
        super().__init__()
        self.node_type = node_type
        # A bias of its own: PyG's Linear leaves its bias uninitialised where x has no columns.
        self.lin = Linear(in_channels, channels, bias=False)
        self.bias = nn.Parameter(torch.empty(channels))
        self.embedding = None if num_nodes is None else nn.Embedding(num_nodes, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all learnable parameters."""
        self.lin.reset_parameters()
        nn.init.zeros_(self.bias)
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight)

    def forward(self, x: Tensor, layout: NodeLayout) -> Tensor:
        """``[*, N, F]`` to ``[*, N, channels]``.

        Raises:
            TypeError: ``x`` holds integers, or numbers of another dtype than the weights.
            ValueError: ``x`` has another number of columns, or none and there is no embedding; or it can't be told which node of the
                base graph each row is.
        """
        if x.size(-1) == 0 and self.embedding is None:
            raise ValueError(
                f"x of node type '{self.node_type}' has no columns, so its nodes can't be told apart: give them learned "
                f"embeddings with num_nodes={{'{self.node_type}': <nodes of the base graph>}}"
            )
        if not x.is_floating_point():
            raise TypeError(
                f"x of node type '{self.node_type}' must be of floating point, got {x.dtype}: x.float(), or learned embeddings of what "
                "the integers name"
            )
        check_dtype(self.node_type, x, self.lin)
        # Two comparisons: torch.compile takes a size that it leaves open for a member of no tuple.
        if self.lin.in_channels != -1 and self.lin.in_channels != x.size(-1):
            raise ValueError(
                f"x of node type '{self.node_type}' has {x.size(-1)} columns, but this module was made for "
                f"{self.lin.in_channels} (in_channels, or its first call)"
            )
        if layout.is_shared:
            # All copies of the base graph have the same nodes; features that are one tensor expanded are projected once.
            x = x[:1] if x.stride(0) == 0 else x
        h: Tensor = self.lin(x) + self.bias
        if self.embedding is not None:
            h = h + self.embedding(self._ids(layout))
        return h.expand(*layout.shape, -1)

    def _ids(self, layout: NodeLayout) -> Tensor:
        """``[N]``: the embedding of each row; that of padding rows is never used."""
        assert self.embedding is not None
        size = self.embedding.num_embeddings
        rows = layout.unknown_rows(size)
        if rows is not None:
            raise ValueError(
                f"num_nodes says {size} nodes of type '{self.node_type}', but a graph has {rows} rows and nothing says which of "
                f"the nodes they are, so they have no learned embeddings: pass n_id_dict={{'{self.node_type}': …}}, int64, the "
                "base graph's node of each row (PyG's NeighborLoader gives it as n_id, and collect(data) takes it from there)"
            )
        ids = layout.node_ids()
        outside = (ids < 0) | (ids >= size)
        if not torch.compiler.is_compiling():
            wrong = outside if layout.alive is None else outside & layout.alive
            if bool(wrong.any()):
                raise ValueError(self._outside(ids, wrong, layout))
        return ids.masked_fill(outside, 0)

    def _outside(self, ids: Tensor, wrong: Tensor, layout: NodeLayout) -> str:
        assert self.embedding is not None
        size = self.embedding.num_embeddings
        if layout.n_id is None:
            return (
                f"num_nodes says {size} nodes of type '{self.node_type}', but a graph has more rows "
                f"(found node {int(ids.max())}); set it to the size of the base graph"
            )
        row = int(wrong.nonzero()[0, -1])
        return (
            f"'n_id' of node type '{self.node_type}' is {int(ids[row])} in row {row}, but num_nodes says {size} nodes (valid: 0 "
            f"to {size - 1}); n_id counts the nodes of the base graph, and num_nodes is their number"
        )

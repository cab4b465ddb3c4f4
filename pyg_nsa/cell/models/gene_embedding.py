"""The baseline without a graph: a vector per gene, summed over the deleted genes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.models.head import Head

__all__ = ["GeneEmbeddingModel"]


class GeneEmbeddingModel(nn.Module):
    r"""Predicts from the deleted genes alone (Deep Sets, Zaheer et al., NeurIPS 2017).

    .. math::
        \mathbf{z}_p = \sum_{g \text{ deleted}} \mathrm{MLP}([\mathbf{e}_g, \mathbf{x}_g]), \qquad
        \hat{\mathbf{y}} = \mathrm{head}(\mathbf{z}_p)

    Args:
        graph: The base graph, for the number of genes and their features; the module does not keep it.
        channels: Size of embeddings and of :math:`\mathbf{z}_p`.
        hidden_channels: Width of the head (default: ``channels``).
        dropout: Dropout in the head.

    Shapes:
        As :class:`~pyg_nsa.cell.models.model.HeteroCellNSA`: predictions ``[B, 2]``, and ``z_w`` ``[1, channels]`` (zero), ``z_i`` and
        ``z_p`` ``[B, channels]``.
    """

    def __init__(
        self,
        graph: HeteroData,
        channels: int,
        hidden_channels: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        genes = graph["gene"]
        columns = 0 if genes.get("x") is None else genes.x.size(1)
        self.embedding = nn.Embedding(int(genes.num_nodes), channels)
        # Small, so that a gene that training never deletes is close to none in particular.
        nn.init.normal_(self.embedding.weight, std=0.1)
        size = columns + channels
        hidden = hidden_channels or channels
        self.columns = columns
        self.inner = nn.Sequential(
            nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, channels, bias=False)
        )
        self.head = Head(channels, hidden, dropout)

    def forward(
        self, cell_graph: HeteroData, batch: PerturbationBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predictions of a batch.

        Args:
            cell_graph: The base graph.
            batch: Which genes each instance deletes.
        """
        device = self.embedding.weight.device
        genes = torch.cat([*batch.genes, torch.empty(0, dtype=torch.long)]).to(device)
        count = torch.tensor([len(g) for g in batch.genes], dtype=torch.long, device=device)
        parts = [self.embedding(genes)]
        if self.columns:
            parts.append(cell_graph["gene"].x.to(device)[genes])
        owner = torch.arange(len(batch), device=device).repeat_interleave(count)
        each = self.inner(torch.cat(parts, dim=-1))
        z_p = each.new_zeros(len(batch), each.size(1)).index_add(0, owner, each)
        return self.head(z_p), {"z_w": torch.zeros_like(z_p[:1]), "z_i": -z_p, "z_p": z_p}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.embedding.num_embeddings} genes, {self.columns} features each)"

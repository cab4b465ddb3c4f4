"""Where attention goes in the metabolic neighbourhood of a knockout."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.models.model import HeteroCellNSA
from pyg_nsa.nn.attention_map import AttentionMap, attention_maps
from pyg_nsa.nn.hetero_masked_attention_block import HeteroMaskedAttentionBlock

__all__ = ["attention_around"]

_MAX_DEGREE = 20  # currency metabolites join everything to everything


def attention_around(
    model: HeteroCellNSA, graph: HeteroData, batch: PerturbationBatch
) -> pd.DataFrame:
    """Attention of the last masked block, with and without a knockout, near the deleted genes.

    Args:
        model: A model whose operator is a :class:`~pyg_nsa.HeteroNSA`.
        graph: The base graph.
        batch: One instance.

    Returns:
        Columns relation, source_type, source, target_type, target, weight_wildtype, weight_knockout (means over heads;
        0 where an end is dead), strongest first. The neighbourhood: the deleted genes, reactions of theirs, the other
        genes and the metabolites of those, and reactions of those metabolites that have few.
    """
    near = _neighbourhood(graph, batch.genes[0])
    rows = []
    for found in _last_block(model, graph, batch):
        assert found.edge_type is not None
        src, relation, dst = found.edge_type
        sources, targets = found.edge_index
        weights = found.weights.mean(dim=-1)
        touched = near[src][sources] & near[dst][targets]
        for i in touched.nonzero().view(-1).tolist():
            source, target = int(sources[i]), int(targets[i])
            rows.append(
                (
                    relation,
                    src,
                    graph[src].node_ids[source],
                    dst,
                    graph[dst].node_ids[target],
                    float(weights[0, i]),
                    float(weights[1, i]),
                )
            )
    columns = ["relation", "source_type", "source", "target_type", "target"]
    columns += ["weight_wildtype", "weight_knockout"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("weight_wildtype", ascending=False, ignore_index=True)


def _neighbourhood(graph: HeteroData, genes: Tensor) -> dict[str, Tensor]:
    near = {t: torch.zeros(graph[t].num_nodes, dtype=torch.bool) for t in graph.node_types}
    near["gene"][genes] = True
    gpr = graph["gene", "gpr", "reaction"].hyperedge_index
    rmr = graph["reaction", "rmr", "metabolite"].hyperedge_index
    near["reaction"][gpr[1][near["gene"][gpr[0]]]] = True
    near["gene"][gpr[0][near["reaction"][gpr[1]]]] = True
    near["metabolite"][rmr[1][near["reaction"][rmr[0]]]] = True
    degree = torch.bincount(rmr[1], minlength=graph["metabolite"].num_nodes)
    joining = near["metabolite"] & (degree <= _MAX_DEGREE)
    near["reaction"][rmr[0][joining[rmr[1]]]] = True
    return near


@torch.no_grad()
def _last_block(
    model: HeteroCellNSA, graph: HeteroData, batch: PerturbationBatch
) -> list[AttentionMap]:
    """The relations of the last masked block; weights ``[2, P, heads]``, in the wildtype and in the instance."""
    blocks = model.operator.blocks  # type: ignore[union-attr]
    block = [b for b in blocks if isinstance(b, HeteroMaskedAttentionBlock)][-1]  # type: ignore[union-attr]
    with attention_maps(block) as maps:
        model.rows(graph, batch.alive_dict)
    return maps

"""Where attention goes in the metabolic neighbourhood of a knockout."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.attention import EdgeSet, attention_weights
from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.models.model import HeteroCellNSA
from pyg_nsa.nn.hetero_masked_attention_block import HeteroMaskedAttentionBlock
from pyg_nsa.nn.relation_attention import RelationAttention

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
    # Inside of the operator nodes may be in another order than in the graph.
    orders = model.prepared(graph).get("order_dict", {})
    rows = []
    for edge_type, (edges, weights) in _last_block_weights(model, graph, batch).items():
        src, relation, dst = edge_type
        sources = orders[src][edges.col] if src in orders else edges.col
        targets = orders[dst][edges.row] if dst in orders else edges.row
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
def _last_block_weights(
    model: HeteroCellNSA, graph: HeteroData, batch: PerturbationBatch
) -> dict[tuple[str, str, str], tuple[EdgeSet, Tensor]]:
    """Per relation the pair set and ``[2, P]``: weights in the wildtype and in the instance."""
    block = [b for b in model.operator.blocks if isinstance(b, HeteroMaskedAttentionBlock)][-1]  # type: ignore[union-attr]
    found: dict[tuple[str, str, str], tuple[EdgeSet, Tensor]] = {}
    handles = []
    for edge_type, relation in block.convs.items():
        if not isinstance(relation, RelationAttention):
            continue

        def look(conv: Any, args: Any, kwargs: Any, edge_type: Any = edge_type) -> None:
            (x_src, x_dst), edges = args
            bias, (alive_src, alive_dst) = kwargs["bias"], kwargs["alive"]
            shape = (conv.heads, conv.out_channels)
            q = conv.lin_query(x_dst).unflatten(-1, shape)
            k = conv.lin_key(x_src).unflatten(-1, shape)
            weights = []
            for b in range(2):
                dead = ~(alive_src[b][edges.col] & alive_dst[b][edges.row])
                logit_bias = q.new_zeros(edges.num_pairs, conv.heads) if bias is None else bias
                logit_bias = logit_bias.masked_fill(dead[:, None], -math.inf)
                weights.append(attention_weights(q[b], k[b], edges, logit_bias).mean(-1))
            found[edge_type] = (edges, torch.stack(weights))

        handles.append(relation.conv.register_forward_pre_hook(look, with_kwargs=True))
    try:
        model.rows(graph, batch.alive_dict)
    finally:
        for handle in handles:
            handle.remove()
    return found

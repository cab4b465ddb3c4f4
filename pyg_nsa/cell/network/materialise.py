"""A perturbed cell as a graph of its own, for code that wants one ``HeteroData`` per instance.

Two numberings. *Compact*: deleted nodes are removed, the others relabelled in order, and ``x`` and masks keep N rows by
padding rows (zeros) at the end, while ``num_nodes`` counts the real nodes. *Wildtype*: nothing is relabelled and
``num_nodes`` stays N. In both, edges that touch a deleted node are gone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

__all__ = ["Numbering", "perturbed_graph"]

Numbering = Literal["compact", "wildtype"]


def perturbed_graph(
    graph: HeteroData, alive: dict[str, Tensor], numbering: Numbering = "compact"
) -> HeteroData:
    """Take the dead nodes out of a base graph.

    Args:
        graph: The base graph.
        alive: Per node type [N] bool.
        numbering: ``"compact"`` or ``"wildtype"``.

    Returns:
        A graph of its own. Per node type: ``num_nodes``, ``x`` [N, F], ``mask`` [N] bool (rows of living nodes),
        ``pert_mask`` [N] bool (deleted nodes, always in the base graph's numbering), and of the deleted nodes ``x_pert``
        [D, F], ``ids_pert`` (list of str) and ``cell_graph_idx_pert`` [D] int64 (base graph's numbering). Per relation:
        the base graph's fields, for the edges that are left.

    Raises:
        ValueError: For another numbering.
    """
    if numbering not in ("compact", "wildtype"):
        raise ValueError(f"numbering={numbering!r}: expected 'compact' or 'wildtype'.")
    compact = numbering == "compact"
    data = HeteroData()
    label: dict[str, Tensor] = {}
    for node_type in graph.node_types:
        base, living = graph[node_type], alive[node_type]
        count, total = int(living.sum()), living.numel()
        dead = torch.nonzero(~living).flatten()
        store = data[node_type]
        store.num_nodes = count if compact else total
        store.x = base.x
        if compact and count < total:
            store.x = torch.cat([base.x[living], base.x.new_zeros(total - count, base.x.size(1))])
        store.mask = torch.arange(total) < count if compact else living.clone()
        store.pert_mask = ~living
        store.x_pert = base.x[dead]
        store.ids_pert = [base.node_ids[i] for i in dead.tolist()]
        store.cell_graph_idx_pert = dead
        label[node_type] = living.cumsum(0) - 1 if compact else torch.arange(total)
    for edge_type in graph.edge_types:
        source, _, target = edge_type
        index = graph[edge_type].edge_index
        left = alive[source][index[0]] & alive[target][index[1]]
        kept = index[:, left]
        relabelled = torch.stack([label[source][kept[0]], label[target][kept[1]]])
        for name, value in graph[edge_type].items():
            data[edge_type][name] = relabelled if name.endswith("edge_index") else value[left]
    return data

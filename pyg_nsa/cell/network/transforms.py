"""Transforms of materialised graphs."""

from __future__ import annotations

import torch
from torch_geometric.data import HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType

__all__ = ["DenseBoolMasks", "mask_shapes"]


@functional_transform("dense_bool_masks")
class DenseBoolMasks(BaseTransform):
    """Add the dense boolean masks of every relation: ``mask[src, dst]`` is ``True`` where there is an edge.

    Relations with ``hyperedge_index`` get ``inc_mask`` and other relations within one node type get ``adj_mask``, both
    [N_src, N_dst] bool, where N counts rows of ``x``, padding rows included. A PyG batch stacks them to
    [B·N_src, N_dst]. For code that needs the masks: they take N² bytes a relation and instance, and the edges say the
    same.
    """

    def forward(self, data: HeteroData) -> HeteroData:
        """Add the masks to a graph."""
        for edge_type, (name, shape) in mask_shapes(data).items():
            store = data[edge_type]
            index = store["hyperedge_index" if name == "inc_mask" else "edge_index"]
            mask = torch.zeros(shape, dtype=torch.bool)
            mask[index[0], index[1]] = True
            store[name] = mask
        return data


def mask_shapes(data: HeteroData) -> dict[EdgeType, tuple[str, tuple[int, int]]]:
    """Names and shapes of the masks that :class:`DenseBoolMasks` adds, by edge type."""
    found = {}
    for edge_type in data.edge_types:
        source, _, target = edge_type
        shape = (_rows(data, source), _rows(data, target))
        if "hyperedge_index" in data[edge_type]:
            found[edge_type] = ("inc_mask", shape)
        elif source == target:
            found[edge_type] = ("adj_mask", shape)
    return found


def _rows(data: HeteroData, node_type: str) -> int:
    """Rows of ``x``, which may exceed ``num_nodes`` by padding rows."""
    store = data[node_type]
    return int(store["x"].size(0)) if "x" in store else int(store.num_nodes)

"""How many bytes graphs take."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.transforms import mask_shapes

__all__ = ["dense_mask_bytes", "graph_bytes", "readable"]


def graph_bytes(data: HeteroData) -> int:
    """Bytes of all tensors of a graph; one that has two names (``edge_index`` and ``hyperedge_index``) counts once."""
    tensors = [v for store in data.stores for v in store.values() if isinstance(v, Tensor)]
    return sum({t.data_ptr(): t.nbytes for t in tensors if t.numel()}.values())


def dense_mask_bytes(data: HeteroData) -> int:
    """Bytes that :class:`~pyg_nsa.cell.network.transforms.DenseBoolMasks` would add to one graph, without building them."""
    return sum(rows * columns for _, (rows, columns) in mask_shapes(data).values())


def readable(size: float) -> str:
    """A number of bytes for people, such as ``1.2 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"

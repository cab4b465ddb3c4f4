"""Masked attention over declared pairs; nothing here knows about node types, PyG's ``nn``, or any plugin."""

from pyg_nsa.attention.dispatch import edge_attention, full_attention, self_attention
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments
from pyg_nsa.attention.weights import attention_weights

__all__ = [
    "EdgeSet",
    "Segments",
    "attention_weights",
    "edge_attention",
    "full_attention",
    "self_attention",
]

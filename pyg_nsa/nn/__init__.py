"""Modules, PyG style: one class a file."""

from pyg_nsa.nn.attention_map import AttentionMap, attention_maps
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.hetero_masked_attention_block import HeteroMaskedAttentionBlock
from pyg_nsa.nn.hetero_nsa import HeteroNSA
from pyg_nsa.nn.hetero_nsa_conv import HeteroNSAConv
from pyg_nsa.nn.masked_attention_block import MaskedAttentionBlock
from pyg_nsa.nn.nsa_conv import NSAConv
from pyg_nsa.nn.nsa_encoder import NSAEncoder
from pyg_nsa.nn.relation_inputs import RelationInputs
from pyg_nsa.nn.self_attention_block import SelfAttentionBlock

__all__ = [
    "AttentionMap",
    "EdgeTerm",
    "HeteroMaskedAttentionBlock",
    "HeteroNSA",
    "HeteroNSAConv",
    "MaskedAttentionBlock",
    "NSAConv",
    "NSAEncoder",
    "RelationInputs",
    "SelfAttentionBlock",
    "attention_maps",
]

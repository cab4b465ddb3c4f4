"""Declared masks and edge biases for PyG's heterogeneous convolutions.

Names are imported at first use, so that ``import pyg_nsa`` and the command line start without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyg_nsa.lazy import lazy_names

__version__ = "0.1.0"

_HOMES = {
    "pyg_nsa.api": (
        "BuildContext",
        "EdgeKind",
        "Operator",
        "OperatorContext",
        "Options",
        "PairOptions",
        "hookimpl",
    ),
    "pyg_nsa.attention": ("EdgeSet", "Segments", "edge_attention", "self_attention"),
    "pyg_nsa.checkpoint": ("describe_checkpoint",),
    "pyg_nsa.config": ("EdgeSpec", "HeteroNSAConfig"),
    "pyg_nsa.errors": ("CheckpointMismatchError",),
    "pyg_nsa.load": ("ConfigError", "Problem", "load_config"),
    "pyg_nsa.nn": (
        "AttentionMap",
        "EdgeTerm",
        "HeteroNSA",
        "HeteroNSAConv",
        "MaskedAttentionBlock",
        "NSAConv",
        "NSAEncoder",
        "RelationInputs",
        "SelfAttentionBlock",
        "attention_maps",
    ),
    "pyg_nsa.operators": ("build_operator",),
    "pyg_nsa.registry": ("Registry", "RegistryError", "default_registry", "register"),
    "pyg_nsa.swapping": ("SwapError", "SwapReport", "swap"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "AttentionMap",
    "BuildContext",
    "CheckpointMismatchError",
    "ConfigError",
    "EdgeKind",
    "EdgeSet",
    "EdgeSpec",
    "EdgeTerm",
    "HeteroNSA",
    "HeteroNSAConfig",
    "HeteroNSAConv",
    "MaskedAttentionBlock",
    "NSAConv",
    "NSAEncoder",
    "Operator",
    "OperatorContext",
    "Options",
    "PairOptions",
    "Problem",
    "Registry",
    "RegistryError",
    "RelationInputs",
    "Segments",
    "SelfAttentionBlock",
    "SwapError",
    "SwapReport",
    "attention_maps",
    "build_operator",
    "default_registry",
    "describe_checkpoint",
    "edge_attention",
    "hookimpl",
    "load_config",
    "register",
    "self_attention",
    "swap",
]

if TYPE_CHECKING:
    from pyg_nsa.api import (
        BuildContext,
        EdgeKind,
        Operator,
        OperatorContext,
        Options,
        PairOptions,
        hookimpl,
    )
    from pyg_nsa.attention import EdgeSet, Segments, edge_attention, self_attention
    from pyg_nsa.checkpoint import describe_checkpoint
    from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
    from pyg_nsa.errors import CheckpointMismatchError
    from pyg_nsa.load import ConfigError, Problem, load_config
    from pyg_nsa.nn import (
        AttentionMap,
        EdgeTerm,
        HeteroNSA,
        HeteroNSAConv,
        MaskedAttentionBlock,
        NSAConv,
        NSAEncoder,
        RelationInputs,
        SelfAttentionBlock,
        attention_maps,
    )
    from pyg_nsa.operators import build_operator
    from pyg_nsa.registry import Registry, RegistryError, default_registry, register
    from pyg_nsa.swapping import SwapError, SwapReport, swap

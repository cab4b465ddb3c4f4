"""One layer over one relation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, HGTConv, TransformerConv

from pyg_nsa import EdgeSet, MaskedAttentionBlock, NSAConv

from .contenders import (
    OURS,
    PYG,
    TORCH,
    Contender,
    NotRun,
    Setting,
    Step,
    leaf,
    nbytes,
)
from .dense_attention import DenseAttention, FlexDense, block_mask, check_compiles, dense_mask
from .workloads import only_relation, union_index

#: Contenders that compute one and the same function when they get one state dict.
SAME_FUNCTION = (
    "TransformerConv",
    "SDPA, dense bool mask",
    "FlexAttention, dense bool mask",
    "NSAConv, edge_index",
    "NSAConv",
)


def _graph(setting: Setting) -> tuple[int, Tensor]:
    return only_relation(setting.workload.graph())


def _union(setting: Setting) -> tuple[int, Tensor]:
    nodes, index = _graph(setting)
    return nodes * setting.batch, union_index(index, nodes, setting.batch)


def _pyg_step(setting: Setting, conv: nn.Module) -> Step:
    nodes, index = _union(setting)
    x = leaf(nodes, setting.channels)
    return Step(conv, lambda: conv(x, index), [x], setting.dtype, nbytes(index))


def _transformer(setting: Setting) -> Step:
    return _pyg_step(
        setting,
        TransformerConv(setting.channels, setting.channels // setting.heads, setting.heads),
    )


def _gatv2(setting: Setting) -> Step:
    size = setting.channels // setting.heads
    return _pyg_step(
        setting, GATv2Conv(setting.channels, size, setting.heads, add_self_loops=False)
    )


def _hgt(setting: Setting) -> Step:
    nodes, index = _union(setting)
    edge_type = ("node", "to", "node")
    conv = HGTConv(setting.channels, setting.channels, (["node"], [edge_type]), setting.heads)
    x = leaf(nodes, setting.channels)
    return Step(
        conv,
        lambda: conv({"node": x}, {edge_type: index}),
        [x],
        setting.dtype,
        nbytes(index),
    )


def _mask(setting: Setting) -> Tensor:
    """``[N, N]``, or one for each graph of a batch, as a batch of differently perturbed graphs needs."""
    nodes, index = _graph(setting)
    mask = dense_mask(index, nodes, nodes)
    return mask if setting.batch == 1 else mask.repeat(setting.batch, 1, 1)


def _rows(setting: Setting, nodes: int) -> Tensor:
    shape = (nodes,) if setting.batch == 1 else (setting.batch, nodes)
    return leaf(*shape, setting.channels)


def _sdpa(setting: Setting) -> Step:
    mask = _mask(setting)
    module = DenseAttention(setting.channels, setting.heads)
    x = _rows(setting, mask.size(-1))
    return Step(module, lambda: module(x, mask), [x], setting.dtype, nbytes(mask))


def _flex(setting: Setting) -> Step:
    torch._dynamo.reset()  # a variant for each shape; torch's limit of variants ends in an error
    mask = _mask(setting)
    module = FlexDense(setting.channels, setting.heads)
    blocks = block_mask(mask)
    x = _rows(setting, mask.size(-1))
    check_compiles(module, x, blocks)
    return Step(
        module,
        lambda: module(x, blocks),
        [x],
        setting.dtype,
        nbytes(mask, blocks.as_tuple()),
        trains=False,
    )


def _ours(setting: Setting, module: nn.Module, shared: bool) -> Step:
    nodes, index = _graph(setting) if shared else _union(setting)
    edges = EdgeSet.from_edge_index(index, nodes, nodes)
    x = _rows(setting, nodes) if shared else leaf(nodes, setting.channels)
    step = Step(module, lambda: module(x, edges), [x], setting.dtype, 0)
    step.train()  # what is derived at first use is part of the edge set
    step.clear()
    step.state = nbytes(edges)
    return step


def _conv(setting: Setting) -> NSAConv:
    return NSAConv(setting.channels, setting.channels // setting.heads, setting.heads)


def _nsa_unprepared(setting: Setting) -> Step:
    return _pyg_step(setting, _conv(setting))


def _nsa(setting: Setting) -> Step:
    return _ours(setting, _conv(setting), shared=False)


def _nsa_shared(setting: Setting) -> Step:
    return _ours(setting, _conv(setting), shared=True)


def _mab(setting: Setting) -> Step:
    block = MaskedAttentionBlock(setting.channels, setting.heads)
    return _ours(setting, block, shared=False)


def _mab_shared(setting: Setting) -> Step:
    block = MaskedAttentionBlock(setting.channels, setting.heads)
    return _ours(setting, block, shared=True)


# Bytes that a training step needs, from measurements at the physical size; they only decide what is left out.
def _by_edge(rows: float):
    """``rows`` values of each channel for each edge."""
    return lambda setting, nodes, edges: (
        setting.batch * 4.0 * setting.channels * (rows * edges + 16 * nodes)
    )


def _by_pair(bytes_of_pair: float, values_of_edge: float = 0.0):
    return lambda setting, nodes, edges: (
        setting.batch
        * (
            bytes_of_pair * nodes**2
            + 4.0 * (values_of_edge * edges + 16 * setting.channels * nodes)
        )
    )


def _by_value(setting: Setting, nodes: int, edges: int) -> float:
    """A few values of each head for each pair, and the pair set itself."""
    return setting.batch * (edges * (16.0 * setting.heads + 128) + 80.0 * setting.channels * nodes)


LAYERS = (
    Contender(
        "TransformerConv",
        PYG,
        "q, k, v and skip projections, attention",
        _transformer,
        _by_edge(6.5),
    ),
    Contender(
        "GATv2Conv", PYG, "source and target projections, additive attention", _gatv2, _by_edge(6.5)
    ),
    Contender(
        "HGTConv",
        PYG,
        "q, k, v, relation and output projections, attention, GELU, gated skip",
        _hgt,
        _by_edge(6.5),
    ),
    Contender(
        "SDPA, dense bool mask",
        TORCH,
        "q, k, v and skip projections, attention",
        _sdpa,
        _by_pair(6),
        "matrix",
    ),
    Contender(
        "FlexAttention, dense bool mask",
        TORCH,
        "q, k, v and skip projections, attention; forward only, it has no backward on a CPU",
        _flex,
        _by_pair(10),
        "matrix",
        slow_in=("nodes", "batch"),
    ),
    Contender(
        "NSAConv, edge_index",
        OURS,
        "q, k, v and skip projections, attention; the edge set is built in every call",
        _nsa_unprepared,
        _by_value,
        sections=("layer",),
    ),
    Contender("NSAConv", OURS, "q, k, v and skip projections, attention", _nsa, _by_value),
    Contender(
        "MaskedAttentionBlock",
        OURS,
        "norm, q, k, v and output projections, attention, residual, norm, MLP, residual",
        _mab,
        _by_value,
    ),
    Contender(
        "NSAConv, shared graph",
        OURS,
        "NSAConv on [B, N, C] with one graph's edge set",
        _nsa_shared,
        _by_value,
        sections=("batch",),
    ),
    Contender(
        "MaskedAttentionBlock, shared graph",
        OURS,
        "the block on [B, N, C] with one graph's edge set",
        _mab_shared,
        _by_value,
        sections=("batch",),
    ),
)


def check_agreement(setting: Setting) -> dict[str, float]:
    """Largest difference of each contender from TransformerConv with the same parameters, over its largest value.

    Rows without an edge are left out: dense attention has no result of its own there.
    """
    nodes, index = _graph(setting)
    has_edge = index[1].bincount(minlength=nodes) > 0
    by_name = {c.name: c for c in LAYERS}
    first = by_name[SAME_FUNCTION[0]].make(setting)
    expected = first.forward()[0][has_edge]
    out = {}
    for name in SAME_FUNCTION[1:]:
        try:
            step = by_name[name].make(setting)
        except NotRun:
            continue
        step.module.load_state_dict(first.module.state_dict())
        got = step.forward()[0][has_edge]
        out[name] = float((got - expected).abs().max() / expected.abs().max())
    return out

"""One layer over the four relations of a cell: physical, regulatory, gene-reaction, signed reaction-metabolite.

Every contender gets 64 input channels for each node type and gives messages to genes, reactions and metabolites. The
sign and size of the stoichiometry is an edge attribute for those that take one (HGTConv and the dense masks do not).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv, HeteroConv, HGTConv, TransformerConv

from pyg_nsa import HeteroNSA, HeteroNSAConv
from pyg_nsa.nn.hetero_inputs import HeteroInputs

from .contenders import (
    OURS,
    PYG,
    TORCH,
    Contender,
    Setting,
    Step,
    leaf,
    nbytes,
)
from .dense_attention import DenseAttention, FlexDense, block_mask, check_compiles, dense_mask

EdgeType = tuple[str, str, str]


def kinds(graph: HeteroData) -> dict[EdgeType, str]:
    """The declared edge kind of each relation."""
    out = {}
    for edge_type in graph.edge_types:
        if "stoichiometry" in graph[edge_type]:
            out[edge_type] = "stoichiometry_bias"
        elif edge_type[0] == edge_type[2]:
            out[edge_type] = "adjacency_mask"
        else:
            out[edge_type] = "incidence_mask"
    return out


def _leaves(graph: HeteroData, channels: int) -> dict[str, Tensor]:
    return {
        t: leaf(graph[t].num_nodes, channels, seed=number)
        for number, t in enumerate(graph.node_types)
    }


def _attributes(graph: HeteroData) -> dict[EdgeType, Tensor]:
    return {
        t: graph[t].stoichiometry[:, None] for t in graph.edge_types if "stoichiometry" in graph[t]
    }


def hetero_conv(graph: HeteroData, conv: Callable[[int | None], nn.Module]) -> HeteroConv:
    """HeteroConv with ``conv(edge_dim)`` for each relation."""
    signed = _attributes(graph)
    return HeteroConv({t: conv(1 if t in signed else None) for t in graph.edge_types})


def _pyg(setting: Setting, conv: Callable[[int | None], nn.Module]) -> Step:
    graph = setting.workload.graph()
    module = hetero_conv(graph, conv)
    x, index, attributes = (
        _leaves(graph, setting.channels),
        graph.edge_index_dict,
        _attributes(graph),
    )
    return Step(
        module,
        lambda: module(x, index, edge_attr_dict=attributes),
        list(x.values()),
        setting.dtype,
        nbytes(index, attributes),
    )


def _transformer(setting: Setting) -> Step:
    c, h = setting.channels, setting.heads
    return _pyg(setting, lambda edge_dim: TransformerConv((c, c), c // h, h, edge_dim=edge_dim))


def _gatv2(setting: Setting) -> Step:
    c, h = setting.channels, setting.heads
    return _pyg(
        setting,
        lambda edge_dim: GATv2Conv((c, c), c // h, h, edge_dim=edge_dim, add_self_loops=False),
    )


def _hgt(setting: Setting) -> Step:
    graph = setting.workload.graph()
    module = HGTConv(setting.channels, setting.channels, graph.metadata(), setting.heads)
    x, index = _leaves(graph, setting.channels), graph.edge_index_dict
    return Step(module, lambda: module(x, index), list(x.values()), setting.dtype, nbytes(index))


def _masks(graph: HeteroData) -> dict[EdgeType, Tensor]:
    return {
        t: dense_mask(graph[t].edge_index, graph[t[0]].num_nodes, graph[t[2]].num_nodes)
        for t in graph.edge_types
    }


def _sdpa(setting: Setting) -> Step:
    graph = setting.workload.graph()
    c, h = setting.channels, setting.heads
    module = HeteroConv({t: DenseAttention(c, h) for t in graph.edge_types})
    x, masks = _leaves(graph, c), _masks(graph)
    # HeteroConv hands each conv what the dictionary holds for its relation, here the mask.
    return Step(module, lambda: module(x, masks), list(x.values()), setting.dtype, nbytes(masks))


def _flex(setting: Setting) -> Step:
    torch._dynamo.reset()
    graph = setting.workload.graph()
    c, h = setting.channels, setting.heads
    module = HeteroConv({t: FlexDense(c, h) for t in graph.edge_types})
    x, masks = _leaves(graph, c), _masks(graph)
    blocks = {t: block_mask(mask) for t, mask in masks.items()}
    for edge_type, conv in module.convs.items():
        check_compiles(conv, (x[edge_type[0]], x[edge_type[2]]), blocks[edge_type])
    state = nbytes(masks, [b.as_tuple() for b in blocks.values()])
    return Step(
        module,
        lambda: module(x, blocks),
        list(x.values()),
        setting.dtype,
        state,
        trains=False,
    )


def _conv(setting: Setting, graph: HeteroData) -> HeteroNSAConv:
    c = setting.channels
    return HeteroNSAConv(kinds(graph), hidden_channels=c, in_channels=c, heads=setting.heads)


def _nsa_unprepared(setting: Setting) -> Step:
    graph = setting.workload.graph()
    module = _conv(setting, graph)
    x, index = _leaves(graph, setting.channels), graph.edge_index_dict
    signed = {t: a[:, 0] for t, a in _attributes(graph).items()}
    return Step(
        module,
        lambda: module(x, index, stoichiometry_dict=signed),
        list(x.values()),
        setting.dtype,
        nbytes(index, signed),
    )


def _prepared(setting: Setting, graph: HeteroData, x: dict[str, Tensor]) -> tuple[HeteroNSA, dict]:
    """A stack of one block, and the arguments of a call with the pair sets built once."""
    stack = HeteroNSA(
        setting.channels, setting.channels, kinds(graph), pattern="M", heads=setting.heads
    )
    data = HeteroData()
    for node_type, rows in x.items():
        data[node_type].x = rows
    for edge_type in graph.edge_types:
        for name, value in graph[edge_type].items():
            data[edge_type][name] = value
    return stack, stack.prepare(data)


def _state(arguments: dict) -> int:
    return nbytes(arguments["edge_set_dict"], arguments.get("stoichiometry_dict", {}))


def _nsa(setting: Setting) -> Step:
    graph = setting.workload.graph()
    module = _conv(setting, graph)
    x = _leaves(graph, setting.channels)
    arguments = {**_prepared(setting, graph, x)[1], "x_dict": x}
    step = Step(module, lambda: module(**arguments), list(x.values()), setting.dtype, 0)
    step.train()
    step.clear()
    step.state = _state(arguments)
    return step


def _block(setting: Setting) -> Step:
    graph = setting.workload.graph()
    x = _leaves(graph, setting.channels)
    stack, arguments = _prepared(setting, graph, x)
    block = stack.blocks[0]
    arguments = {**arguments, "x_dict": x}

    def call() -> dict[str, Tensor]:
        return block(x, HeteroInputs("benchmark", (), arguments))

    step = Step(block, call, list(x.values()), setting.dtype, 0)
    step.train()
    step.clear()
    step.state = _state(arguments)
    return step


def _by_edge(rows: float):
    return lambda setting, nodes, edges: 4.0 * setting.channels * (rows * edges + 32 * nodes)


def _by_pair(bytes_of_pair: float):
    return lambda setting, nodes, edges: bytes_of_pair * nodes**2


HETERO_LAYERS = (
    Contender(
        "HeteroConv of TransformerConv",
        PYG,
        "per relation: q, k, v and skip projections, attention",
        _transformer,
        _by_edge(6.5),
    ),
    Contender(
        "HeteroConv of GATv2Conv",
        PYG,
        "per relation: source and target projections, additive attention",
        _gatv2,
        _by_edge(6.5),
    ),
    Contender(
        "HGTConv",
        PYG,
        "per type: q, k, v and output projections; per relation: k and v transforms, attention",
        _hgt,
        _by_edge(6.5),
    ),
    Contender(
        "HeteroConv of SDPA, dense bool masks",
        TORCH,
        "per relation: q, k, v and skip projections, attention",
        _sdpa,
        _by_pair(6),
        "matrix",
    ),
    Contender(
        "HeteroConv of FlexAttention, dense bool masks",
        TORCH,
        "per relation: q, k, v and skip projections, attention; forward only",
        _flex,
        _by_pair(6),
        "matrix",
        slow_in=("hetero",),
    ),
    Contender(
        "HeteroNSAConv, edge_index",
        OURS,
        "as HeteroNSAConv; the edge sets are built in every call",
        _nsa_unprepared,
        _by_edge(2),
    ),
    Contender(
        "HeteroNSAConv",
        OURS,
        "bare step, per relation: q, k, v and output projections, attention",
        _nsa,
        _by_edge(2),
    ),
    Contender(
        "HeteroMaskedAttentionBlock",
        OURS,
        "as HeteroNSAConv, and per type: norm, residual, norm, MLP, residual",
        _block,
        _by_edge(2),
    ),
)

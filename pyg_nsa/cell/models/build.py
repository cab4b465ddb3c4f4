"""From a configuration to the model of a cell, and to its baselines.

What computes the messages is what ``operator.operator`` names, from any plugin. An operator that knows perturbed copies of one
graph (:class:`~pyg_nsa.HeteroNSA`) gets them as they are; any other becomes the layers of a
:class:`~pyg_nsa.cell.models.union_operator.UnionOperator`, one for each M of the pattern. Input projection, embeddings, readout and head
are the same for all.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch_geometric.data import HeteroData

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.models.deletion_readout import DeletionReadout
from pyg_nsa.cell.models.gene_embedding import GeneEmbeddingModel
from pyg_nsa.cell.models.model import HeteroCellNSA
from pyg_nsa.cell.models.union_operator import UnionOperator, with_edge_attr
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.config.fit import misfits
from pyg_nsa.errors import ConfigError
from pyg_nsa.nn import HeteroNSAConv
from pyg_nsa.operators import build_operator
from pyg_nsa.plain_values import plain_values
from pyg_nsa.sources import keep_source

__all__ = [
    "TRAINED_BASELINES",
    "build_embedding",
    "build_hetero_conv",
    "build_hgt",
    "build_model",
    "build_no_messages",
]


def build_model(config: CellConfig, graph: HeteroData) -> HeteroCellNSA:
    """The model with the operator that the configuration names.

    Args:
        config: The configuration.
        graph: The base graph.

    Raises:
        ConfigError: The operator's edge types or fields do not fit the graph.
        ValueError: A readout node type that the operator does not have, or a pattern that a stack of PyG convs can't follow.
    """
    declared = config.operator
    node_types = _node_types(declared)
    # HeteroConv finds edge_attr under that name, which the cell's own data do not have.
    graph = with_edge_attr(graph)
    num_nodes = _num_nodes(config, graph, node_types)
    filled = declared.model_copy(update={"num_nodes": num_nodes})
    keep_source(declared, filled)  # so that an error names file and line
    problems = misfits(filled, graph, filled.registry(), features=False)
    if problems:
        raise ConfigError(problems)
    # Of metadata, so that projections of attributes draw their weights in the first call, after all others: seeds keep their models.
    whole = build_operator(filled, graph.metadata())
    if isinstance(whole, HeteroNSAConv) and whole.stack is not None:
        size = declared.out_channels or declared.hidden_channels
        return _with_readout(config, graph, whole.stack, node_types, size)
    return _with_readout(
        config,
        graph,
        _union(declared, graph, node_types, num_nodes),
        node_types,
        declared.hidden_channels,
    )


def _union(
    declared: HeteroNSAConfig, graph: HeteroData, node_types: list[str], num_nodes: dict[str, int]
) -> UnionOperator:
    """One layer for each M; S blocks are HeteroNSA's own."""
    assert declared.pattern is not None
    depth = declared.pattern.count("M")
    if not depth:
        raise ValueError(
            f"operator.pattern {declared.pattern!r}: operator '{declared.operator}' is one layer for each M, and there is none; "
            "write a pattern such as 'MM'"
        )
    size = declared.hidden_channels
    step = declared.model_copy(update={"num_nodes": {}, "out_channels": None})
    layers = [build_operator(step, graph, size) for _ in range(depth)]
    return UnionOperator(layers, node_types, size, num_nodes, dropout=declared.dropout)


def build_hetero_conv(config: CellConfig, graph: HeteroData) -> HeteroCellNSA:
    """The same model with PyG's HeteroConv of GATv2Conv (or what ``operator_options`` name), one layer for each M.

    Coefficients of stoichiometry are its edge attributes.
    """
    declared = config.operator
    if declared.operator == "hetero_conv":
        return build_model(config, graph)
    edges = [_gatv2(spec, graph) for spec in declared.edges]
    return build_model(_with_operator(config, "hetero_conv", edges=edges), graph)


def build_hgt(config: CellConfig, graph: HeteroData) -> HeteroCellNSA:
    """The same model with PyG's HGTConv, one layer for each M; it has no place for stoichiometry."""
    return build_model(_with_operator(config, "hgt"), graph)


def build_no_messages(config: CellConfig, graph: HeteroData) -> HeteroCellNSA:
    """The same readout on projected features alone: how much of a result do the messages explain?"""
    types = _node_types(config.operator)
    size = config.operator.hidden_channels
    operator = UnionOperator([], types, size, _num_nodes(config, graph, types))
    return _with_readout(config, graph, operator, types, size)


def build_embedding(config: CellConfig, graph: HeteroData) -> GeneEmbeddingModel:
    """The model without a graph, of the same width; its learned vectors are there whatever ``data.embeddings`` says."""
    return GeneEmbeddingModel(
        graph,
        config.operator.hidden_channels,
        config.readout.hidden_channels,
        config.readout.dropout,
    )


#: Baselines that are trained, by name.
TRAINED_BASELINES = {
    "hetero_conv": build_hetero_conv,
    "hgt": build_hgt,
    "no_messages": build_no_messages,
    "embedding": build_embedding,
}


def _with_operator(config: CellConfig, name: str, **changes: Any) -> CellConfig:
    """The configuration with another operator, checked as if it stood in the file."""
    declared = config.operator
    if declared.operator == name:
        return config
    raw = plain_values(declared, exclude={"operator_options"}) | {"operator": name} | changes
    operator = HeteroNSAConfig.model_validate(raw, context={"registry": declared.registry()})
    return config.model_copy(update={"operator": operator})


def _gatv2(spec: EdgeSpec, graph: HeteroData) -> dict[str, Any]:
    args: dict[str, Any] = {"add_self_loops": False}
    if "stoichiometry" in graph[spec.edge_type]:
        args["edge_dim"] = 1
    options = {"conv": "GATv2Conv", "args": args}
    return {"edge_type": spec.edge_type, "kind": "pyg_conv", "options": options}


def _node_types(declared: HeteroNSAConfig) -> list[str]:
    ends = ((source, target) for source, _, target in (spec.edge_type for spec in declared.edges))
    return list(dict.fromkeys(t for pair in ends for t in pair))


def _num_nodes(config: CellConfig, graph: HeteroData, node_types: list[str]) -> dict[str, int]:
    if config.operator.num_nodes or not config.data.embeddings:
        return config.operator.num_nodes
    return {t: int(graph[t].num_nodes) for t in graph.node_types if t in node_types}


def _with_readout(
    config: CellConfig,
    graph: HeteroData,
    operator: nn.Module,
    node_types: list[str],
    channels: int,
) -> HeteroCellNSA:
    readout = config.readout
    wanted = readout.node_types or node_types
    for name in wanted:
        if name not in node_types:
            raise ValueError(
                f"readout.node_types names '{name}', which no edge type has; node types: {', '.join(node_types)}"
            )
    deletion = None
    if readout.deletion:
        hidden = readout.hidden_channels or channels
        deletion = DeletionReadout(
            graph,
            wanted,
            channels,
            hidden,
            readout.aggregations,
            readout.dropout,
            readout.blocked,
            readout.starved,
            readout.loans,
            readout.response,
        )
    return HeteroCellNSA(
        operator,
        wanted,
        channels,
        readout.aggregations,
        readout.hidden_channels,
        readout.dropout,
        "natural" if isinstance(operator, UnionOperator) else config.node_order,
        deletion,
        readout.copies,
        readout.epistasis,
        readout.difference,
    )

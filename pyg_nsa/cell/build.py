"""From a configuration to the model of a cell, and to the baselines of the same size."""

from __future__ import annotations

from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv, HeteroConv

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.model import HeteroCellNSA
from pyg_nsa.cell.union_operator import UnionOperator
from pyg_nsa.nn import HeteroNSA
from pyg_nsa.nn.node_order import NodeOrder

__all__ = ["build_hetero_conv", "build_model"]


def build_model(config: CellConfig, graph: HeteroData) -> HeteroCellNSA:
    """HeteroCellNSA with the operator that the configuration declares.

    Raises:
        ConfigError: The operator's edge types or fields do not fit the graph.
        ValueError: A readout node type that the operator does not have, or an operator without a pattern.
    """
    declared = config.operator
    registry = declared.registry()
    declared.bind(graph, registry)
    if declared.pattern is None:
        raise ValueError(
            "operator.pattern is null (one bare step); the cell model needs a stack such as 'MSM'"
        )
    assert declared.aggr is not None
    operator = HeteroNSA(
        declared.in_channels,
        declared.hidden_channels,
        declared.edges,
        declared.pattern,
        declared.heads,
        declared.aggr,
        declared.out_channels,
        declared.dropout,
        declared.mlp_ratio,
        declared.sab.node_types,
        declared.sab.induced_points,
        _num_nodes(config, graph),
        declared.numbering,
        registry,
    )
    return _with_readout(
        config,
        operator,
        operator.node_types,
        declared.out_channels or declared.hidden_channels,
        config.node_order,
    )


def build_hetero_conv(config: CellConfig, graph: HeteroData) -> HeteroCellNSA:
    """The same model with PyG's HeteroConv of GATv2Conv, one layer for each M of the pattern."""
    declared = config.operator
    channels, heads = declared.hidden_channels, declared.heads
    edge_types = [tuple(spec.edge_type) for spec in declared.edges]

    def conv(edge_type: tuple[str, ...]) -> nn.Module:
        return GATv2Conv(
            (channels, channels),
            channels // heads,
            heads,
            add_self_loops=False,
            edge_dim=1 if "stoichiometry" in graph[edge_type] else None,
        )

    layers: list[nn.Module] = [
        HeteroConv({t: conv(t) for t in edge_types})
        for _ in range(declared.pattern.count("M"))  # type: ignore[union-attr]
    ]
    node_types = list(dict.fromkeys(t for src, _, dst in edge_types for t in (src, dst)))
    operator = UnionOperator(
        layers, node_types, channels, _num_nodes(config, graph), dropout=declared.dropout
    )
    return _with_readout(config, operator, node_types, channels)


def _num_nodes(config: CellConfig, graph: HeteroData) -> dict[str, int]:
    if config.operator.num_nodes or not config.data.embeddings:
        return config.operator.num_nodes
    mentioned = {
        t for spec in config.operator.edges for t in (spec.edge_type[0], spec.edge_type[2])
    }
    return {t: int(graph[t].num_nodes) for t in graph.node_types if t in mentioned}


def _with_readout(
    config: CellConfig,
    operator: nn.Module,
    node_types: list[str],
    channels: int,
    node_order: NodeOrder = "natural",
) -> HeteroCellNSA:
    wanted = config.readout.node_types or node_types
    for name in wanted:
        if name not in node_types:
            raise ValueError(
                f"readout.node_types names '{name}', which no edge type has; node types: {', '.join(node_types)}"
            )
    return HeteroCellNSA(
        operator,
        wanted,
        channels,
        config.readout.aggregations,
        config.readout.hidden_channels,
        config.operator.dropout,
        node_order,
    )

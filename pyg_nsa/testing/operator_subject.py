"""An operator under test: with some options, as a bare step and with a pattern, on a graph of three node types."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from pyg_nsa.api import BuildContext, EdgeKind, Operator, Options
from pyg_nsa.attention import EdgeSet
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.relation_inputs import RelationInputs
from pyg_nsa.operators import build_operator
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry
from pyg_nsa.testing.graphs import EdgeType, building, seeded
from pyg_nsa.testing.subject import HEADS, OUT, Call, check_option_sets, labelled, shake

__all__ = [
    "COLUMNS",
    "INTO_U",
    "INTO_V",
    "WITHIN_U",
    "HeteroGraph",
    "OperatorSubject",
    "OperatorUnderTest",
]

WITHIN_U: EdgeType = ("u", "near", "u")
INTO_V: EdgeType = ("u", "into", "v")
INTO_U: EdgeType = ("w", "into", "u")

SIZES = {"u": 9, "v": 5, "w": 4}
COLUMNS = {"u": 6, "v": 3, "w": 2}

#: The edge kind of all edge types, so that an operator can be checked without any plugin that provides kinds.
_KIND = "testing.edges"


class _Edges(EdgeTerm):
    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        return inputs.edges_from_index("edge_index")


def _build_edges(context: BuildContext, options: Options) -> nn.Module:
    return _Edges()


def _kind() -> EdgeKind:
    return EdgeKind(
        name=_KIND,
        build=_build_edges,
        summary="Targets attend to the sources that an edge joins them to.",
        requires=("edge_index",),
        api=(1, 0),
    )


@dataclass(frozen=True)
class HeteroGraph:
    """Rows by node type and edges by edge type."""

    x: Mapping[str, Tensor]
    index: Mapping[EdgeType, Tensor]
    dead: Mapping[str, Tensor]

    def data(self) -> HeteroData:
        """The graph as PyG holds it, in tensors of its own."""
        data = HeteroData()
        for node_type, x in self.x.items():
            data[node_type].x = x.clone()
            if node_type in self.dead:
                data[node_type].pert_mask = self.dead[node_type].clone()
        for edge_type, index in self.index.items():
            data[edge_type].edge_index = index.clone()
        return data

    def reordered(self) -> HeteroGraph:
        """The graph with the edges of every type in another order."""
        with seeded(1):
            index = {t: i[:, torch.randperm(i.size(1))] for t, i in self.index.items()}
        return replace(self, index=index)

    def double(self) -> HeteroGraph:
        """The graph in float64."""
        return replace(self, x={t: x.double() for t, x in self.x.items()})

    def with_deleted(self, dead: Mapping[str, Tensor]) -> HeteroGraph:
        """The graph with the marked nodes deleted in wildtype numbering."""
        return replace(self, dead=dead)

    def without_edges_of(self, dead: Mapping[str, Tensor]) -> HeteroGraph:
        """The graph without the edges at the marked nodes."""
        kept = {}
        for (source, name, target), index in self.index.items():
            at_dead = torch.zeros(index.size(1), dtype=torch.bool)
            for node_type, ends in ((source, index[0]), (target, index[1])):
                if node_type in dead:
                    at_dead |= dead[node_type][ends]
            kept[source, name, target] = index[:, ~at_dead]
        return replace(self, index=kept)


class OperatorUnderTest:
    """An operator with the option sets to check it with."""

    def __init__(
        self,
        operator: Operator,
        registry: Registry | None,
        option_sets: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        self.declared = operator
        self._registry = registry
        self.option_sets = check_option_sets(operator, option_sets)

    @functools.cached_property
    def registry(self) -> Registry:
        """Where the operator is found by its name, and an edge kind beside it."""
        if self._registry is None:
            registry = Registry(discover=False)
            registry.register(self.declared)
        else:
            # A registry like it: to the caller's own nothing is added.
            registry = self._registry.without([_KIND], by="pyg_nsa.testing")
        registry.register(_kind())
        return registry

    @property
    def labelled_options(self) -> list[tuple[str, Options]]:
        """Validated options, each with a label for messages."""
        return labelled(self.declared, self.option_sets)

    def raw_config(self, options: Any) -> tuple[dict[str, Any], str]:
        """A configuration with these options, and the path at which they stand in it."""
        config = {
            "operator": self.declared.name,
            "operator_options": options,
            "hidden_channels": OUT,
            "heads": HEADS,
            "edges": [{"edge_type": list(t), "kind": _KIND} for t in (WITHIN_U, INTO_V, INTO_U)],
        }
        return config, "operator_options"

    @functools.cached_property
    def subjects(self) -> list[tuple[str, OperatorSubject]]:
        """Every set of options, as a bare step and with a pattern."""
        return [
            (f"{label}, pattern {pattern or 'null'}", OperatorSubject(self, options, pattern))
            for label, options in self.labelled_options
            for pattern in (None, "MS")
        ]


class OperatorSubject:
    """One set of options with one pattern."""

    def __init__(
        self, under_test: OperatorUnderTest, options: Options, pattern: str | None
    ) -> None:
        self.under_test = under_test
        self.options = options
        self.pattern = pattern

    @property
    def out_types(self) -> tuple[str, ...]:
        """The node types that rows are given of."""
        return ("u", "v") if self.pattern is None else ("u", "v", "w")

    def graph(self, seed: int = 0, sizes: Mapping[str, int] = SIZES) -> HeteroGraph:
        """A random graph."""
        with seeded(seed):
            x = {t: torch.randn(n, COLUMNS[t]) for t, n in sizes.items()}
            index = {
                (s, name, t): torch.stack(
                    [torch.randint(sizes[s], (14,)), torch.randint(sizes[t], (14,))]
                ).unique(dim=1)
                for s, name, t in (WITHIN_U, INTO_V, INTO_U)
            }
        return HeteroGraph(x, index, {})

    def build(
        self, seed: int = 0, channels: Any = COLUMNS, out_channels: int | None = None
    ) -> nn.Module:
        """A module that has not run yet, in evaluation mode."""
        with building(seed):
            return self.make(channels, out_channels)

    def make(self, channels: Any = COLUMNS, out_channels: int | None = None) -> nn.Module:
        """What `build` gives, under the seed of the caller."""
        raw, _ = self.under_test.raw_config(plain_values(self.options))
        config = {**raw, "pattern": self.pattern, "out_channels": out_channels}
        data = self.graph().data()
        return build_operator(config, data, channels, self.under_test.registry).eval()

    def layer(self, seed: int = 0) -> nn.Module:
        """A module that has run once, with all parameters away from their initial values."""
        module = self.build(seed)
        with torch.no_grad():
            self.rows(module, self.graph(), seed=seed)
        shake(module, seed)
        return module

    def module(self, layer: nn.Module) -> nn.Module:
        """What the operator built: all of it."""
        return layer

    def call(self, layer: Any, graph: Any) -> Call:
        """The arguments of a call."""
        call: Call = layer.collect(graph.data())
        return call

    def run(
        self, layer: Any, graph: Any = None, call: Call | None = None, seed: int = 0
    ) -> dict[str, Tensor]:
        """Rows by node type."""
        call = self.call(layer, graph) if call is None else call
        with seeded(seed):
            out: dict[str, Tensor] = layer(**call)
        return out

    def rows(
        self, layer: Any, graph: Any = None, call: Call | None = None, seed: int = 0
    ) -> Tensor:
        """All rows in one vector."""
        out = self.run(layer, graph, call, seed)
        return torch.cat([out[t].flatten() for t in sorted(out)])

"""An edge kind under test: with some options, on one edge type, in a bare step of the real host."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyg_nsa.api import EdgeKind, Operator, Options
from pyg_nsa.attention import EdgeSet
from pyg_nsa.config import EdgeSpec
from pyg_nsa.nn.call_fields import ReadFields
from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.nn.hetero_inputs import HeteroInputs
from pyg_nsa.nn.hetero_nsa_conv import HeteroNSAConv
from pyg_nsa.nn.relation_inputs import RelationInputs
from pyg_nsa.registry import Registry
from pyg_nsa.testing.graphs import (
    COLUMNS,
    EdgeType,
    MakeFields,
    SmallGraph,
    building,
    is_structure,
    make_graph,
    seeded,
)
from pyg_nsa.testing.results import Finding, NotApplicable

__all__ = [
    "BETWEEN",
    "HEADS",
    "OUT",
    "WITHIN",
    "KindUnderTest",
    "Layered",
    "Subject",
    "check_option_sets",
    "labelled",
    "shake",
]

WITHIN: EdgeType = ("node", "joins", "node")
BETWEEN: EdgeType = ("source", "to", "target")
#: No other size of the small graphs is the number of heads, so that one cannot stand for another.
HEADS, OUT = 3, 24

Call = dict[str, dict[Any, Any]]


def check_option_sets(
    declared: EdgeKind | Operator, option_sets: Sequence[Mapping[str, Any]] | None
) -> Sequence[Mapping[str, Any]] | None:
    """Checks the `options` argument of a kit: what is wrong with it is the caller's mistake, not the plugin's.

    Raises:
        ValueError: It is no list, or empty, or the plugin refuses one of the sets.
    """
    if option_sets is None:
        return None
    if isinstance(option_sets, Mapping) or not option_sets:
        raise ValueError(
            f"options for {declared.name!r} must be a list with at least one set of options, such as [{{}}, {{'k': 3}}]; got "
            f"{option_sets!r}"
        )
    for given in option_sets:
        declared.options.model_validate(dict(given))
    return option_sets


def labelled(
    declared: EdgeKind | Operator, option_sets: Sequence[Mapping[str, Any]] | None
) -> list[tuple[str, Options]]:
    """Validated options, each with a label for messages; the defaults alone where no set is given."""
    return [
        (
            f"options {dict(given)}" if given else "default options",
            declared.options.model_validate(dict(given)),
        )
        for given in ([{}] if option_sets is None else option_sets)
    ]


class KindUnderTest:
    """An edge kind with the option sets and the data to check it with.

    Args:
        kind: The kind.
        registry: Where it was looked up; a registry of its own is made for a kind that was passed itself.
        option_sets: Options as a user writes them; the defaults if not given.
        make_fields: See :func:`pyg_nsa.testing.check_edge_kind`.
    """

    def __init__(
        self,
        kind: EdgeKind,
        registry: Registry | None,
        option_sets: Sequence[Mapping[str, Any]] | None,
        make_fields: MakeFields | None,
    ) -> None:
        self.kind = kind
        self._registry = registry
        self.make_fields = make_fields
        self.option_sets = check_option_sets(kind, option_sets)

    @functools.cached_property
    def registry(self) -> Registry:
        """Where the kind is found by its name."""
        if self._registry is not None:
            return self._registry
        registry = Registry(discover=False)
        registry.register(self.kind)
        return registry

    @property
    def labelled_options(self) -> list[tuple[str, Options]]:
        """Validated options, each with a label for messages."""
        return labelled(self.kind, self.option_sets)

    @property
    def declared(self) -> EdgeKind:
        """The kind."""
        return self.kind

    def raw_config(self, options: Any) -> tuple[dict[str, Any], str]:
        """A configuration with these options, and the path at which they stand in it."""
        edge = {"edge_type": list(WITHIN), "kind": self.kind.name, "options": options}
        return {"edges": [edge]}, "edges[0].options"

    def spec(self, options: Options, edge_type: EdgeType) -> EdgeSpec:
        """The spec of an edge type."""
        raw = {"edge_type": edge_type, "kind": self.kind.name, "options": options}
        return EdgeSpec.model_validate(raw, context={"registry": self.registry})

    @functools.cached_property
    def tried(self) -> list[tuple[str, Subject | Exception]]:
        """For each set of options and each edge type the subject, or why its layer cannot be built."""
        found: list[tuple[str, Subject | Exception]] = []
        for label, options in self.labelled_options:
            for edge_type in (WITHIN, BETWEEN):
                place = f"{label}, edge type ({', '.join(edge_type)})"
                try:
                    subject = Subject(self, options, edge_type)
                    subject.build()
                    found.append((place, subject))
                except Exception as error:
                    found.append((place, error))
        return found

    @property
    def subjects(self) -> list[tuple[str, Subject]]:
        """Those whose layer can be built."""
        return [(label, s) for label, s in self.tried if isinstance(s, Subject)]


class Layered(Protocol):
    """What checks need that edge kinds and operators share."""

    def graph(self, *, seed: int = 0) -> Any:
        """A graph."""

    def build(self, seed: int = 0) -> nn.Module:
        """A layer that has not run yet."""

    def make(self) -> nn.Module:
        """The same, under the seed of the caller."""

    def layer(self, seed: int = 0) -> nn.Module:
        """A layer that has run once, its parameters shaken."""

    def module(self, layer: Any) -> nn.Module:
        """What the plugin built of it."""

    def call(self, layer: Any, graph: Any) -> Call:
        """The arguments of a call."""

    def rows(
        self, layer: Any, graph: Any = None, call: Call | None = None, seed: int = 0
    ) -> Tensor:
        """What the layer gives."""


class Subject:
    """One set of options on one edge type."""

    def __init__(self, under_test: KindUnderTest, options: Options, edge_type: EdgeType) -> None:
        self._under_test = under_test
        self.kind = under_test.kind
        self.registry = under_test.registry
        self.make_fields = under_test.make_fields
        self.options = options
        self.edge_type = edge_type
        self.spec = under_test.spec(options, edge_type)
        #: Kept by the checks of compilation: how much was compared, and what went wrong.
        self.compiled: tuple[int, Exception | None] | None = None

    def with_options(self, **changes: Any) -> Subject:
        """The same edge type with other values in some options.

        Raises:
            ValidationError: The kind refuses them; a ValueError.
        """
        given = {**self.options.model_dump(), **changes}
        options = self.kind.options.model_validate(given, context={"edge_type": self.edge_type})
        return Subject(self._under_test, options, self.edge_type)

    @property
    def is_within(self) -> bool:
        """Whether source and target are of one node type."""
        return self.edge_type[0] == self.edge_type[2]

    @property
    def gives_messages(self) -> bool:
        """Whether the kind's module is a convolution of its own."""
        return "message" in self.kind.produces

    @property
    def is_hard_mask(self) -> bool:
        """Whether the kind says which pairs attend, and nothing else."""
        return self.kind.produces == {"mask"}

    def need_attention(self, why: str) -> None:
        """Leaves a check that looks at pairs or bias.

        Raises:
            NotApplicable: The kind produces messages.
        """
        if self.gives_messages:
            raise NotApplicable(f"the kind produces messages, {why}")

    # ---- data ------------------------------------------------------------------------------------------------------

    @property
    def choices(self) -> list[tuple[str, ...]]:
        """What the kind asks for; any one of each tuple will do."""
        return self.kind.missing(self.options, ())

    def graph(self, *, seed: int = 0, **changes: Any) -> SmallGraph:
        """A graph with the first of each choice; arguments as in :func:`make_graph`."""
        names = list(dict.fromkeys(names[0] for names in self.choices))
        return make_graph(
            self.edge_type, names, self.options, self.make_fields, seed=seed, **changes
        )

    def has_edge_list(self, graph: SmallGraph) -> bool:
        """Whether edges come as a list, in which one may occur twice."""
        return any(n.endswith("_index") for n in (*graph.structure, *graph.fields))

    def need_edge_list(self, graph: SmallGraph) -> None:
        """Leaves a check about a list of edges.

        Raises:
            NotApplicable: The graph has a dense mask only.
        """
        self.need_edges(graph)
        if not self.has_edge_list(graph):
            raise NotApplicable(
                f"the edges come as a dense mask ({', '.join(filter(is_structure, graph.structure))})"
            )

    def need_edges(self, graph: SmallGraph) -> None:
        """Leaves a check of what becomes of edges and their nodes.

        Raises:
            NotApplicable: The kind asks for no edges, so that the kit cannot know what its fields belong to.
        """
        if not any(map(is_structure, (*graph.structure, *graph.fields))):
            raise NotApplicable(
                "the kind asks for no field with edges (…_index or …_mask); test on your own what it makes of nodes"
            )

    # ---- the layer ---------------------------------------------------------------------------------------------------

    def build(self, seed: int = 0, channels: Any = COLUMNS) -> HeteroNSAConv:
        """A layer that has not run yet, in evaluation mode; `channels` of -1 are taken from the first call."""
        with building(seed):
            return self.make(channels)

    def make(self, channels: Any = COLUMNS) -> HeteroNSAConv:
        """What `build` gives, under the seed of the caller."""
        layer = HeteroNSAConv(
            {self.edge_type: self.spec},
            hidden_channels=OUT,
            in_channels=channels,
            heads=HEADS,
            registry=self.registry,
        )
        return layer.eval()

    def layer(self, seed: int = 0) -> HeteroNSAConv:
        """A layer that has run once, so that every size is known, with all parameters away from their initial values."""
        layer = self.build(seed)
        self.start(layer, self.graph(), seed)
        return layer

    def start(self, layer: HeteroNSAConv, graph: SmallGraph, seed: int = 0) -> None:
        """Runs a new layer once and shakes its parameters: some start at zero, where they have no effect yet."""
        with torch.no_grad():
            self.rows(layer, graph, seed=seed)
        shake(layer, seed)

    def call(self, layer: HeteroNSAConv, graph: SmallGraph) -> Call:
        """The arguments of a call."""
        return layer.collect(graph.data())

    def rows(
        self,
        layer: Any,
        graph: SmallGraph | None = None,
        call: Call | None = None,
        seed: int = 0,
    ) -> Tensor:
        """The targets' rows, computed under a seed: new parameters may be drawn in the first call."""
        if call is None:
            assert graph is not None
            call = self.call(layer, graph)
        with seeded(seed):
            out = layer(**call)
        target = self.edge_type[2]
        if target not in out:
            raise Finding(
                f"the layer gave no rows of node type '{target}': it skipped the relation, since the kind asks for no field of "
                "the edge type; name edge_index, or what your kind reads, in requires"
            )
        rows: Tensor = out[target]
        return rows

    def module(self, layer: HeteroNSAConv) -> nn.Module:
        """What the kind built: an edge term, or a convolution."""
        relation = layer.convs[self.edge_type]
        return relation if self.gives_messages else relation.term

    def hetero_inputs(self, call: Call) -> HeteroInputs:
        """A call as the host sorts it."""
        read = ReadFields(frozenset(self.kind.fields(self.options)))
        return HeteroInputs("pyg_nsa.testing", (), call, read=read)

    def inputs(self, call: Call) -> RelationInputs:
        """What the edge term of the relation reads."""
        return self.hetero_inputs(call).relation(self.edge_type)

    def pairs_and_bias(
        self, layer: HeteroNSAConv, call: Call, seed: int = 0
    ) -> tuple[EdgeSet, Tensor | None]:
        """What the edge term gives for a call."""
        term = self.module(layer)
        assert isinstance(term, EdgeTerm)
        with seeded(seed):
            return term(self.inputs(call))


def shake(module: nn.Module, seed: int = 0) -> None:
    """Adds noise to every floating-point parameter."""
    with torch.no_grad(), seeded(seed + 1):
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.3 * torch.randn(parameter.shape))

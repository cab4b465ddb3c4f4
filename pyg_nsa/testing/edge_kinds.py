"""The conformance kit of edge kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyg_nsa.api import EdgeKind
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.testing import autocast_checks as precision
from pyg_nsa.testing import declaration_checks as declared
from pyg_nsa.testing import foundation_checks as foundation
from pyg_nsa.testing import global_state as shared
from pyg_nsa.testing import graph_checks as graphs
from pyg_nsa.testing import input_checks as inputs
from pyg_nsa.testing import pair_option_checks as pair_options
from pyg_nsa.testing import parameter_checks as registered
from pyg_nsa.testing import pickling_checks as pickling
from pyg_nsa.testing import sharing_checks as sharing
from pyg_nsa.testing import size_checks as sizes
from pyg_nsa.testing import training_checks as training
from pyg_nsa.testing import training_mode_checks as trained
from pyg_nsa.testing.graphs import MakeFields
from pyg_nsa.testing.results import Check, CheckResult, NotApplicable
from pyg_nsa.testing.subject import KindUnderTest
from pyg_nsa.testing.suite import Suite

__all__ = ["EDGE_KIND_CHECKS", "check_edge_kind", "edge_kind_suite"]

_BUILT = ("declaration", "default_options", "builds")
_FOUNDATION = (
    *_BUILT,
    "produces",
    "global_state",
    "inputs_unchanged",
    "runs",
    "deterministic",
    "dtypes",
    "stateless",
    "direction",
)
_ORDERED = (*_FOUNDATION, "edge_order", "node_order")

#: All checks, in order. Scopes: the kind; each set of options on each edge type ("relation"); of these the edge type between two
#: node types ("bipartite"); of each set of options the first edge type ("one").
EDGE_KIND_CHECKS = (
    Check(declared.declaration, "kind"),
    Check(declared.default_options, "kind"),
    Check(declared.options_described, "kind"),
    Check(declared.unknown_option, "kind", ("declaration",)),
    Check(declared.round_trip, "kind", ("declaration", "default_options")),
    Check(foundation.builds, "kind", ("declaration", "default_options")),
    Check(foundation.produces, "relation", _FOUNDATION[:3]),
    Check(shared.global_state, "relation", _FOUNDATION[:4]),
    Check(inputs.inputs_unchanged, "relation", _FOUNDATION[:5]),
    Check(foundation.runs, "relation", _FOUNDATION[:6]),
    Check(foundation.deterministic, "relation", _FOUNDATION[:7]),
    Check(foundation.dtypes, "relation", _FOUNDATION[:8]),
    Check(foundation.stateless, "relation", _FOUNDATION[:9]),
    Check(foundation.direction, "relation", _FOUNDATION[:10]),
    Check(graphs.edge_order, "relation", _FOUNDATION),
    Check(graphs.node_order, "relation", (*_FOUNDATION, "edge_order")),
    Check(graphs.duplicate_edges, "relation", (*_FOUNDATION, "edge_order")),
    Check(graphs.isolated_nodes, "relation", _FOUNDATION),
    Check(graphs.empty_relation, "relation", (*_FOUNDATION, "isolated_nodes")),
    Check(graphs.bipartite, "bipartite", _FOUNDATION),
    Check(graphs.alternatives, "relation", _FOUNDATION),
    Check(graphs.batch, "relation", (*_ORDERED, "empty_relation", "bipartite")),
    Check(graphs.padding, "relation", (*_ORDERED, "batch")),
    Check(graphs.deleted_nodes, "relation", (*_ORDERED, "batch")),
    Check(graphs.copies, "relation", _FOUNDATION),
    Check(graphs.shared_pairs, "relation", _FOUNDATION),
    Check(sharing.same_edges, "relation", (*_ORDERED, "batch", "deleted_nodes")),
    Check(training.gradients, "relation", _FOUNDATION),
    Check(registered.parameters, "relation", _FOUNDATION),
    Check(training.state_dict, "relation", (*_FOUNDATION, "parameters")),
    Check(training.reset_parameters, "relation", _FOUNDATION),
    Check(trained.training_inputs, "relation", _FOUNDATION),
    Check(
        trained.training_gradients,
        "relation",
        (*_FOUNDATION, "gradients", "state_dict", "training_inputs"),
    ),
    Check(trained.training_batch, "relation", (*_FOUNDATION, "batch", "state_dict")),
    Check(precision.autocast, "relation", _FOUNDATION),
    Check(pickling.pickled, "relation", _FOUNDATION),
    Check(sizes.lazy_channels, "relation", _FOUNDATION),
    Check(pair_options.pair_options, "one", _FOUNDATION),
    Check(training.compiles, "one", _FOUNDATION),
    Check(training.compiles_pairs, "one", (*_FOUNDATION, "compiles")),
    Check(training.cpu_equals_gpu, "relation", _FOUNDATION),
)


def check_edge_kind(
    kind: str | EdgeKind,
    *,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    options: Sequence[Mapping[str, Any]] | None = None,
    make_fields: MakeFields | None = None,
) -> list[CheckResult]:
    """Runs every check on an edge kind, through a real layer on small graphs.

    Each check is run with each set of options, within one node type and between two (where the kind takes such edge types). A
    check that fails raises nothing; :func:`assert_edge_kind_conforms` does.

    The graphs hold what the kind asks for: edges under `…_index` and `…_mask` names, signed whole numbers for `stoichiometry`,
    two columns for `edge_attr`, relation numbers for `edge_type`, and one positive number for each edge under any other name.

    Args:
        kind: The name of a kind, or the kind itself, which then need not be registered.
        expected_failures: Names of checks that are known to fail, each with the reason. One that passes is a failure.
        registry: Where a name is looked up; the default registry if not given.
        options: Sets of options to run the checks with, as they stand in a configuration; the defaults alone if not given.
        make_fields: `make_fields(options, edge_index, num_nodes)` gives fields of the edge type by name, for a kind that needs
            other values than the above: `options` validated, `edge_index` `[2, E]` int64, `num_nodes` the numbers of sources
            and targets. A kind that leaves out edges by their values needs values with which it keeps all of them. Tensors with E rows are attributes of the edges. It may use torch's random numbers, which are seeded.

    Returns:
        One result for each check, in the order of the documentation; the last one says how many checks ran.

    Raises:
        RegistryError: No plugin provides the name, or the plugin cannot be used.
        ValueError: An expected failure that is no check or has no reason; options that the kind refuses.

    Example:
        >>> from pyg_nsa.testing import check_edge_kind
        >>> {result.status for result in check_edge_kind("adjacency_mask")}  # doctest: +SKIP
        {'passed', 'not_applicable'}
    """
    suite = edge_kind_suite(kind, expected_failures, registry, options, make_fields)
    return suite.results()


def edge_kind_suite(
    kind: str | EdgeKind,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    options: Sequence[Mapping[str, Any]] | None = None,
    make_fields: MakeFields | None = None,
    checks: Sequence[Check] = EDGE_KIND_CHECKS,
) -> Suite:
    """The checks of an edge kind, ready to run; arguments as in :func:`check_edge_kind`."""
    if isinstance(kind, EdgeKind):
        under_test = KindUnderTest(kind, None, options, make_fields)
    else:
        registry = registry if registry is not None else default_registry()
        under_test = KindUnderTest(registry.edge_kind(kind), registry, options, make_fields)

    def targets(scope: str) -> list[tuple[str, Any]]:
        if scope == "kind":
            return [("", under_test)]
        subjects = under_test.subjects
        if scope == "bipartite":
            between = [(label, s) for label, s in subjects if not s.is_within]
            if not between:
                why = next(e for _, e in under_test.tried if isinstance(e, Exception))
                raise NotApplicable(f"the kind refuses edge types between two node types: {why}")
            return between
        if scope == "one":
            first = {id(s.options): (label, s) for label, s in reversed(subjects)}
            return list(reversed(first.values()))
        return list(subjects)

    return Suite(
        under_test.kind.name,
        checks,
        targets,
        frozenset({"relation", "bipartite", "one"}),
        expected_failures,
    )

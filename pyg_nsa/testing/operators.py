"""The conformance kit of operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyg_nsa.api import Operator
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.testing import autocast_checks as precision
from pyg_nsa.testing import declaration_checks as declared
from pyg_nsa.testing import foundation_checks as foundation
from pyg_nsa.testing import global_state as shared
from pyg_nsa.testing import input_checks as inputs
from pyg_nsa.testing import operator_checks as operators
from pyg_nsa.testing import parameter_checks as registered
from pyg_nsa.testing import pickling_checks as pickling
from pyg_nsa.testing import training_checks as training
from pyg_nsa.testing import training_mode_checks as trained
from pyg_nsa.testing.operator_subject import OperatorUnderTest
from pyg_nsa.testing.results import Check, CheckResult
from pyg_nsa.testing.suite import Suite

__all__ = ["OPERATOR_CHECKS", "check_operator", "operator_suite"]

_FOUNDATION = (
    "declaration",
    "default_options",
    "builds",
    "rows",
    "global_state",
    "inputs_unchanged",
    "deterministic",
    "stateless",
)

#: All checks, in order. Scopes: the operator ("declared"), or each set of options with each pattern ("module").
OPERATOR_CHECKS = (
    Check(declared.declaration, "declared"),
    Check(declared.default_options, "declared"),
    Check(declared.options_described, "declared"),
    Check(declared.unknown_option, "declared", ("declaration",)),
    Check(declared.round_trip, "declared", ("declaration", "default_options")),
    Check(operators.builds, "module", _FOUNDATION[:2]),
    Check(operators.rows, "module", _FOUNDATION[:3]),
    Check(shared.global_state, "module", _FOUNDATION[:4]),
    Check(inputs.inputs_unchanged, "module", _FOUNDATION[:5]),
    Check(foundation.deterministic, "module", _FOUNDATION[:6]),
    Check(foundation.stateless, "module", _FOUNDATION[:7]),
    Check(operators.call_forms, "module", _FOUNDATION),
    Check(operators.unread_fields, "module", _FOUNDATION),
    Check(operators.lazy_channels, "module", _FOUNDATION),
    Check(operators.dtypes, "module", _FOUNDATION),
    Check(operators.direction, "module", _FOUNDATION),
    Check(operators.edge_order, "module", _FOUNDATION),
    Check(operators.missing_edges, "module", _FOUNDATION),
    Check(operators.batch, "module", (*_FOUNDATION, "edge_order")),
    Check(operators.deleted_nodes, "module", (*_FOUNDATION, "direction")),
    Check(operators.gradients, "module", (*_FOUNDATION, "dtypes")),
    Check(registered.parameters, "module", _FOUNDATION),
    Check(training.state_dict, "module", (*_FOUNDATION, "parameters")),
    Check(training.reset_parameters, "module", _FOUNDATION),
    Check(trained.training_inputs, "module", _FOUNDATION),
    Check(
        trained.training_gradients,
        "module",
        (*_FOUNDATION, "gradients", "state_dict", "training_inputs"),
    ),
    Check(trained.training_batch, "module", (*_FOUNDATION, "batch", "state_dict")),
    Check(precision.autocast, "module", _FOUNDATION),
    Check(pickling.pickled, "module", _FOUNDATION),
    Check(training.cpu_equals_gpu, "module", _FOUNDATION),
)


def check_operator(
    operator: str | Operator,
    *,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    options: Sequence[Mapping[str, Any]] | None = None,
) -> list[CheckResult]:
    """Runs every check on an operator, as a bare step and with a pattern, on a small graph of three node types.

    A check that fails raises nothing; :func:`assert_operator_conforms` does.

    Args:
        operator: The name of an operator, or the operator itself, which then need not be registered.
        expected_failures: Names of checks that are known to fail, each with the reason. One that passes is a failure.
        registry: Where a name is looked up; the default registry if not given.
        options: Sets of options to run the checks with, as they stand below `operator_options`; the defaults alone if not given.

    Returns:
        One result for each check; the last one says how many checks ran.

    Raises:
        RegistryError: No plugin provides the name, or the plugin cannot be used.
        ValueError: An expected failure that is no check or has no reason; options that the operator refuses.
    """
    return operator_suite(operator, expected_failures, registry, options).results()


def operator_suite(
    operator: str | Operator,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    options: Sequence[Mapping[str, Any]] | None = None,
    checks: Sequence[Check] = OPERATOR_CHECKS,
) -> Suite:
    """The checks of an operator, ready to run; arguments as in :func:`check_operator`."""
    if isinstance(operator, Operator):
        under_test = OperatorUnderTest(operator, None, options)
    else:
        registry = registry if registry is not None else default_registry()
        under_test = OperatorUnderTest(registry.operator(operator), registry, options)

    def targets(scope: str) -> Sequence[tuple[str, Any]]:
        return [("", under_test)] if scope == "declared" else under_test.subjects

    name = under_test.declared.name
    return Suite(name, checks, targets, frozenset({"module"}), expected_failures)

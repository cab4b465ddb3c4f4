"""Conformance as an assertion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.testing.edge_kinds import check_edge_kind
from pyg_nsa.testing.operators import check_operator
from pyg_nsa.testing.results import CheckResult

__all__ = ["assert_edge_kind_conforms", "assert_operator_conforms"]


def assert_edge_kind_conforms(kind: str | EdgeKind, **arguments: Any) -> list[CheckResult]:
    """Runs every check on an edge kind and raises if one fails.

    Args:
        kind: The name of a kind, or the kind itself.
        **arguments: See :func:`check_edge_kind`.

    Returns:
        The results.

    Raises:
        AssertionError: Names all checks that failed, one a line.
    """
    results = check_edge_kind(kind, **arguments)
    _assert_none_failed("edge kind", kind if isinstance(kind, str) else kind.name, results)
    return results


def assert_operator_conforms(operator: str | Operator, **arguments: Any) -> list[CheckResult]:
    """Runs every check on an operator and raises if one fails.

    Args:
        operator: The name of an operator, or the operator itself.
        **arguments: See :func:`check_operator`.

    Returns:
        The results.

    Raises:
        AssertionError: Names all checks that failed, one a line.
    """
    results = check_operator(operator, **arguments)
    name = operator if isinstance(operator, str) else operator.name
    _assert_none_failed("operator", name, results)
    return results


def _assert_none_failed(what: str, name: str, results: Sequence[CheckResult]) -> None:
    failed = [result for result in results if result.status == "failed"]
    if failed:
        lines = [f"  {r.check}: {' | '.join(r.message.splitlines())}" for r in failed]
        raise AssertionError(
            f"{what} {name!r} fails {len(failed)} of {len(results)} checks:\n" + "\n".join(lines)
        )

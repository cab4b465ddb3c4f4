"""Conformance checks as tests of pytest, one for each plugin and check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.errors import UnknownEdgeKindError
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.testing.edge_kinds import edge_kind_suite
from pyg_nsa.testing.graphs import MakeFields
from pyg_nsa.testing.operators import operator_suite
from pyg_nsa.testing.suite import Suite

if TYPE_CHECKING:
    import pytest

__all__ = ["parametrize_with_checks"]


class _Run:
    """Runs one check of a suite as a test."""

    def __init__(self, suite: Suite, name: str) -> None:
        self.suite, self.name = suite, name

    def __call__(self) -> None:
        import pytest

        __tracebackhide__ = True
        outcome = self.suite.outcome(self.name)
        result = outcome.result
        if result.status == "not_applicable":
            pytest.skip(f"{self.suite.name}, {self.name} does not apply: {result.reason}")
        if result.status == "passed":
            return
        passes = result.status == "failed" and self.name in self.suite.expected
        if passes:
            return  # it was expected to fail and does not: pytest's strict xfail reports that
        raise AssertionError(f"{self.suite.name}, {self.name}: {result.message}") from outcome.error

    def __repr__(self) -> str:
        return f"{self.suite.name}-{self.name}"


def _suite(
    plugin: str | EdgeKind | Operator,
    known: Mapping[str, str],
    registry: Registry | None,
    options: Sequence[Mapping[str, Any]] | None,
    make_fields: MakeFields | None,
) -> Suite:
    """The checks of an edge kind or an operator."""
    found: str | EdgeKind | Operator = plugin
    if isinstance(plugin, str):
        where = registry if registry is not None else default_registry()
        try:
            where.edge_kind(plugin)
        except UnknownEdgeKindError:
            if plugin not in where.names():
                raise
            found = where.operator(plugin)
    if isinstance(found, Operator):
        if make_fields is not None:
            raise ValueError(f"make_fields names {found.name!r}, which is an operator")
        return operator_suite(plugin, known, registry, options)  # type: ignore[arg-type]
    return edge_kind_suite(found, known, registry, options, make_fields)


def parametrize_with_checks(
    kinds: Sequence[str | EdgeKind | Operator],
    expected_failures: Mapping[str, str | Mapping[str, str]] | None = None,
    *,
    registry: Registry | None = None,
    options: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    make_fields: Mapping[str, MakeFields] | None = None,
) -> pytest.MarkDecorator:
    """Decorates a test that takes `check` and calls it, so that it runs once for each kind and check.

    ```python
    @parametrize_with_checks(["my_lab.nearest"], {"compiles_pairs": "the search is no part of a graph"})
    def test_conformance(check):
        check()
    ```

    Tests are named `my_lab.nearest-direction`. Expected failures are strict `xfail`s, checks that do not apply are skipped with the
    reason, and the test `…-coverage` fails if no check ran the kind's module.

    Args:
        kinds: Names of edge kinds and operators, or the declarations themselves.
        expected_failures: `{check: reason}` for every kind, or `{kind: {check: reason}}`.
        registry: Where names are looked up; the default registry if not given.
        options: Lists of option sets by name; see :func:`check_edge_kind`.
        make_fields: Functions by name of an edge kind; see :func:`check_edge_kind`.

    Raises:
        ImportError: pytest is not installed.
        RegistryError: No plugin provides a name.
        TypeError: `kinds` is a single name.
        ValueError: No kinds; a name in another argument that is none of `kinds`; see also :func:`check_edge_kind`.
    """
    try:
        import pytest
    except ImportError as error:
        raise ImportError(
            "parametrize_with_checks makes tests for pytest, which is not installed: pip install pytest. Without it, call "
            "assert_edge_kind_conforms(kind)"
        ) from error
    if isinstance(kinds, str | EdgeKind | Operator):
        raise TypeError(
            f"kinds must be a list, such as [{kinds if isinstance(kinds, str) else kinds.name!r}]"
        )
    if not kinds:
        raise ValueError("kinds is empty, so nothing would be tested; name at least one edge kind")
    names = [kind if isinstance(kind, str) else kind.name for kind in kinds]
    expected = dict(expected_failures or {})
    of_one = {name for name, value in expected.items() if isinstance(value, Mapping)}
    for argument, keys in (
        ("expected_failures", of_one),
        ("options", set(options or {})),
        ("make_fields", set(make_fields or {})),
    ):
        strange = sorted(keys - set(names))
        if strange:
            raise ValueError(
                f"{argument} names {strange[0]!r}, which is not among the kinds: {', '.join(names)}"
            )
    cases = []
    for kind, name in zip(kinds, names, strict=True):
        known: dict[str, Any] = {k: v for k, v in expected.items() if k not in of_one}
        known.update(expected.get(name, {}) if name in of_one else {})  # type: ignore[arg-type]
        suite = _suite(
            kind, known, registry, (options or {}).get(name), (make_fields or {}).get(name)
        )
        for check in suite.names:
            reason = suite.expected.get(check)
            marks = (
                []
                if reason is None
                else [pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)]
            )
            cases.append(pytest.param(_Run(suite, check), id=f"{name}-{check}", marks=marks))
    return pytest.mark.parametrize("check", cases)

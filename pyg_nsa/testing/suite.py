"""Runs the checks of a kit, each at most once, and turns what they find into results."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import torch
import torch_geometric

import pyg_nsa
from pyg_nsa.errors import nearest
from pyg_nsa.testing.global_state import kept_global_state
from pyg_nsa.testing.graphs import seeded
from pyg_nsa.testing.results import Check, CheckResult, Finding, NotApplicable, Tally

__all__ = ["COVERAGE", "Outcome", "Suite"]

#: The check that the kit makes of itself.
COVERAGE = "coverage"

#: Whose lines say less about a plugin's mistake than the plugin's own.
_LIBRARIES = tuple(
    str(Path(str(library.__file__)).parent) + os.sep
    for library in (pyg_nsa, torch, torch_geometric, pydantic)
)

#: Where plugins may be installed, too, in a folder `site-packages`.
_STDLIB = sysconfig.get_path("stdlib") + os.sep

#: Of another's exception; torch.compile's go on for pages.
_MAX_LINES = 6

Targets = Callable[[str], Sequence[tuple[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """A result, with the exception behind it."""

    result: CheckResult
    error: BaseException | None = None


class Suite:
    """The checks of one plugin.

    Args:
        name: The plugin's name.
        checks: All checks, in order; what a check needs stands before it.
        targets: `targets(scope)` gives what checks of that scope are run on, each with a label. It raises `NotApplicable` where
            there is nothing.
        module_scopes: The scopes whose checks run what the plugin builds.
        expected_failures: Names of checks that are known to fail, each with a reason.

    Raises:
        ValueError: An expected failure that is no check, or without a reason.
    """

    def __init__(
        self,
        name: str,
        checks: Sequence[Check],
        targets: Targets,
        module_scopes: frozenset[str],
        expected_failures: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._checks = {check.name: check for check in checks}
        self._targets = targets
        self._module_scopes = module_scopes
        self.expected = dict(expected_failures or {})
        for wrong, reason in self.expected.items():
            if wrong not in self._checks:
                near = nearest(wrong, self._checks)
                raise ValueError(
                    f"expected_failures for {name!r} names {wrong!r}, which is no check"
                    + (f"; did you mean {near!r}?" if near else ".")
                    + f" The checks are: {', '.join(self._checks)}"
                )
            if not isinstance(reason, str) or not reason.strip():
                raise ValueError(
                    f"expected_failures for {name!r}: say in a sentence why {wrong!r} fails, got {reason!r}"
                )
        self._outcomes: dict[str, Outcome] = {}
        # The failed check behind each one that was left out because of it.
        self._waits_for: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Names of all checks, in order."""
        return [*self._checks, COVERAGE]

    def results(self) -> list[CheckResult]:
        """The results of all checks."""
        return [self.outcome(name).result for name in self.names]

    def outcome(self, name: str) -> Outcome:
        """The outcome of a check, which is run at the first time of asking."""
        if name not in self._outcomes:
            self._outcomes[name] = (
                self._coverage() if name == COVERAGE else self._expected(self._run(name))
            )
        return self._outcomes[name]

    def _run(self, name: str) -> Outcome:
        check = self._checks[name]
        for needed in check.needs:
            failed = self.outcome(needed).result.status == "failed"
            cause = needed if failed else self._waits_for.get(needed)
            if cause is not None:
                self._waits_for[name] = cause
                reason = f"waits for {cause!r}, which failed"
                return Outcome(CheckResult(name, "not_applicable", reason=reason))
        tally, problems, left = Tally(), [], {}
        first_error: BaseException | None = None
        try:
            with kept_global_state():  # it may build
                targets = self._targets(check.scope)
        except NotApplicable as why:
            return Outcome(CheckResult(name, "not_applicable", reason=str(why)))
        ran = 0
        for label, target in targets:
            before = tally.count
            try:
                with seeded(0), kept_global_state():  # the caller's stay as they are
                    check.run(target, tally)
                ran += 1
                if tally.count == before:
                    raise Finding("the check compared nothing")
            except NotApplicable as why:
                left[label] = str(why)
            except Exception as error:  # whatever a plugin raises
                ran += 1
                problems.append(_placed(label, _described(error)))
                first_error = first_error or error
        reasons = _grouped(left, ran == 0)
        if problems:
            return Outcome(CheckResult(name, "failed", "\n".join(problems)), first_error)
        if ran == 0:
            return Outcome(
                CheckResult(name, "not_applicable", reason=reasons or "nothing to run on")
            )
        message = f"compared {tally.count} values"
        return Outcome(
            CheckResult(name, "passed", message, f"not for {reasons}" if reasons else "")
        )

    def _expected(self, outcome: Outcome) -> Outcome:
        result = outcome.result
        reason = self.expected.get(result.check)
        if reason is None or result.status == "not_applicable":
            return outcome
        if result.status == "failed":
            kept = CheckResult(result.check, "expected_failure", result.message, reason)
            return Outcome(kept, outcome.error)
        message = f"expected to fail ({reason}), but it passes; remove it from expected_failures"
        return Outcome(CheckResult(result.check, "failed", message))

    def _coverage(self) -> Outcome:
        """Fails unless checks ran what the plugin builds."""
        results = {name: self.outcome(name).result for name in self._checks}
        ran = [n for n, r in results.items() if r.status != "not_applicable"]
        of_module = [n for n in ran if self._checks[n].scope in self._module_scopes]
        counts = (
            f"{len(ran)} of {len(results)} checks ran, {len(of_module)} of them on a built module"
        )
        if of_module:
            return Outcome(CheckResult(COVERAGE, "passed", counts))
        first = [n for n, r in results.items() if r.status == "failed"][:1]
        why = f"first mend {first[0]!r}" if first else "nothing applied to it"
        message = f"{counts}, so nothing is known about it: {why}"
        return Outcome(CheckResult(COVERAGE, "failed", message))


def _placed(label: str, text: str) -> str:
    return f"{label}: {text}" if label else text


def _grouped(reasons: Mapping[str, str], is_all: bool) -> str:
    """Reasons, each with the labels that it is for; without, where there is one for all."""
    by_reason: dict[str, list[str]] = {}
    for label, reason in reasons.items():
        by_reason.setdefault(reason, []).append(label)
    if is_all and len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(_placed(", ".join(labels), reason) for reason, labels in by_reason.items())


def _described(error: BaseException) -> str:
    """An exception in words; one that the plugin raised, with the line that did."""
    if isinstance(error, Finding):
        return str(error)
    # The innermost line of the plugin, rather than of a library that it calls.
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    place = f" at {own[-1].filename}:{own[-1].lineno} in {own[-1].name}" if own else ""
    lines = str(error).strip().splitlines()
    text = "\n".join([*lines[:_MAX_LINES], "…"] if len(lines) > _MAX_LINES else lines)
    return f"raised {type(error).__name__}{place}: {text}"


def _is_library(filename: str) -> bool:
    if filename.startswith(("<", *_LIBRARIES)):
        return True
    return filename.startswith(_STDLIB) and "site-packages" not in filename

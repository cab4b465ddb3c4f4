"""What a check finds, and how it counts what it has compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Check", "CheckResult", "Finding", "NotApplicable", "Status", "Tally"]

Status = Literal["passed", "failed", "expected_failure", "not_applicable"]


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        check: Name of the check.
        status: `"passed"`, `"failed"`, `"expected_failure"` (it failed, and `expected_failures` said so) or
            `"not_applicable"`.
        message: What is wrong, for which options and which edge type; of a check that passed, how much it compared.
        reason: Why a check does not apply (or not to some of the option sets), or why its failure was expected.
    """

    check: str
    status: Status
    message: str = ""
    reason: str = ""


class Finding(AssertionError):
    """What a check found, in its own words; other exceptions are the plugin's."""


class NotApplicable(Exception):
    """A check has nothing to look at; the text says why."""


class Tally:
    """Compares, and counts what was compared, so that a check that compared nothing cannot pass.

    Attributes:
        count: Expectations and numbers that were compared so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def expect(self, condition: object, message: str) -> None:
        """Fails with `message` unless the condition holds."""
        self.count += 1
        if not condition:
            raise Finding(message)

    def close(
        self, got: Tensor, wanted: Tensor, message: str, rtol: float = 1e-4, atol: float = 1e-5
    ) -> None:
        """Fails with `message`, and with where the numbers differ most, unless they agree; dtypes may differ."""
        self.count += min(got.numel(), wanted.numel())
        try:
            torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol, check_dtype=False)
        except AssertionError as error:
            raise Finding(f"{message}\n{str(error).strip()}") from None


@dataclass(frozen=True)
class Check:
    """One check of a kit.

    Attributes:
        run: `run(target, tally)` raises what it finds. Its name is the check's, its docstring the description.
        scope: What it is run on; see the kit that lists it.
        needs: Checks without which a failure of this one would say nothing new.
    """

    run: Callable[[Any, Tally], None]
    scope: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name, as in `expected_failures`."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        """The docstring in one line."""
        return " ".join((self.run.__doc__ or "").split())

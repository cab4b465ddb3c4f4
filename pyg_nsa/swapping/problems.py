"""What swap raises, and how types are written in its messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyg_nsa.errors import Problem

__all__ = ["SwapError", "show", "trial_error"]


class SwapError(ValueError):
    """A model that cannot be swapped as asked; it is left as it was.

    Attributes:
        problems: All that stands in the way, each with the path of the layer.
        hint: What mends all of them, if anything does.
    """

    def __init__(self, problems: Sequence[Problem], hint: str = "") -> None:
        super().__init__(tuple(problems), hint)
        self.problems = tuple(problems)
        self.hint = hint

    def __str__(self) -> str:
        lines = [problem.render() for problem in self.problems]
        return "\n".join([*lines, self.hint] if self.hint else lines)


def show(edge_type: Iterable[str]) -> str:
    """An edge type as messages write it: ``(paper, cites, paper)``."""
    return f"({', '.join(edge_type)})"


def trial_error(message: str) -> SwapError:
    """The error of a model that can't be tried on the data."""
    return SwapError([Problem("", message, "trial")])

"""Which file, line and column a configuration came from, so that later problems can name them too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pydantic import BaseModel

from pyg_nsa.errors import Problem, path_text

__all__ = ["Positions", "keep_source", "place_of", "remember_source", "source_of"]


class Positions(Protocol):
    """Knows where the parts of a configuration stand in a file."""

    file: str | None

    def locate(self, path: Sequence[str | int]) -> tuple[int | None, int | None]:
        """Returns line and column, from 1, of what is at the path or of the nearest thing around it."""

    def source(self, path: Sequence[str | int]) -> str | None:
        """Returns what a part came from: the file, or a value that was set beside it."""


# Not in the models: a configuration equals another whatever file it came from. By id, since a model with a list has no hash.
_sources: dict[int, tuple[weakref.ref[BaseModel], Positions, tuple[str | int, ...]]] = {}


def remember_source(
    config: BaseModel, positions: Positions, prefix: tuple[str | int, ...] = ()
) -> None:
    """Keeps where a configuration came from, for as long as it lives, so that `bind` can name the lines."""
    key = id(config)
    _sources[key] = (weakref.ref(config, lambda _: _sources.pop(key, None)), positions, prefix)


def keep_source(config: BaseModel, copy: BaseModel) -> None:
    """Lets a copy that was filled in come from where the original came from, if that is known."""
    reference, positions, prefix = _sources.get(id(config), (None, None, ()))
    if reference is not None and reference() is config and positions is not None:
        remember_source(copy, positions, prefix)


def place_of(
    config: BaseModel, path: Sequence[str | int]
) -> tuple[str | None, int | None, int | None]:
    """Returns file, line and column of a part of a configuration that was read from a file."""
    found = source_of(config)(path, message="")
    return found.file, found.line, found.column


def source_of(config: BaseModel) -> Callable[..., Problem]:
    """Returns a maker of problems that fills in the place in the file, as far as it is known."""
    reference, positions, prefix = _sources.get(id(config), (None, None, ()))
    if reference is None or reference() is not config or positions is None:
        return lambda path, **facts: Problem(path_text(path), **facts)

    def make(path: Sequence[str | int], **facts: Any) -> Problem:
        full = (*prefix, *path)
        line, column = positions.locate(full)
        return Problem(
            path_text(full), file=positions.source(full), line=line, column=column, **facts
        )

    return make

"""Models inside of a model: those of a plugin's options have to be as strict as the options themselves."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pyg_nsa.model_types import is_model

__all__ = ["nested_models"]


def nested_models(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """The models that may stand in the fields of a model, at any depth, each with the path of the first field that holds it.

    Members of unions and the types in lists and mappings count. A field whose type is only known by its name so far is passed over.
    """
    found: list[tuple[str, type[BaseModel]]] = []
    seen: set[type[BaseModel]] = {model}
    waiting = [("", model)]
    while waiting:
        place, outer = waiting.pop(0)
        for name, info in outer.model_fields.items():
            for inner in _models_in(info.annotation):
                if inner not in seen:
                    seen.add(inner)
                    path = f"{place}{name}"
                    found.append((path, inner))
                    waiting.append((f"{path}.", inner))
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if is_model(annotation):
        yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)

"""Which types may stand where in a pydantic model, as its annotations say it."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BaseModel

__all__ = ["field_type", "is_model", "members", "types_after", "values_of"]


def is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a type is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def field_type(model: type[BaseModel], step: str | int) -> Any:
    """The annotation of a field, by its name or alias; None if there is no such field."""
    for name, info in model.model_fields.items():
        if step in (name, info.alias):
            return info.annotation
    return None


def types_after(annotation: Any, step: str | int) -> list[Any]:
    """The types that may stand at a key or an index of something of a type."""
    if is_model(annotation):
        return members(field_type(annotation, step))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not arguments:
        return []
    if issubclass(origin, Mapping):
        return members(arguments[-1])
    if origin is tuple and isinstance(step, int) and Ellipsis not in arguments:
        return members(arguments[step]) if 0 <= step < len(arguments) else []
    return members(arguments[0])


def members(annotation: Any) -> list[Any]:
    """The members of a union, or the one type that it is."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return members(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return [member for one in typing.get_args(annotation) for member in members(one)]
    return [] if annotation is None else [annotation]


def values_of(annotation: Any) -> tuple[Any, ...]:
    """The values that a Literal or an Enum allows; none for any other type."""
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    return ()

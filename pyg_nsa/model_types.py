"""Which types may stand where in a pydantic model, as its annotations say it."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

__all__ = [
    "field_type",
    "is_model",
    "members",
    "read_keys",
    "types_after",
    "values_of",
    "written_key",
    "written_keys",
]


def is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a type is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def field_type(model: type[BaseModel], step: str | int) -> Any:
    """The annotation of a field, by its name or alias; None if there is no such field."""
    for name, info in model.model_fields.items():
        if step == name or step in read_keys(info, name):
            return info.annotation
    return None


def read_keys(field: FieldInfo, name: str) -> list[str]:
    """The keys that a field of a model is read from, the one that its JSON Schema names first; paths into other keys are left out.

    Args:
        field: What the model says of the field.
        name: Its name.
    """
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [one for one in choices if isinstance(one, str)] or [name]


def written_key(field: FieldInfo, name: str) -> str:
    """The key to write a field of a model by, so that it can be read again: its alias if it has one, else its name."""
    return read_keys(field, name)[0]


def written_keys(model: type[BaseModel]) -> dict[str, str]:
    """The keys to write the fields of a model by, by their names."""
    return {name: written_key(field, name) for name, field in model.model_fields.items()}


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

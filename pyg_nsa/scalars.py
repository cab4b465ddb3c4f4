"""Numbers and truth values in configurations: taken as JSON Schema takes them, and never guessed.

`"4"` is text, `true` is no number, and `yes` is no truth value: pydantic would convert them, JSON Schema and so every editor refuses
them, and in a configuration each is a mistake. `4.0` is a whole number in both, since JSON has one sort of number only.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

__all__ = ["StrictScalars", "is_whole", "whole"]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or numpy; a truth value is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def whole(value: Any) -> Any:
    """Returns a whole number as int, be it written `4.0` or of numpy; anything else as it is."""
    if is_whole(value) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _real(value: Any) -> Any:
    """Returns a number of numpy as float; anything else as it is."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool | int | float):
        return float(value)
    return value


def _no_truth_value(literal: Any) -> Callable[[Any], Any]:
    """For the values of a Literal: Python's `True` equals 1, JSON's `true` does not."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) and not any(value is one for one in literal["expected"]):
            expected = " or ".join(map(repr, literal["expected"]))
            raise PydanticKnownError("literal_error", {"expected": expected})
        return whole(value)

    return check


_NUMBERS: dict[str, Callable[[Any], Any]] = {"int": whole, "float": _real}

# What holds no schemas, and keys of mappings: in JSON they are text, whatever they mean.
_NOT_SCHEMAS = frozenset(
    {"default", "metadata", "serialization", "expected", "config", "cls", "keys_schema"}
)


def _strict(schema: Any) -> Any:
    """A core schema with strict scalars; the given one stays as it is, for other models may share it."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_strict, schema))
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind in ("int", "float", "bool"):
        if schema.get("strict"):
            return schema
        scalar: Any = {**schema, "strict": True}
        convert = _NUMBERS.get(str(kind))
        if convert is None:
            return scalar
        return core_schema.no_info_before_validator_function(convert, scalar)
    if kind == "literal" and any(type(value) is int for value in schema["expected"]):
        literal: Any = schema
        return core_schema.no_info_before_validator_function(_no_truth_value(literal), literal)
    return {key: value if key in _NOT_SCHEMAS else _strict(value) for key, value in schema.items()}


class StrictScalars(BaseModel):
    """A model whose numbers and truth values are not converted from anything else."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Makes the scalars of pydantic's own schema strict, inside of lists, mappings and unions too."""
        strict: CoreSchema = _strict(handler(source))
        return strict

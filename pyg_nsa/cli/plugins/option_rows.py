"""The options of an edge kind or operator as rows for a table, read off its JSON Schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.model_types import written_key
from pyg_nsa.registry import Registry
from pyg_nsa.schema import json_schema

__all__ = ["OptionRow", "option_rows", "rows_of_model"]

_Schema = Mapping[str, Any]


@dataclass(frozen=True)
class OptionRow:
    """One option.

    Attributes:
        name: Its name; `inner.depth` is the field `depth` of the option `inner`.
        type: What its value is, in JSON's words.
        required: Whether it has no default.
        default: The default, as plain data.
        limits: What else its value has to be; empty if nothing.
        description: What it does.
        sample: The plugin's own example of a value, or one that has the right type; None for an option with a default.
    """

    name: str
    type: str
    required: bool
    default: Any
    limits: str
    description: str
    sample: Any = None


def option_rows(declared: EdgeKind | Operator, name: str) -> list[OptionRow]:
    """Returns the options of an installed edge kind or operator.

    Args:
        declared: The declaration.
        name: The entry point that it was found under: its name or an alias.
    """
    schema = json_schema(Registry(strict=False, disable=(), allow=[name]))
    defs = schema["$defs"]
    is_kind = isinstance(declared, EdgeKind)
    choices = (defs["EdgeSpec"] if is_kind else schema).get("allOf", ())
    for choice in choices:
        options = choice["then"]["properties"].get("options" if is_kind else "operator_options")
        if options is not None and "properties" in options:
            return list(_rows(options, defs))
    return _without_schema(declared)


def rows_of_model(model: _Schema, defs: _Schema) -> list[OptionRow]:
    """Returns the fields of a model, as its part of a JSON Schema says them.

    Args:
        model: The part, with `properties`.
        defs: The definitions of the schema.
    """
    return list(_rows(model, defs))


def _rows(
    model: _Schema, defs: _Schema, prefix: str = "", above: tuple[str, ...] = ()
) -> Iterator[OptionRow]:
    for name, part in model["properties"].items():
        reference = str(part.get("$ref", "")).rpartition("/")[2]
        whole = _resolved(part, defs)
        required = name in model.get("required", ())
        yield OptionRow(
            name=prefix + name,
            type=_type(whole, defs),
            required=required,
            default=whole.get("default"),
            limits=", ".join(_limits(whole, defs)),
            description=" ".join(whole.get("description", "").split()),
            sample=_sample(name, whole, defs) if required else None,
        )
        # A model inside of the model; one that holds itself would never end.
        if "properties" in whole and reference not in above:
            yield from _rows(whole, defs, f"{prefix}{name}.", (*above, reference))


def _resolved(part: _Schema, defs: _Schema) -> _Schema:
    reference = str(part.get("$ref", "")).rpartition("/")[2]
    return {**defs[reference], **part} if reference else part


def _members(part: _Schema) -> list[_Schema]:
    return [*part.get("anyOf", ()), *part.get("oneOf", ())]


def _type(part: _Schema, defs: _Schema) -> str:
    part = _resolved(part, defs)
    if "const" in part:
        return _json(part["const"])
    if "enum" in part:
        return " | ".join(map(_json, part["enum"]))
    if _members(part):
        return " | ".join(dict.fromkeys(_type(member, defs) for member in _members(part)))
    types = part.get("type", "anything")
    return " | ".join(
        _word(one, part, defs) for one in ([types] if isinstance(types, str) else types)
    )


def _word(word: str, part: _Schema, defs: _Schema) -> str:
    if word == "array" and "prefixItems" in part:
        return f"list of ({', '.join(_type(item, defs) for item in part['prefixItems'])})"
    if word == "array":
        return f"list of {_type(part['items'], defs)}" if part.get("items") else "list"
    if word == "object":
        values = part.get("additionalProperties")
        return (
            f"mapping to {_type(values, defs)}"
            if isinstance(values, dict) and values
            else "mapping"
        )
    return word


_LIMITS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matches {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} entries",
    "maxProperties": "at most {} entries",
}


def _limits(part: _Schema, defs: _Schema) -> Iterator[str]:
    part = _resolved(part, defs)
    if part.get("deprecated"):
        yield "deprecated"
    for key, text in _LIMITS.items():
        if key in part:
            limit = part[key]
            yield text.format(f"{limit:g}" if isinstance(limit, float) else limit)
    for member in _members(part):
        yield from _limits(member, defs)
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            yield from (f"each {limit}" for limit in _limits(part[key], defs))


_SAMPLES: Mapping[str, Any] = {"boolean": False, "array": [], "object": {}, "null": None}


def _sample(name: str, part: _Schema, defs: _Schema) -> Any:
    """A value that is probably valid; whoever uses it has to ask the plugin."""
    if part.get("examples"):
        return part["examples"][0]
    if "const" in part:
        return part["const"]
    if part.get("enum"):
        return part["enum"][0]
    if _members(part):
        return _sample(name, _resolved(_members(part)[0], defs), defs)
    types = part.get("type", "string")
    first = types if isinstance(types, str) else types[0]
    if first in ("integer", "number"):
        number = _number(part)
        return int(number) if first == "integer" else number
    return _SAMPLES.get(first, name)


def _number(part: _Schema) -> float:
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return (low + high) / 2
    if low is not None:
        return low + 1
    return 1 if high is None else high - 1


def _without_schema(declared: EdgeKind | Operator) -> list[OptionRow]:
    """For options that pydantic cannot describe: what the fields themselves say."""
    return [
        OptionRow(
            name=written_key(field, name),
            type=inspect.formatannotation(field.annotation),
            required=field.is_required(),
            default=None
            if field.is_required()
            else to_jsonable_python(field.get_default(call_default_factory=True), fallback=repr),
            limits="",
            description=" ".join((field.description or "").split()),
        )
        for name, field in declared.options.model_fields.items()
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

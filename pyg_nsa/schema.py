"""One JSON Schema for configurations, the options of all installed plugins included.

An editor that is given the schema completes and checks a configuration while it is written. In a YAML file the first line does it:

```yaml
# yaml-language-server: $schema=./pyg_nsa.schema.json
```

The schema has an `enum` of the edge kinds, and for each kind an `if`/`then` with its options; `oneOf` would be the textbook's
choice, but then a wrong option is reported as "not valid under any of the given schemas" and not at its own place. Under
`x-pyg-nsa` it says which distribution, version and revision each kind is from. Made twice, it is the same text, so it can be kept
in a repository: `pyg-nsa schema --check` says when it no longer is what the installed plugins give.

JSON Schema sees one value at a time. What needs two of them (`heads` divides `hidden_channels`; an edge type stands once), what is
not in the file (installed distributions) and what a plugin's own validator functions check is left to `pyg-nsa check`. What the
schema refuses, validation refuses too: see `pyg_nsa.scalars` for numbers.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import pydantic.json_schema
from pydantic import BaseModel

import pyg_nsa
from pyg_nsa.api import PLUGIN_API, EdgeKind, Operator, Options
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import PluginWarning
from pyg_nsa.load import SCHEMA_KEY
from pyg_nsa.registry import PluginRecord, Registry, default_registry

__all__ = ["json_schema", "schema_text", "undescribed"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What the schema is written in. It uses nothing that draft 7, which many editors speak, does not have."""

D = TypeVar("D", EdgeKind, Operator)

_Schema = dict[str, Any]


def json_schema(
    registry: Registry | None = None, *, model: type[BaseModel] = HeteroNSAConfig
) -> _Schema:
    """Returns the JSON Schema of a configuration.

    Args:
        registry: Whose edge kinds and operators it knows; the default registry if not given. All its plugins are loaded. One that
            cannot be used is left out with a warning.
        model: The pydantic model; any that has a `HeteroNSAConfig` somewhere inside will do.

    Example:
        >>> from pyg_nsa.registry import Registry
        >>> schema = json_schema(Registry(allow=["pyg-nsa"]))
        >>> "incidence_mask" in schema["$defs"]["EdgeSpec"]["properties"]["kind"]["enum"]
        True
    """
    registry = registry if registry is not None else default_registry()
    records = registry.load_all()
    kinds = _usable(records, EdgeKind)
    operators = _usable(records, Operator)
    declared: list[EdgeKind | Operator] = [kind for _, kind in kinds.values()]
    declared += [operator for _, operator in operators.values()]
    models: list[type[Options]] = list(
        dict.fromkeys(one.options for one in declared if _has_schema(one))
    )
    described: list[type[BaseModel]] = [model, EdgeSpec, HeteroNSAConfig, *models]
    refs, whole = pydantic.json_schema.models_json_schema(
        [(one, "validation") for one in dict.fromkeys(described)],
        schema_generator=_Generator,
    )
    defs: dict[str, _Schema] = whole["$defs"]

    def definition(of: type[BaseModel]) -> _Schema:
        return defs[refs[of, "validation"]["$ref"].rpartition("/")[2]]

    def options_of(of: type[Options]) -> _Schema:
        # A plugin whose options pydantic cannot describe may have any; its own model still checks them.
        return definition(of) if of in models else {"type": "object"}

    edge, config = definition(EdgeSpec), definition(HeteroNSAConfig)
    edge["properties"]["kind"]["enum"] = sorted(
        name for key, (_, kind) in kinds.items() for name in (key, *kind.aliases)
    )
    edge["properties"]["options"] = {"description": EdgeSpec.model_fields["options"].description}
    choices = [
        _choice("kind", (name, *kind.aliases), kind.summary, "options", options_of(kind.options))
        for name, (_, kind) in kinds.items()
    ]
    edge.update({"allOf": choices} if choices else {})  # An empty allOf is no schema.
    _add_operators(config, operators, options_of)

    _merge_unions(defs)
    top = definition(model)
    schema = {
        "$schema": DIALECT,
        "title": top.get("title", model.__name__),
        "x-pyg-nsa": {
            "pyg_nsa": pyg_nsa.__version__,
            "plugin_api": list(PLUGIN_API),
            "kinds": {name: _provenance(*entry) for name, entry in kinds.items()},
            "operators": {name: _provenance(*entry) for name, entry in operators.items()},
        },
        **top,
    }
    schema["properties"] = {
        SCHEMA_KEY: {
            "type": "string",
            "description": "Where this schema is, for editors; it means nothing else.",
        },
        **top["properties"],
    }
    used = _reachable(schema, defs)
    schema["$defs"] = {name: defs[name] for name in sorted(used)}
    return schema


def schema_text(schema: Mapping[str, Any]) -> str:
    """Writes a schema the one way that `pyg-nsa schema --check` compares with."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def undescribed(schema: Mapping[str, Any]) -> list[str]:
    """Returns what has no description: fields as `Model.name`, options as `kind.name`.

    Example:
        >>> undescribed({"$defs": {"Mine": {"properties": {"k": {"type": "integer"}}}}})
        ['Mine.k']
    """
    defs = schema.get("$defs", {})

    def is_described(part: Mapping[str, Any]) -> bool:
        reference = str(part.get("$ref", "")).rpartition("/")[2]
        return bool(part.get("description") or defs.get(reference, {}).get("description"))

    missing = []
    for name, part in {str(schema.get("title", "")): schema, **defs}.items():
        places = [(name, part.get("properties", {}))]
        for choice in part.get("allOf", ()):
            (chosen,) = choice["if"]["properties"].values()
            label = chosen["enum"][0]
            for key, value in choice["then"]["properties"].items():
                if not is_described(value):
                    missing.append(f"{label} ({key})")
                places.append((label, value.get("properties", {})))
        missing += [
            f"{place}.{key}"
            for place, properties in places
            for key, value in properties.items()
            if not is_described(value)
        ]
    return missing


# --- making it --------------------------------------------------------------------------------------------------------------------


class _Generator(pydantic.json_schema.GenerateJsonSchema):
    """Also writes out defaults that come from a factory."""

    def default_schema(self, schema: Any) -> _Schema:
        if "default" not in schema and not schema.get("default_factory_takes_data", True):
            schema = {**schema, "default": schema["default_factory"]()}
        return super().default_schema(schema)


def _usable(records: list[PluginRecord], wanted: type[D]) -> dict[str, tuple[PluginRecord, D]]:
    """What can be used, by its own name: an alias is an entry point too, and leads to the same declaration."""
    found = {}
    for record in records:
        declared = record.declaration
        if record.status != "loaded" or not isinstance(declared, wanted):
            continue
        if record.name == declared.name or declared.name not in found:
            found[declared.name] = (record, declared)
    return dict(sorted(found.items()))


def _has_schema(declared: EdgeKind | Operator) -> bool:
    """Whether pydantic can describe the options; one plugin that it can't must not cost the others their schema."""
    try:
        declared.options.model_json_schema(schema_generator=_Generator)
    except (
        Exception
    ) as error:  # plugins may put any type into their options, with any code behind it
        first = (str(error).splitlines() or [""])[0]
        warnings.warn(
            f"the options of {declared.name!r} have no JSON Schema and stay unchecked in it "
            f"({type(error).__name__}: {first}); give the field a type that JSON has, or pydantic's WithJsonSchema",
            PluginWarning,
            stacklevel=3,
        )
        return False
    return True


def _choice(
    key: str, names: tuple[str, ...], summary: str, field: str, options: _Schema
) -> _Schema:
    """If `key` is one of the names, `field` holds these options."""
    given = {**options}
    then: _Schema = {"properties": {key: {"description": summary}, field: given}}
    if options.get("required"):
        then["required"] = [field]
    else:
        given["type"] = ["object", "null"]  # An empty `options:` is null in YAML.
        given["default"] = {}
    given["description"] = options.get("description") or summary
    return {
        "if": {"properties": {key: {"enum": list(names)}}, "required": [key]},
        "then": then,
    }


def _add_operators(
    config: _Schema,
    operators: Mapping[str, tuple[PluginRecord, Operator]],
    options_of: Callable[[type[Options]], _Schema],
) -> None:
    default = HeteroNSAConfig.model_fields["operator"].default
    # The default is allowed whether a plugin provides it or not, as in validation.
    config["properties"]["operator"]["enum"] = sorted({default, *operators})
    if "operator_options" not in config["properties"]:
        return
    config["properties"]["operator_options"] = {
        "description": HeteroNSAConfig.model_fields["operator_options"].description
    }
    choices = []
    for name, (_, operator) in operators.items():
        options = options_of(operator.options)
        choice = _choice("operator", (name,), operator.summary, "operator_options", options)
        if name == default:
            del choice["if"]["required"]  # Left out, it is this one.
        choices.append(choice)
    config.update({"allOf": choices} if choices else {})


def _provenance(record: PluginRecord, declared: EdgeKind | Operator) -> _Schema:
    facts: _Schema = {
        "distribution": record.dist,
        "version": record.version,
        "revision": declared.revision,
    }
    if isinstance(declared, EdgeKind):
        if declared.aliases:
            facts["aliases"] = sorted(declared.aliases)
        if declared.deprecated is not None:
            facts["deprecated"] = declared.deprecated
    return facts


def _merge_unions(defs: Mapping[str, _Schema]) -> None:
    """Writes `anyOf` as a list of types where that means the same, so that a mistake is reported at its own place.

    `anyOf: [{type: integer, minimum: 1}, {type: null}]` is `type: [integer, null], minimum: 1`: a keyword of one type does not
    speak about values of another.
    """
    for part in _parts({"$defs": defs}):
        members = part.get("anyOf")
        if isinstance(members, list):
            merged = _merged(members)
            if merged is not None:
                del part["anyOf"]
                part.update(merged)


def _merged(members: list[_Schema]) -> _Schema | None:
    types: list[str] = []
    merged: _Schema = {}
    values = None
    for member in members:
        kind = member.get("type")
        rest = {key: value for key, value in member.items() if key != "type"}
        if not isinstance(kind, str) or kind in types or rest.keys() & _OF_ANY_TYPE:
            return None
        if "enum" in rest:
            values = rest.pop("enum")
        if rest.keys() & merged.keys():
            return None
        types.append(kind)
        merged.update(rest)
    if {"integer", "number"} <= set(types):
        return None
    if values is not None:
        # An enum speaks about values of every type.
        if set(types) - {"null"} != {m["type"] for m in members if "enum" in m}:
            return None
        merged["enum"] = [*values, None] if "null" in types else values
    return {"type": types, **merged}


_OF_ANY_TYPE = {"$ref", "const", "not", "if", "then", "else", "anyOf", "oneOf", "allOf"}

# Below these keywords there are schemas: a mapping of them, a list of them, or one.
_NAMED = ("$defs", "properties", "patternProperties")
_LISTED = ("anyOf", "allOf", "oneOf", "prefixItems")
_ONE = ("items", "additionalProperties", "if", "then", "else", "not", "propertyNames")


def _parts(schema: Any) -> Iterator[_Schema]:
    """Yields a schema and all that are inside of it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in _NAMED:
        for one in schema.get(key, {}).values():
            yield from _parts(one)
    for key in _LISTED:
        for one in schema.get(key, ()):
            yield from _parts(one)
    for key in _ONE:
        yield from _parts(schema.get(key))


def _reachable(schema: _Schema, defs: Mapping[str, _Schema]) -> set[str]:
    """The definitions that the schema refers to, directly or through others."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        for part in _parts(waiting.pop()):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                waiting.append(defs[name])
    return found

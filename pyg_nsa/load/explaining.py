"""From pydantic's errors to problems: with paths as they are in the file, places, and what would have been right."""

from __future__ import annotations

import contextlib
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import Problem, RegistryError, nearest, path_text
from pyg_nsa.load.positions import Positions
from pyg_nsa.model_types import field_type, is_model, types_after, values_of, written_keys
from pyg_nsa.registry import Registry

__all__ = ["explain"]

_Path = tuple[str | int, ...]


def explain(
    error: ValidationError,
    raw: Any,
    positions: Positions,
    registry: Registry,
    model: type[BaseModel],
) -> list[Problem]:
    """Turns pydantic's errors into problems: with paths as they are in the file, places, and what would have been right.

    Args:
        error: What validating `raw` with `model` raised.
        raw: The data, as they were read.
        positions: Where they stand in the file.
        registry: The registry that the validation used.
        model: The pydantic model.
    """
    found: dict[str, Problem] = {}
    placed = [
        (entry, _walk(model, raw, entry["loc"], registry))
        for entry in error.errors(include_url=False)
    ]
    for entry, place in placed:
        if entry["type"].endswith("_type") and _read_on(place, placed):
            continue
        problem = _problem(entry, place, positions)
        earlier = found.get(problem.path)
        if earlier is None:
            found[problem.path] = problem
        elif problem.message not in earlier.message:
            # Several complaints at one place: the members of a union, or checks that do not know of each other.
            message = f"{earlier.message}; or: {problem.message}"
            found[problem.path] = replace(earlier, message=message)
    # In the order of the file; problems without a line keep pydantic's order.
    return sorted(found.values(), key=lambda problem: (problem.line or 0, problem.column or 0))


def _read_on(place: _Place, placed: Iterable[tuple[Any, _Place]]) -> bool:
    """Whether another member of a union took what stands at a place, and has problems with what is in there alone."""
    depth = len(place.path)
    return any(len(other.path) > depth and other.path[:depth] == place.path for _, other in placed)


@dataclass(frozen=True)
class _Place:
    """What is known about the place of an error."""

    path: _Path
    annotations: list[Any]
    """The types that may stand there; more than one for a union."""
    owners: list[type[BaseModel]]
    """The models that have the last step of the path among their fields, or should have."""
    plugin: str | None
    registry: Registry
    """What the part that it belongs to looks names up in."""


def _walk(model: type[BaseModel], raw: Any, loc: Sequence[str | int], registry: Registry) -> _Place:
    """Follows an error's location through models and data.

    Pydantic puts more into a location than the path: which member of a union it tried, or that a key was wrong. Such steps lead
    neither to a field nor to something in the data, and are left out.
    """
    path: list[str | int] = []
    annotations: list[Any] = [model]
    owners: list[type[BaseModel]] = []
    plugin: str | None = None
    here = raw
    for step in loc:
        models = [one for one in annotations if is_model(one)]
        has_field = any(field_type(one, step) is not None for one in models)
        has_data = _has(here, step)
        if not has_field and not has_data:
            continue
        for one in models:
            if issubclass(one, HeteroNSAConfig):
                registry = _less_disabled(registry, here)
        if step == "options" and any(issubclass(one, EdgeSpec) for one in models):
            annotations, plugin = _options_of(here, registry)
        elif step == "operator_options" and any(issubclass(one, HeteroNSAConfig) for one in models):
            annotations, plugin = _options_of_operator(here, registry)
        else:
            annotations = [after for one in annotations for after in types_after(one, step)]
        owners = models
        path.append(step)
        here = _at(here, step)
    return _Place(tuple(path), annotations, owners, plugin, registry)


def _options_of(spec: Any, registry: Registry) -> tuple[list[Any], str | None]:
    """The options model of an edge spec's kind, and who checks it; nothing if the kind itself is the problem."""
    name = _at(spec, "kind")
    try:
        kind = registry.edge_kind(name) if isinstance(name, str) else None
        if kind is None:
            return [], None
        return [kind.options], f"edge kind {kind.name!r} of {registry.provider(name)}"
    except RegistryError:
        return [], None


def _options_of_operator(config: Any, registry: Registry) -> tuple[list[Any], str | None]:
    """The same for the operator."""
    name = _at(config, "operator") or HeteroNSAConfig.model_fields["operator"].default
    try:
        operator = registry.operator(name) if isinstance(name, str) else None
        if operator is None:
            return [], None
        return [operator.options], f"operator {operator.name!r} of {registry.provider(name)}"
    except RegistryError:
        return [], None


def _less_disabled(registry: Registry, config: Any) -> Registry:
    disable = _at(_at(config, "plugins"), "disable")
    if not isinstance(disable, list | tuple):
        return registry
    return registry.without([name for name in disable if isinstance(name, str)])


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, Mapping):
        return step in value
    if isinstance(value, list | tuple):
        return isinstance(step, int) and 0 <= step < len(value)
    return isinstance(value, BaseModel) and step in type(value).model_fields


def _at(value: Any, step: str | int) -> Any:
    if not _has(value, step):
        return None
    return getattr(value, str(step)) if isinstance(value, BaseModel) else value[step]


def _problem(entry: Any, place: _Place, positions: Positions) -> Problem:
    code, given, context = entry["type"], entry.get("input"), entry.get("ctx", {})
    allowed: Iterable[Any] = context.get("allowed", ())
    suggestion = context.get("suggestion")
    if code == "extra_forbidden":
        key = str(place.path[-1])
        message = f"unknown key {key!r}"
        allowed = sorted({key for one in place.owners for key in written_keys(one).values()})
        suggestion = nearest(key, allowed)
    elif code == "missing":
        message = "is required, but missing"
    elif code in ("literal_error", "enum"):
        message = f"{given!r} is not allowed"
        values = [value for one in place.annotations for value in values_of(one)]
        allowed = [str(value) for value in values]
        if NoneType in place.annotations:
            allowed.append("null")
        if isinstance(given, str) and given in allowed and given not in values:
            message += ", since it is text: remove the quotes"
        elif isinstance(given, str):
            suggestion = nearest(given, allowed)
    elif (
        code.startswith("unknown_")
        and allowed
        and str(context.get("reason", "")).startswith("unknown")
    ):
        message = f"unknown {context['what']} {context['name']!r}"
        if code in _SORTS:
            allowed = _names_of_sort(place.registry, _SORTS[code]) or allowed
            suggestion = nearest(context["name"], allowed)
            if "." in context["name"]:
                message += "; install the package that provides it"
    elif "reason" in context:
        message, allowed, suggestion = context["reason"], (), None
    else:
        message = _plain(entry)
    line, column = positions.locate(place.path)
    return Problem(
        path=path_text(place.path),
        message=message,
        code=code,
        file=positions.source(place.path),
        line=line,
        column=column,
        plugin=place.plugin,
        allowed=tuple(allowed),
        suggestion=suggestion,
    )


_SORTS: dict[str, type[EdgeKind] | type[Operator]] = {
    "unknown_edge_kind": EdgeKind,
    "unknown_operator": Operator,
}


def _names_of_sort(registry: Registry, sort: type[EdgeKind] | type[Operator]) -> list[str]:
    """The names that may stand there. Which of them are edge kinds and which operators, only loaded plugins say."""
    with contextlib.suppress(RegistryError):  # A strict registry raises.
        return sorted(
            {r.name for r in registry.load_all() if isinstance(r.declaration, sort)}
            & set(registry.names())
        )
    return []


_BUILT_IN = frozenset(typing.get_args(ErrorType))


def _plain(entry: Any) -> str:
    """Pydantic's own message, with what came; a plugin's message as it is."""
    message = str(entry["msg"])
    if entry["type"] in ("value_error", "assertion_error"):
        return message.partition(", ")[2] or message
    if entry["type"] not in _BUILT_IN:
        return message
    given = repr(entry.get("input"))
    if len(given) > 60:
        given = given[:57] + "..."
    if entry["type"] in ("int_type", "float_type", "bool_type") and isinstance(entry["input"], str):
        given += ", which is text: remove the quotes" if _is_number(entry["input"]) else ""
    if entry["type"] == "string_type" and isinstance(entry["input"], bool | int | float):
        given += f", which is no text: quote it, '{json.dumps(entry['input'])}'"
    if entry["type"] in ("model_type", "dict_type"):
        return f"expected a mapping (keys and values), got {given}"
    if entry["type"] == "too_short":
        message = message.partition(" after validation")[0]
    return f"{message[:1].lower()}{message[1:]}, got {given}"


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(text))  # nan and inf are no numbers without quotes, either
    return text in ("true", "false")

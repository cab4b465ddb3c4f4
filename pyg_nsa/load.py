"""Reads a configuration from YAML, JSON or TOML, and reports everything that is wrong with it, with the lines.

YAML is read as YAML 1.2: `on` and `no` are words and not booleans, `1e-6` is a number, and a key that stands twice is an error.
"""

from __future__ import annotations

import contextlib
import difflib
import enum
import json
import re
import tomllib
import types
import typing
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pyg_nsa.config import EdgeSpec, HeteroNSAConfig, remember_source
from pyg_nsa.errors import (
    ConfigError,
    MigrationWarning,
    Problem,
    RegistryError,
    nearest,
    path_text,
)
from pyg_nsa.migrations import migrate, newer
from pyg_nsa.overrides import Override, apply_overrides, parse_override
from pyg_nsa.registry import Registry, default_registry

__all__ = ["ConfigError", "Positions", "Problem", "explain", "load_config"]

SCHEMA_KEY = "$schema"
"""A key at the top of a file that is for editors, and means nothing else."""

T = TypeVar("T", bound=BaseModel)

_Path = tuple[str | int, ...]


class Positions:
    """Where the parts of a configuration stand in its file.

    Args:
        file: The file, as the user named it.
        root: The composed YAML node of the whole; None if only the file is known.
        overrides: Values that were set beside the file.
    """

    def __init__(
        self,
        file: str | None = None,
        root: Node | None = None,
        overrides: Sequence[Override] = (),
    ) -> None:
        self.file = file
        self._root = root
        self._overrides = overrides

    def source(self, path: Sequence[str | int]) -> str | None:
        """Returns what a part came from: the file, the `--set` that put it or something around it there, or both."""
        wanted = tuple(map(str, path))
        at = {override: tuple(map(str, override.path)) for override in self._overrides}
        around = [o for o, place in at.items() if wanted[: len(place)] == place]
        if around:
            return around[-1].source
        inside = [o.source for o, place in at.items() if place[: len(wanted)] == wanted]
        return " with ".join(filter(None, [self.file, " ".join(inside)])) or None

    def with_overrides(self, overrides: Sequence[Override]) -> Positions:
        """Returns the same, with values that were set beside the file."""
        return Positions(self.file, self._root, overrides)

    def locate(self, path: Sequence[str | int]) -> tuple[int | None, int | None]:
        """Returns line and column, from 1, of a key or a list item, or of the nearest thing around it."""
        node = self._root
        if node is None or self.source(path) != self.file:
            return None, None
        mark = node.start_mark
        for step in path:
            found = _step(node, step)
            if found is None:
                break
            mark, node = found
        return mark.line + 1, mark.column + 1

    def duplicates(self) -> Iterator[tuple[_Path, Any, Any]]:
        """Yields the path of every key that stands twice in one mapping, and the marks of both."""
        yield from _duplicates(self._root, (), set())


def _step(node: Node, step: str | int) -> tuple[Any, Node] | None:
    if isinstance(node, SequenceNode):
        if isinstance(step, int) and 0 <= step < len(node.value):
            item = node.value[step]
            return item.start_mark, item
    elif isinstance(node, MappingNode):
        merged: list[Node] = []
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == str(step):
                return key.start_mark, value
            if key.tag.endswith(":merge"):
                merged += value.value if isinstance(value, SequenceNode) else [value]
        for other in merged:
            found = _step(other, step)
            if found is not None:
                return found
    return None


def _duplicates(node: Node | None, path: _Path, seen: set[int]) -> Iterator[tuple[_Path, Any, Any]]:
    if node is None or id(node) in seen:  # An anchor may be used many times, or by itself.
        return
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(item, (*path, index), seen)
    elif isinstance(node, MappingNode):
        first: dict[str, Any] = {}
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                if key.value in first:
                    yield (*path, key.value), first[key.value], key.start_mark
                first.setdefault(key.value, key.start_mark)
                yield from _duplicates(value, (*path, key.value), seen)


# --- reading --------------------------------------------------------------------------------------------------------------------


@typing.overload
def load_config(
    source: str | Path | Mapping[str, Any],
    *,
    registry: Registry | None = None,
    overrides: Sequence[str] = (),
) -> HeteroNSAConfig: ...


@typing.overload
def load_config(
    source: str | Path | Mapping[str, Any],
    model: type[T],
    *,
    registry: Registry | None = None,
    overrides: Sequence[str] = (),
) -> T: ...


def load_config(
    source: str | Path | Mapping[str, Any],
    model: type[Any] = HeteroNSAConfig,
    *,
    registry: Registry | None = None,
    overrides: Sequence[str] = (),
) -> Any:
    """Reads and validates a configuration.

    Args:
        source: A file (`.yaml`, `.yml`, `.json` or `.toml`), or a mapping that was read already.
        model: The pydantic model to validate with. Any will do, for example one that has a `HeteroNSAConfig` among its fields.
        registry: Where edge kinds are looked up; the default registry if not given.
        overrides: Values to set before validation, as `training.epochs=3`; see `pyg_nsa.overrides.parse_override`.

    Returns:
        An instance of `model`.

    Raises:
        ConfigError: The file cannot be read or is not valid; it lists all problems.

    Warns:
        MigrationWarning: The file is of an earlier version of the format.
    """
    if isinstance(source, Mapping):
        raw: Any = source
        positions = Positions()
    else:
        raw, positions = _read(source)
    if overrides:
        changes = _parsed(overrides)
        raw = apply_overrides(raw, changes)
        positions = positions.with_overrides(changes)
    if isinstance(raw, Mapping) and isinstance(raw.get(SCHEMA_KEY), str):
        # Editors write it to know the JSON Schema of the file.
        raw = {key: value for key, value in raw.items() if key != SCHEMA_KEY}
    chosen = registry if registry is not None else default_registry()
    raw, notes = _up_to_date(raw, [model], (), positions)
    for note in notes:
        warnings.warn(note, MigrationWarning, stacklevel=2)
    try:
        config = model.model_validate(raw, context={"registry": chosen})
    except ValidationError as error:
        raise ConfigError(explain(error, raw, positions, chosen, model)) from error
    if positions.file is not None:
        for path, part in _parts(config, ()):
            remember_source(part, positions, path)
    return config


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """All overrides, or all that is wrong with them."""
    found, problems = [], []
    for text in overrides:
        try:
            found.append(parse_override(text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def _up_to_date(
    raw: Any, annotations: list[Any], path: _Path, positions: Positions
) -> tuple[Any, list[str]]:
    """Applies the migrations to every operator configuration in the data, and says what they changed."""
    notes: list[str] = []
    if isinstance(raw, Mapping):
        for model in filter(_is_model, annotations):
            known = [v for v in _values(_field(model, "version")) if isinstance(v, int)]
            version = raw.get("version")
            if known and isinstance(version, int) and version > max(known):
                # Alone: what the new version changed would be reported as mistakes.
                raise _refused(
                    positions.file,
                    newer(version, max(known)),
                    "newer_version",
                    *positions.locate((*path, "version")),
                    path=(*path, "version"),
                )
            if issubclass(model, HeteroNSAConfig):
                raw, changes = migrate(raw)
                if changes:
                    file = positions.file or "the configuration"
                    place = f" ({path_text(path)})" if path else ""
                    notes.append(
                        f"{file}{place} is of version {version} of the format and was read as one of version "
                        f"{raw['version']}: {'; '.join(changes)}. Write it anew: pyg-nsa fill "
                        f"{positions.file or 'FILE'} -o FILE"
                    )
    steps: Iterable[Any] = ()
    if isinstance(raw, Mapping):
        steps = [key for key in raw if isinstance(key, str)]
    elif isinstance(raw, list):
        steps = range(len(raw))
    for step in steps:
        after = [one for annotation in annotations for one in _annotations_after(annotation, step)]
        if not after:
            continue
        part, more = _up_to_date(raw[step], after, (*path, step), positions)
        if more:
            raw = dict(raw) if isinstance(raw, Mapping) else list(raw)
            raw[step] = part
            notes += more
    return raw, notes


def _parts(value: Any, path: _Path) -> Iterator[tuple[_Path, HeteroNSAConfig]]:
    """Finds the operator configurations inside of a larger one."""
    if isinstance(value, HeteroNSAConfig):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _parts(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _parts(item, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _parts(item, (*path, index))


def _read(source: str | Path) -> tuple[Any, Positions]:
    file = str(source)
    if "\n" in file:
        raise _refused(
            None,
            "expected the name of a file or a mapping, got text with more than one line; parse it and pass the mapping, "
            "or write it to a file",
            "not_a_file",
        )
    suffix = Path(source).suffix.lower()
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json, ".toml": _read_toml}
    if suffix not in readers:
        raise _refused(
            file,
            f"cannot tell the format from the suffix {suffix!r}; name the file .yaml, .yml, .json or .toml",
            "suffix",
        )
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _refused(
            file, "there is no such file", "missing_file", near=_similar(source)
        ) from None
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror or error}", "unreadable") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _refused(file, "is not UTF-8 text; save it as UTF-8", "encoding", line) from error
    if not text.strip():
        raise _refused(file, _EMPTY, "empty_file", 1, 1)
    raw, positions = readers[suffix](file, text)
    repeated = [
        Problem(
            path_text(path),
            f"key {str(path[-1])!r} stands twice, first in line {first.line + 1}; remove one",
            "duplicate_key",
            file,
            mark.line + 1,
            mark.column + 1,
        )
        for path, first, mark in positions.duplicates()
    ]
    if repeated:
        raise ConfigError(repeated)
    if raw is None:
        raise _refused(file, _EMPTY, "empty_file", 1, 1)
    if not isinstance(raw, Mapping):
        top = positions.locate(())
        raise _refused(
            file,
            f"the top level must be a mapping of keys to values, got a {_sort(raw)}; start with a key, such as 'version: 1'",
            "not_a_mapping",
            *top,
        )
    return raw, positions


_EMPTY = (
    "the file is empty; a configuration needs at least 'edges', a list of edge types and edge kinds"
)


def _read_yaml(file: str, text: str) -> tuple[Any, Positions]:
    directive = re.match(r"(?:#[^\n]*\n|\s*\n)*%YAML\s+(\S+)", text)
    if directive is not None and directive.group(1) != "1.2":
        raise _refused(
            file,
            f"is marked as YAML {directive.group(1)}, where 'on' and 'no' are booleans; pyg_nsa reads YAML 1.2: remove the "
            "line '%YAML ...'",
            "yaml_version",
            text[: directive.end()].count("\n") + 1,
            1,
        )
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        yaml = YAML(typ="safe", pure=True)
        yaml.allow_duplicate_keys = (
            True  # They are found in the nodes: all of them, and with paths.
        )
        return yaml.load(text), Positions(file, root)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = "; ".join(part for part in (error.context, error.problem) if part)
        raise _refused(
            file,
            f"not valid YAML: {what}",
            "syntax",
            mark.line + 1 if mark else None,
            mark.column + 1 if mark else None,
        ) from error
    except (YAMLError, ValueError) as error:
        raise _refused(file, f"not valid YAML: {error}", "syntax") from error


def _read_json(file: str, text: str) -> tuple[Any, Positions]:
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise _refused(
            file, f"not valid JSON: {error.msg}", "syntax", error.lineno, error.colno
        ) from error
    try:
        # JSON is YAML but for tabs, and those are between tokens only.
        root = YAML(typ="safe", pure=True).compose(text.replace("\t", " "))
    except YAMLError:
        root = None  # Then the problems come with paths only.
    return raw, Positions(file, root)


def _read_toml(file: str, text: str) -> tuple[Any, Positions]:
    try:
        return tomllib.loads(text), Positions(file)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)$", what)
        line, column = (int(place.group(1)), int(place.group(2))) if place else (None, None)
        what = what[: place.start()] if place else what
        raise _refused(file, f"not valid TOML: {what}", "syntax", line, column) from error


def _refused(
    file: str | None,
    message: str,
    code: str,
    line: int | None = None,
    column: int | None = None,
    near: str | None = None,
    path: _Path = (),
) -> ConfigError:
    return ConfigError(
        [
            Problem(
                path_text(path),
                message,
                code,
                file=file,
                line=line,
                column=column,
                suggestion=near,
            )
        ]
    )


def _similar(source: str | Path) -> str | None:
    path = Path(source)
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return str(path.parent / found[0]) if found else None


def _sort(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "text" if isinstance(value, str) else type(value).__name__


# --- explaining -----------------------------------------------------------------------------------------------------------------


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
    for entry in error.errors(include_url=False):
        place = _walk(model, raw, entry["loc"], registry)
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


@dataclass(frozen=True)
class _Place:
    """What is known about the place of an error."""

    path: _Path
    annotations: list[Any]
    """The types that may stand there; more than one for a union."""
    owners: list[type[BaseModel]]
    """The models that have the last step of the path among their fields, or should have."""
    plugin: str | None


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
        models = [one for one in annotations if _is_model(one)]
        has_field = any(_field(one, step) is not None for one in models)
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
            annotations = [after for one in annotations for after in _annotations_after(one, step)]
        owners = models
        path.append(step)
        here = _at(here, step)
    return _Place(tuple(path), annotations, owners, plugin)


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _field(model: type[BaseModel], step: str | int) -> Any:
    """The annotation of a field, by its name or alias; None if there is no such field."""
    for name, info in model.model_fields.items():
        if step in (name, info.alias):
            return info.annotation
    return None


def _annotations_after(annotation: Any, step: str | int) -> list[Any]:
    if _is_model(annotation):
        return _members(_field(annotation, step))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not arguments:
        return []
    if issubclass(origin, Mapping):
        return _members(arguments[-1])
    if origin is tuple and isinstance(step, int) and Ellipsis not in arguments:
        return _members(arguments[step]) if 0 <= step < len(arguments) else []
    return _members(arguments[0])


def _members(annotation: Any) -> list[Any]:
    """The members of a union, or the one type that it is."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return [member for one in typing.get_args(annotation) for member in _members(one)]
    return [] if annotation is None else [annotation]


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
        allowed = sorted({name for one in place.owners for name in one.model_fields})
        suggestion = nearest(key, allowed)
    elif code == "missing":
        message = "is required, but missing"
    elif code in ("literal_error", "enum"):
        message = f"{given!r} is not allowed"
        allowed = [str(value) for one in place.annotations for value in _values(one)]
        suggestion = nearest(given, allowed) if isinstance(given, str) else None
    elif (
        code.startswith("unknown_")
        and allowed
        and str(context.get("reason", "")).startswith("unknown")
    ):
        message = f"unknown {context['what']} {context['name']!r}"
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
    return f"{message[:1].lower()}{message[1:]}, got {given}"


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return text in ("true", "false")


def _values(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    return ()

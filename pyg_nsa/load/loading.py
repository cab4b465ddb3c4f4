"""Reads a configuration from YAML, JSON or TOML, and reports everything that is wrong with it, with the lines.

YAML is read as YAML 1.2: `on` and `no` are words and not booleans, `1e-6` is a number, and a key that stands twice is an error.
"""

from __future__ import annotations

import typing
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError, MigrationWarning, Problem, path_text
from pyg_nsa.load.config_files import read_file, refused
from pyg_nsa.load.explaining import explain
from pyg_nsa.load.migrations import migrate, newer
from pyg_nsa.load.misplaced import misplaced
from pyg_nsa.load.overrides import Override, apply_overrides, parse_override
from pyg_nsa.load.positions import Positions
from pyg_nsa.model_types import field_type, is_model, types_after, values_of
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.sources import remember_source

__all__ = ["SCHEMA_KEY", "load_config"]

SCHEMA_KEY = "$schema"
"""A key at the top of a file that is for editors, and means nothing else."""

T = TypeVar("T", bound=BaseModel)

_Path = tuple[str | int, ...]


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
        overrides: Values to set before validation, as `training.epochs=3`; see `pyg_nsa.load.overrides.parse_override`.

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
        raw, positions = read_file(source)
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
        other = misplaced(raw, model)
        if other is not None:  # Alone: that every key is unknown follows from it.
            raise refused(
                positions.file,
                other.message,
                other.code,
                *positions.locate((other.key,)),
                path=(other.key,),
            ) from error
        raise ConfigError(explain(error, raw, positions, chosen, model)) from error
    if positions.file is not None:
        remember_source(config, positions)
        for path, part in _parts(config, ()):
            remember_source(part, positions, path)
    return config


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """All overrides, or all that is wrong with them."""
    found: list[Override] = []
    problems: list[Problem] = []
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
        for model in filter(is_model, annotations):
            known = [v for v in values_of(field_type(model, "version")) if isinstance(v, int)]
            version = raw.get("version")
            if known and isinstance(version, int) and version > max(known):
                # Alone: what the new version changed would be reported as mistakes.
                raise refused(
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
        after = [one for annotation in annotations for one in types_after(annotation, step)]
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

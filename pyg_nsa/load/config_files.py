"""Reads YAML 1.2, JSON and TOML into plain data, with positions.

In YAML 1.2 `on` and `no` are words and not booleans, and `1e-6` is a number; a key that stands twice is an error.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pyg_nsa.errors import ConfigError, Problem, path_text
from pyg_nsa.load.positions import Positions

__all__ = ["TORCH_SUFFIXES", "read_file", "refused"]

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
"""Of files that torch.save wrote, by custom."""

_Path = tuple[str | int, ...]


def read_file(source: str | Path) -> tuple[Any, Positions]:
    """Reads a file into plain data, and where everything in it stands.

    Raises:
        ConfigError: It cannot be read, is not of its format, or holds no mapping or a key twice.
    """
    file = str(source)
    if "\n" in file:
        raise refused(
            None,
            "expected the name of a file or a mapping, got text with more than one line; parse it and pass the mapping, "
            "or write it to a file",
            "not_a_file",
        )
    if Path(source).is_dir():
        raise refused(
            file, f"cannot be read: it is a folder{_configuration_in(Path(source))}", "unreadable"
        )
    suffix = Path(source).suffix.lower()
    if suffix in TORCH_SUFFIXES:
        raise refused(
            file,
            f"is a file of torch by its suffix, and no configuration; 'pyg-nsa check {file}' says what a checkpoint was made from",
            "suffix",
        )
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json, ".toml": _read_toml}
    if suffix not in readers:
        raise refused(
            file,
            f"cannot tell the format from the suffix {suffix!r}; name the file .yaml, .yml, .json or .toml",
            "suffix",
        )
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise refused(
            file, "there is no such file", "missing_file", near=_similar(source)
        ) from None
    except OSError as error:
        raise refused(file, f"cannot be read: {error.strerror or error}", "unreadable") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise refused(file, "is not UTF-8 text; save it as UTF-8", "encoding", line) from error
    if not text.strip():
        raise refused(file, _EMPTY, "empty_file", 1, 1)
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
        raise refused(file, _EMPTY, "empty_file", 1, 1)
    if not isinstance(raw, Mapping):
        top = positions.locate(())
        raise refused(
            file,
            f"the top level must be a mapping of keys to values, got a {_sort(raw)}; start with a key, such as 'version: 1'",
            "not_a_mapping",
            *top,
        )
    return raw, positions


def _configuration_in(folder: Path) -> str:
    """What to name in the place of a folder: in that of a training run its configuration."""
    file = folder / "config.yaml"
    if file.is_file():
        return f", of a training run, it seems; its configuration is {file}"
    return "; name a configuration, a file .yaml, .yml, .json or .toml"


_EMPTY = (
    "the file is empty; a configuration needs at least 'edges', a list of edge types and edge kinds"
)


def _read_yaml(file: str, text: str) -> tuple[Any, Positions]:
    directive = re.match(r"(?:#[^\n]*\n|\s*\n)*%YAML\s+(\S+)", text)
    if directive is not None and directive.group(1) != "1.2":
        raise refused(
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
        if "\\t" in what or "\t" in what:
            what += "; indent with spaces"
        raise refused(
            file,
            f"not valid YAML: {what}",
            "syntax",
            mark.line + 1 if mark else None,
            mark.column + 1 if mark else None,
        ) from error
    except (YAMLError, ValueError) as error:
        raise refused(file, f"not valid YAML: {error}", "syntax") from error


def _read_json(file: str, text: str) -> tuple[Any, Positions]:
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise refused(
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
        raise refused(file, f"not valid TOML: {what}", "syntax", line, column) from error


def refused(
    file: str | None,
    message: str,
    code: str,
    line: int | None = None,
    column: int | None = None,
    near: str | None = None,
    path: _Path = (),
) -> ConfigError:
    """An error with one problem."""
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

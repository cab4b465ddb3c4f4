"""Writes a configuration out with all defaults, and leaves what the user wrote as it is.

A YAML file is edited, not written anew: missing keys are put in behind the ones that stand before them in the model, a value is
replaced only where the configuration has another one (an alias of a kind, for example), and every comment stays where it is. The
result is read back; should it not say exactly what the configuration says (anchors and merge keys make such an edit impossible), it
is written anew, without the comments, and that is said.
"""

from __future__ import annotations

import io
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pyg_nsa.load import SCHEMA_KEY
from pyg_nsa.plain_values import plain_values

__all__ = ["Filled", "fill", "yaml_text"]


@dataclass(frozen=True)
class Filled:
    """A configuration with all defaults, as text.

    Attributes:
        text: The text of a file.
        suffix: Its format: `.yaml` or `.json`.
        note: What was lost or changed on the way; empty if nothing.
    """

    text: str
    suffix: str
    note: str = ""


def fill(file: str | Path, config: BaseModel, suffix: str | None = None) -> Filled:
    """Returns the text of a file with all defaults written out.

    Args:
        file: The file that the configuration was read from.
        config: The configuration.
        suffix: The format to write, `.yaml`, `.yml` or `.json`; that of the file if not given, and YAML for TOML.

    Raises:
        ValueError: The format cannot be written.
    """
    given = Path(file).suffix.lower()
    note = ""
    if suffix is None:
        suffix = given
        if suffix == ".toml":
            suffix, note = ".yaml", "TOML cannot be written; this is YAML, without the comments"
    if suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(
            f"cannot write a configuration as {suffix or 'a file without suffix'!r}; name the output .yaml or .json"
        )
    values = {**_schema_key(file, given), **plain_values(config)}
    if suffix == ".json":
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        if given != ".json" and "#" in Path(file).read_text(encoding="utf-8-sig"):
            note = "JSON has no comments; those of the file are lost"
        return Filled(text, suffix, note)
    if given in (".yaml", ".yml"):
        before = Path(file).read_text(encoding="utf-8-sig")
        edited = _edited(before, values)
        if edited is not None:
            return Filled(edited, suffix)
        if "#" in before:
            note = "the file cannot be edited in place (an older version, anchors or merge keys), so its comments are lost"
    return Filled(yaml_text(values), suffix, note)


def _schema_key(file: str | Path, suffix: str) -> dict[str, str]:
    """The `$schema` of a file, which is no part of the configuration."""
    text = Path(file).read_text(encoding="utf-8-sig")
    raw: Any = None
    if suffix in (".yaml", ".yml"):
        raw = YAML(typ="safe", pure=True).load(text)
    elif suffix == ".json":
        raw = json.loads(text)
    elif suffix == ".toml":
        raw = tomllib.loads(text)
    found = raw.get(SCHEMA_KEY) if isinstance(raw, dict) else None
    return {SCHEMA_KEY: found} if isinstance(found, str) else {}


class _CannotEdit(Exception):
    pass


@dataclass(frozen=True)
class _Edit:
    start: int
    end: int
    text: str


def _edited(text: str, values: Any) -> str | None:
    """The text with what is missing put in; None if that cannot be done."""
    edits: list[_Edit] = []
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        _compare(root, YAML(typ="safe", pure=True).load(text), values, text, edits, set())
        result = text
        # From the back, so that places stay valid; of several at one place the first comes first.
        for edit in sorted(reversed(edits), key=lambda edit: edit.start, reverse=True):
            result = result[: edit.start] + edit.text + result[edit.end :]
        return result if YAML(typ="safe", pure=True).load(result) == values else None
    except (_CannotEdit, YAMLError, ValueError):
        return None


def _compare(
    node: Node, raw: Any, value: Any, text: str, edits: list[_Edit], seen: set[int]
) -> None:
    if isinstance(node, MappingNode) and isinstance(raw, dict) and isinstance(value, dict):
        _compare_mapping(node, raw, value, text, edits, seen)
    elif (
        isinstance(node, SequenceNode)
        and isinstance(raw, list)
        and isinstance(value, list)
        and len(raw) == len(value)
    ):
        _first_visit(node, seen)
        for item, old, new in zip(node.value, raw, value, strict=True):
            _compare(item, old, new, text, edits, seen)
    elif raw != value:
        if isinstance(node, MappingNode | SequenceNode) and not node.flow_style:
            raise _CannotEdit
        start, end = node.start_mark.index, node.end_mark.index
        space = "" if start == 0 or text[start - 1] in " [{,\n" else " "
        edits.append(_Edit(start, end, space + _entry("k", value)[len("k: ") :]))


def _compare_mapping(
    node: MappingNode,
    raw: dict[str, Any],
    value: dict[str, Any],
    text: str,
    edits: list[_Edit],
    seen: set[int],
) -> None:
    _first_visit(node, seen)
    entries: dict[str, Node] = {}
    for key, item in node.value:
        if not isinstance(key, ScalarNode) or str(key.tag).endswith(":merge"):
            raise _CannotEdit
        entries[key.value] = item
        if isinstance(item, ScalarNode) and item.start_mark.index == item.end_mark.index:
            # `options:` and nothing more: the mark is where the next token starts, perhaps lines below.
            colon = text.index(":", key.end_mark.index) + 1
            item.start_mark.index = item.end_mark.index = colon
    if node.flow_style:
        start, before, after = node.start_mark.index + 1, "", ", " if entries else ""
    else:
        first = node.value[0][0].start_mark
        start, before, after = first.index, "", "\n" + " " * first.column
    # Where the next missing key goes: in front of all, or behind the entry that came last.
    for key, wanted in value.items():
        if key not in entries:
            edits.append(_Edit(start, start, before + _entry(key, wanted) + after))
            if not entries:
                before, after = ", ", ""
            continue
        _compare(entries[key], raw[key], wanted, text, edits, seen)
        start = _end(entries[key], text)
        before, after = ", ", ""
        if not node.flow_style:
            line_end = text.find("\n", start)
            start = len(text) if line_end < 0 else line_end
            before = "\n" + " " * node.value[0][0].start_mark.column


def _first_visit(node: Node, seen: set[int]) -> None:
    if id(node) in seen:  # An anchor's node stands for more than one place.
        raise _CannotEdit
    seen.add(id(node))


def _end(node: Node, text: str) -> int:
    """Where the content of a node ends; a block collection's own mark is where the next token starts."""
    if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    end = int(node.end_mark.index)
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        return len(text[:end].rstrip())
    return end


def _entry(key: str, value: Any) -> str:
    """One entry of a mapping on one line."""
    yaml = _writer(flow=True)
    yaml.width = 1_000_000
    stream = io.StringIO()
    yaml.dump({key: value}, stream)
    return stream.getvalue().strip()[1:-1]


def yaml_text(values: Any) -> str:
    """Writes plain data as YAML, the innermost collections on one line each."""
    yaml = _writer(flow=None)  # The innermost collections on one line.
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def _writer(flow: bool | None) -> YAML:
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    yaml.sort_base_mapping_type_on_output = False
    return yaml

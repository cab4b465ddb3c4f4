"""Values that are set beside a configuration file, as ``--set training.epochs=3``, and validated as if they stood in it."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pyg_nsa.errors import ConfigError, Problem, path_text

__all__ = ["Override", "apply_overrides", "parse_override", "set_in_text"]

_Path = tuple[str | int, ...]

_STEP = re.compile(
    r"""\.?(?:(?P<name>[^.\[\]='"\s]+)|\[(?P<index>\d+)\]|\[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\])"""
)


class Override:
    """One ``key=value``.

    Attributes:
        text: As it was written.
        path: Where the value goes.
        value: The value, read as YAML 1.2.
    """

    def __init__(self, text: str, path: _Path, value: Any) -> None:
        self.text = text
        self.path = path
        self.value = value

    @property
    def source(self) -> str:
        """What errors name in place of a file."""
        return f"--set {self.text}"


def parse_override(text: str) -> Override:
    """Reads ``key=value``.

    The key is a dotted path; items of lists are numbered from 0 (``operator.edges[0].kind`` or ``operator.edges.0.kind``), and a
    key with dots in it stands in brackets and quotes (``num_nodes['a.b']``). The value is YAML 1.2: ``3``, ``1e-3``, ``null``,
    ``[0.7, 0.1, 0.2]``, or a word.

    Raises:
        ConfigError: It is not of this form.
    """
    key, equals, value = text.partition("=")
    # A quoted key may hold an equals sign of its own.
    while equals and (key.count("'") % 2 or key.count('"') % 2):
        more, equals, value = value.partition("=")
        key = f"{key}={more}"
    if not equals:
        raise _refused(text, "expected KEY=VALUE, such as training.epochs=3, got no '='")
    key = key.strip()
    path: list[str | int] = []
    end = 0
    while end < len(key):
        step = _STEP.match(key, end)
        if step is None or (end == 0 and key[0] == "."):
            raise _refused(
                text,
                f"cannot read the key {key!r} from {key[end:]!r} on; expected names joined by dots and numbers of list items, such "
                "as operator.edges[0].kind",
            )
        name = step["name"]
        if step["index"] is not None:
            path.append(int(step["index"]))
        elif step["quoted"] is not None:
            path.append(step["quoted"])
        else:
            path.append(int(name) if path and name.isdecimal() else name)
        end = step.end()
    if not path:
        raise _refused(text, "expected KEY=VALUE, such as training.epochs=3, got no key")
    try:
        parsed = YAML(typ="safe", pure=True).load(value)
    except (YAMLError, ValueError) as error:
        what = error.problem if isinstance(error, MarkedYAMLError) else error
        raise _refused(text, f"the value {value!r} is not valid YAML: {what}") from error
    return Override(text, tuple(path), parsed)


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """The configuration with the values in it; later ones win, and ``raw`` stays as it is.

    Raises:
        ConfigError: A path leads through a plain value, or to a list item that is not there; all such are listed.
    """
    result = copy.deepcopy(dict(raw))
    problems: list[Problem] = []
    for override in overrides:
        try:
            _put(result, override)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return result


def set_in_text(text: str, overrides: Sequence[Override]) -> str:
    """The text of a YAML file with the values put in; comments stay, and the first lines say what was set.

    Raises:
        ConfigError: As for :func:`apply_overrides`.
    """
    yaml: Any = YAML(typ="rt", pure=True)
    yaml.width = 1_000_000
    yaml.preserve_quotes = True
    content = yaml.load(text)
    for override in overrides:
        _put(content, override)
    stream = io.StringIO()
    yaml.dump(content, stream)
    head = "".join(f"# {override.source}\n" for override in overrides)
    return head + stream.getvalue()


def _put(content: Any, override: Override) -> None:
    here = content
    for depth, step in enumerate(override.path):
        last = depth == len(override.path) - 1
        if isinstance(here, list):
            index = int(step) if str(step).isdecimal() else None
            if index is None or index >= len(here):
                items = f"items 0 to {len(here) - 1}" if here else "no items"
                raise _refused(
                    override.text,
                    f"{path_text(override.path[:depth])} is a list with {items}, and {step!r} is none of them",
                    override.path,
                )
            step = index
        elif isinstance(here, Mapping):
            step = str(step)
        else:
            raise _refused(
                override.text,
                f"{path_text(override.path[:depth])} is {here!r}, and nothing can be set inside of it",
                override.path,
            )
        if last:
            here[step] = override.value
            return
        if isinstance(here, Mapping) and here.get(step) is None:
            here[step] = {}  # type: ignore[index]
        here = here[step]


def _refused(text: str, message: str, path: _Path = ()) -> ConfigError:
    return ConfigError([Problem(path_text(path), message, "override", file=f"--set {text}")])

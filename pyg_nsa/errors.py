"""The errors of the registry and of configurations, and how they are worded.

Each message says what was expected, what came, and how to mend it. The exceptions keep the same facts as attributes, so that a
program (or a test) need not read the text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "BrokenPluginError",
    "CheckpointMismatchError",
    "ConfigError",
    "DisabledPluginError",
    "IncompatiblePluginError",
    "MigrationWarning",
    "PluginConflictError",
    "PluginWarning",
    "Problem",
    "RegistryError",
    "UnknownEdgeKindError",
    "UnknownNameError",
    "UnknownOperatorError",
]


def nearest(word: object, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the choice that `word` was most likely meant to be, or None if nothing is near.

    Case and `-` against `_` do not count: `Adjacency-Mask` is a way to write `adjacency_mask`.

    Args:
        word: What was written.
        choices: What could have been meant.
        cutoff: How much has to agree, from 0 to 1.
    """
    plain = {_plain(choice): choice for choice in choices}
    found = difflib.get_close_matches(_plain(str(word)), list(plain), n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


class PluginWarning(UserWarning):
    """A plugin could not be loaded and is left out; whoever asks for it by name gets the error."""


class MigrationWarning(UserWarning):
    """A configuration of an earlier format version was read; the text says what changed and how to write it anew."""


class RegistryError(Exception):
    """The base of all that a registry raises.

    Attributes:
        name: The name of the edge kind, operator or plugin in question.
        provider: The distribution and version that provide it, such as `"pyg-nsa 0.1.0"`.
    """

    # Everything but the message has a default: an exception that crosses a process border (a data loader's worker) is built
    # again from its message alone and then gets its attributes.
    def __init__(
        self, message: str, *, name: str | None = None, provider: str | None = None
    ) -> None:
        super().__init__(message)
        self.name = name
        self.provider = provider


class UnknownNameError(RegistryError, KeyError):
    """No plugin provides the name.

    Attributes:
        available: The names that there are.
        suggestion: The nearest of them, if one is near.
    """

    what = "plugin"

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        available: Sequence[str] = (),
        suggestion: str | None = None,
    ) -> None:
        super().__init__(message, name=name)
        self.available = tuple(available)
        self.suggestion = suggestion

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would put the sentence in quotes.
        return str(self.args[0]) if self.args else ""


class UnknownEdgeKindError(UnknownNameError):
    """No plugin provides an edge kind of this name."""

    what = "edge kind"


class UnknownOperatorError(UnknownNameError):
    """No plugin provides an operator of this name."""

    what = "operator"


class PluginConflictError(RegistryError):
    """More than one plugin provides the name; nobody wins silently."""


class BrokenPluginError(RegistryError):
    """The plugin failed at import or breaks the contract; `__cause__` holds the first error."""


class IncompatiblePluginError(RegistryError):
    """The plugin was written for a plugin API that this pyg_nsa does not speak."""


class DisabledPluginError(RegistryError):
    """The plugin is there, but it was switched off."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        path: Where in the configuration, for example `edges[1].options.normalise`; empty for the whole.
        message: What is wrong there.
        code: A stable word for the sort of problem, for example `extra_forbidden` or `unknown_edge_kind`.
        file: The file that the configuration came from, as the user named it.
        line: The line in the file, from 1.
        column: The column in the line, from 1.
        plugin: Who checked it, for example `edge kind 'stoichiometry_bias' of pyg-nsa 0.1.0`.
        allowed: What may stand there.
        suggestion: What was probably meant.
    """

    path: str
    message: str
    code: str = "invalid"
    file: str | None = None
    line: int | None = None
    column: int | None = None
    plugin: str | None = None
    allowed: tuple[str, ...] = ()
    suggestion: str | None = None

    def render(self) -> str:
        """Returns the problem as text: one line that an editor can jump to, then indented help."""
        place = self.file or ""
        if self.line is not None:
            place += f":{self.line}" if place else f"line {self.line}"
            if self.column is not None:
                place += f":{self.column}"
        head = ": ".join(part for part in (place, self.path, self.message) if part)
        return "\n".join([head, *(f"    {line}" for line in self._help())])

    def to_dict(self) -> dict[str, Any]:
        """Returns the problem as plain data for JSON: every attribute, null where there is nothing to say."""
        return {**asdict(self), "allowed": list(self.allowed)}

    def to_github(self) -> str:
        """Returns the problem as a workflow command, which GitHub shows beside the line of the file."""
        place = {"file": self.file, "line": self.line, "col": self.column}
        place["title"] = f"pyg-nsa: {self.code}"
        properties = ",".join(
            f"{key}={_escaped(str(value), ':,')}"
            for key, value in place.items()
            if value is not None
        )
        head = ": ".join(part for part in (self.path, self.message) if part)
        return f"::error {properties}::{_escaped(chr(10).join([head, *self._help()]))}"

    def _help(self) -> list[str]:
        lines = []
        if self.suggestion is not None:
            lines.append(f"did you mean {self.suggestion!r}?")
        if self.allowed:
            lines.append(f"allowed: {', '.join(self.allowed)}")
        if self.plugin is not None:
            lines.append(f"checked by: {self.plugin}")
        return lines


def _escaped(text: str, more: str = "") -> str:
    """Escapes text for a workflow command; properties also need `:` and `,` escaped."""
    # '%' first, since the others bring new ones in.
    for mark in ("%", "\r", "\n", *more):
        text = text.replace(mark, f"%{ord(mark):02X}")
    return text


class ConfigError(ValueError):
    """A configuration that cannot be used, with everything that is wrong with it.

    Attributes:
        problems: All problems, in the order of the configuration.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems: tuple[Problem, ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(problem.render() for problem in self.problems)

    def to_json(self, indent: int | None = 2) -> str:
        """Returns all problems as JSON: `{"problems": [{"path": …, "message": …, …}]}`."""
        problems = [problem.to_dict() for problem in self.problems]
        return json.dumps({"problems": problems}, indent=indent, ensure_ascii=False)

    def to_github(self) -> str:
        """Returns all problems as GitHub annotations, one a line."""
        return "\n".join(problem.to_github() for problem in self.problems)


class CheckpointMismatchError(RuntimeError):
    """A state dict that was written by a module of other edge kinds, revisions or edge types; see `pyg_nsa.checkpoint`.

    It is a `RuntimeError`, as all that `load_state_dict` raises.

    Attributes:
        problems: All differences, each with the edge type as its path.
        key: The entry of the state dict that says them.
    """

    def __init__(self, problems: Sequence[Problem], key: str = "") -> None:
        super().__init__(tuple(problems), key)
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.key = key

    def __str__(self) -> str:
        lines = [problem.render() for problem in self.problems]
        if self.key:
            lines.insert(0, "the checkpoint was written by another module than this one:")
            lines.append(
                f"To load the parameters all the same, remove {self.key!r} from the state dict first."
            )
        return "\n".join(lines)


def path_text(path: Sequence[str | int]) -> str:
    """Writes a path the way the messages show it: `edges[1].options.clip`, `num_nodes['a.b']`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text

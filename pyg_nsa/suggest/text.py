"""How a suggested configuration is written: YAML with a comment beside every choice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SuggestedEdge", "Suggestion", "flow", "plain"]

EdgeType = tuple[str, str, str]

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
# Booleans and null of YAML 1.1, which editors and other readers may still speak.
_RESERVED = frozenset(["on", "off", "yes", "no", "y", "n", "true", "false", "null", "none"])


@dataclass(frozen=True)
class SuggestedEdge:
    """What is suggested for one edge type.

    Attributes:
        edge_type: The edge type.
        kind: The edge kind; None if none could be chosen.
        options: Its options.
        facts: Comments that stand in front of it: what is known.
        reason: Why it was not decided; the entry is then a comment.
        alternatives: Other kinds that would do.
    """

    edge_type: EdgeType
    kind: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Sequence[str] = ()
    reason: str = ""
    alternatives: Sequence[str] = ()

    def lines(self) -> Iterable[str]:
        """The lines of the file."""
        for fact in self.facts:
            yield f"  # {plain(fact)}"
        if self.alternatives:
            yield f"  # other kinds that fit: {', '.join(self.alternatives)}"
        entry: dict[str, Any] = {
            "edge_type": list(self.edge_type),
            "kind": self.kind or "KIND",
        }
        if self.options:
            entry["options"] = dict(self.options)
        if self.kind is None:
            yield f"  # Not decided: {plain(self.reason)}"
            yield f"  # - {flow(entry)}"
        else:
            yield f"  - {flow(entry)}"


@dataclass(frozen=True)
class Suggestion:
    """A suggested configuration.

    Attributes:
        source: What it was made for, as the first line names it.
        hidden_channels: Width of the rows.
        heads: Number of heads.
        pattern: The blocks; None for one bare step.
        edges: What each edge type gets.
        nodes: Comments about the node types.
        num_nodes: Node types that get learned embeddings.
        more: Further lines of the file in front of `edges`.
        check: How the command that checks the file goes on after its name.
    """

    source: str
    hidden_channels: int
    heads: int
    pattern: str | None
    edges: Sequence[SuggestedEdge]
    nodes: Sequence[str] = ()
    num_nodes: Mapping[str, int] = field(default_factory=dict)
    more: Sequence[str] = ()
    check: str = ""

    def text(self, file: str = "FILE") -> str:
        """The file.

        Args:
            file: Its name, for the commands in its comments.
        """
        pattern = "null" if self.pattern is None else self.pattern
        lines = [
            f"# A configuration to start from, for {plain(self.source)}.",
            f"# Check it:             pyg-nsa check {plain(file)}{self.check}",
            "# Options of a kind:    pyg-nsa plugins show KIND",
            f"# With all defaults:    pyg-nsa fill {plain(file)}",
            "version: 1",
            "operator: hetero_nsa  # in the same line a baseline: hetero_conv or hgt",
            f"hidden_channels: {self.hidden_channels}",
            f"heads: {self.heads}  # divides hidden_channels",
            f"pattern: {pattern}  # M: attention along the edge types below, S: among all nodes of a type, null: one bare step "
            "like HeteroConv",
            *self.more,
        ]
        if self.nodes:
            lines += ["# Nodes:", *(f"#   {plain(line)}" for line in self.nodes)]
        if self.num_nodes:
            lines.append(
                f"num_nodes: {flow(dict(self.num_nodes))}  # these get a learned embedding for each node"
            )
        if any(edge.kind is None for edge in self.edges):
            lines.append(
                "unmatched: skip  # since some edge types below are not decided; 'error' once they are"
            )
        lines.append("edges:")
        for edge in self.edges:
            lines += edge.lines()
        return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Text for one line of a comment: a name may hold any character."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def flow(value: Any) -> str:
    """Plain data as YAML on one line, with quotes around every name that some reader could take for something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(str(k))}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=not isinstance(value, str) or not value.isprintable())

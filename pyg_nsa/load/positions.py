"""Where the parts of a configuration stand in its file, or beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pyg_nsa.load.overrides import Override

__all__ = ["Positions"]

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

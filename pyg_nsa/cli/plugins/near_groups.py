"""Entry points in a group that is nearly named as ours is: nobody reads them, so their plugins seem not to be installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pyg_nsa.registry.discovery import GROUP, distributions_with

__all__ = ["Misplaced", "misplaced"]

_HEADING = re.compile(r"^\s*\[([^\]\n]+)\]", re.MULTILINE)
_SUFFIX = r"(plugins?|edgekinds?|kinds?|operators?)?"
_NEAR = re.compile(re.sub(r"[-_.]", "", GROUP.lower()) + _SUFFIX)


@dataclass(frozen=True)
class Misplaced:
    """Entry points of one distribution in one such group.

    Attributes:
        dist: The distribution.
        version: Its version.
        group: The group.
        names: Of the entry points.
    """

    dist: str
    version: str
    group: str
    names: tuple[str, ...]


def misplaced() -> Iterator[Misplaced]:
    """Finds them, and imports nothing.

    A group is near if it differs by `-`, `_`, `.`, case, or a word such as `plugins` at its end. Names that the distribution
    provides in the right group as well are left out.
    """
    for dist in distributions_with(lambda text: any(map(_is_near, _HEADING.findall(text)))):
        try:
            entry_points = list(dist.entry_points)
        except Exception:  # the registry warns of those that it needs
            continue
        right = {point.name for point in entry_points if point.group == GROUP}
        for group in dict.fromkeys(point.group for point in entry_points if _is_near(point.group)):
            names = {point.name for point in entry_points if point.group == group} - right
            if names:
                yield Misplaced(dist.name, dist.version, group, tuple(sorted(names)))


def _is_near(group: str) -> bool:
    return group != GROUP and _NEAR.fullmatch(re.sub(r"[-_. ]", "", group.lower())) is not None

"""How a configuration of an earlier format version becomes one of the current version.

A migration is a function from raw data of version *n* to raw data of version *n + 1*, with a sentence that says what it changed.
`pyg_nsa.load` applies them before validation, so that models know the current format only, and warns with these sentences.

A file of a *newer* version is refused: what this pyg_nsa does not know it cannot ignore safely.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CURRENT", "MIGRATIONS", "Migration", "NewerVersionError", "migrate"]

CURRENT = 1
"""The version of the format that this pyg_nsa reads and writes."""


@dataclass(frozen=True)
class Migration:
    """One step, from the version that it is listed under to the next.

    Attributes:
        note: What it changes, as a user should read it: "'norm' is called 'normalize' now".
        function: Takes raw data (it may change them, they are a copy) and returns those of the next version. It need not set
            `version`, and it must pass on what it does not understand: validation reports that, with its line.
    """

    note: str
    function: Callable[[dict[str, Any]], dict[str, Any]]


MIGRATIONS: dict[int, Migration] = {}
"""The migrations by the version that they start from. Version 1 is the first one, so there are none yet."""


class NewerVersionError(ValueError):
    """The data are of a version that this pyg_nsa does not know."""


def migrate(
    raw: Mapping[str, Any],
    migrations: Mapping[int, Migration] | None = None,
    current: int = CURRENT,
) -> tuple[Mapping[str, Any], list[str]]:
    """Brings raw data to the current version.

    Args:
        raw: The data as they were read; they stay as they are.
        migrations: The migrations by the version that they start from; `MIGRATIONS` if not given.
        current: The version to reach.

    Returns:
        The data, and the notes of what was changed. Data of the current version come back themselves. So do data without a usable
        version, or of one that no migration starts from: validation says what is wrong with them.

    Raises:
        NewerVersionError: The version is above `current`.

    Example:
        >>> def rename(raw):
        ...     raw["hidden_channels"] = raw.pop("width")
        ...     return raw
        >>> migrate({"version": 0, "width": 8}, {0: Migration("'width' is called 'hidden_channels' now", rename)})
        ({'version': 1, 'hidden_channels': 8}, ["'width' is called 'hidden_channels' now"])
    """
    steps = MIGRATIONS if migrations is None else migrations
    version = raw.get("version", current)
    if not isinstance(version, int) or isinstance(version, bool):
        return raw, []
    if version > current:
        raise NewerVersionError(newer(version, current))
    if not all(number in steps for number in range(version, current)):
        return raw, []
    notes: list[str] = []
    for number in range(version, current):
        before = copy.deepcopy(dict(raw))
        raw = {**steps[number].function(before), "version": number + 1}
        notes.append(steps[number].note)
    return raw, notes


def newer(version: int, current: int) -> str:
    """Says that a version is newer than what is known, and what to do."""
    from pyg_nsa import __version__

    return (
        f"version {version} of the format is newer than this pyg_nsa {__version__}, which knows version {current}; "
        "upgrade: pip install -U pyg-nsa"
    )

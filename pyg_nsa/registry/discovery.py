"""The entry points of our group: found without importing anything, and how far a registry got with each."""

from __future__ import annotations

import contextlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from packaging.utils import canonicalize_name

from pyg_nsa.errors import BrokenPluginError, PluginWarning, RegistryError
from pyg_nsa.registry.plugin_contract import Declaration, brief

__all__ = [
    "GROUP",
    "Installed",
    "PluginRecord",
    "Status",
    "discover",
    "distributions_with",
    "import_of",
    "spellings",
    "switched_on",
    "warn",
]

GROUP = "pyg_nsa"
"""The entry-point group of plugins."""

Status = Literal["available", "loaded", "disabled", "broken", "incompatible", "conflict"]


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """What a registry knows about one plugin name of one provider, at the moment of asking.

    Attributes:
        name: The name of the entry point.
        status: See `pyg_nsa.registry`.
        dist: The distribution, or None for a plugin that was registered by hand.
        version: The distribution's version.
        module: What the entry point leads to, or the module that registered by hand.
        reason: Why the plugin cannot be used, in one sentence; empty for a plugin that can.
        error: The exception behind a broken or incompatible plugin, with its traceback.
        declaration: What the plugin provides, once it is loaded.
    """

    name: str
    status: Status
    dist: str | None = None
    version: str | None = None
    module: str | None = None
    reason: str = ""
    error: BaseException | None = None
    declaration: Declaration | None = None

    @property
    def spellings(self) -> set[str]:
        """What a list of plugins to switch off or to allow may call it."""
        if self.dist is None:
            return {self.name}
        project = canonicalize_name(self.dist)
        return {self.name, project, f"{self.name}@{project}"}

    def is_called(self, item: str) -> bool:
        """Whether an item of such a list means this plugin; distributions may be spelt as pip lets them."""
        return bool(spellings(item) & self.spellings)

    @property
    def provider(self) -> str:
        """The distribution and its version, such as `pyg-nsa 0.1.0`."""
        if self.dist is None:
            return f"{self.module} (registered by hand)"
        return f"{self.dist} {self.version}"


Imported = tuple[Any, BaseException | None]
"""What an entry point led to, or the error of its import."""


@dataclass(eq=False)
class Installed:
    """One entry point of one distribution, and how far the registry got with it."""

    entry_point: importlib.metadata.EntryPoint
    dist: str
    version: str
    siblings: frozenset[str]
    """The names of all entry points of the distribution in our group."""
    imported: Imported | None = None
    status: Status = "available"
    reason: str = ""
    error: BaseException | None = None
    declaration: Declaration | None = None

    def record(self) -> PluginRecord:
        """What is known of it now."""
        return PluginRecord(
            name=self.entry_point.name,
            status=self.status,
            dist=self.dist,
            version=self.version,
            module=self.entry_point.value,
            reason=self.reason,
            error=self.error,
            declaration=self.declaration,
        )


def discover() -> Iterator[Installed]:
    """Finds the entry points of our group, and imports nothing.

    Not `importlib.metadata.entry_points`: there, one distribution with a damaged file hides the plugins of all others.
    """
    for dist in distributions_with(lambda text: f"[{GROUP}]" in text):
        name = dist.name
        try:
            entry_points = list(dist.entry_points.select(group=GROUP))
        except Exception as error:
            warn(BrokenPluginError(f"the entry points of {name} cannot be read: {brief(error)}"))
            continue
        siblings = frozenset(entry_point.name for entry_point in entry_points)
        seen: set[tuple[str, str]] = set()
        for entry_point in entry_points:
            if (entry_point.name, entry_point.value) not in seen:
                seen.add((entry_point.name, entry_point.value))
                yield Installed(entry_point, name, dist.version, siblings)


def distributions_with(says: Callable[[str], bool]) -> Iterator[importlib.metadata.Distribution]:
    """Finds the distributions whose `entry_points.txt` says something, by name."""
    names: dict[str, str] = {}
    for dist in importlib.metadata.distributions():
        # Most distributions have no plugins for us. Reading one small file is all that they cost.
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if says(dist.read_text("entry_points.txt") or ""):
                name = dist.metadata["Name"]
                if name:
                    names.setdefault(canonicalize_name(name), name)
    for name in sorted(names.values()):
        # A distribution may be on sys.path more than once; Python imports the first, so the first is the one that counts.
        yield importlib.metadata.distribution(name)


def import_of(entry_point: importlib.metadata.EntryPoint) -> Imported:
    """Imports what an entry point leads to, or keeps the error."""
    try:
        return entry_point.load(), None
    # A plugin that calls sys.exit() at import must not end the program; Ctrl-C must.
    except (Exception, SystemExit) as error:
        return None, error


def switched_on(found: list[Installed]) -> list[Installed]:
    """The providers of a name that are not switched off; all, if all are."""
    return [one for one in found if one.status != "disabled"] or found


def spellings(item: str) -> set[str]:
    """An item of a disable or allow list as written, and with the distribution's name in its one true form."""
    name, at, dist = item.rpartition("@")
    return {item, f"{name}{at}{canonicalize_name(dist)}"}


def warn(error: RegistryError) -> None:
    """Warns of a plugin that cannot be used."""
    # Where warnings are errors (`python -W error`), one bad plugin still must not stop the others; `strict` is for that.
    with contextlib.suppress(PluginWarning):
        warnings.warn(str(error), PluginWarning, stacklevel=3)

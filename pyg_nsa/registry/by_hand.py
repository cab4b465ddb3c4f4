"""What was registered by hand in a registry: single declarations, each with the plugin that it came from.

It is found by its name and its aliases, and goes before an installed plugin of the same name. A plugin may have brought several
declarations; each can be replaced or taken out by itself, so each is an entry of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyg_nsa.registry.admission import Admitted
from pyg_nsa.registry.discovery import PluginRecord
from pyg_nsa.registry.plugin_contract import Declaration, answers_of

__all__ = ["ByHand", "Entry"]


@dataclass(frozen=True, eq=False)
class Entry:
    """One declaration that came through `Registry.register`."""

    declaration: Declaration
    admitted: Admitted
    origin: str
    """The module that registered it."""

    @property
    def answers(self) -> list[str]:
        """The names that it answers to, aliases included."""
        return answers_of({self.declaration.name: self.declaration})

    def record(self) -> PluginRecord:
        """What is known of it."""
        return PluginRecord(
            name=self.declaration.name,
            status="loaded",
            module=self.origin,
            declaration=self.declaration,
        )


class ByHand(dict[str, Entry]):
    """The entries of a registry, by the names of their declarations."""

    def find(self, name: str) -> Entry | None:
        """Returns the entry that answers to a name or alias."""
        for entry in self.values():
            if name in entry.answers:
                return entry
        return None

"""What is switched off in a registry: by its arguments, or by the environment where an argument is not given.

`disable` switches plugins off, and `allow` switches all installed plugins off but those on it. An item of either is a name, a
distribution, or `name@distribution`. Whoever switched a plugin off is remembered, for the error says it. `Switches` never change:
a registry with more switched off has other ones.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from packaging.utils import canonicalize_name

from pyg_nsa.errors import nearest
from pyg_nsa.registry.discovery import Installed, spellings

__all__ = ["Switches", "name_list", "note_misspelt", "sorted_out"]

_DISABLE = "PYG_NSA_DISABLE_PLUGINS"


@dataclass(frozen=True)
class Switches:
    """The plugins that are off, and who switched them off."""

    disabled: Mapping[str, str]
    """What is switched off, with the words for who did it."""
    allowed: tuple[str, ...] | None
    """The only installed plugins to admit; None admits all."""
    allowed_by: str
    """The words for who made the allow-list."""

    @classmethod
    def chosen(cls, disable: Iterable[str] | None, allow: Iterable[str] | None) -> Switches:
        """Takes the arguments of a registry, and asks the environment for those that are None."""
        if disable is None:
            listed = _items(os.environ.get(_DISABLE, ""))
            disabled = dict.fromkeys(listed, _DISABLE)
        else:
            disabled = dict.fromkeys(name_list("disable", disable), "Registry(disable=…)")
        if allow is not None:
            return cls(disabled, name_list("allow", allow), "Registry(allow=…)")
        listed_text = os.environ.get("PYG_NSA_PLUGINS")
        if listed_text is not None:
            return cls(disabled, _items(listed_text), "PYG_NSA_PLUGINS")
        return cls(disabled, None, "")

    def with_off(self, listed: Iterable[str], by: str) -> Switches:
        """Returns switches with more plugins off."""
        return replace(self, disabled={**self.disabled, **dict.fromkeys(listed, by)})

    def why_off(self, name: str, dist: str) -> str | None:
        """Says why a plugin is off, or returns None if it is on."""
        project = canonicalize_name(dist)
        called = {name, project, f"{name}@{project}"}
        for item, by in self.disabled.items():
            if spellings(item) & called:
                return f"switched off by {by}, which lists {item!r}"
        allowed = self.allowed
        if allowed is not None and not any(spellings(item) & called for item in allowed):
            return f"not on the allow-list of {self.allowed_by}, which is {','.join(allowed) or 'empty'}"
        return None


def sorted_out(found: Iterable[Installed], switches: Switches) -> dict[str, list[Installed]]:
    """Sorts installed plugins by name, and marks those that are switched off and those in conflict with each other."""
    by_name: dict[str, list[Installed]] = {}
    for one in found:
        reason = switches.why_off(one.entry_point.name, one.dist)
        if reason is not None:
            one.status, one.reason = "disabled", reason
        by_name.setdefault(one.entry_point.name, []).append(one)
    for name, providers in by_name.items():
        active = [one for one in providers if one.status == "available"]
        for one in active if len(active) > 1 else ():
            others = ", ".join(other.dist for other in active if other is not one)
            one.status, one.reason = "conflict", f"{name!r} is provided by {others} too"
    return dict(sorted(by_name.items()))


def name_list(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that an argument lists; a lone string, which is a list of letters to Python, is refused."""
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a list of names, got {names!r}; write [{names!r}]")
    listed = tuple(names)
    strange = [name for name in listed if not isinstance(name, str)]
    if strange:
        raise TypeError(f"{argument} must be a list of names, and {strange[0]!r} is none")
    return listed


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def note_misspelt(found: Iterable[Installed], switches: Switches) -> None:
    """Warns of what `PYG_NSA_DISABLE_PLUGINS` lists that is almost, but not quite, the name of something installed.

    What is not installed may well be switched off; a misspelt name would go on being used, and nobody would know.
    """
    known = sorted({name for one in found for name in one.record().spellings})
    for item, by in switches.disabled.items():
        if by != _DISABLE or spellings(item) & set(known):
            continue
        near = nearest(item, known, cutoff=0.85)
        if near is not None:
            # Where warnings are errors, a misspelt name must not stop everything.
            with contextlib.suppress(UserWarning):
                warnings.warn(
                    f"{by} lists {item!r}, and nothing that is installed has that name; did you mean {near!r}?",
                    stacklevel=2,
                )

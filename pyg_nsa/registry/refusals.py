"""The errors of a registry that cannot give what it is asked for, for a name that nobody provides or a plugin that cannot be used.

Each says what is there in its place, or what would mend it. Nothing is raised here: the registry knows the first error, and
raises from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.utils import canonicalize_name

from pyg_nsa.api import Operator
from pyg_nsa.errors import (
    BrokenPluginError,
    DisabledPluginError,
    IncompatiblePluginError,
    PluginConflictError,
    RegistryError,
    UnknownNameError,
    nearest,
)
from pyg_nsa.registry.discovery import Installed
from pyg_nsa.registry.plugin_contract import Declaration

__all__ = ["of_another_sort", "unknown_name", "unusable"]


def unknown_name(
    name: str, error: type[UnknownNameError], names: Sequence[str], *, looks: bool
) -> UnknownNameError:
    """The error for a name that nobody provides.

    Args:
        name: What was asked for.
        error: The class of the error, which says what sort of thing was asked for.
        names: What could have been asked for.
        looks: Whether the registry looks for installed plugins.
    """
    suggestion = nearest(name, names)
    text = f"unknown {error.what} {name!r}"
    text += f", did you mean {suggestion!r}?" if suggestion is not None else "."
    if "." in name:  # A vendor stands in front of it.
        text += " Install the package that provides it."
    if names:
        text += f" Available: {', '.join(names)}."
    elif looks:
        text += " No plugin is installed or allowed; pyg-nsa brings its own once it is installed: pip install pyg-nsa."
    else:
        text += " This registry is empty and does not look for installed plugins; register() one."
    return error(text, name=name, available=names, suggestion=suggestion)


def of_another_sort(
    name: str, declaration: Declaration, error: type[UnknownNameError], names: Sequence[str]
) -> UnknownNameError:
    """The error for an operator that was asked for as an edge kind, or the other way round."""
    is_a = "an operator" if isinstance(declaration, Operator) else "an edge kind"
    return error(
        f"{name!r} is {is_a}, not an {error.what}. Available: {', '.join(names) or 'none'}.",
        name=name,
        available=names,
    )


def unusable(name: str, found: Sequence[Installed]) -> RegistryError:
    """The error for a plugin that is there and cannot be used; `found` are its providers (see `switched_on`)."""
    first = found[0]
    providers = ", ".join(one.record().provider for one in found)
    if first.status == "conflict":
        ways = [f"{name}@{canonicalize_name(one.dist)}" for one in found]
        return PluginConflictError(
            f"plugin {name!r} is provided more than once: by {providers}. Uninstall all but one, or switch "
            f"the others off, for example with PYG_NSA_DISABLE_PLUGINS={','.join(ways[1:])}.",
            name=name,
            provider=providers,
        )
    if first.status == "broken":
        stop = "" if first.reason.endswith(("?", ".")) else "."
        return BrokenPluginError(
            f"plugin {name!r} of {providers} ({first.entry_point.value}) is broken: {first.reason}{stop} "
            f"Mend it, upgrade it (pip install -U {first.dist}), or do without it.",
            name=name,
            provider=providers,
        )
    kind = DisabledPluginError if first.status == "disabled" else IncompatiblePluginError
    return kind(
        f"plugin {name!r} of {providers} is {first.status}: {first.reason}.",
        name=name,
        provider=providers,
    )

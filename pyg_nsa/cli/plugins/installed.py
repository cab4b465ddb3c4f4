"""What the `plugins` commands ask a registry for, beyond what programs ask."""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyg_nsa.registry import PluginRecord, Registry

__all__ = ["file_of", "installed_plugins", "load_quietly", "what_it_is"]


def installed_plugins() -> Registry:
    """A registry of all that is installed.

    It is not strict, whatever `PYG_NSA_STRICT_PLUGINS` says: that is for programs, and who looks for what is wrong wants to see
    all of it.
    """
    from pyg_nsa.registry import Registry

    return Registry(strict=False)


def load_quietly(registry: Registry) -> list[PluginRecord]:
    """Loads all plugins, without a warning for each that fails: its record says what is wrong."""
    from pyg_nsa.errors import PluginWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        return registry.load_all()


def what_it_is(record: PluginRecord) -> str | None:
    """`edge kind`, `operator`, or `alias of …`; None as long as the plugin is not loaded."""
    from pyg_nsa.api import Operator

    declared = record.declaration
    if declared is None:
        return None
    if declared.name != record.name:
        return f"alias of {declared.name}"
    return "operator" if isinstance(declared, Operator) else "edge kind"


def file_of(target: str) -> str | None:
    """The file of the module that an entry point leads to, found without importing it; None if it is not found."""
    module = target.partition(":")[0].strip()
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None)
    name, folders, spec = "", None, None
    for part in module.split("."):
        if name and folders is None:  # what came before is no package
            return None
        name = f"{name}.{part}" if name else part
        try:
            spec = PathFinder.find_spec(name, folders)
        except (
            Exception
        ):  # a namespace package inside of another asks for its parent, which is not imported
            return None
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return spec.origin if spec is not None else None

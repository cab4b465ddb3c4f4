"""Where configurations find edge kinds and operators: installed plugins, and those that were registered by hand."""

from pyg_nsa.errors import (
    BrokenPluginError,
    DisabledPluginError,
    IncompatiblePluginError,
    PluginConflictError,
    PluginWarning,
    RegistryError,
    UnknownEdgeKindError,
    UnknownOperatorError,
)
from pyg_nsa.registry.discovery import GROUP, PluginRecord, Status
from pyg_nsa.registry.registry import Registry, default_registry, register, use_registry

__all__ = [
    "GROUP",
    "BrokenPluginError",
    "DisabledPluginError",
    "IncompatiblePluginError",
    "PluginConflictError",
    "PluginRecord",
    "PluginWarning",
    "Registry",
    "RegistryError",
    "Status",
    "UnknownEdgeKindError",
    "UnknownOperatorError",
    "default_registry",
    "register",
    "use_registry",
]

"""Where configurations find edge kinds and operators: installed plugins, and those that were registered by hand."""

from pyg_nsa.registry.registry import (
    GROUP,
    BrokenPluginError,
    DisabledPluginError,
    IncompatiblePluginError,
    PluginConflictError,
    PluginRecord,
    PluginWarning,
    Registry,
    RegistryError,
    Status,
    UnknownEdgeKindError,
    UnknownOperatorError,
    default_registry,
    register,
    use_registry,
)

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

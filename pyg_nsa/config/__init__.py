"""The schema of a configuration: the operator, its edge types, and what they ask of plugins."""

from pyg_nsa.config.edge_spec import EdgeSpec, EdgeType
from pyg_nsa.config.hetero_nsa_config import HeteroNSAConfig, PluginsConfig, SABConfig

__all__ = ["EdgeSpec", "EdgeType", "HeteroNSAConfig", "PluginsConfig", "SABConfig"]

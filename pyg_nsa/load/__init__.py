"""From a file or a mapping to a checked configuration, with everything that is wrong reported where it stands."""

from pyg_nsa.load.loading import SCHEMA_KEY, ConfigError, Positions, Problem, explain, load_config

__all__ = ["SCHEMA_KEY", "ConfigError", "Positions", "Problem", "explain", "load_config"]

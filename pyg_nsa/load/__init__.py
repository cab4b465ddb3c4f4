"""From a file or a mapping to a checked configuration, with everything that is wrong reported where it stands."""

from pyg_nsa.errors import ConfigError, Problem
from pyg_nsa.load.explaining import explain
from pyg_nsa.load.loading import SCHEMA_KEY, load_config
from pyg_nsa.load.positions import Positions

__all__ = ["SCHEMA_KEY", "ConfigError", "Positions", "Problem", "explain", "load_config"]

"""The command line, ``pyg-nsa``: thin commands over the library; torch is imported by those that compute."""

import os

# Must be set before torch starts its threads. Threads that wait by spinning slow each other down many times over as soon
# as the machine also does something else, which a laptop does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pyg_nsa.cli.main import main

__all__ = ["main"]

"""``python tests/benchmarks``, from any folder."""

import os
import sys
from pathlib import Path

# Before torch is imported: threads that wait by spinning slow each other down once anything else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if not __package__:  # run as a folder: make the package importable under its own name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python tests/pages --write`` writes the pages anew; without it, says whether they are up to date."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if not __package__:  # run as a folder: make the package importable under its own name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pages.written import PAGES, text_of

if __name__ == "__main__":
    stale = [page for page in PAGES if not page.is_file() or page.read_text() != text_of(page)]
    if "--write" in sys.argv[1:]:
        for page in stale:
            page.write_text(text_of(page))
    for page in stale:
        print(f"{'wrote' if '--write' in sys.argv[1:] else 'out of date:'} {page.name}")
    sys.exit(bool(stale) and "--write" not in sys.argv[1:])

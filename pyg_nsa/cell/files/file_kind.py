"""The kind of a file, by the ending of its name."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

__all__ = ["DECOMPRESS", "file_kind"]

DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress}
"""How files with these endings are unpacked."""


def file_kind(path: Path) -> tuple[str, str]:
    """Ending of a file's name, seen through that of a compression.

    Args:
        path: The file; it need not exist.

    Returns:
        The ending in lower case, with its dot (empty without one), and the compression's, ``".gz"`` or ``".bz2"`` (empty
        without one).
    """
    endings = [suffix.lower() for suffix in path.suffixes]
    compression = endings.pop() if endings and endings[-1] in DECOMPRESS else ""
    return (endings[-1] if endings else ""), compression

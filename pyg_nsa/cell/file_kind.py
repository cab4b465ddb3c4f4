"""The kind of a file, by the ending of its name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["file_kind"]


def file_kind(path: Path) -> tuple[str, bool]:
    """Ending of a file's name, seen through ``.gz``.

    Args:
        path: The file; it need not exist.

    Returns:
        The ending in lower case, with its dot (empty without one), and whether ``.gz`` follows it.
    """
    endings = [suffix.lower() for suffix in path.suffixes]
    zipped = endings[-1:] == [".gz"]
    if zipped:
        endings.pop()
    return (endings[-1] if endings else ""), zipped

"""One process at work in a folder: two would remove and replace each other's checkpoints."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pyg_nsa.cell.training.distributed import is_first

__all__ = ["FolderInUseError", "run_lock"]

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class FolderInUseError(RuntimeError):
    """Another process is at work in a folder."""


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps others out of a folder, which is made where there is none; ``.lock`` stays in it and means nothing by itself.

    Of several processes that train together the first one takes it. The system takes it from a process that ends, however it ends.

    Args:
        folder: The folder of a run or a comparison.

    Raises:
        FolderInUseError: Another process is at work there.
    """
    if not is_first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(
            f"{folder}: another process is at work there, and two would spoil each other's files; wait for it, stop it, or name "
            "another folder (-o)"
        ) from None
    except (NotImplementedError, OSError) as error:  # the former from older versions of filelock
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "%s: the file system has no locks, so nothing keeps a second process out.", folder
        )
    try:
        yield
    finally:
        lock.release()

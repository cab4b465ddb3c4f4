"""Cache files that notice damage: zip files with a checksum over all their bytes.

``numpy.savez`` and ``torch.save`` both write zip files, whose own checksums cover the members only. Here the file's
comment, which the format has for such notes, holds the SHA-256 of everything before it. So one flipped bit anywhere is
found, and ``numpy.load`` and ``torch.load`` still read the file as it is.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from pathlib import Path

__all__ = [
    "DamagedFileError",
    "read_sealed",
    "remove_leftovers",
    "write_atomically",
    "write_sealed",
]

_NOTE = b"sha256 "
_NOTE_LENGTH = len(_NOTE) + 64
_END_RECORD = b"PK\x05\x06"  # the last record of a zip file: 22 bytes, then the comment
_END_LENGTH = 22


class DamagedFileError(ValueError):
    """A file is not what was written."""


def write_sealed(path: Path, content: bytes) -> None:
    """Write a zip file with its checksum, atomically.

    Args:
        path: The file; its folder exists.
        content: A zip file without a comment.

    Raises:
        ValueError: If the content is something else.
    """
    if content[-_END_LENGTH:][:4] != _END_RECORD or content[-2:] != b"\0\0":
        raise ValueError(f"{path}: expected the bytes of a zip file without a comment.")
    body = content[:-2] + _NOTE_LENGTH.to_bytes(2, "little")
    write_atomically(path, body + _note(body))


def read_sealed(path: Path) -> io.BytesIO:
    """Read a file of :func:`write_sealed`.

    Args:
        path: The file.

    Returns:
        The zip file that was written, without the comment.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If any of its bytes is another, or missing.
    """
    content = path.read_bytes()
    body = content[:-_NOTE_LENGTH]
    if len(body) < _END_LENGTH or content[-_NOTE_LENGTH:] != _note(body):
        raise DamagedFileError(
            f"{path}: damaged or written by something else: its {len(content):,} bytes do not fit their checksum."
        )
    return io.BytesIO(body[:-2] + b"\0\0")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it.

    Args:
        path: The file; its folder exists.
        content: All its bytes.

    Raises:
        OSError: It can't be written, as where the disk is full; what was there before stays. The error names the file.
    """
    if path.exists() and not path.is_file():  # such as a pipe, which is read while it is written
        path.write_bytes(content)
        return
    path = path.resolve()  # what a link leads to is written, and the link stays
    # Not `tempfile`: its files can be read by their owner only, and a cache may be shared.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names none
            error.filename = str(path)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of unfinished :func:`write_atomically`.

    Only for who holds the file's lock: another writer's file would go, too.

    Args:
        path: The file that they were writing.
    """
    for temporary in path.parent.glob(f"{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def _note(body: bytes) -> bytes:
    return _NOTE + hashlib.sha256(body).hexdigest().encode()

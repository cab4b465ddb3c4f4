"""A file of solved LPs, so that an interrupted simulation goes on where it was.

Records are appended as results come, a few dozen LPs each, and every record has its own checksum. A process may be killed
at any moment: a record that it was just writing is cut off at the next start, and all earlier ones are read. An LP is known
by what decides its result (see :mod:`pyg_nsa.cell.labels.lp_solver`): inactive reactions and start.
"""

from __future__ import annotations

import hashlib
import io
import logging
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pyg_nsa.cell.labels.lp_solver import State, pack_bases, unpack_bases
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

__all__ = ["LpJournal", "pack_states", "unpack_states"]

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("<4sQ32s")  # mark, bytes of the record that follows, and their SHA-256
_MARK = b"LP01"


class LpJournal:
    """Solved LPs of one model, on disk. Only one process may have it open.

    Args:
        path: The file; its folder exists. It is made if it is missing, and cut where it is damaged.
        network: The model.

    Attributes:
        known: What the file held, by key.
    """

    def __init__(self, path: Path, network: MetabolicNetwork) -> None:
        self.path = path
        self.known: dict[bytes, State] = {}
        content = path.read_bytes() if path.exists() else b""
        intact = 0
        for record, end in _records(content):
            try:
                self.known |= unpack_states(record, network)
            except (ValueError, KeyError, OSError):  # its bytes are those written, by other code
                break
            intact = end
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        if intact < len(content):
            logger.warning(
                "%s: damaged or cut off after %d of %d bytes; keeping the %d LPs before that.",
                path,
                intact,
                len(content),
                len(self.known),
            )
            self._file.truncate(intact)
        self._file.seek(intact)

    def __enter__(self) -> LpJournal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, record: bytes) -> None:
        """Add a record of :func:`pack_states`; it survives the process from here on.

        Raises:
            OSError: It can't be written, as where the disk is full. The error names the file.
        """
        head = _HEAD.pack(_MARK, len(record), hashlib.sha256(record).digest())
        try:
            self._file.write(head + record)
            self._file.flush()
        except OSError as error:
            error.filename = str(self.path)  # a full disk names none
            raise


def _records(content: bytes) -> list[tuple[bytes, int]]:
    """Records whose checksums are right, each with the position of its end, up to the first that is not."""
    found = []
    position = 0
    while position + _HEAD.size <= len(content):
        mark, length, digest = _HEAD.unpack_from(content, position)
        start = position + _HEAD.size
        record = content[start : start + length]
        if mark != _MARK or len(record) != length or hashlib.sha256(record).digest() != digest:
            break
        position = start + length
        found.append((record, position))
    return found


def pack_states(states: Mapping[bytes, State], network: MetabolicNetwork, bases: bool) -> bytes:
    """States as bytes.

    Args:
        states: By key, all of one length.
        network: The model.
        bases: Whether to keep the bases.
    """
    width = sum(network.stoichiometry.shape) if bases else 0
    kept: Sequence = [state.basis if bases else None for state in states.values()]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        keys=np.frombuffer(b"".join(states), np.uint8).reshape(len(states), -1),
        growth=np.array([state.growth for state in states.values()], np.float64),
        lengths=np.array([len(state.support) for state in states.values()], np.int64),
        support=np.concatenate([np.empty(0, np.int32), *(s.support for s in states.values())]),
        bases=pack_bases(kept, width),
    )
    return stream.getvalue()


def unpack_states(record: bytes, network: MetabolicNetwork) -> dict[bytes, State]:
    """The states that :func:`pack_states` was given."""
    with np.load(io.BytesIO(record), allow_pickle=False) as arrays:
        keys = [row.tobytes() for row in arrays["keys"]]
        growth = arrays["growth"].tolist()
        support = np.split(arrays["support"], np.cumsum(arrays["lengths"])[:-1])
        bases = unpack_bases(arrays["bases"], len(network.reactions))
    found = zip(keys, growth, support, bases, strict=True)
    return {key: State(g, s, basis) for key, g, s, basis in found}

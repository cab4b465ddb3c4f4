"""Many LPs: in one process or several, read from a journal where they were solved before."""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pyg_nsa.cell.labels.lp_journal import LpJournal, pack_states, unpack_states
from pyg_nsa.cell.labels.lp_solver import TOLERANCE, LpSolver, State, pack_bases, unpack_bases
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

__all__ = ["CHUNK", "LpRunner", "LpTask"]

_Packed = tuple[list[tuple[bytes, NDArray[np.int32], int]], NDArray[np.uint8]]

CHUNK = 32
"""LPs that are solved before their results are written; a killed process loses so many at most."""


@dataclass(frozen=True, eq=False)
class LpTask:
    """An LP to solve.

    Attributes:
        inactive: Ascending int32 indices of its inactive reactions.
        start_inactive: The same of the state that it starts from.
        start: That state; it has a basis.
    """

    inactive: NDArray[np.int32]
    start_inactive: NDArray[np.int32]
    start: State


class LpRunner:
    """Solves LPs of one model. Use it in a ``with`` block, which ends its processes.

    Results do not depend on the number of processes, nor on what the journal already holds.

    Args:
        network: The model.
        journal: Where results are kept; ``None`` to keep none.
        workers: Processes. Each needs a few seconds to start, so a few hundred LPs are faster in one.

    Attributes:
        solved: LPs solved so far.
        reused: LPs whose results came from the journal.

    Raises:
        ValueError: For less than one worker.
    """

    def __init__(
        self, network: MetabolicNetwork, journal: LpJournal | None = None, workers: int = 1
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: expected a number of processes, at least 1.")
        self.network = network
        self.workers = workers
        self.solved = 0
        self.reused = 0
        self._journal = journal
        self._solver: LpSolver | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._packed_starts: dict[int, tuple[State, NDArray[np.uint8]]] = {}  # by id of the state
        # Other versions of HiGHS may find another optimum of the same LP.
        solver = f"HiGHS {importlib.metadata.version('highspy')} {TOLERANCE}"
        self._salt = f"{network.fingerprint()} {solver}".encode()

    def __enter__(self) -> LpRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def run(
        self,
        tasks: Sequence[LpTask],
        *,
        bases: bool = False,
        description: str = "",
        progress: bool = False,
    ) -> list[State]:
        """Solve LPs.

        Args:
            tasks: The LPs, each once.
            bases: Whether their bases are needed.
            description: What the progress bar says.
            progress: Show a progress bar on stderr, if that is a terminal.

        Returns:
            Their states, in the order of the tasks.

        Raises:
            ValueError: If growth is unbounded.
            RuntimeError: If HiGHS gives up on one, or a process ends before its time.
        """
        keys = [self._key(task, bases) for task in tasks]
        known = {} if self._journal is None else self._journal.known
        states = {key: known[key] for key in keys if key in known}
        missing = [(k, task) for k, task in zip(keys, tasks, strict=True) if k not in states]
        self.reused += len(states)
        chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
        bar = tqdm(
            total=len(tasks),
            initial=len(states),
            desc=description,
            disable=None if progress else True,
        )
        with bar:
            for found in self._solve_all(chunks, bases):
                states |= found
                self.solved += len(found)
                bar.update(len(found))
        return [states[key] for key in keys]

    def _key(self, task: LpTask, bases: bool) -> bytes:
        """All that the result depends on, as 16 bytes."""
        digest = hashlib.sha256(self._salt + b"\1" * bases)
        for indices in (task.inactive, task.start_inactive):
            digest.update(len(indices).to_bytes(8, "little"))
            digest.update(np.asarray(indices).astype("<i4").tobytes())
        return digest.digest()[:16]

    def _solve_all(
        self, chunks: list[list[tuple[bytes, LpTask]]], bases: bool
    ) -> Iterator[dict[bytes, State]]:
        """States chunk by chunk, as they come; written to the journal first."""
        parallel = self.workers > 1 and len(chunks) > 1
        solved = self._in_processes(chunks, bases) if parallel else self._here(chunks, bases)
        for record in solved:
            if self._journal is not None:
                self._journal.append(record)
            # Always through bytes, so that a state from the journal is no different.
            yield unpack_states(record, self.network)

    def _here(self, chunks: list[list[tuple[bytes, LpTask]]], bases: bool) -> Iterator[bytes]:
        solver = self._solver = self._solver or LpSolver(self.network)
        for chunk in chunks:
            found = {key: solver.solve(task.inactive, task.start.basis) for key, task in chunk}
            yield pack_states(found, self.network, bases)

    def _in_processes(
        self, chunks: list[list[tuple[bytes, LpTask]]], bases: bool
    ) -> Iterator[bytes]:
        if self._pool is None:
            # Not "fork", which copies the threads' locks of torch and HiGHS in whatever state they are.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.workers, context, initializer=_start_worker, initargs=(self.network,)
            )
        waiting = list(reversed(chunks))
        running: set[Future[bytes]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.workers:
                    running.add(self._pool.submit(_work, self._packed(waiting.pop()), bases))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A process that solves LPs ended before its time: killed, out of memory, or never started. A script that "
                "uses several workers must do its work under `if __name__ == '__main__':`, for each of them imports it. "
                "What was solved is kept where there is a cache; workers=1 needs no further processes."
            ) from error

    def _packed(self, chunk: list[tuple[bytes, LpTask]]) -> _Packed:
        """A chunk as plain arrays: keys, inactive reactions and number of the basis; and the bases."""
        width = sum(self.network.stoichiometry.shape)
        number: dict[int, int] = {}
        for _, task in chunk:
            name = id(task.start)
            number.setdefault(name, len(number))
            if name not in self._packed_starts:  # hundreds of tasks begin at one state
                self._packed_starts[name] = task.start, pack_bases([task.start.basis], width)[0]
        tasks = [(key, task.inactive, number[id(task.start)]) for key, task in chunk]
        return tasks, np.stack([self._packed_starts[name][1] for name in number])


# --- in a worker --------------------------------------------------------------

_worker_solver: LpSolver | None = None


def _start_worker(network: MetabolicNetwork) -> None:
    """Prepare a process."""
    # Ctrl-C reaches every process of a terminal; the parent ends its own when their chunks are done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    global _worker_solver
    _worker_solver = LpSolver(network)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A parent that was killed can't end its processes; they would wait for work for ever.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _work(packed: _Packed, bases: bool) -> bytes:
    """Solve a chunk in a process."""
    assert _worker_solver is not None
    tasks, starts = packed
    network = _worker_solver.network
    unpacked = unpack_bases(starts, len(network.reactions))
    found = {key: _worker_solver.solve(inactive, unpacked[k]) for key, inactive, k in tasks}
    return pack_states(found, network, bases)

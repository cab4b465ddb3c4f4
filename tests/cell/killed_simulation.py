"""A simulation of the textbook model that kills itself: ``python -m cell.killed_simulation FOLDER MOMENT NUMBER WORKERS``.

MOMENT is what happens for the NUMBER-th time when the process gets its kill signal: ``lp``: an LP is about to be solved;
``append``: half of a journal's record is on disk; ``table``: half of the final table is; ``replaced``: all of it is.
Each solved LP adds a byte to FOLDER/solved.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pyg_nsa.cell.files import sealed_file
from pyg_nsa.cell.labels.lp_journal import LpJournal
from pyg_nsa.cell.labels.lp_solver import LpSolver
from pyg_nsa.cell.labels.simulated import simulate_labels
from pyg_nsa.cell.network.metabolic_model import load_model


def main(folder: Path, moment: str, number: int, workers: int) -> None:
    solve, append, replace = LpSolver.solve, LpJournal.append, os.replace
    left = [number]

    def kill(what: str) -> None:
        if what == moment:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    def killing_solve(self, inactive, basis):
        kill("lp")
        state = solve(self, inactive, basis)
        if basis is not None:  # the wildtype's LP is solved by every run
            with (folder / "solved").open("ab", buffering=0) as file:
                file.write(b".")
        return state

    def killing_append(self, record):
        if moment == "append" and left[0] == 1:
            self._file.write(record[: len(record) // 2])
            self._file.flush()
        kill("append")
        append(self, record)

    def killing_replace(source, target):
        if moment == "table":
            Path(source).write_bytes(Path(source).read_bytes()[:1000])
        kill("table")
        replace(source, target)
        kill("replaced")

    LpSolver.solve, LpJournal.append = killing_solve, killing_append
    sealed_file.os.replace = killing_replace
    simulate_labels(
        load_model("textbook"), folder, deletions="triples", workers=workers, progress=False
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

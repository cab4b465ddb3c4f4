"""Simulations that are killed, continued, and shared by processes give the same table."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyg_nsa.cell.labels import lp_runner
from pyg_nsa.cell.labels.deletions import simulate_singles
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.labels.lp_journal import LpJournal, pack_states, unpack_states
from pyg_nsa.cell.labels.lp_runner import CHUNK, LpRunner, LpTask
from pyg_nsa.cell.labels.lp_solver import LpSolver
from pyg_nsa.cell.labels.simulated import simulate_labels
from pyg_nsa.cell.labels.table import LabelTable

pytestmark = pytest.mark.long

TESTS = Path(__file__).parents[1]


def assert_same(one: LabelTable, other: LabelTable) -> None:
    for name in ("genes", "fitness", "gene_interaction", "fitness_std"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.gene_ids == other.gene_ids
    assert one.provenance == other.provenance


def run_and_be_killed(folder, moment, number, workers=1):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS))),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cell.killed_simulation", folder, moment, str(number), str(workers)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # Its workers write to the same pipe, which so ends when they have ended, too.
    said, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, said.decode()


def journal_of(folder, network):
    (path,) = folder.glob("lps-*.journal")
    with LpJournal(path, network) as journal:
        return len(journal.known)


@pytest.fixture(scope="module")
def whole(textbook, tmp_path_factory):
    """The table of a simulation that nobody interrupts."""
    return simulate_labels(
        textbook, tmp_path_factory.mktemp("whole"), deletions="triples", progress=False
    )


def test_killed_again_and_again(tmp_path, textbook, whole, caplog):
    needed = whole.provenance["lps"] - 1
    moments = [("lp", 10), ("append", 3), ("table", 1), ("replaced", 1)]
    for runs, (moment, number) in enumerate(moments, 1):
        run_and_be_killed(tmp_path, moment, number)
        solved = len((tmp_path / "solved").read_bytes())
        kept = journal_of(tmp_path, textbook)
        # A kill costs the LPs of one unfinished chunk at most, and no LP is ever solved twice otherwise.
        assert solved - runs * CHUNK <= kept <= solved, (moment, kept, solved)
        finished = list(tmp_path.glob("labels-*.npz"))
        assert len(finished) == (moment == "replaced")
        if moment == "table":
            assert list(tmp_path.glob("*.tmp"))  # half of the table
    assert kept == needed
    assert needed <= solved <= needed + 2 * CHUNK  # two of the kills came in the middle of a chunk
    assert not list(tmp_path.glob("*.tmp"))
    assert_same(simulate_labels(textbook, tmp_path, deletions="triples"), whole)


def test_a_kill_ends_the_workers_too(tmp_path, textbook, whole):
    run_and_be_killed(tmp_path, "append", 3, workers=2)
    kept = journal_of(tmp_path, textbook)
    assert 0 < kept < whole.provenance["lps"] - 1
    assert_same(simulate_labels(textbook, tmp_path, deletions="triples"), whole)


def test_several_processes_give_the_same(tmp_path, textbook, whole):
    table = simulate_labels(textbook, tmp_path, deletions="triples", workers=2, progress=False)
    assert_same(table, whole)


def test_triples_use_what_pairs_have_solved(tmp_path, textbook, whole, caplog):
    caplog.set_level(logging.INFO)
    pairs = simulate_labels(textbook, tmp_path, progress=False)
    assert_same(simulate_labels(textbook, tmp_path, deletions="triples", progress=False), whole)
    lps = pairs.provenance["lps"]
    assert f"with {whole.provenance['lps']} LPs ({lps - 1} of them solved before)" in caplog.text
    assert np.array_equal(whole.fitness[: len(pairs)], pairs.fitness)


def test_a_damaged_journal_is_read_up_to_the_damage(tmp_path, textbook, whole, caplog):
    simulate_labels(textbook, tmp_path, progress=False)
    (path,) = tmp_path.glob("lps-*.journal")
    content = path.read_bytes()
    counts = []
    for position in np.linspace(0, len(content) - 1, 12).astype(int):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        caplog.clear()
        counts.append(journal_of(tmp_path, textbook))
        assert f"{path}: damaged or cut off after " in caplog.text
        assert f"keeping the {counts[-1]} LPs before that" in caplog.text
        caplog.clear()
        assert journal_of(tmp_path, textbook) == counts[-1]  # cut, and so whole again
        assert not caplog.text
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] > 32
    (labels,) = tmp_path.glob("labels-*.npz")
    labels.unlink()
    assert_same(simulate_labels(textbook, tmp_path, deletions="triples", progress=False), whole)


def test_states_survive_as_bytes(textbook):
    solver = LpSolver(textbook)
    wildtype = solver.solve(np.empty(0, np.int32), None)
    lethal = solver.solve(np.arange(40, dtype=np.int32), wildtype.basis)
    states = {b"a" * 16: wildtype, b"b" * 16: lethal}
    back = unpack_states(pack_states(states, textbook, bases=True), textbook)
    assert list(back) == list(states)
    for key, state in states.items():
        assert back[key].growth == state.growth
        assert np.array_equal(back[key].support, state.support)
        assert (back[key].basis is None) == (state.basis is None)
    assert list(back[b"a" * 16].basis.col_status) == list(wildtype.basis.col_status)
    assert list(back[b"a" * 16].basis.row_status) == list(wildtype.basis.row_status)
    small = unpack_states(pack_states(states, textbook, bases=False), textbook)
    assert all(state.basis is None for state in small.values())


def test_the_order_of_lps_changes_no_bit(textbook):
    wildtype = LpSolver(textbook).solve(np.empty(0, np.int32), None)
    sets = [np.array(s, np.int32) for s in ([3], [10, 20], [5], [30, 31, 40], [60], [7, 8])]
    forth, back = LpSolver(textbook), LpSolver(textbook)
    one = [forth.solve(s, wildtype.basis) for s in sets]
    other = [back.solve(s, wildtype.basis) for s in reversed(sets)][::-1]
    for a, b in zip(one, other, strict=True):
        assert a.growth == b.growth
        assert np.array_equal(a.support, b.support)


def test_workers_that_do_not_start(textbook, monkeypatch):
    monkeypatch.setattr(lp_runner, "_start_worker", sys.exit)
    simulator = GrowthSimulator(textbook)
    wildtype, nothing = simulator.wildtype_optimum(), np.empty(0, np.int32)
    tasks = [LpTask(np.array([r], np.int32), nothing, wildtype) for r in range(CHUNK + 1)]
    with (
        LpRunner(textbook, workers=2) as runner,
        pytest.raises(
            RuntimeError, match=r"under `if __name__ == '__main__':`.*workers=1 needs no"
        ),
    ):
        runner.run(tasks)


def test_wrong_arguments(tmp_path, toy):
    with pytest.raises(
        ValueError, match=r"workers=0: expected a number of processes, at least 1\."
    ):
        simulate_labels(toy, tmp_path, workers=0)
    with pytest.raises(
        ValueError, match=r"deletions='double': expected one of 'singles', 'pairs', 'triples'\."
    ):
        simulate_labels(toy, tmp_path, deletions="double")


def test_a_runner_without_a_journal_keeps_nothing(textbook):
    simulator = GrowthSimulator(textbook)
    with LpRunner(textbook) as runner:
        simulate_singles(simulator, False, runner)
        assert (runner.solved, runner.reused) == (simulator.lp_count - 1, 0)

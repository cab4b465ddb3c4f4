"""Files that can't be written: what was there stays, nothing is left of the new ones, and the error says which file it was."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pyg_nsa.cell.files.sealed_file import write_atomically
from pyg_nsa.cell.labels import simulated
from pyg_nsa.cell.labels.lp_journal import LpJournal
from pyg_nsa.cell.network.metabolic_model import ModelFileError, load_model
from pyg_nsa.cell.report import knockout
from pyg_nsa.cell.training.resuming import AtomicCheckpoints
from pyg_nsa.cell.training.written_deletions import deletion_words
from pyg_nsa.cli import main

resource = pytest.importorskip("resource")  # of Unix


@contextlib.contextmanager
def no_file_beyond(size):
    """The system refuses to write files beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_after(monkeypatch):
    """``full_after(owner, name)``: the disk is full once this function has returned, to the end of the test."""
    with contextlib.ExitStack() as stack:

        def patch(owner, name):
            real = getattr(owner, name)

            def then_full(*args, **kwargs):
                found = real(*args, **kwargs)
                stack.enter_context(no_file_beyond(100))
                return found

            monkeypatch.setattr(owner, name, then_full)
            return stack

        yield patch


def test_what_was_there_stays(tmp_path):
    file = tmp_path / "x.json"
    write_atomically(file, b"before")
    with no_file_beyond(100), pytest.raises(OSError, match=r"x\.json'$") as caught:
        write_atomically(file, bytes(1000))
    assert caught.value.filename == str(file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_no_part_of_a_checkpoint_is_left(tmp_path, monkeypatch):
    file = tmp_path / "last.ckpt"
    checkpoints = AtomicCheckpoints()
    checkpoints.save_checkpoint({"x": torch.zeros(1)}, file)
    before = file.read_bytes()

    def copied_in_part(self, checkpoint, path, storage_options=None):
        Path(path).write_bytes(bytes(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", copied_in_part)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save_checkpoint({"x": torch.zeros(2)}, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_journal_names_its_file(tmp_path, textbook):
    file = tmp_path / "lps.journal"
    journal = LpJournal(file, textbook)
    with no_file_beyond(100), pytest.raises(OSError, match=r"lps\.journal'$"):
        journal.append(bytes(100_000))


def test_another_knockout_leaves_a_run_whole(tiny_run, cell_cache, tmp_path, full_after):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    files = ("attention.csv", "run.json")
    before = {name: (run / name).read_bytes() for name in files}
    with (
        full_after(knockout, "explain_knockout"),
        pytest.raises(OSError, match=r"attention\.csv'$"),
    ):
        knockout.write_chosen_knockout(run, deletion_words(["b0720"]), cell_cache)
    assert {name: (run / name).read_bytes() for name in files} == before


def test_a_full_temporary_folder_is_no_fault_of_the_model():
    with no_file_beyond(100), pytest.raises(ModelFileError, match="TMPDIR names another folder"):
        load_model("textbook")


def test_labels_of_a_cache_that_may_only_be_read(tmp_path, textbook, monkeypatch):
    wanted = simulated.simulate_labels(textbook, tmp_path, deletions="singles", progress=False)

    def read_only(path):
        raise PermissionError(path)

    monkeypatch.setattr(simulated, "FileLock", read_only)
    found = simulated.simulate_labels(textbook, tmp_path, deletions="singles", progress=False)
    assert found.y.tobytes() == wanted.y.tobytes()


def test_the_cache_is_named(tmp_path):
    (tmp_path / "file").touch()
    words = ["cell", "labels", "textbook", "--cache", str(tmp_path / "file" / "cache")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "--cache or PYG_NSA_CACHE names another folder" in result.output


def test_ctrl_c_ends_any_command_with_130(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulated, "simulate_labels", interrupted)
    result = CliRunner().invoke(main, ["cell", "labels", "textbook", "--cache", str(tmp_path)])
    assert result.exit_code == 130
    assert "interrupted" in result.output


def test_a_table_of_labels_is_written_whole(tmp_path, full_after):
    output, cache = tmp_path / "labels.csv", tmp_path / "cache"
    words = ["cell", "labels", "textbook", "--deletions", "singles", "--cache", str(cache)]
    output.write_text("before")
    with full_after(simulated, "simulate_labels"):
        result = CliRunner().invoke(main, [*words, "-o", str(output)])
    assert result.exit_code == 1
    assert str(output) in result.output
    assert Path(output).read_text() == "before"


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file, link = tmp_path / "elsewhere" / "table.csv", tmp_path / "table.csv"
    file.write_bytes(b"before")
    link.symlink_to(file)
    write_atomically(link, b"after")
    assert link.is_symlink() and file.read_bytes() == b"after"
    assert sorted(p.name for p in file.parent.iterdir()) == ["table.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "table.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_atomically(pipe, b"all of it")
        assert read.result(timeout=10) == b"all of it"

"""The tutorials, followed step by step: their files are written, their commands run, and what they show must come out.

``pyg-nsa`` and ``python`` run in this process, which has everything imported already; other commands in a shell.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from page_runner import follow

from pyg_nsa.cli import main

pytestmark = pytest.mark.long

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in a folder."""
    monkeypatch.setenv("PYG_NSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(command, folder, status):
        monkeypatch.chdir(folder)
        words = shlex.split(command)
        if words[0] == "pyg-nsa":
            result = CliRunner().invoke(main, words[1:])
            got, shown = result.exit_code, result.output
            if result.exc_info and not isinstance(result.exception, SystemExit | None):
                raise result.exception
        elif words[0] == "python":
            got, shown = 0, _python(words[1:])
        else:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
            got, shown = done.returncode, done.stdout + done.stderr
        assert got == status, f"$ {command}\nexit status {got}\n{shown}"
        return shown

    return run


def _python(words):
    """What ``python FILE`` prints; modules of the folder are imported anew each time."""
    out = io.StringIO()
    before = sys.argv, list(sys.path), set(sys.modules)
    sys.argv, sys.path[:0] = words, [""]
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before[:2]
        for name in {path.stem for path in Path.cwd().glob("*.py")} - before[2]:
            sys.modules.pop(name, None)
    return out.getvalue()


def test_your_organism(run, tmp_path):
    done = follow(DOCS / "tutorial_your_organism.md", tmp_path, run)
    commands = {tuple(command.split()[:2]) for command in done.commands}
    assert {
        ("pyg-nsa", name) for name in ("cell", "check", "train", "predict", "report")
    } < commands
    assert (tmp_path / "runs" / "first" / "report.html").is_file()


def test_from_your_hetero_data(run, tmp_path):
    done = follow(DOCS / "tutorial_from_hetero_data.md", tmp_path, run)
    commands = [command for command in done.commands if command.startswith("pyg-nsa")]
    assert {command.split()[1] for command in commands} == {"init", "check", "swap"}
    assert {"train.py", "masks.py"} < set(done.files)


def test_a_page_that_shows_something_else_is_found_out(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\ntwo\n```\n")
    with pytest.raises(AssertionError, match=r"The page says:\s+two\s+but it is:\s+one"):
        follow(page, tmp_path, run)
    page.write_text("```console\n$ false\n```\n")
    with pytest.raises(AssertionError, match="exit status 1"):
        follow(page, tmp_path, run)
    page.write_text("```python\nprint(1)\n```\n")
    with pytest.raises(AssertionError, match="a block that nothing is done with"):
        follow(page, tmp_path, run)
    page.write_text("<!-- exit status 3 -->\n```console\n$ true\n$ echo two; exit 3\ntwo\n```\n")
    assert follow(page, tmp_path, run).commands == ["true", "echo two; exit 3"]

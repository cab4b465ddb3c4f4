"""docs/write_a_plugin.md, followed step by step: its files are written, its commands run, and what it shows must come out."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_environment import ROOT, FreshEnvironment
from page_runner import follow

pytestmark = pytest.mark.long

PAGE = ROOT / "docs" / "write_a_plugin.md"


def test_the_page_works(fresh_environment: FreshEnvironment, tmp_path: Path) -> None:
    def run(command: str, folder: Path, status: int) -> str:
        return fresh_environment.run("bash", "-c", command, cwd=folder, status=status)

    commands = follow(PAGE, tmp_path, run).commands
    for part in (
        "plugins new",
        "pip install",
        "pytest",
        "check",
        "train.py",
        "doctor",
        "pip wheel",
    ):
        assert any(part in command for command in commands), part

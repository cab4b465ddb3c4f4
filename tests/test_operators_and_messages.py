"""docs/operators_and_messages.md, followed step by step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from page_runner import follow

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operators_and_messages.md"


def test_the_page_works(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    imports = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])

    def run(command: str, folder: Path, status: int) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": imports},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    done = follow(PAGE, tmp_path, run)
    assert len(done.files) == len(done.commands) == 4

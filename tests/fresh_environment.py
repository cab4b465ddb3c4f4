"""A virtual environment as a user has it: wheels, and no checkout.

torch is too large to install for a test. So the environment sees the packages that these tests run with, through a folder of links to
them, with one exception: pyg_nsa, which comes from its wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

_OURS = ("pyg_nsa", "_editable_impl_pyg_nsa", "__editable__.pyg_nsa", "__editable___pyg_nsa")


class FreshEnvironment:
    """The environment in `folder`, which must be empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        venv.create(folder / "venv", symlinks=True, with_pip=False)
        (self.site,) = (folder / "venv").glob("lib/python*/site-packages")
        # A folder of its own behind the environment's: pip then takes nothing in it for its own to remove.
        packages = folder / "packages"
        packages.mkdir()
        for path in map(Path, sys.path):
            if path.name in ("site-packages", "dist-packages"):
                for entry in path.iterdir():
                    link = packages / entry.name
                    if not entry.name.startswith(_OURS) and not link.exists():
                        link.symlink_to(entry)
        (self.site / "packages.pth").write_text(f"{packages}\n")
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "PYTEST", "PIP_", "PYG_NSA", "VIRTUAL_ENV", "COV"))
        }
        self.environment |= {
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}",
            # What is needed to build is among the packages; nothing is fetched.
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as `--build-isolation`: 0 is off
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }

    def run(self, *command: str | Path, cwd: Path | None = None, status: int = 0) -> str:
        """Runs a command there, checks its exit status, and returns what it printed (standard error included).

        `python` and what is installed there are found by name.
        """
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def install(self, project: Path) -> Path:
        """Builds a project's wheel and installs it, and returns the wheel."""
        wheels = self.folder / "wheels" / project.name
        self.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, project)
        (wheel,) = wheels.iterdir()
        self.run("python", "-m", "pip", "install", "--quiet", "--no-deps", wheel)
        return wheel

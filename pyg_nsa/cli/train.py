"""``pyg-nsa train`` and ``pyg-nsa demo``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["demo", "train"]

F = TypeVar("F", bound=Callable[..., Any])

_QUIET = click.option("--no-progress", is_flag=True, help="Do not draw progress bars.")
_CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where graphs and labels are kept between runs (default: PYG_NSA_CACHE or ~/.cache/pyg_nsa).",
)


def _output(default: str) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        default=default,
        show_default=True,
        help="Folder of the run.",
    )


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@_output("runs/train")
@_CACHE
@_QUIET
def train(config: Path, output: Path, cache: Path | None, no_progress: bool) -> None:
    """Train the perturbed-cell model that the file CONFIG describes, and write a report."""
    _run(config, output, cache, no_progress)


@click.command()
@_output("runs/demo")
@_CACHE
@_QUIET
@click.option(
    "--small", is_flag=True, help="The textbook model instead of iJO1366: seconds, not minutes."
)
def demo(output: Path, cache: Path | None, no_progress: bool, small: bool) -> None:
    """Train on an embedded E. coli model and write a report: graph, labels, training, figures."""
    source = files("pyg_nsa.cell") / ("textbook.yaml" if small else "demo.yaml")
    _run(Path(str(source)), output, cache, no_progress)


def _run(file: Path, output: Path, cache: Path | None, no_progress: bool) -> None:
    from pyg_nsa.load import load_config

    # Before torch is imported, so that a mistake in the file is reported at once.
    from pyg_nsa.cell.config import CellConfig  # isort: skip

    config = load_config(file, CellConfig).relative_to(file.parent)

    from pyg_nsa.cell.run import run_training

    run_training(
        config, output, cache=cache, config_text=file.read_text(), progress=not no_progress
    )

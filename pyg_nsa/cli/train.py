"""``pyg-nsa train`` and ``pyg-nsa demo``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import click

from pyg_nsa.cli.reading import training_run

__all__ = ["cache_option", "demo", "train"]

F = TypeVar("F", bound=Callable[..., Any])

_QUIET = click.option("--no-progress", is_flag=True, help="Do not draw progress bars.")
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where graphs and labels are kept between runs (default: PYG_NSA_CACHE or ~/.cache/pyg_nsa).",
)
_RESUME = click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in the output folder: what is done is not done again. Where there is none, it starts.",
)
_FORCE = click.option(
    "--force", is_flag=True, help="Train anew over a run that is in the output folder already."
)
_DEMO = Path("runs/demo")
_DEMOS = ("demo.yaml", "textbook.yaml")  # iJO1366, and with --small


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
@_RESUME
@_FORCE
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a value of the configuration, such as training.epochs=3 or operator.edges[0].kind=adjacency_mask; the value is "
    "YAML. May be given many times.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Build graph and model, print the parameters, the steps and the memory of one, and stop there.",
)
@cache_option
@_QUIET
def train(
    config: Path,
    output: Path,
    resume: bool,
    force: bool,
    overrides: tuple[str, ...],
    dry_run: bool,
    cache: Path | None,
    no_progress: bool,
) -> None:
    """Train the perturbed-cell model that the file CONFIG describes, and write a report.

    Ctrl-C finishes the step, saves, and says how to go on; a second one stops at once. A checkpoint is also written after every
    epoch, and within one as training.checkpoint_every says. A run that is in the output folder already is not written over
    without --force.

    Exit status: 0 fine, 1 problems, 2 wrong usage, 130 interrupted.
    """
    _run(
        config,
        output,
        cache,
        no_progress,
        resume=resume,
        force=force,
        overrides=overrides,
        dry_run=dry_run,
    )


@click.command()
@_output(str(_DEMO))
@_RESUME
@_FORCE
@cache_option
@_QUIET
@click.option(
    "--small", is_flag=True, help="The textbook model instead of iJO1366: seconds, not minutes."
)
def demo(
    output: Path, resume: bool, force: bool, cache: Path | None, no_progress: bool, small: bool
) -> None:
    """Train on an embedded E. coli model and write a report: graph, labels, training, figures."""
    source = files("pyg_nsa.cell") / _DEMOS[small]
    force = force or (output == _DEMO and not resume and _is_demo(output))
    _run(Path(str(source)), output, cache, no_progress, resume=resume, force=force)


def _run(
    file: Path,
    output: Path,
    cache: Path | None,
    no_progress: bool,
    *,
    resume: bool = False,
    force: bool = False,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    if resume and force:
        raise click.UsageError(
            "--resume goes on with a run, --force trains it anew: give one of them"
        )

    config = training_run(file, overrides)
    if dry_run:
        from pyg_nsa.cell.training.dry_run import dry_run as describe

        click.echo(describe(config, cache))
        return
    if not (resume or force):
        _spare_run(output)

    from pyg_nsa.cell.training.distributed import is_first
    from pyg_nsa.cell.training.interrupt import TrainingInterrupted
    from pyg_nsa.cell.training.run import run_training

    text = _text(file, overrides)
    before = _times(output)
    try:
        run_training(
            config,
            output,
            cache=cache,
            config_text=text,
            progress=not no_progress,
            resume=resume,
        )
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        if is_first():
            click.echo(f"\n{error}" if str(error) else "\ninterrupted", err=True)
            # An earlier run that still stands is not what is to be gone on with.
            standing = force and bool(before.items() & _times(output).items())
            click.echo(f"go on with: {_command() if standing else _go_on()}", err=True)
        raise click.exceptions.Exit(130) from error


def _spare_run(folder: Path) -> None:
    """Makes sure that nothing is written over a run, which may have taken days.

    Raises:
        click.ClickException: The folder holds one.
    """
    from pyg_nsa.cell.training.earlier_run import earlier_run

    if found := earlier_run(folder):
        raise click.ClickException(
            f"{folder} holds a run already ({found[0].relative_to(folder)}); --resume goes on with it, -o names another folder, "
            "--force trains anew over it"
        )


def _is_demo(folder: Path) -> bool:
    """Whether the run in a folder is an earlier demo, over which another one may be written."""
    import json

    from ruamel.yaml import YAML

    try:
        title = json.loads((folder / "config.json").read_text(encoding="utf-8"))["title"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    sources = (files("pyg_nsa.cell") / name for name in _DEMOS)
    return title in [
        YAML(typ="safe", pure=True).load(s.read_text("utf-8"))["title"] for s in sources
    ]


def _text(file: Path, overrides: Sequence[str]) -> str | None:
    """The configuration as YAML text, with what was set beside it."""
    from pyg_nsa.load.overrides import parse_override, set_in_text

    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".toml":
        return None  # written out from its values
    return set_in_text(text, [parse_override(o) for o in overrides]) if overrides else text


def _times(folder: Path) -> dict[Path, int]:
    """When the files of the run in a folder were written."""
    from pyg_nsa.cell.training.earlier_run import earlier_run

    return {file: file.stat().st_mtime_ns for file in earlier_run(folder)}


def _command() -> str:
    """The command that was given."""
    return shlex.join(["pyg-nsa", *sys.argv[1:]])


def _go_on() -> str:
    """The command that was given, with ``--resume``."""
    words = ["pyg-nsa", *(word for word in sys.argv[1:] if word != "--force")]
    if "--resume" not in words:
        words.append("--resume")
    return shlex.join(words)

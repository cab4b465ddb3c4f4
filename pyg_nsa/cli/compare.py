"""``pyg-nsa compare``."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyg_nsa.cli.reading import training_run
from pyg_nsa.cli.train import cache_option

if TYPE_CHECKING:
    from pyg_nsa.cell.config import CellConfig

__all__ = ["compare"]


@click.command()
@click.argument(
    "configs", metavar="CONFIG…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="runs/compare",
    show_default=True,
    help="Folder of the comparison; what is done in it is not trained again.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many seeds of initialisation and sampling, from the configuration's on; the split is that of the configuration.",
)
@click.option(
    "--new-splits",
    is_flag=True,
    help="Each seed also makes a split of its own, the same for all models, so that deviations include the choice of genes.",
)
@click.option(
    "--inits",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --new-splits: how many initialisations of each model on each split; their metrics are averaged.",
)
@click.option(
    "--match",
    type=click.Choice(["parameters", "time", "none"]),
    default="parameters",
    show_default=True,
    help="Equal terms: the first one's number of parameters (within 5 %), as many steps as take as long as the first one's, or as "
    "configured.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a value in every configuration, such as training.epochs=3; the value is YAML. May be given many times.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="List what would be trained, with numbers of parameters, and stop there.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result (or, with --dry-run, the plan) as JSON.",
)
@cache_option
@click.option("--no-progress", is_flag=True, help="Do not draw progress bars.")
def compare(
    configs: tuple[Path, ...],
    output: Path,
    seeds: int,
    new_splits: bool,
    inits: int,
    match: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    cache: Path | None,
    no_progress: bool,
) -> None:
    """Train the models of all CONFIG files on the same splits with several seeds, and write one table and one figure.

    With a single CONFIG its baselines take part. An interrupted comparison goes on where it was when it is called again. A model whose
    training fails is marked so, the others are compared, and the exit status is 1.

    Exit status: 0 fine, 1 problems, 2 wrong usage, 130 interrupted.
    """
    if inits > 1 and not new_splits:
        raise click.UsageError(
            "--inits goes with --new-splits; on one split each seed is an initialisation: --seeds"
        )
    loaded: dict[str, CellConfig] = {}
    for file in configs:
        if file.stem in loaded:
            raise click.UsageError(
                f"two configurations are called '{file.stem}', which names them in the table; rename one"
            )
        loaded[file.stem] = training_run(file, overrides)

    from rich.console import Console

    from pyg_nsa.cell.evaluation.comparison import run_comparison
    from pyg_nsa.cell.training.interrupt import TrainingInterrupted
    from pyg_nsa.cell.training.run_lock import run_lock

    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 160)
    command = shlex.join(["pyg-nsa", *sys.argv[1:]])
    try:
        with contextlib.nullcontext() if dry_run else run_lock(output):
            facts = run_comparison(
                loaded,
                output,
                seeds=seeds,
                match=match,  # type: ignore[arg-type]
                cache=cache,
                dry_run=dry_run,
                progress=not no_progress,
                console=console,
                command=command,
                new_splits=new_splits,
                inits=inits,
            )
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        click.echo(f"\n{error}" if str(error) else "\ninterrupted", err=True)
        click.echo(f"go on with: {command}", err=True)
        raise click.exceptions.Exit(130) from error
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    if failed := sum("failed" in cell for cell in facts["cells"]):
        raise click.ClickException(
            f"{failed} of {len(facts['cells'])} trainings failed; the same command tries them again, and no others"
        )

"""``pyg-nsa swap``: what a swap would do to the model in a Python file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pyg_nsa.cli.model_file import read_model

__all__ = ["swap"]


@click.command()
@click.argument("model_file", metavar="MODEL_FILE[:NAME]")
@click.option(
    "--config",
    "-c",
    required=True,
    type=click.Path(path_type=Path),
    help="Configuration (YAML, JSON or TOML); without edges each edge type gets a default kind.",
)
@click.option(
    "--where",
    default=["*"],
    multiple=True,
    metavar="GLOB",
    help="Only layers whose path in the model matches; may be given more than once.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A HeteroData, or the arguments of the model's call, saved with torch.save: the layers are then tried on it. "
    "Loading it unpickles it, which may run code: give only files that you trust.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only report. Always on: this command never changes or writes a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def swap(
    model_file: str,
    config: Path,
    where: tuple[str, ...],
    data: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Report what replacing a model's HeteroConv, HGTConv and HANConv layers would change.

    MODEL_FILE is a Python file of yours. It is run, as `python MODEL_FILE` would run it up to `if __name__ == "__main__"`.
    NAME is a model in it, or a class or function without required arguments that makes one; it may be left out where the file
    holds one model.

    A model lives in your program, so the swap happens there, too: the report ends with the lines to add. Exit status: 0 fine,
    1 problems (a swap that is refused, or one whose report warns), 2 wrong usage.
    """
    model, shown = read_model(model_file)
    from pyg_nsa.swapping import swap as swap_layers

    arguments = None
    if data is not None:
        from pyg_nsa.cli.graphs import read_arguments

        arguments = read_arguments(data)
    report = swap_layers(model, config, arguments, dry_run=True, where=where)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        globs = "" if where == ("*",) else f", where={list(where)!r}"
        click.echo(report.render())
        click.echo("\nTo swap, add this where the model has been made:\n")
        click.echo("    from pyg_nsa import swap")
        click.echo(f"    swap({shown}, {str(config)!r}{globs})")
    if report.warnings:
        raise click.exceptions.Exit(1)

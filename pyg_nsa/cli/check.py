"""``pyg-nsa check``: is a configuration valid?"""

from __future__ import annotations

from pathlib import Path

import click

from pyg_nsa.load import ConfigError, load_config

__all__ = ["check"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--training", is_flag=True, help="FILE configures a training run, not an operator.")
def check(file: Path, training: bool) -> None:
    """Check the configuration FILE (YAML, JSON or TOML) and list all its problems.

    Exit status: 0 valid, 1 problems, 2 wrong usage.
    """
    try:
        if training:
            from pyg_nsa.cell.config import CellConfig

            config = load_config(file, CellConfig).operator
        else:
            config = load_config(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        number = len(error.problems)
        click.echo(f"{number} problem{'s' if number > 1 else ''} in {file}", err=True)
        raise click.exceptions.Exit(1) from None
    for spec in config.edges:
        click.echo(f"{' '.join(spec.edge_type)}: {spec.kind}")
    click.echo(f"{file} is valid")

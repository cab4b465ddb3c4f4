"""``pyg-nsa plugins new``: a plugin to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

__all__ = ["new"]


@click.command()
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the project (default: one with the name of the distribution, here).",
)
def new(name: str, folder: Path | None) -> None:
    """Write the project of a new plugin with the edge kind NAME, such as my_lab.nearest.

    It is complete: a small edge kind that works, its entry point, and tests. No file is overwritten.

    Exit status: 0 fine, 1 something of that name is there already, 2 wrong usage.
    """
    from pyg_nsa.scaffold import ScaffoldError, project, write

    try:
        made = project(name)
    except ScaffoldError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from error
    folder = folder if folder is not None else Path(made.distribution)
    write(made, folder)
    click.echo(f"wrote {folder}:")
    for path in made.files:
        click.echo(f"  {path}")
    click.echo(
        f"""
Next:
  cd {shlex.quote(str(folder))}
  python -m pip install -e '.[test]'
  python -m pytest
  pyg-nsa plugins show {name}
Then change src/{made.package} to what you want."""
    )

"""``pyg-nsa fill``: a configuration with all defaults written out."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from pyg_nsa.cli.reading import read, training_option, warnings_as_notes

__all__ = ["fill"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--diff", is_flag=True, help="Print what changes, and write nothing.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file (.yaml or .json), which may be FILE itself.",
)
@click.option("--in-place", is_flag=True, help="Write to FILE itself.")
@training_option
def fill(file: Path, diff: bool, output: Path | None, in_place: bool, training: bool) -> None:
    """Print the configuration FILE with all defaults written out; comments stay.

    FILE itself is only written to with --in-place, or where -o names it. A file of an earlier format version comes out in the
    current one.

    Exit status: 0 fine, 1 problems, 2 wrong usage.
    """
    from pyg_nsa import fill as library

    if diff + in_place + (output is not None) > 1:
        raise click.UsageError("--diff, --in-place and -o exclude each other")
    with warnings_as_notes():
        config = read(file, training)
    target = file if in_place else output
    filled = library.fill(file, config, target.suffix.lower() if target is not None else None)
    if filled.note:
        click.echo(f"note: {filled.note}", err=True)
    if target is not None:
        target.write_text(filled.text, encoding="utf-8")
        click.echo(f"wrote {target}")
    elif diff:
        before = file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        after = filled.text.splitlines(keepends=True)
        for line in difflib.unified_diff(before, after, str(file), f"{file} (filled)"):
            end = "" if line.endswith("\n") else "\n\\ No newline at end of file\n"
            click.echo(line + end, nl=False)
    else:
        click.echo(filled.text, nl=False)

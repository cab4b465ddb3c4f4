"""``pyg-nsa schema``: the JSON Schema of configurations, for editors and other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pyg_nsa.cli.reading import model_of, training_option, warnings_as_notes

__all__ = ["schema"]


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, not to the screen.",
)
@click.option(
    "--check", is_flag=True, help="Write nothing; exit with 1 if the file of -o is out of date."
)
@training_option
def schema(output: Path | None, check: bool, training: bool) -> None:
    """Print the JSON Schema of configurations, with the options of all installed edge kinds.

    An editor that is given it completes and checks a configuration; in YAML the first line of the file says where it is:

    \b
        # yaml-language-server: $schema=./pyg_nsa.schema.json

    Exit status: 0 fine, 1 out of date (--check), 2 wrong usage.
    """
    from pyg_nsa.schema import json_schema, schema_text

    if check and output is None:
        raise click.UsageError("--check needs the file to compare with: -o FILE")
    with warnings_as_notes():
        made = json_schema(model=model_of(training))
    if output is None:
        click.echo(schema_text(made), nl=False)
    elif not check:
        output.write_text(schema_text(made), encoding="utf-8")
        click.echo(f"wrote {output}")
    else:
        reason = _out_of_date(output, made)
        if reason:
            command = f"pyg-nsa schema {'--training ' if training else ''}-o {output}"
            click.echo(f"{output} {reason}; run: {command}", err=True)
            raise click.exceptions.Exit(1)
        click.echo(f"{output} is up to date")


def _out_of_date(file: Path, made: dict[str, Any]) -> str:
    """Says why the file is not the schema of now; empty if it is."""
    from pyg_nsa.schema import schema_text

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "does not exist"
    if text == schema_text(made):
        return ""
    try:
        old = json.loads(text)["x-pyg-nsa"]
        found = {**old["kinds"], **old["operators"]}
    except (ValueError, KeyError, TypeError):
        return "is not a schema of pyg-nsa"
    now = {**made["x-pyg-nsa"]["kinds"], **made["x-pyg-nsa"]["operators"]}
    changes = [f"{name} is new" for name in now if name not in found]
    changes += [f"{name} is no longer installed" for name in found if name not in now]
    changes += [
        f"{name} was of {_source(found[name])} and is of {_source(now[name])}"
        for name in now
        if name in found and found[name] != now[name]
    ]
    return f"is out of date ({'; '.join(changes) or 'the text differs'})"


def _source(facts: dict[str, Any]) -> str:
    return f"{facts.get('distribution')} {facts.get('version')}, revision {facts.get('revision')}"

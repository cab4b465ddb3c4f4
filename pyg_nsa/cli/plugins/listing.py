"""``pyg-nsa plugins list``: which plugins there are."""

from __future__ import annotations

import json

import click

from pyg_nsa.cli.reading import warnings_as_notes

__all__ = ["list_plugins"]


@click.command("list")
@click.option(
    "--load", is_flag=True, help="Import each plugin, to see what it is and that it works."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(load: bool, as_json: bool) -> None:
    """List plugins: name, status, distribution and version.

    A plugin is listed without importing it. Whether it works, and whether it is an edge kind or an operator, is known once it is
    loaded; `pyg-nsa plugins doctor` explains what is wrong.

    Exit status: 0 fine (a plugin that cannot be used is listed all the same), 2 wrong usage.
    """
    # Slow to import, and `pyg-nsa --help` needs no more than the name of the command.
    from pyg_nsa.cli.plugins.installed import installed_plugins, load_quietly, what_it_is
    from pyg_nsa.cli.tables import print_table

    with warnings_as_notes():
        registry = installed_plugins()
        records = registry.records()
        if load:
            records = load_quietly(registry)
    if as_json:
        rows = [
            {
                "name": r.name,
                "what": what_it_is(r),
                "status": r.status,
                "dist": r.dist,
                "version": r.version,
                "module": r.module,
                "summary": r.declaration.summary if r.declaration is not None else None,
                "reason": r.reason,
            }
            for r in records
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif load:
        print_table(
            ("name", "what", "status", "distribution", "summary"),
            (
                (
                    r.name,
                    what_it_is(r) or "",
                    r.status,
                    f"{r.dist} {r.version}",
                    r.declaration.summary if r.declaration is not None else r.reason,
                )
                for r in records
            ),
        )
    else:
        print_table(
            ("name", "status", "distribution", "module"),
            ((r.name, r.status, f"{r.dist} {r.version}", r.module or "") for r in records),
        )
        click.echo("With --load: edge kind or operator, and a summary.", err=True)

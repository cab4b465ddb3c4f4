"""``pyg-nsa plugins``: what is installed."""

from __future__ import annotations

import json

import click

__all__ = ["plugins"]


@click.group()
def plugins() -> None:
    """Edge kinds and operators that are installed."""


@plugins.command("list")
@click.option("--load", is_flag=True, help="Import each plugin, to see whether it works.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(load: bool, as_json: bool) -> None:
    """List plugins: name, status, distribution."""
    # Slow to import, and `pyg-nsa --help` needs no more than the name of the command.
    from pyg_nsa.registry import default_registry

    registry = default_registry()
    records = registry.load_all() if load else registry.records()
    if as_json:
        rows = [
            {
                "name": r.name,
                "status": str(r.status),
                "dist": r.dist,
                "version": r.version,
                "reason": r.reason,
            }
            for r in records
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "status", "distribution", "summary" if load else "module")
    for r in records:
        summary = r.declaration.summary if r.declaration is not None else (r.reason or "")
        table.add_row(r.name, str(r.status), f"{r.dist} {r.version}", summary if load else r.module)
    Console().print(table)

"""``pyg-nsa explain``: what each edge type of a configuration becomes, and which plugin does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyg_nsa.cli.reading import operator_of, read, training_option, warnings_as_notes

if TYPE_CHECKING:
    from pyg_nsa.config import HeteroNSAConfig

__all__ = ["explain"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@training_option
def explain(file: Path, as_json: bool, training: bool) -> None:
    """Explain the configuration FILE: per edge type its kind, all options, the plugin, and the line.

    Exit status: 0 fine, 1 problems, 2 wrong usage.
    """
    with warnings_as_notes():
        rows = _rows(operator_of(read(file, training)))
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.text import Text

    from pyg_nsa.cli.tables import print_table

    table: list[tuple[str | Text, ...]] = []
    for row in rows:
        options = Text()
        for name, value in row["options"].items():
            is_set = name in row["set"]
            shown = f"{name}={json.dumps(value, ensure_ascii=False)}"
            options.append(shown if is_set else f"{shown} (default)", "bold" if is_set else "dim")
            options.append("\n")
        options.rstrip()
        place = f"{row['file']}:{row['line']}" if row["line"] else row["file"]
        table.append((", ".join(row["edge_type"]), row["kind"], options, row["plugin"], place))
    print_table(("edge type", "kind", "options", "plugin", "file:line"), table)


def _rows(config: HeteroNSAConfig) -> list[dict[str, Any]]:
    from pyg_nsa.model_types import written_keys
    from pyg_nsa.plain_values import plain_values
    from pyg_nsa.sources import place_of

    registry = config.registry()
    rows = []
    for index, spec in enumerate(config.edges):
        file, line, column = place_of(config, ("edges", index))
        kind = spec.resolved(registry)
        keys = written_keys(type(spec.options))
        rows.append(
            {
                "edge_type": list(spec.edge_type),
                "kind": spec.kind,
                "summary": kind.summary,
                "reads": list(kind.fields(spec.options)),
                "options": plain_values(spec.options),
                "set": sorted(keys[name] for name in spec.options.model_fields_set),
                "plugin": registry.provider(spec.kind),
                "revision": kind.revision,
                "file": file,
                "line": line,
                "column": column,
            }
        )
    return rows

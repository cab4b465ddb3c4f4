"""``pyg-nsa plugins show``: all about one edge kind or operator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from pyg_nsa.cli.reading import warnings_as_notes

if TYPE_CHECKING:
    from pyg_nsa.api import EdgeKind, Operator
    from pyg_nsa.cli.plugins.option_rows import OptionRow
    from pyg_nsa.registry import PluginRecord, Registry

__all__ = ["show"]


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the edge kind or operator NAME: where it is from, what it needs, its options, and an example.

    Exit status: 0 fine, 1 there is no such plugin or it cannot be used, 2 wrong usage.
    """
    from pyg_nsa.cli.plugins.installed import installed_plugins
    from pyg_nsa.cli.plugins.option_rows import option_rows
    from pyg_nsa.errors import RegistryError, UnknownNameError

    with warnings_as_notes():
        registry = installed_plugins()
        try:
            record, declared = _found(name, registry)
        except RegistryError as error:
            more = ""
            if not isinstance(error, UnknownNameError):
                more = "\n`pyg-nsa plugins doctor` says more."
            raise click.ClickException(f"{error}{more}") from error
        options = option_rows(declared, name)
        facts = _facts(record, declared, options, registry)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _as_text(facts)


def _found(name: str, registry: Registry) -> tuple[PluginRecord, EdgeKind | Operator]:
    """Loads the plugin of that name and no other.

    Raises:
        RegistryError: There is none, or it cannot be used.
    """
    from pyg_nsa.errors import UnknownEdgeKindError

    registry.provider(
        name
    )  # An unknown name is an unknown plugin here, and neither an edge kind nor an operator.
    declared: EdgeKind | Operator
    try:
        declared = registry.edge_kind(name)
    except UnknownEdgeKindError:
        declared = registry.operator(name)
    return next(r for r in registry.records() if r.name == name and r.declaration), declared


def _facts(
    record: PluginRecord,
    declared: EdgeKind | Operator,
    options: list[OptionRow],
    registry: Registry,
) -> dict[str, Any]:
    from pyg_nsa.api import EdgeKind
    from pyg_nsa.cli.plugins.installed import file_of

    facts: dict[str, Any] = {
        "name": declared.name,
        "what": "edge kind" if isinstance(declared, EdgeKind) else "operator",
        "summary": declared.summary,
        "distribution": record.dist,
        "version": record.version,
        "entry_point": f"{record.name} = {record.module}",
        "file": file_of(record.module or ""),
        "api": list(declared.api),
        "revision": declared.revision,
    }
    if isinstance(declared, EdgeKind):
        facts |= {
            "produces": sorted(declared.produces),
            "requires": _requires(declared, options),
            "within_one_type": declared.within_one_type,
            "aliases": list(declared.aliases),
            "deprecated": declared.deprecated,
        }
    facts["options"] = [
        {
            "name": row.name,
            "type": row.type,
            "required": row.required,
            "default": row.default,
            "limits": row.limits,
            "description": row.description,
        }
        for row in options
    ]
    facts["example"] = _example(declared, options, registry)
    return facts


def _values(options: list[OptionRow]) -> dict[str, Any]:
    """A value of each option: the default, or a sample where there is none."""
    top = [row for row in options if "." not in row.name]
    return {row.name: row.sample if row.required else row.default for row in top}


def _requires(kind: EdgeKind, options: list[OptionRow]) -> list[list[str]]:
    """The fields that a relation has to have: each entry holds alternatives."""
    try:
        missing = kind.missing(kind.options.model_validate(_values(options)), ())
    except Exception:  # plugins' code, and samples that they need not accept
        missing = [(entry,) if isinstance(entry, str) else entry for entry in kind.requires]
    return [list(alternatives) for alternatives in missing]


def _example(
    declared: EdgeKind | Operator, options: list[OptionRow], registry: Registry
) -> str | None:
    """The lines of a configuration that use it, or None if only the user can know the values of required options."""
    from pyg_nsa.api import EdgeKind
    from pyg_nsa.config import EdgeSpec
    from pyg_nsa.fill import yaml_text

    values = _values(options)
    try:
        if not isinstance(declared, EdgeKind):
            declared.options.model_validate(values)
            options_line = yaml_text({"operator_options": values}) if values else ""
            return f"operator: {declared.name}\n{options_line}"
        # One node type at both ends: that is what every kind can do, and some kinds can do nothing else.
        spec = {"edge_type": ["node", "edge", "node"], "kind": declared.name, "options": values}
        EdgeSpec.model_validate(spec, context={"registry": registry})
    except Exception:  # a plugin's own validators may raise anything
        return None
    return yaml_text({"edges": [{key: value for key, value in spec.items() if value != {}}]})


def _as_text(facts: dict[str, Any]) -> None:
    from pyg_nsa.cli.tables import print_table

    click.echo(f"{facts['name']} ({facts['what']})\n{facts['summary']}\n")
    shown = {
        "from": f"{facts['distribution']} {facts['version']}",
        "entry point": facts["entry_point"],
        "file": facts["file"],
        "plugin API": ".".join(map(str, facts["api"])),
        "revision": facts["revision"],
        "produces": ", ".join(facts.get("produces", ())),
        "requires": "; ".join(" or ".join(names) for names in facts.get("requires", ())),
        "edge types": "within one node type only" if facts.get("within_one_type") else "",
        "aliases": ", ".join(facts.get("aliases", ())),
        "deprecated": facts.get("deprecated"),
    }
    for title, value in shown.items():
        if value not in (None, ""):
            click.echo(f"  {title:<12}  {value}")
    if facts["options"]:
        print_table(
            ("option", "type", "default", "limits", "description"),
            (
                (
                    row["name"],
                    row["type"],
                    "(required)"
                    if row["required"]
                    else json.dumps(row["default"], ensure_ascii=False),
                    row["limits"],
                    row["description"],
                )
                for row in facts["options"]
            ),
        )
    else:
        click.echo("\nIt has no options.\n")
    if facts["example"] is not None:
        click.echo(f"In a configuration:\n\n{_indented(facts['example'])}")
    else:
        required = [row["name"] for row in facts["options"] if row["required"]]
        click.echo(f"An example would need values that only you know: {', '.join(required)}.")


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines()).rstrip("\n")

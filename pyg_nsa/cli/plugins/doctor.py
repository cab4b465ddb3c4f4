"""``pyg-nsa plugins doctor``: what is wrong with the installed plugins, and what they run on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyg_nsa.cli.plugins.findings import Finding

__all__ = ["doctor"]

_DISTRIBUTIONS = ("pyg-nsa", "torch", "torch-geometric", "pluggy", "pydantic")
_VARIABLES = ("PYG_NSA_PLUGINS", "PYG_NSA_DISABLE_PLUGINS", "PYG_NSA_STRICT_PLUGINS")


@click.command()
@click.option("--traceback", is_flag=True, help="Show the tracebacks of broken plugins.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(traceback: bool, as_json: bool) -> None:
    """Load all plugins, build each once, say what is wrong with them and how to mend it, and show the environment.

    Each is built with its default options, within one node type; `pyg-nsa check FILE --build` builds what a file describes. One
    whose options have no defaults is said to be loaded but not built.

    Exit status: 0 fine, 1 a plugin is broken, incompatible or in conflict, 2 wrong usage. Plugins that were switched off are
    mentioned, and are no problem.
    """
    from pyg_nsa.cli.plugins.findings import findings
    from pyg_nsa.cli.plugins.installed import installed_plugins

    registry = installed_plugins()
    found = findings(registry)
    problems = sum(finding.is_problem for finding in found)
    failing = {finding.name for finding in found if finding.is_problem}
    usable = sorted(
        record.name
        for record in registry.records()
        if record.declaration is not None
        and record.status == "loaded"
        and not failing & {record.name, record.declaration.name}  # an alias fails with its kind
    )
    environment = _environment()
    if as_json:
        report = {
            "ok": not problems,
            "loaded": usable,
            "findings": [{**asdict(one), "is_problem": one.is_problem} for one in found],
            "environment": environment,
        }
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for finding in found:
            _as_text(finding, traceback)
        end = "1 problem" if problems == 1 else f"{problems or 'no'} problems"
        unbuilt = {finding.name for finding in found if finding.status == "not built"}
        works = f"{len(set(usable) - unbuilt)} plugins work"
        if unbuilt:
            works += f", {len(unbuilt)} loaded but not built"
        click.echo(f"{works}, {end}\n")
        for title, value in environment.items():
            click.echo(f"  {title:<24}  {'not set' if value is None else value or '(empty)'}")
    if problems:
        raise click.exceptions.Exit(1)


def _as_text(finding: Finding, traceback: bool) -> None:
    click.echo(f"{finding.status}: {finding.name or ''}".rstrip(" :"))
    click.echo(f"    {finding.what}")
    for title, values in (("from", finding.providers), ("in", finding.places)):
        for value in values:
            click.echo(f"    {title}: {value}")
    click.echo(f"    mend: {finding.mend}")
    if traceback and finding.traceback:
        click.echo(textwrap.indent(finding.traceback.rstrip(), "    | "))
    click.echo()


def _environment() -> dict[str, str | None]:
    """What plugins run on; None for a variable that is not set."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["CUDA"] = _cuda()
    return {**found, **{variable: os.environ.get(variable) for variable in _VARIABLES}}


def _cuda() -> str:
    try:
        import torch

        if not torch.cuda.is_available():
            return "not available"
        return f"{torch.version.cuda}, {torch.cuda.get_device_name()}"
    except Exception as error:  # a torch that does not import is what one calls a doctor for
        return f"unknown, torch fails: {type(error).__name__}: {error}"

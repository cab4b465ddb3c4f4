"""``pyg-nsa check``: are configurations valid, and do they fit a graph?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyg_nsa.cli.checkpoints import check_checkpoint, is_checkpoint, lines_of
from pyg_nsa.cli.reading import (
    missing_files_of,
    operator_of,
    read,
    training_option,
    warnings_as_notes,
)

if TYPE_CHECKING:
    from pyg_nsa.config import HeteroNSAConfig
    from pyg_nsa.errors import Problem

__all__ = ["check"]


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A HeteroData (or a list of them, or a processed InMemoryDataset) from torch.save; does it have what FILE needs?",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="github: annotations that a workflow shows beside the lines.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--build",
    is_flag=True,
    help="Also build the operator, without memory for its parameters; --data does so, too.",
)
@training_option
def check(
    files: tuple[Path, ...],
    data: Path | None,
    form: str,
    as_json: bool,
    build: bool,
    training: bool,
) -> None:
    """Check configurations (YAML, JSON or TOML) and list all their problems.

    With --data also whether they fit a graph: edge types, required inputs, shapes, dtypes and ranges. The file is read with
    weights_only=True, so it cannot run code.

    What is valid (and fits) is built with --data or --build, since a plugin may refuse what only it can judge. Without either it is
    not, which takes a fraction of the time.

    With --training also whether the files of data are there: the metabolic model, labels and tables of genes.

    FILE may also be a checkpoint (.pt, .pth, .ckpt, .bin): is all installed that its modules were made from?

    Exit status: 0 valid, 1 problems, 2 wrong usage.
    """
    from pyg_nsa.errors import ConfigError

    form = "json" if as_json else form
    found: dict[Path, list[Problem]] = {}
    configs: dict[Path, HeteroNSAConfig] = {}
    with warnings_as_notes() as notes:
        for file in files:
            if is_checkpoint(file):
                described, found[file] = check_checkpoint(file)
                if form == "text":
                    click.echo("\n".join(lines_of(described)), nl=bool(described))
                continue
            try:
                config = read(file, training)
                configs[file] = operator_of(config)
                found[file] = missing_files_of(config, file)
            except ConfigError as error:
                found[file] = list(error.problems)
        if data is not None:
            for file, problems in _bound(data, configs).items():
                found[file] = [*found.get(file, ()), *problems]
        elif build:
            from pyg_nsa.trial_build import build_problems

            for file, operator in configs.items():
                found[file] += build_problems(operator)
    if form == "json":
        report = [
            {"file": str(file), "valid": not problems, "problems": [p.to_dict() for p in problems]}
            for file, problems in found.items()
        ]
        whole = {"valid": not any(found.values()), "files": report, "warnings": notes}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
    elif form == "github":
        for problems in found.values():
            for problem in problems:
                click.echo(problem.to_github())
    else:
        for file, problems in found.items():
            fits = f" and fits {data}" if data is not None and data not in found else ""
            _as_text(file, problems, configs.get(file) if len(files) == 1 else None, fits)
    if any(found.values()):
        raise click.exceptions.Exit(1)


def _as_text(
    file: Path, problems: list[Problem], config: HeteroNSAConfig | None, fits: str
) -> None:
    if problems:
        for problem in problems:
            click.echo(problem.render(), err=True)
        number = len(problems)
        click.echo(f"{number} problem{'s' if number > 1 else ''} in {file}", err=True)
        return
    if config is not None:
        for spec in config.edges:
            click.echo(f"{' '.join(spec.edge_type)}: {spec.kind}")
    click.echo(f"{file} is valid{fits}")


def _bound(data: Path, configs: dict[Path, HeteroNSAConfig]) -> dict[Path, list[Problem]]:
    """What does not fit or can't be built, by file; what is wrong with the data themselves stands under their own file."""
    from pyg_nsa.cli.graphs import read_graphs
    from pyg_nsa.errors import ConfigError
    from pyg_nsa.trial_build import build_problems

    try:
        graphs = read_graphs(data)
    except ConfigError as error:
        return {data: list(error.problems)}
    found: dict[Path, list[Problem]] = {}
    for file, config in configs.items():
        for label, graph in graphs:
            try:
                config.bind(graph)
            except ConfigError as error:
                # One graph's problems are mostly all graphs' problems.
                found[file] = [
                    replace(problem, message=f"{label}: {problem.message}")
                    for problem in error.problems
                ]
                break
        else:
            if graphs:
                found[file] = build_problems(config, graphs[0][1])
    return found

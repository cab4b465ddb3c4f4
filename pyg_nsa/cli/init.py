"""``pyg-nsa init``: a configuration to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyg_nsa.cli.reading import warnings_as_notes

if TYPE_CHECKING:
    from pyg_nsa.suggest.text import Suggestion

__all__ = ["init"]


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A HeteroData (or a list of them, or a processed InMemoryDataset) from torch.save.",
)
@click.option(
    "--from-model",
    metavar="MODEL_FILE[:NAME]",
    help="A Python file of yours with a model, as for `pyg-nsa swap`; it is run.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default="nsa.yaml",
    show_default=True,
    help="The file to write; - prints it.",
)
@click.option(
    "--hidden-channels",
    type=click.IntRange(min=1),
    help="Width of the rows; 64, or that of the model's layers, if not given.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(
    data: Path | None,
    from_model: str | None,
    output: Path,
    hidden_channels: int | None,
    force: bool,
) -> None:
    """Write a commented configuration to start from, for a data set or for a model.

    With --data each edge type gets a kind by the fields that it has; the file is read with weights_only=True, so it cannot run
    code. With --from-model each conv of the model's HeteroConv layers becomes the kind that comes nearest. What could not be
    decided is a comment that says why.

    Exit status: 0 fine, 1 problems, 2 wrong usage.
    """
    if (data is None) == (from_model is None):
        raise click.UsageError("say what it is for: either --data FILE or --from-model MODEL_FILE")
    is_file = str(output) != "-"
    if is_file and output.suffix.lower() not in (".yaml", ".yml"):
        raise click.BadParameter(
            f"{str(output)!r} is not a YAML file; name it .yaml", param_hint="-o"
        )
    if is_file and output.exists() and not force:
        raise click.ClickException(
            f"{output} is there already; --force writes over it, -o names another file"
        )
    with warnings_as_notes():
        if data is not None:
            suggestion = _from_data(data, hidden_channels)
        else:
            assert from_model is not None
            suggestion = _from_model(from_model, hidden_channels)
    text = suggestion.text(str(output) if is_file else "FILE")
    if not is_file:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    open_ones = sum(edge.kind is None for edge in suggestion.edges)
    left = (
        f"; not decided: {open_ones} of {len(suggestion.edges)} edge types, see the comments"
        if open_ones
        else ""
    )
    click.echo(f"wrote {output}{left}")


def _from_data(data: Path, hidden_channels: int | None) -> Suggestion:
    from pyg_nsa.cli.graphs import read_graphs
    from pyg_nsa.suggest import suggest_from_data

    graphs = [graph for _, graph in read_graphs(data)]
    return suggest_from_data(
        graphs,
        source=str(data),
        hidden_channels=hidden_channels or 64,
        check=f" --data {shlex.quote(str(data))}",
    )


def _from_model(model_file: str, hidden_channels: int | None) -> Suggestion:
    from pyg_nsa.cli.model_file import read_model
    from pyg_nsa.suggest import suggest_from_model

    model, _ = read_model(model_file)
    return suggest_from_model(model, source=model_file, hidden_channels=hidden_channels)

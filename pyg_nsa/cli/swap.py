"""``pyg-nsa swap``: what a swap would do to the model in a Python file."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

__all__ = ["swap"]


@click.command()
@click.argument("model_file", metavar="MODEL_FILE[:NAME]")
@click.option(
    "--config",
    "-c",
    required=True,
    type=click.Path(path_type=Path),
    help="Configuration (YAML, JSON or TOML); without edges each edge type gets a default kind.",
)
@click.option(
    "--where",
    default=["*"],
    multiple=True,
    metavar="GLOB",
    help="Only layers whose path in the model matches; may be given more than once.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A HeteroData, or the arguments of the model's call, saved with torch.save: the layers are then tried on it. "
    "Loading it unpickles it, which may run code: give only files that you trust.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only report. Always on: this command never changes or writes a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def swap(
    model_file: str,
    config: Path,
    where: tuple[str, ...],
    data: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Report what replacing a model's HeteroConv, HGTConv and HANConv layers would change.

    MODEL_FILE is a Python file of yours. It is run, as `python MODEL_FILE` would run it up to `if __name__ == "__main__"`.
    NAME is a model in it, or a class or function without required arguments that makes one; it may be left out where the file
    holds one model.

    A model lives in your program, so the swap happens there, too: the report ends with the lines to add. Exit status: 0 fine,
    1 problems (a swap that is refused, or one whose model would fail as it stands), 2 wrong usage.
    """
    file, name = _split(model_file)
    module = _run(file)
    model, shown = _model(module, name, file)
    from pyg_nsa.swapping import swap as swap_layers

    arguments = None
    if data is not None:
        import torch

        arguments = torch.load(data, weights_only=False)
    report = swap_layers(model, config, arguments, dry_run=True, where=where)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        globs = "" if where == ("*",) else f", where={list(where)!r}"
        click.echo(report.render())
        click.echo("\nTo swap, add this where the model has been made:\n")
        click.echo("    from pyg_nsa import swap")
        click.echo(f"    swap({shown}, {str(config)!r}{globs})")
    if report.warnings:
        raise click.exceptions.Exit(1)


def _split(model_file: str) -> tuple[Path, str | None]:
    path, colon, name = model_file.rpartition(":")
    if not colon or not name.isidentifier():
        path, name = model_file, ""
    file = Path(path)
    if not file.is_file():
        raise click.BadParameter(f"there is no file {path!r}", param_hint="MODEL_FILE")
    return file, name or None


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_pyg_nsa_swap_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise click.BadParameter(f"{str(file)!r} is not a Python file", param_hint="MODEL_FILE")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.resolve().parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise click.ClickException(
            f"{file} can't be run: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.pop(0)
    return module


def _model(module: ModuleType, name: str | None, file: Path) -> tuple[Any, str]:
    """The model, and what to call it in the lines to add."""
    from torch import nn

    models = [key for key, value in vars(module).items() if isinstance(value, nn.Module)]
    makers = [
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and _makes_without_arguments(value)
    ]
    if name is None:
        candidates = models or [
            key
            for key in makers
            if isinstance(made := getattr(module, key), type) and issubclass(made, nn.Module)
        ]
        if len(candidates) != 1:
            listed = ", ".join(f"{file}:{key}" for key in dict.fromkeys([*models, *makers]))
            raise click.BadParameter(
                f"{file} holds {len(candidates)} models; say which: {listed or 'none was found'}",
                param_hint="MODEL_FILE",
            )
        name = candidates[0]
    value = getattr(module, name, None)
    if value is None:
        from pyg_nsa.errors import nearest

        near = nearest(name, [*models, *makers])
        question = f"; did you mean {near!r}?" if near else ""
        raise click.BadParameter(f"{file} has no {name!r}{question}", param_hint="MODEL_FILE")
    if isinstance(value, nn.Module):
        return value, name
    if not callable(value) or not _makes_without_arguments(value):
        raise click.BadParameter(
            f"{name!r} is neither a model nor callable without arguments; add a function without arguments that returns the "
            "model",
            param_hint="MODEL_FILE",
        )
    model = value()
    if not isinstance(model, nn.Module):
        raise click.BadParameter(
            f"{name}() returned a {type(model).__name__}, not a torch.nn.Module",
            param_hint="MODEL_FILE",
        )
    return model, "model"


def _makes_without_arguments(value: Any) -> bool:
    if not callable(value):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )

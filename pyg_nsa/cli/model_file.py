"""Finds the model in a Python file of the user's, which is run for that."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

__all__ = ["read_model"]


def read_model(model_file: str) -> tuple[Any, str]:
    """Runs a file and returns the model in it, and how the user's program would call it.

    Args:
        model_file: `FILE.py`, or `FILE.py:NAME`: NAME is a model, or a class or function without required arguments that makes
            one; without it the file has to hold one model.

    Raises:
        click.ClickException: There is no such file or model, or the file fails.
    """
    file, name = _split(model_file)
    return _model(_run(file), name, file)


def _split(model_file: str) -> tuple[Path, str | None]:
    path, colon, name = model_file.rpartition(":")
    if not colon or not name.isidentifier():
        path, name = model_file, ""
    file = Path(path)
    if not file.is_file():
        raise click.BadParameter(f"there is no file {path!r}", param_hint="MODEL_FILE")
    return file, name or None


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_pyg_nsa_model_{file.stem}", file)
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

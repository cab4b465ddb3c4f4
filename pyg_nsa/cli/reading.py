"""What the commands over configuration files share: the option `--training`, reading a file, and showing warnings.

Command modules are imported for `--help` too, so they import the library inside of their functions.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pyg_nsa.cell.config import CellConfig
    from pyg_nsa.config import HeteroNSAConfig
    from pyg_nsa.errors import Problem

__all__ = [
    "missing_files_of",
    "model_of",
    "operator_of",
    "read",
    "training_option",
    "training_run",
    "warnings_as_notes",
]

training_option = click.option(
    "--training", is_flag=True, help="A training run is configured, not an operator alone."
)


def model_of(training: bool) -> type[BaseModel]:
    """The model that a file is read with."""
    if training:
        from pyg_nsa.cell.config import CellConfig

        return CellConfig
    from pyg_nsa.config import HeteroNSAConfig

    return HeteroNSAConfig


def read(file: Path, training: bool) -> Any:
    """Reads a configuration of either sort."""
    from pyg_nsa.load import load_config

    return load_config(file, model_of(training))


def missing_files_of(config: Any, file: Path) -> list[Problem]:
    """The files of data that a training run names and that are not there; none for an operator alone."""
    from pyg_nsa.config import HeteroNSAConfig

    if isinstance(config, HeteroNSAConfig):
        return []
    from pyg_nsa.cell.data_files import missing_files

    return missing_files(config, file)


def training_run(file: Path, overrides: Sequence[str]) -> CellConfig:
    """Reads the configuration of a training run, with absolute names of files that are there.

    It imports no torch, so that a mistake in the file is reported at once.

    Raises:
        ConfigError: There is a mistake, or a file of data is missing.
    """
    from pyg_nsa.cell.config import CellConfig
    from pyg_nsa.cell.data_files import missing_files
    from pyg_nsa.errors import ConfigError
    from pyg_nsa.load import load_config

    config = load_config(file, CellConfig, overrides=overrides)
    if missing := missing_files(config, file):
        raise ConfigError(missing)
    return config.relative_to(file.parent)


def operator_of(config: Any) -> HeteroNSAConfig:
    """The operator's part of a configuration of either sort."""
    from pyg_nsa.config import HeteroNSAConfig

    return config if isinstance(config, HeteroNSAConfig) else config.operator


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[list[str]]:
    """Shows warnings as one line each on standard error, after the block, and without the place in our sources.

    Yields:
        The list that they are put into once the block has ended.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield notes
        finally:
            # Those that pyg_nsa itself gives are for the user; the rest is between libraries.
            ours = (UserWarning, FutureWarning)
            notes += dict.fromkeys(
                str(one.message) for one in caught if issubclass(one.category, ours)
            )
            for note in notes:
                click.echo(f"warning: {note}", err=True)

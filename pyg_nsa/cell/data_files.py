"""The files of data that a configuration names: which are missing, and where else they may be. It imports neither torch nor cobra."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data_names import SHIPPED_MODELS, SIMULATED
from pyg_nsa.errors import Problem, nearest
from pyg_nsa.sources import source_of

__all__ = ["by_content", "found_near", "labels_are_gone", "missing_files"]


def missing_files(config: CellConfig, file: Path) -> list[Problem]:
    """The files of data that are not there, each with its place in the configuration.

    Args:
        config: As :func:`pyg_nsa.load.load_config` gave it.
        file: The configuration file; names are taken from its folder.
    """
    folder = file.parent
    problem = source_of(config)
    found = []
    named = zip(_named(config), _named(config.relative_to(folder)), strict=True)
    for (place, name, instead), (_, resolved, _) in named:
        if resolved in instead or (path := Path(resolved)).is_file():
            continue
        what = "is a folder, expected a file" if path.is_dir() else "no such file"
        names = f"; instead of a file it may be {', '.join(instead)}" if instead else ""
        found.append(
            problem(
                place,
                message=f"{name}: {what} (taken from the folder of the configuration, {folder.absolute()}){names}",
                code="missing_file",
                suggestion=nearest(name, [*instead, *_files_beside(file)]),
            )
        )
    return found


def found_near(config: CellConfig, file: Path) -> CellConfig:
    """The configuration of a run that was moved or copied: files that are gone are taken from the folders above a file of the run.

    A file is looked for by its name in each folder, from the nearest on. Whether it is the same one is not asked here.

    Args:
        config: With absolute names, as a run keeps it.
        file: A file of the run, such as a checkpoint.
    """

    def find(name: str) -> str:
        path = Path(name)
        if not path.is_absolute() or path.exists():
            return name
        near = (folder / path.name for folder in file.absolute().parents)
        return next((str(one) for one in near if one.is_file()), name)

    return config.with_files(find)


def labels_are_gone(config: CellConfig) -> bool:
    """Whether the table of measurements that a configuration names is not there; simulated labels always are."""
    labels = config.data.labels
    return labels not in SIMULATED and not Path(labels).expanduser().is_file()


def by_content(config: CellConfig) -> CellConfig:
    """The configuration with a hash of what it says in the place of each file of data that is there: wherever files lie, configurations
    with the same data are equal."""

    def content(name: str) -> str:
        path = Path(name).expanduser()
        if name in SHIPPED_MODELS or name in SIMULATED or not path.is_file():
            return name
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    return config.with_files(content)


def _named(config: CellConfig) -> Iterator[tuple[tuple[str, ...], str, Iterable[str]]]:
    """Every place that may name a file, what stands there, and the names that stand for none."""
    data = config.data
    yield ("data", "model"), data.model, SHIPPED_MODELS
    yield ("data", "labels"), data.labels, SIMULATED
    for name, table in data.gene_tables.items():
        yield ("data", "gene_tables", name), table, ()


def _files_beside(file: Path) -> list[str]:
    return sorted(one.name for one in file.parent.iterdir() if one.is_file() and one != file)

"""Where graphs and labels are kept between runs, and the dataset that a configuration names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset

__all__ = ["cache_folder", "dataset_options", "graph_options", "naming_the_cache", "open_dataset"]


def cache_folder() -> Path:
    """Where graphs and labels are kept: ``PYG_NSA_CACHE``, or ``~/.cache/pyg_nsa``."""
    given = os.environ.get("PYG_NSA_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "pyg_nsa"


@contextlib.contextmanager
def naming_the_cache(cache: Path) -> Iterator[None]:
    """Adds to an error of the system what the folder is for, and how to name another one.

    Args:
        cache: Where graphs and labels are kept.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # not one of our own
            error.add_note(
                f"{cache} is the cache, where graphs and labels are kept; --cache or PYG_NSA_CACHE names another folder"
            )
        raise


def graph_options(config: CellConfig) -> dict[str, Any]:
    """Arguments of :func:`~pyg_nsa.cell.network.graph.build_graph` that a configuration gives."""
    return {
        "gene_tables": config.data.gene_tables or None,
        "unknown": config.data.unknown_genes,
        "proxies": config.data.proxies,
        "features": config.data.features,
    }


def dataset_options(config: CellConfig) -> dict[str, Any]:
    """All that a configuration says of what is in its dataset, as arguments of
    :class:`~pyg_nsa.cell.data.dataset.PerturbationDataset`: with the same ones datasets are the same."""
    return {
        "model": config.data.model,
        "labels": config.data.labels,
        "unknown_labels": config.data.unknown_labels,
        "interacting_above": config.data.interacting_above,
        **graph_options(config),
    }


def open_dataset(
    config: CellConfig, cache: Path | None = None, *, progress: bool = True, build: bool = True
) -> PerturbationDataset:
    """The dataset of a configuration, from the cache or built.

    Args:
        config: The configuration.
        cache: Where graphs and labels are kept (default: :func:`cache_folder`).
        progress: Show progress bars.
        build: Build what is not in the cache.

    Raises:
        FileNotFoundError: It is not in the cache, and ``build`` is ``False``.
        ModelFileError: The metabolic model can't be read.
        TableError: A table of genes or labels can't be read.
        OSError: The cache can't be read or written.
    """
    cache = cache or cache_folder()
    with naming_the_cache(cache):
        return PerturbationDataset(
            cache,
            workers=config.data.label_workers,
            progress=progress,
            build=build,
            **dataset_options(config),
        )

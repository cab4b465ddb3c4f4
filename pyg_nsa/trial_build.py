"""Building what a configuration describes, only to see whether it can be built; for `pyg-nsa check`."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError, Problem
from pyg_nsa.operators import build_operator
from pyg_nsa.registry import Registry
from pyg_nsa.sources import source_of

__all__ = ["build_problems"]


def build_problems(
    config: HeteroNSAConfig, data: Any = None, registry: Registry | None = None
) -> list[Problem]:
    """Returns what building the operator raises, at the edge type that it is about, where that is known.

    Validation can only know of what pyg_nsa and the options of plugins say beforehand; this finds the rest. Nothing is kept, and
    no memory is taken for parameters, however many nodes have embeddings.

    Args:
        config: A valid configuration, which fits `data`.
        data: A `HeteroData` or a batch; the edge types of the configuration if not given.
        registry: Where the operator and edge kinds are looked up; the default registry if not given.
    """
    if data is not None:
        node_types, edge_types = data.metadata()
    else:
        edge_types = [spec.edge_type for spec in config.edges]
        node_types = list(dict.fromkeys(t for src, _, dst in edge_types for t in (src, dst)))
    try:
        _build(config, (node_types, edge_types), registry)
    except ConfigError as error:
        return list(error.problems)
    except Exception as error:  # a plugin may raise anything
        return [_problem(config, error, config.registry(registry))]
    return []


def _build(config: HeteroNSAConfig, metadata: Any, registry: Registry | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They come again when the operator is built to be used.
        try:
            with torch.device("meta"):
                build_operator(config, metadata, registry=registry)
        except Exception:
            # A build that computes with its tensors can't do so without memory; what counts is whether it can with it.
            build_operator(config, metadata, registry=registry)


def _problem(config: HeteroNSAConfig, error: Exception, registry: Registry) -> Problem:
    path: tuple[str | int, ...] = ("operator",)
    what, name = "operator", config.operator
    about = getattr(error, "edge_type", None)  # see pyg_nsa.nn.relations.build_relation
    for index, spec in enumerate(config.edges):
        if spec.edge_type == about:
            path, what, name = ("edges", index), "edge kind", spec.kind
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, ValueError):  # a ValueError's text is meant for who wrote the file
        text = f"{type(error).__name__}: {text}"
    return source_of(config)(
        path,
        message=f"cannot be built: {text}",
        code="cannot_be_built",
        plugin=f"{what} {name!r} of {registry.provider(name)}",
    )

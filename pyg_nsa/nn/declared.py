"""What is wrong with edge types that are declared in Python, said as it is said of a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import ConfigError, Problem, nearest
from pyg_nsa.load import Positions, explain
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry, default_registry
from pyg_nsa.scalars import is_whole

__all__ = [
    "EdgeType",
    "check_sizes",
    "checked_dims",
    "current_config",
    "current_spec",
    "declared_spec",
    "meant_edge_type",
    "wrong_key",
]

EdgeType = tuple[str, str, str]


def declared_spec(
    edge_type: EdgeType, value: Mapping[str, Any], registry: Registry | None
) -> EdgeSpec:
    """The spec of an edge type from ``{"kind": …, "options": …}``.

    Raises:
        ConfigError: All that is wrong with it; each problem's path begins with the edge type.
    """
    chosen = registry if registry is not None else default_registry()
    raw = {"edge_type": list(edge_type), **value}
    try:
        return EdgeSpec.model_validate(raw, context={"registry": chosen})
    except ValidationError as error:
        problems = explain(error, raw, Positions(), chosen, EdgeSpec)
        raise ConfigError(
            [
                replace(p, path=": ".join(filter(None, [f"edge type {edge_type}", p.path])))
                for p in problems
            ]
        ) from error


def current_spec(spec: EdgeSpec, registry: Registry | None) -> EdgeSpec:
    """The spec with options that its kind takes now.

    A kind may have been registered anew (``replace=True``, a notebook's cell that runs again) after the spec was validated; its
    options are then of a class that the kind knows no more. What was set is validated again, the rest are the new defaults.

    Raises:
        ConfigError: The kind does not take these options any more.
        RegistryError: The kind can't be used.
    """
    kind = (registry if registry is not None else default_registry()).edge_kind(spec.kind)
    if isinstance(spec.options, kind.options):
        return spec
    options = plain_values(spec.options, exclude_unset=True)
    return declared_spec(spec.edge_type, {"kind": spec.kind, "options": options}, registry)


def current_config(config: HeteroNSAConfig, registry: Registry) -> HeteroNSAConfig:
    """The configuration with the :func:`current_spec` of each edge type.

    Raises:
        ConfigError: A kind does not take its options any more.
        RegistryError: A kind can't be used.
    """
    edges = [current_spec(spec, registry) for spec in config.edges]
    same = all(new is old for new, old in zip(edges, config.edges, strict=True))
    return config if same else config.model_copy(update={"edges": edges})


def meant_edge_type(key: object) -> tuple[Any, ...] | None:
    """The edge type that is written in another way: two names, or one name of PyG's; ``None`` for all else."""
    if isinstance(key, tuple) and len(key) == 2:  # as HeteroData completes it
        return (key[0], "to", key[1])
    if isinstance(key, str):  # as PyG writes edge types in the names of parameters
        parts = tuple(key.strip("<>").split("___" if "___" in key else "__"))
        return parts if len(parts) == 3 else None
    return None


def wrong_key(key: object) -> Problem | None:
    """What is wrong with a key that stands for an edge type, if anything is."""
    if isinstance(key, tuple) and len(key) == 3:
        return None
    message = (
        "an edge type is a tuple of three names, source node type, relation, target node type, such as "
        f"('gene', 'interacts', 'gene'); got {key!r}"
    )
    suggestion = meant_edge_type(key)
    if suggestion is not None:
        message += f", did you mean {suggestion}?"
    return Problem("", message, "edge_type")


def check_sizes(what: str, sizes: Mapping[str, int] | Any, edge_types: Iterable[EdgeType]) -> None:
    """Refuses what is neither a size nor one for each node type; sizes that name a node type which no edge type has.

    Further node types do no harm beside all that there are: they may be those of a whole data set.

    Raises:
        TypeError: No whole number, and no mapping to whole numbers.
        ValueError: A size below -1; an unknown node type, in place of one that has no size.
    """
    by_type = sizes if isinstance(sizes, Mapping) else {None: sizes}
    for node_type, size in by_type.items():
        place = what if node_type is None else f"{what}[{node_type!r}]"
        if not is_whole(size):
            kind = (
                "a whole number, or one for each node type"
                if node_type is None
                else "a whole number"
            )
            raise TypeError(f"{place} must be {kind}, got {size!r}")
        if size < -1:
            raise ValueError(
                f"{place} must be at least 0, or -1 to take it from the first call, got {size}"
            )
    if not isinstance(sizes, Mapping):
        return
    known = list(dict.fromkeys(t for src, _, dst in edge_types for t in (src, dst)))
    unknown = [name for name in sizes if name not in known]
    unnamed = [name for name in known if name not in sizes]
    if unknown and unnamed:
        near = nearest(unknown[0], unnamed)
        hint = f"; did you mean '{near}'?" if near is not None else ""
        raise ValueError(
            f"{what} names node type '{unknown[0]}', which no edge type has, and does not name "
            f"{', '.join(map(repr, unnamed))}{hint}"
        )


def checked_dims(
    dims: Mapping[EdgeType, int] | None, edge_types: Collection[EdgeType]
) -> dict[EdgeType, int]:
    """``edge_attr_dims``, by edge types that are declared.

    Raises:
        TypeError: No mapping, or a size that is no whole number.
        ValueError: An edge type that is not declared, or a size that is neither positive nor -1.
    """
    if dims is None:
        return {}
    if not isinstance(dims, Mapping):
        raise TypeError(
            f"edge_attr_dims is a dictionary by edge type, such as {{('gene', 'interacts', 'gene'): 3}}, got {dims!r}"
        )
    for edge_type, columns in dims.items():
        if edge_type not in edge_types:
            names = [str(name) for name in edge_types]
            meant = nearest(str(meant_edge_type(edge_type) or edge_type), names)
            hint = f"; did you mean {meant}?" if meant else f"; declared: {', '.join(names)}"
            raise ValueError(
                f"edge_attr_dims names edge type {edge_type!r}, which is not declared{hint}"
            )
        if not is_whole(columns):
            raise TypeError(
                f"edge_attr_dims of edge type {edge_type} must be a whole number of columns, got {columns!r}"
            )
        if columns < 1 and columns != -1:
            raise ValueError(
                f"edge_attr_dims of edge type {edge_type} must be at least 1, or -1 to take it from the first call, got {columns}"
            )
    return dict(dims)

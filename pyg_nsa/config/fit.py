"""Whether a configuration fits a graph: edge types, the fields that kinds need, and nodes.

Shapes and dtypes are looked at in `pyg_nsa.bind`, numbers of nodes and columns in `pyg_nsa.bind_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pyg_nsa.errors import Problem, nearest
from pyg_nsa.registry import Registry
from pyg_nsa.sources import source_of

if TYPE_CHECKING:
    from pyg_nsa.config import EdgeSpec, HeteroNSAConfig

__all__ = ["misfits"]

_Type = tuple[str, str, str]


def misfits(
    config: HeteroNSAConfig,
    data: Any,
    registry: Registry,
    *,
    columns: bool = True,
    features: bool = True,
) -> list[Problem]:
    """Returns what keeps a configuration and a graph apart; `HeteroNSAConfig.bind` raises it.

    Args:
        config: A valid configuration.
        data: A `HeteroData` or a batch, or metadata `(node_types, edge_types)`.
        registry: Where its edge kinds are looked up, less what it switches off.
        columns: Whether the configuration's `in_channels` counts; something else may say it.
        features: Whether node types need features or embeddings; their rows may come from elsewhere.
    """
    present = _edge_types(data)
    source = source_of(config)
    problems = []
    for index, spec in enumerate(config.edges):
        path = ("edges", index)
        if spec.edge_type not in present:
            problems.append(source((*path, "edge_type"), **_absent(spec.edge_type, present)))
        elif not isinstance(data, tuple):
            problems.extend(
                source(path, **missing)
                for missing in _missing_inputs(spec, registry, data[spec.edge_type])
            )
            if hasattr(data, "node_types"):
                problems.extend(
                    source(path, **wrong) for wrong in _wrong_inputs(spec, registry, data)
                )
    # A graph of edges alone says nothing about nodes: their rows come from elsewhere.
    if getattr(data, "node_types", ()):
        problems.extend(
            source(path, **wrong)
            for path, wrong in _wrong_nodes(config, data, present, registry, columns, features)
        )
    if config.unmatched == "error":
        declared = {spec.edge_type for spec in config.edges}
        problems.extend(
            source(
                ("edges",),
                message=f"the graph has edge type {_show(edge_type)}, which no entry mentions; add an entry "
                "for it, or set 'unmatched: skip' to leave such edges out",
                code="unmatched_edge_type",
            )
            for edge_type in present
            if edge_type not in declared
        )
    return problems


def _edge_types(data: Any) -> list[_Type]:
    """Returns the edge types of a graph or of mere metadata."""
    if isinstance(data, tuple) and len(data) == 2:
        return [(source, name, target) for source, name, target in data[1]]
    if not hasattr(data, "metadata"):
        raise TypeError(
            "bind expects a torch_geometric HeteroData or its metadata (node_types, edge_types), got "
            f"{type(data).__name__}"
        )
    return list(data.metadata()[1])


def _absent(edge_type: _Type, present: list[_Type]) -> dict[str, Any]:
    shown = [_show(one) for one in present]
    return {
        "message": f"the graph has no edge type {_show(edge_type)}",
        "code": "missing_edge_type",
        "allowed": tuple(shown),
        "suggestion": nearest(_show(edge_type), shown),
    }


def _missing_inputs(spec: EdgeSpec, registry: Registry, store: Any) -> Iterator[dict[str, Any]]:
    kind = spec.resolved(registry)
    fields = sorted(map(str, store.keys()))
    found = list(fields)
    if "adj_t" in fields:
        from pyg_nsa.nn.adjacency import read_from_matrix  # torch is there once there is a graph

        required = kind.missing(spec.options, ())
        found += read_from_matrix(dict(store.items()), kind.fields(spec.options), required)
    for names in kind.missing(spec.options, found):
        wanted = " or ".join(repr(name) for name in names)
        yield {
            "message": f"edge kind {spec.kind!r} needs {wanted}, but edge type {_show(spec.edge_type)} of the graph has "
            f"{', '.join(map(repr, fields)) or 'no fields'}",
            "code": "missing_input",
            "suggestion": next((near for name in names if (near := nearest(name, fields))), None),
            "plugin": f"edge kind {spec.kind!r} of {registry.provider(spec.kind)}",
        }


def _wrong_inputs(spec: EdgeSpec, registry: Registry, data: Any) -> Iterator[dict[str, Any]]:
    from pyg_nsa.bind import wrong_inputs  # torch is there once there is a graph

    kind = spec.resolved(registry)
    choices = [entry for entry in kind.requires if isinstance(entry, tuple)]
    # PyG's own names, and the field that `inputs.edge_attr` reads by the kind's option.
    numbers = {"edge_attr", "edge_weight", getattr(spec.options, "edge_attr", "edge_attr")}
    fields = kind.fields(spec.options)
    for message in wrong_inputs(data, spec.edge_type, fields, choices, numbers):
        yield {
            "message": message,
            "code": "wrong_input",
            "plugin": f"edge kind {spec.kind!r} of {registry.provider(spec.kind)}",
        }


def _wrong_nodes(
    config: HeteroNSAConfig,
    data: Any,
    present: list[_Type],
    registry: Registry,
    columns: bool,
    features: bool,
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    from pyg_nsa.bind_nodes import no_features, no_nodes, too_few_embeddings, wrong_columns

    first: dict[str, int] = {}
    attending: dict[str, int] = {}
    for index, spec in enumerate(config.edges):
        if spec.edge_type in present:
            attends = "message" not in spec.resolved(registry).produces
            for node_type in (spec.edge_type[0], spec.edge_type[2]):
                first.setdefault(node_type, index)
                if attends:
                    attending.setdefault(node_type, index)
    # Other operators may have a use for rows without columns, and so may a conv in a bare step; attention has none.
    features = features and config.operator == type(config).model_fields["operator"].default
    is_bare = config.pattern is None
    sizes = config.in_channels
    path: tuple[str | int, ...]
    for node_type, index in first.items():
        message = no_nodes(data, node_type)
        if message is not None:
            yield ("edges", index, "edge_type"), {"message": message, "code": "no_nodes"}
            continue
        if node_type in config.num_nodes:
            message = too_few_embeddings(data, node_type, config.num_nodes[node_type])
            if message is not None:
                yield ("num_nodes", node_type), {"message": message, "code": "too_few_embeddings"}
        elif features and (not is_bare or node_type in attending):
            message = no_features(data, node_type, is_bare)
            if message is not None:
                path = ("edges", attending[node_type]) if is_bare else ("num_nodes", node_type)
                yield path, {"message": message, "code": "no_features"}
        if columns:
            each = sizes.get(node_type, -1) if isinstance(sizes, dict) else sizes
            message = wrong_columns(data, node_type, each)
            if message is not None:
                path = ("in_channels", node_type) if isinstance(sizes, dict) else ("in_channels",)
                yield path, {"message": message, "code": "wrong_columns"}


def _show(edge_type: Iterable[str]) -> str:
    return f"({', '.join(edge_type)})"

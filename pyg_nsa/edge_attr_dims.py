"""The columns of edge attributes in a graph, so that what projects them has its size when it is built."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.nn.adjacency import read_from_matrix
from pyg_nsa.registry import Registry

__all__ = ["edge_attr_dims"]


def edge_attr_dims(
    config: HeteroNSAConfig, data: Any, registry: Registry
) -> dict[tuple[str, str, str], int]:
    """The columns of the attribute that each edge type's kind reads; without those that read none, or several.

    Args:
        config: A configuration that fits the graph.
        data: A `HeteroData` or a batch of them.
        registry: Where the edge kinds are looked up.
    """
    dims = {}
    for spec in config.edges:
        value = _attribute(spec, data[spec.edge_type], registry)
        columns = 0
        if isinstance(value, Tensor) and value.dim() in (1, 2):
            columns = 1 if value.dim() == 1 else value.size(1)
        if columns:
            dims[spec.edge_type] = columns
    return dims


def _attribute(spec: EdgeSpec, store: Any, registry: Registry) -> Any:
    kind = spec.resolved(registry)
    fields = kind.fields(spec.options)
    # Names as in `pyg_nsa.bind`: what is neither index nor mask is an attribute.
    names = [name for name in fields if not name.endswith(("_index", "_mask"))]
    if len(names) > 1:
        names = [name for name in names if name == getattr(spec.options, "edge_attr", None)]
    if len(names) != 1:
        return None
    present = {name: value for name, value in store.items() if value is not None}
    present |= read_from_matrix(present, fields, kind.missing(spec.options, ()))
    return present.get(names[0])

"""What every way to compute attention along pairs asks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_nsa.attention.edges import EdgeSet, check_bool_mask
from pyg_nsa.attention.segments import Segments

__all__ = ["check_alive", "check_graph_counts", "check_pairs"]


def check_graph_counts(queries: Segments | None, keys: Segments | None) -> None:
    """Whether queries and keys are of as many graphs.

    Raises:
        ValueError: They are not.
    """
    if queries is not None and keys is not None and queries.num_graphs != keys.num_graphs:
        raise ValueError(
            f"queries and keys must have the same graphs, got {queries.num_graphs} graphs of queries and {keys.num_graphs} graphs "
            "of keys"
        )


def check_pairs(
    edges: EdgeSet,
    num_queries: int,
    num_keys: int,
    heads: int,
    bias: Tensor | None,
    device: torch.device,
) -> None:
    """Whether pairs and their bias fit the rows.

    Raises:
        ValueError: They do not, or are on another device.
    """
    if (edges.num_queries, edges.num_keys) != (num_queries, num_keys):
        raise ValueError(
            f"the edge set has {edges.num_queries} queries and {edges.num_keys} keys, but q has "
            f"{num_queries} rows and k has {num_keys}"
        )
    if bias is not None and bias.shape != (edges.num_pairs, heads):
        raise ValueError(
            f"bias must have shape [pairs, heads] = [{edges.num_pairs}, {heads}], got "
            f"{list(bias.shape)}; attributes of edges are brought into that form by EdgeSet.coalesce"
        )
    if edges.device != device:
        raise ValueError(
            f"the edge set is on {edges.device} but q is on {device}; move it with edges.to(q.device)"
        )


def check_alive(name: str, mask: Tensor | None, shape: Sequence[int]) -> None:
    """Whether a mask of living rows fits the rows.

    Raises:
        TypeError: It is not boolean.
        ValueError: It has another shape.
    """
    if mask is None:
        return
    check_bool_mask(mask, name)
    if mask.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(mask.shape)}")

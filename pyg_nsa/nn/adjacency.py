"""Edges as a sparse matrix: what a graph's ``adj_t`` stands in for, and the values that it holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_sparse, to_edge_index

from pyg_nsa.nn.conv_arguments import EDGES

__all__ = ["matrix_values", "read_from_matrix"]


def matrix_values(matrix: Any) -> Tensor | None:
    """``[E]`` or ``[E, F]``: the values of a sparse matrix, edge by edge; ``None`` if it has none, or only ones as one without weights.

    One without edges has all values that it needs, and more than one column is not made of nothing.
    """
    if not is_sparse(matrix) or (isinstance(matrix, SparseTensor) and not matrix.has_value()):
        return None
    values: Tensor = to_edge_index(matrix)[1]
    if torch.compiler.is_compiling() or values.numel() == 0 or values.dim() > 1:
        return values
    if bool((values == 1).all()):
        return None
    return values


def read_from_matrix(
    present: Mapping[str, Any],
    fields: Collection[str],
    required: Collection[tuple[str, ...]],
) -> dict[str, Any]:
    """What ``adj_t`` holds of an edge type without an index: the edges, and the attribute that ``ToSparseTensor`` moved into it.

    Args:
        present: Fields of the edge type.
        fields: Names that are read.
        required: Those that can't be done without; of each tuple any one will do.

    Returns:
        The matrix under the name of the edges, and its values under that of the one required field that is missing.
    """
    matrix = present.get("adj_t")
    if matrix is None or any(name in present for name in EDGES):
        return {}
    found = {next((name for name in EDGES if name in fields), EDGES[0]): matrix}
    missing = [names for names in required if not any(n in present or n in found for n in names)]
    if len(missing) == 1 and len(missing[0]) == 1:
        values = matrix_values(matrix)
        if values is not None:
            found[missing[0][0]] = values
    return found

"""Whether the indices of edges are of nodes that there are: where they are not, kernels would read and write foreign memory."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.compiled.operators import operator

__all__ = ["in_range"]

_ENDS = ("source", "target")


def in_range(edge_index: Tensor, num_sources: int, num_targets: int) -> Tensor:
    """``edge_index``, checked. In a compiled graph that happens as it runs: values are not known before.

    Args:
        edge_index: ``[2, E]`` int64, sources and targets.
        num_sources: Number of source nodes, which those are less than.
        num_targets: Number of target nodes.

    Raises:
        ValueError: An index is negative or too large. In a compiled graph on a GPU an assertion of the device fails instead.
    """
    if torch.compiler.is_compiling():
        checked: Tensor = _OPERATOR(edge_index, num_sources, num_targets)
        return checked
    for end, size in enumerate((num_sources, num_targets)):
        _check(edge_index[end], size, _ENDS[end])
    return edge_index


def _check(index: Tensor, size: int, what: str) -> None:
    if index.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(index))
    if low < 0 or high >= size:
        bad = low if low < 0 else high
        raise ValueError(
            f"edge index out of range: {what} index {bad}, but there are {size} {what} nodes "
            f"(valid: 0 to {size - 1}). Was the graph relabelled, or are the rows of edge_index swapped?"
        )


def _in_range(edge_index: Tensor, num_sources: int, num_targets: int) -> Tensor:
    for end, size in enumerate((num_sources, num_targets)):
        index = edge_index[end]
        if index.is_cuda:  # without a wait for the device
            inside = ((index >= 0) & (index < size)).all()
            torch._assert_async(inside, f"edge index out of range: a {_ENDS[end]} index")
        else:
            _check(index, size, _ENDS[end])
    return edge_index.clone()  # an operator may not return what it was given


def _fake(edge_index: Tensor, num_sources: int, num_targets: int) -> Tensor:
    return torch.empty_like(edge_index)


_OPERATOR = operator("pyg_nsa::edge_index_in_range", _in_range, _fake)

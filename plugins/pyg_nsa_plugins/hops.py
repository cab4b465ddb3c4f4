"""Shortest-path distances up to a few hops, as sparse products of a frontier with the edges."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

__all__ = ["TooManyPairsError", "hop_distances"]

#: Rows that one expansion of the frontier makes at most at a time.
_CHUNK = 1 << 22


class TooManyPairsError(ValueError):
    """More pairs are within reach than the caller allows."""


def hop_distances(
    edge_index: Tensor, num_nodes: int, max_distance: int, max_pairs: int | None = None
) -> tuple[Tensor, Tensor]:
    """The pairs of different nodes with a path of at most ``max_distance`` edges, and the length of the shortest.

    Breadth-first search from all nodes at once: the frontier holds the pairs at distance ``d``, and each hop joins it with
    the edges, drops what was found before and keeps the rest. Time and memory go with the number of pairs, not with the
    square of the number of nodes.

    Args:
        edge_index: ``[2, E]`` int64, source and target; directed, duplicates and loops are fine.
        num_nodes: Number of nodes.
        max_distance: Longest path, at least 1.
        max_pairs: Most pairs to be found.

    Returns:
        ``pairs [2, P]`` int64 (start and end of the paths) and ``distance [P]`` int64, from 1 on.

    Raises:
        TooManyPairsError: There are more than ``max_pairs``.
    """
    src, dst = edge_index[0], edge_index[1]
    # Unique edges without loops, as CSR over sources.
    codes = torch.unique((src * num_nodes + dst)[src != dst])
    src, dst = _split(codes, num_nodes)
    rowptr = torch.searchsorted(src, torch.arange(num_nodes + 1, device=src.device))
    frontier = seen = codes
    distances = torch.ones_like(codes)
    for distance in range(2, max_distance + 1):
        _check(seen, max_pairs)
        if frontier.numel() == 0:
            break
        start, node = _split(frontier, num_nodes)
        degree = rowptr[node + 1] - rowptr[node]
        reached = []
        for part in _parts(degree):
            count = degree[part]
            owner = torch.repeat_interleave(count)
            offset = (
                torch.arange(owner.numel(), device=owner.device) - (count.cumsum(0) - count)[owner]
            )
            end = dst[rowptr[node[part]][owner] + offset]
            first = start[part][owner]
            reached.append(torch.unique((first * num_nodes + end)[first != end]))
        frontier = _without(torch.unique(torch.cat(reached)), seen)
        seen, order = torch.sort(torch.cat([seen, frontier]))
        distances = torch.cat([distances, torch.full_like(frontier, distance)])[order]
    _check(seen, max_pairs)
    return torch.stack(_split(seen, num_nodes)), distances


def _split(codes: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    start = torch.div(codes, max(num_nodes, 1), rounding_mode="floor")
    return start, codes - start * num_nodes


def _parts(degree: Tensor) -> list[slice]:
    """Slices of the frontier that expand to about ``_CHUNK`` rows each."""
    total = degree.cumsum(0)
    chunks = int(total[-1]) // _CHUNK + 1
    limits = torch.arange(1, chunks, device=degree.device) * _CHUNK
    cuts = [0, *torch.searchsorted(total, limits).tolist(), degree.numel()]
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def _without(codes: Tensor, seen: Tensor) -> Tensor:
    """``codes`` that are not among the sorted ``seen``."""
    if seen.numel() == 0:
        return codes
    place = torch.searchsorted(seen, codes).clamp(max=seen.numel() - 1)
    return codes[seen[place] != codes]


def _check(seen: Tensor, max_pairs: int | None) -> None:
    if max_pairs is not None and seen.numel() > max_pairs:
        raise TooManyPairsError(f"{seen.numel()} pairs or more are within reach")

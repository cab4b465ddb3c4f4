"""Orders of the nodes that leave few occupied tiles in the attention matrices.

A kernel that works in square tiles skips those that hold no pair, so its cost goes with the number of *occupied* tiles and
not with the number of pairs. Rows are queries (a relation's target type), columns are keys (its source type). The order
of the nodes decides how many tiles the same pairs touch. One order per node type serves all relations of that type.

An *order* is a permutation, ``[N]`` int64: the node at place ``k`` is ``order[k]``. The *place* of a node is the inverse.

``"natural"``
    The order of the data.
``"rcm"``
    Reverse Cuthill–McKee (George & Liu, *Computer Solution of Large Sparse Positive Definite Systems*, 1981) on the whole
    graph taken as one homogeneous undirected graph, restricted to each node type. Numbers neighbours close to each other.
    Wants scipy.
``"packed"``
    Reverse Cuthill–McKee (or the natural order, if that is better), improved by exchange. Only which nodes share a tile
    matters, so the nodes of a type are cut into groups of one tile's side, and pairs of groups swap members as long as that
    saves tiles (Kernighan & Lin, 1970). What a swap saves is measured by a smoothed count in which a tile of ``c`` pairs
    costs :math:`1 - e^{-c/\\tau}`: a tile of few pairs is worth emptying, and one of many can take more for nothing. (It is
    the probabilistic fanout of Kabiljo et al., *Social Hash Partitioner*, VLDB 2017, with groups at both ends.) The scale
    :math:`\\tau` falls, until the smoothed count is nearly the real one; the best orders by the real one are returned, so
    that the result is never worse than the two it starts from.

All are deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyg_nsa.attention.tiles import TILE

__all__ = ["NodeOrder", "check_orders", "edge_indices", "node_orders", "occupied_tiles", "places"]

NodeOrder = Literal["natural", "rcm", "packed"]
EdgeType = tuple[str, str, str]
_Index = NDArray[np.int64]

#: Scales of the smoothed count, in pairs of a tile.
_SCALES = (128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5)
#: Meetings of a group at each scale; with more groups than that not all pairs of groups meet at each.
_MEETINGS = 64
#: Meetings after which a relation inside of one type sees its own new groups; each look costs as much as a meeting.
_LOOK_AGAIN = 4


def node_orders(
    edge_index_dict: Mapping[EdgeType, Tensor],
    num_nodes: Mapping[str, int],
    method: NodeOrder = "packed",
    tile: int = TILE,
) -> dict[str, Tensor]:
    """An order of each node type's nodes, one for all relations of that type.

    Args:
        edge_index_dict: Per relation ``[2, E]`` integers, sources above targets; directed or not, with duplicates or not.
            :func:`edge_indices` gathers them from a ``HeteroData``.
        num_nodes: Number of nodes of each type.
        method: ``"natural"``, ``"rcm"`` or ``"packed"``; see :mod:`pyg_nsa.nn.node_order`.
        tile: Side of a tile.

    Returns:
        Per node type of ``num_nodes`` ``[N]`` int64 on the CPU, a permutation.

    Raises:
        ValueError: Another method, a tile that is not positive, or edges that do not fit ``num_nodes``.
        ImportError: scipy is not installed, which ``"rcm"`` and ``"packed"`` need.
    """
    if method not in get_args(NodeOrder):
        known = ", ".join(map(repr, get_args(NodeOrder)))
        raise ValueError(f"node order {method!r}: expected one of {known}")
    _check_tile(tile)
    relations = _relations(edge_index_dict, num_nodes)
    natural = {node_type: np.arange(size) for node_type, size in num_nodes.items()}
    if method == "natural":
        orders = natural
    else:
        orders = _reverse_cuthill_mckee(relations, num_nodes)
        if method == "packed":
            packing = _Packing(relations, num_nodes, tile)
            orders = packing.improved(min((orders, natural), key=packing.cost))
    return {node_type: torch.from_numpy(order) for node_type, order in orders.items()}


def occupied_tiles(
    edge_index_dict: Mapping[EdgeType, Tensor],
    num_nodes: Mapping[str, int],
    orders: Mapping[str, Tensor] | None = None,
    tile: int = TILE,
) -> dict[EdgeType, int]:
    """How many tiles of each relation's attention matrix hold at least one pair.

    Args:
        edge_index_dict: Per relation ``[2, E]`` integers, sources above targets.
        num_nodes: Number of nodes of each type.
        orders: Per node type ``[N]``, a permutation; types that are left out, and ``None``: the natural order.
        tile: Side of a tile.

    Raises:
        ValueError: A tile that is not positive, or edges or orders that do not fit ``num_nodes``.
    """
    _check_tile(tile)
    relations = _relations(edge_index_dict, num_nodes)
    check_orders(orders or {}, num_nodes)
    place = {t: places(order).numpy() for t, order in (orders or {}).items()}
    out = {}
    for edge_type, index in relations.items():
        key, query = (
            place[t][nodes] if t in place else nodes
            for t, nodes in zip((edge_type[0], edge_type[2]), index, strict=True)
        )
        out[edge_type] = _count_tiles(query // tile, key // tile)
    return out


def edge_indices(data: Any) -> dict[EdgeType, Tensor]:
    """``[2, E]`` of each relation of a ``HeteroData`` that has an ``edge_index`` or a ``hyperedge_index``."""
    out = {}
    for edge_type in data.edge_types:
        store = data[edge_type]
        for field in ("edge_index", "hyperedge_index"):
            if field in store:
                out[edge_type] = store[field]
                break
    return out


def places(order: Tensor) -> Tensor:
    """The inverse of a permutation ``[N]``: where each node went."""
    out = torch.empty_like(order)
    out[order] = torch.arange(order.numel(), device=order.device)
    return out


def check_orders(orders: Mapping[str, Tensor], num_nodes: Mapping[str, int]) -> None:
    """Raises a ``ValueError`` unless each order is a permutation of its node type's nodes."""
    for node_type, order in orders.items():
        if node_type not in num_nodes:
            raise ValueError(
                f"an order is given for node type '{node_type}', which there is not; "
                f"node types: {', '.join(num_nodes)}"
            )
        size = num_nodes[node_type]
        whole = order.dtype == torch.int64 and order.shape == (size,)
        if not whole or not torch.equal(order.cpu().sort().values, torch.arange(size)):
            raise ValueError(
                f"the order of node type '{node_type}' must be a permutation of its {size} nodes (int64), got "
                f"{order.dtype} of shape {list(order.shape)}"
                + (" with nodes missing or repeated" if whole else "")
            )


def _check_tile(tile: int) -> None:
    if tile < 1:
        raise ValueError(f"tile={tile}: expected a positive number of nodes.")


def _relations(
    edge_index_dict: Mapping[EdgeType, Tensor], num_nodes: Mapping[str, int]
) -> dict[EdgeType, _Index]:
    """Per relation ``[2, E]`` in numpy, checked."""
    out = {}
    for edge_type, edge_index in edge_index_dict.items():
        index = edge_index.detach().cpu().numpy().astype(np.int64, copy=False)
        for node_type, nodes in zip((edge_type[0], edge_type[2]), index, strict=True):
            size = num_nodes.get(node_type, 0)
            if nodes.size and (nodes.min() < 0 or nodes.max() >= size):
                raise ValueError(
                    f"edge type {edge_type} joins nodes {nodes.min()} to {nodes.max()} of type '{node_type}', of which "
                    f"num_nodes counts {size}"
                )
        out[edge_type] = index
    return out


def _count_tiles(row: _Index, column: _Index) -> int:
    """Number of different (row, column) of tiles."""
    across = int(column.max(initial=0)) + 1
    return int(np.unique(row * across + column).size)


def _reverse_cuthill_mckee(
    relations: Mapping[EdgeType, _Index], num_nodes: Mapping[str, int]
) -> dict[str, _Index]:
    """One order of all nodes, restricted to each type."""
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import reverse_cuthill_mckee
    except ImportError as error:
        raise ImportError(
            "node orders other than 'natural' need scipy: pip install scipy, or install pyg-nsa[cell]"
        ) from error
    start = dict(zip(num_nodes, np.cumsum([0, *num_nodes.values()]).tolist(), strict=False))
    total = sum(num_nodes.values())
    if total == 0:
        return {node_type: np.empty(0, np.int64) for node_type in num_nodes}
    ends = [np.empty((2, 0), np.int64)]
    ends += [index + np.array([[start[s]], [start[t]]]) for (s, _, t), index in relations.items()]
    row, col = np.concatenate(ends, axis=1)
    # Directed pairs join their ends both ways: the pattern of A + Aᵀ.
    both = (np.concatenate([row, col]), np.concatenate([col, row]))
    adjacency = csr_array((np.ones(len(both[0]), np.int8), both), shape=(total, total))
    order = reverse_cuthill_mckee(adjacency, symmetric_mode=True).astype(np.int64)
    return {
        t: order[(order >= start[t]) & (order < start[t] + size)] - start[t]
        for t, size in num_nodes.items()
    }


# ---- packing ---------------------------------------------------------------------------------------------------------


class _Pattern(NamedTuple):
    """The pairs of a relation, and how many relations have them (a relation and its reverse touch the same tiles)."""

    types: tuple[str, str]
    pairs: _Index  # [2, P], unique
    weight: int


class _End(NamedTuple):
    """A relation as one of its two types sees it: each node of the type with a neighbour of the other type."""

    node: _Index  # [P]
    other: str
    neighbour: _Index  # [P]
    weight: float


class _Profiles(NamedTuple):
    """How many neighbours each node of a type has in each group of each end; only where it has any.

    Columns are the groups of all ends side by side.
    """

    node: _Index  # [Q]
    column: _Index  # [Q]
    weight: NDArray[np.float64]  # [Q]
    neighbours: NDArray[np.float64]  # [Q]
    num_columns: int


class _Packing:
    """Exchange of nodes between groups of ``tile`` nodes.

    Attributes:
        group: Per node type ``[N]``, the group of each node.
    """

    def __init__(
        self, relations: Mapping[EdgeType, _Index], num_nodes: Mapping[str, int], tile: int
    ) -> None:
        self.num_nodes = num_nodes
        self.tile = tile
        self.num_groups = {t: -(-size // tile) for t, size in num_nodes.items()}
        self.group: dict[str, _Index] = {}
        self.patterns = _patterns(relations)
        self.ends: dict[str, list[_End]] = {t: [] for t in num_nodes}
        for (first, second), (a, b), weight in self.patterns:
            if first != second:
                self.ends[first].append(_End(a, second, b, weight))
                self.ends[second].append(_End(b, first, a, weight))
            elif _is_symmetric(a, b):
                # Rows and columns of tiles are the same: one of them stands for both.
                self.ends[first].append(_End(a, first, b, 2.0 * weight))
            else:
                self.ends[first].append(_End(a, first, b, weight))
                self.ends[first].append(_End(b, first, a, weight))

    def cost(self, orders: Mapping[str, _Index]) -> int:
        """Occupied tiles of all relations."""
        return self._cost({t: _inverse(order) // self.tile for t, order in orders.items()})

    def _cost(self, group: Mapping[str, _Index]) -> int:
        return sum(
            weight * _count_tiles(group[first][a], group[second][b])
            for (first, second), (a, b), weight in self.patterns
        )

    def improved(self, orders: Mapping[str, _Index]) -> dict[str, _Index]:
        """Orders of at most the same cost."""
        place = {t: _inverse(order) for t, order in orders.items()}
        self.group = {t: p // self.tile for t, p in place.items()}
        best = {t: g.copy() for t, g in self.group.items()}
        lowest = self._cost(best)
        for number, scale in enumerate(_SCALES):
            for node_type in self.num_nodes:
                self._exchange(node_type, scale, number * _MEETINGS)
            cost = self._cost(self.group)
            if cost < lowest:
                lowest, best = cost, {t: g.copy() for t, g in self.group.items()}
        # Inside a group the order that it started from: neighbours near each other.
        return {t: np.lexsort((place[t], best[t])) for t in self.num_nodes}

    def _exchange(self, node_type: str, scale: float, first_round: int) -> None:
        """Lets the groups of a type meet in pairs and swap members."""
        num_groups, group = self.num_groups[node_type], self.group[node_type]
        if num_groups < 2 or not self.ends[node_type]:
            return
        sees_itself = any(end.other == node_type for end in self.ends[node_type])
        profiles: _Profiles | None = None
        for met, partner in enumerate(_meetings(num_groups, first_round)):
            if profiles is None or (sees_itself and met % _LOOK_AGAIN == 0):
                profiles = self._profiles(node_type)
                node, column, weight, num, num_columns = profiles
                # Cost of a tile of c pairs: w (1 - exp(-c / scale)). Taking away n of them saves
                # w exp(-c / scale) (exp(n / scale) - 1), adding n costs w exp(-c / scale) (1 - exp(-n / scale)).
                leaving = weight * np.expm1(np.minimum(num / scale, 80.0))
                coming = -weight * np.expm1(-num / scale)
            own = group[node]
            tile_count = np.bincount(
                own * num_columns + column, num, minlength=num_groups * num_columns
            )
            room = np.exp(-tile_count / scale)
            saved = leaving * room[own * num_columns + column]
            saved -= coming * room[partner[own] * num_columns + column]
            gain = np.bincount(node, saved, minlength=group.size).astype(np.float64)
            self._swap(group, gain, partner)

    def _profiles(self, node_type: str) -> _Profiles:
        keys, weights, num_columns = [], [], 0
        width = sum(self.num_groups[end.other] for end in self.ends[node_type])
        for end in self.ends[node_type]:
            keys.append(end.node * width + num_columns + self.group[end.other][end.neighbour])
            num_columns += self.num_groups[end.other]
            weights += [end.weight] * self.num_groups[end.other]
        key, num = np.unique(np.concatenate(keys), return_counts=True)
        column = key % width
        return _Profiles(key // width, column, np.array(weights)[column], num.astype(float), width)

    def _swap(self, group: _Index, gain: NDArray[np.float64], partner: _Index) -> None:
        """Swaps the k-th best members of two groups that meet, while the two gain together."""
        by_gain = np.lexsort((-gain, group))
        first = np.searchsorted(group[by_gain], np.arange(partner.size))
        members = np.full((partner.size, self.tile), -1)
        rank = np.arange(group.size) - first[group[by_gain]]
        members[group[by_gain], rank] = by_gain
        a = np.flatnonzero(np.arange(partner.size) < partner)
        left, right = members[a], members[partner[a]]
        # Not merely above 0: equal members would change places for ever, on differences in the last digit.
        good = (left >= 0) & (right >= 0) & (gain[left] + gain[right] > 1e-6)
        left, right = left[good], right[good]
        group[left], group[right] = group[right], group[left]


def _patterns(relations: Mapping[EdgeType, _Index]) -> list[_Pattern]:
    """The different pair sets; a relation and its reverse have one."""
    found: dict[tuple[str, str, bytes], tuple[_Index, int]] = {}
    for (source, _, target), index in relations.items():
        pairs = np.unique(index, axis=1)
        if not pairs.size:
            continue
        back = np.unique(pairs[::-1], axis=1)
        one, other = (source, target, pairs.tobytes()), (target, source, back.tobytes())
        if one <= other:
            key, value = one, pairs
        else:
            key, value = other, back
        found[key] = (value, found[key][1] + 1 if key in found else 1)
    return [_Pattern((a, b), pairs, weight) for (a, b, _), (pairs, weight) in found.items()]


def _is_symmetric(a: _Index, b: _Index) -> bool:
    """Whether unique pairs sorted by (a, b) hold each pair in both directions."""
    order = np.lexsort((a, b))
    return np.array_equal(a[order], b) and np.array_equal(b[order], a)


def _meetings(num_groups: int, first_round: int) -> Iterator[_Index]:
    """Rounds of a tournament, as ``[num_groups]`` partners (a group that rests is its own).

    In as many rounds as there are other groups all pairs meet once: in round r those meet whose numbers add up to r.
    """
    players = num_groups + num_groups % 2  # with an odd number one of them is nobody
    wheel = players - 1
    numbers = np.arange(wheel)
    for round_ in range(first_round, first_round + min(wheel, _MEETINGS)):
        partner = np.arange(players)
        partner[:wheel] = (round_ - numbers) % wheel
        lonely = np.flatnonzero(partner[:wheel] == numbers)[0]  # meets the last player
        partner[lonely], partner[wheel] = wheel, lonely
        partner = partner[:num_groups]
        yield np.where(partner < num_groups, partner, np.arange(num_groups))


def _inverse(order: _Index) -> _Index:
    out = np.empty_like(order)
    out[order] = np.arange(order.size)
    return out

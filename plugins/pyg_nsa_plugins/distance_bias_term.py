"""The edge term of ``distance_bias``: pairs within a few hops, and a learned bias for each distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_nsa import EdgeSet, EdgeTerm, RelationInputs
from pyg_nsa_plugins.hops import TooManyPairsError, hop_distances

__all__ = ["DistanceBiasTerm"]


class DistanceBiasTerm(EdgeTerm):
    r"""Pairs of nodes within reach with the bias :math:`b_{ij}^h = \mathbf{B}_{d(j, i), h}`.

    :math:`d(j, i)` is the number of edges on a shortest path from the source :math:`j` to the target :math:`i`. Deleted nodes
    are on no path. The distances of a graph are found once: they are kept with the pair set, and that with the
    ``edge_index`` tensor (:meth:`EdgeSet.from_edge_index <pyg_nsa.EdgeSet.from_edge_index>`).

    Args:
        heads: Number of heads.
        index_fields: Names of ``[2, E]`` fields, of which the first that is there is taken.
        max_distance: Number of edges on the longest path.
        directed: Whether paths follow the edges from source to target.
        self_loops: Whether each node attends to itself, at distance 0.
        max_pairs: Largest number of pairs of one call.

    Shapes:
        - **pairs:** an :class:`~pyg_nsa.EdgeSet` of the ``P`` pairs within reach
        - **bias:** ``[P, heads]``; the learned table is ``[max_distance (+ 1 with self loops), heads]``
    """

    def __init__(
        self,
        heads: int,
        index_fields: tuple[str, ...],
        *,
        max_distance: int,
        directed: bool,
        self_loops: bool,
        max_pairs: int,
    ) -> None:
        super().__init__()
        self.index_fields = index_fields
        self.max_distance = max_distance
        self.directed = directed
        self.self_loops = self_loops
        self.max_pairs = max_pairs
        self.by_distance = nn.Embedding(max_distance + self_loops, heads)
        self._key = f"distance_bias {max_distance} {directed} {self_loops}"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the table from N(0, 0.02²), as Graphormer does."""
        nn.init.normal_(self.by_distance.weight, std=0.02)

    def pairs(self, inputs: RelationInputs) -> EdgeSet:
        """The pairs within reach; their distances are kept in ``derived``."""
        alive = self._alive(inputs)
        direct = self._edges(inputs)
        if alive is None and self._key in direct.derived:
            reach: EdgeSet = direct.derived[self._key]
            return self._checked(inputs, reach)
        with torch.inference_mode(False):  # what is kept must do for training, too
            index, num_nodes = direct.edge_index(), direct.num_queries
            if alive is not None:
                index = index[:, alive[index].all(dim=0)]
            if not self.directed:
                index = torch.cat([index, index.flip(0)], dim=1)
            try:
                found, distance = hop_distances(index, num_nodes, self.max_distance, self.max_pairs)
            except TooManyPairsError as error:
                raise self._too_many(inputs, str(error)) from None
            if self.self_loops:
                found = torch.cat(
                    [torch.arange(num_nodes, device=found.device).expand(2, -1), found], 1
                )
                distance = torch.cat([distance.new_zeros(num_nodes), distance])
            reach = EdgeSet.from_edge_index(found, num_nodes, num_nodes)
            row = reach.coalesce(distance).view(-1) - (0 if self.self_loops else 1)
            reach.derived[self._key] = (row, alive)
        if alive is None:
            direct.derived[self._key] = reach
        return self._checked(inputs, reach)

    def bias(self, inputs: RelationInputs, edges: EdgeSet) -> Tensor:
        """``[P, heads]``.

        Raises:
            ValueError: A pair set that was prepared for other edges, options or deletions.
        """
        alive = self._alive(inputs)
        if self._key not in edges.derived:
            # A pair set that was renumbered or moved; unique sorted pairs have one order, so equal pairs share the distances.
            reach = self.pairs(inputs)
            if not (torch.equal(reach.row, edges.row) and torch.equal(reach.col, edges.col)):
                raise self._other_pairs(inputs)
            edges.derived[self._key] = reach.derived[self._key]
        row, alive_then = edges.derived[self._key]
        if alive is not alive_then and not torch.compiler.is_compiling():
            given = [
                torch.ones(edges.num_queries, dtype=torch.bool) if a is None else a.cpu()
                for a in (alive, alive_then)
            ]
            if not torch.equal(*given):
                raise self._other_pairs(inputs)
        return self.by_distance(row)

    def extra_repr(self) -> str:
        """The options."""
        return f"max_distance={self.max_distance}, directed={self.directed}, self_loops={self.self_loops}"

    def _edges(self, inputs: RelationInputs) -> EdgeSet:
        for name in self.index_fields:
            if inputs.has(name):
                return inputs.edges_from_index(name)
        first, *others = self.index_fields
        inputs.field(first, f" (nor {', '.join(others)})")
        raise AssertionError("field() raises for a missing field")

    def _alive(self, inputs: RelationInputs) -> Tensor | None:
        """``[N]`` bool, or ``None`` where no node is deleted.

        Raises:
            ValueError: Copies of one base graph of which each has its own deletions.
        """
        alive = inputs.src.alive
        if alive is None or not inputs.src.is_shared:
            return alive
        if not torch.compiler.is_compiling() and not bool(alive.all()):
            raise ValueError(
                f"edge type {inputs.edge_type}: 'distance_bias' cannot serve copies of one graph (x of shape [B, N, F]) of "
                f"which nodes of type '{inputs.src.node_type}' are deleted: without a node, distances differ from copy to "
                "copy, but copies share their pairs. Batch the graphs instead (torch_geometric.data.Batch), or take "
                "'adjacency_mask'"
            )
        return None

    def _checked(self, inputs: RelationInputs, reach: EdgeSet) -> EdgeSet:
        if reach.num_pairs > self.max_pairs:
            raise self._too_many(inputs, f"{reach.num_pairs} pairs are within reach")
        return reach

    def _too_many(self, inputs: RelationInputs, found: str) -> ValueError:
        return ValueError(
            f"edge type {inputs.edge_type}: 'distance_bias' with max_distance={self.max_distance}: {found}, above "
            f"max_pairs={self.max_pairs}. Lower max_distance, use smaller batches, or raise max_pairs"
        )

    def _other_pairs(self, inputs: RelationInputs) -> ValueError:
        return ValueError(
            f"edge type {inputs.edge_type}: the pair set that was passed or prepared is not the one that 'distance_bias' finds "
            f"with {self.extra_repr()} in the edges and the living nodes of this call. Prepare it from the same data, with "
            "the same deletions, or leave edge_set_dict out"
        )

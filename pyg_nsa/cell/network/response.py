"""How much growth is left if fluxes change as little as they can: the linear response of the wildtype's fluxes to a deletion.

Loans (:mod:`~pyg_nsa.cell.network.loans`) say whether there is a way round a lost reaction, and nothing of its yield. MOMA ("minimisation of
metabolic adjustment", Segrè, Vitkup & Church, *PNAS* 2002) takes for a mutant's fluxes the steady state that is nearest to the wildtype's. With
the bounds left out that has a closed form: of all :math:`\\mathbf{v}` with :math:`\\mathbf{S} \\mathbf{v} = 0` and :math:`\\mathbf{v}_D = 0` on the
lost reactions :math:`D`, the one with the least :math:`\\lVert \\mathbf{W} (\\mathbf{v} - \\mathbf{v}_w) \\rVert^2` is

.. math::
    \\mathbf{W} \\mathbf{v} = \\mathbf{W} \\mathbf{v}_w - \\mathbf{P}_{:, D}\\, \\mathbf{P}_{D, D}^{+}\\, (\\mathbf{W} \\mathbf{v}_w)_D

with the projector :math:`\\mathbf{P}` to the null space of :math:`\\mathbf{S} \\mathbf{W}^{-1}`, which the wildtype alone determines. A deletion is then a
system of as many equations as it loses reactions. What is asked of the result is the growth in it.

Without bounds a detour may run irreversible reactions backwards. Those that rest in the wildtype can only go one way, so they count for
more (:data:`_RESTING`); MOMA with all bounds is no nearer to optimal growth, but further off, and takes longer. No linear program is
solved for a deletion, and no label is looked at; the wildtype's fluxes come from one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import norm, splu
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.shared import once_per_graph

__all__ = ["FluxResponse"]

_RELATION = ("reaction", "rmr", "metabolite")
# Weight of an irreversible reaction without wildtype flux; that of the others is 1. Chosen on the labels of all pairs of iJO1366.
_RESTING = 3.0
_BLOCKED = 1e-9  # length of a projected unit: below it the reaction has no flux in any steady state
_ADDED = 1e-8  # to a diagonal of ones
_ROUNDS = 4
_SINGULAR = 1e-9  # of the largest eigenvalue: below it two lost reactions are one to the null space
_KEPT = 100_000  # results, a number each
_KEPT_WAYS = 1 << 25  # numbers of projected units, 256 MiB


class FluxResponse:
    """Finds how much of growth deletions cost by the least change of flux.

    Results are kept; :meth:`of` also shares them.

    Args:
        graph: The base graph (see :meth:`known`).

    Attributes:
        flux: ``[Q]`` float64, wildtype flux of each of the ``Q`` reactions (nodes that differ by isozyme or direction are one).
        weight: ``[Q]`` float64, the diagonal of :math:`\\mathbf{W}`.
    """

    def __init__(self, graph: HeteroData) -> None:
        reactions = graph["reaction"]
        index, first, unit = np.unique(
            reactions.reaction_index.cpu().numpy(), return_index=True, return_inverse=True
        )
        self._unit, count = unit.reshape(-1), len(index)
        way = reactions.direction.cpu().numpy()
        self.flux = reactions.flux.cpu().double().numpy()[first]
        ways = np.zeros((2, count), np.bool_)
        ways[(way > 0).astype(np.int64), self._unit] = True
        self.weight = np.where((self.flux == 0) & ~ways.all(axis=0), _RESTING, 1.0)
        node, metabolite = graph[_RELATION].edge_index.cpu().numpy()
        amount = graph[_RELATION].stoichiometry.cpu().view(len(node), -1)[:, 0].double().numpy()
        of = self._unit[node]
        chosen = first[of] == node  # each reaction is read from its first node
        share = amount * way[node] / self.weight[of]
        size = (int(graph["metabolite"].num_nodes), count)
        self._project = _NullSpace(
            csr_array((share[chosen], (metabolite[chosen], of[chosen])), shape=size)
        )
        grows = reactions.objective.cpu().double().numpy()[first] * way[first]
        self._start, gains = self._project(
            np.stack([self.weight * self.flux, grows / self.weight], axis=1)
        ).T
        self._gains = gains / (gains @ self._start)
        self._known: dict[bytes, float] = {}
        self._ways: dict[int, tuple[NDArray[np.float64], float]] = {}

    @classmethod
    def of(cls, graph: HeteroData) -> FluxResponse:
        """The same object for the same graph, for as long as the graph is there."""
        return once_per_graph(cls, graph)

    @staticmethod
    def known(graph: HeteroData) -> bool:
        """Whether a graph says what this needs: signed stoichiometry, directions, wildtype fluxes, and an objective."""
        return BlockedReactions.known(graph) and all(
            name in graph["reaction"] for name in ("flux", "objective")
        )

    def __call__(self, dead: Tensor) -> Tensor:
        """Finds what is left of growth when nodes are removed.

        Args:
            dead: ``[B, R]`` bool, removed reaction nodes.

        Returns:
            ``[B]`` float32 on the device of ``dead``: growth relative to the wildtype's, from 0 to 1; exactly 1 if all reactions that
            carry flux keep a node.
        """
        removed = dead.cpu().numpy()
        left = np.ones(len(removed), np.float32)
        for row in np.flatnonzero(removed.any(axis=1)):
            alive = np.bincount(self._unit[~removed[row]], minlength=self.flux.size)
            left[row] = self._left(np.flatnonzero(alive == 0))
        return torch.from_numpy(left).to(dead.device)

    def _left(self, lost: NDArray[np.int64]) -> float:
        """Growth without these reactions, relative to the wildtype's."""
        if not self.flux[lost].any():
            return 1.0
        key = lost.tobytes()
        found = self._known.get(key)
        if found is None:
            ways, scale = self._projected(lost)
            inverse = np.linalg.pinv(ways @ ways.T, _SINGULAR, hermitian=True)
            force = inverse @ (scale * self._start[lost])
            found = min(max(1.0 - float((scale * self._gains[lost]) @ force), 0.0), 1.0)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = found
        return found

    def _projected(
        self, lost: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``[D, Q]``, the units of these reactions projected and brought to length 1 (or 0), and by what they were multiplied.

        Lengths do not matter, and some reactions run a million times slower than others.
        """
        if len(self._ways) * self.flux.size > _KEPT_WAYS:
            self._ways.clear()
        new = [q for q in lost.tolist() if q not in self._ways]
        if new:
            unit = np.zeros((self.flux.size, len(new)))
            unit[new, np.arange(len(new))] = 1.0
            for q, way in zip(new, self._project(unit).T, strict=True):
                size = float(np.linalg.norm(way))
                scale = 1 / size if size > _BLOCKED else 0.0
                self._ways[q] = way * scale, scale
        found = [self._ways[q] for q in lost.tolist()]
        return np.stack([way for way, _ in found]), np.array([scale for _, scale in found])


class _NullSpace:
    """Projects to the null space of a sparse matrix ``[M, Q]``, which stays sparse.

    ``x - A.T y`` with ``A A.T y = A x``. Conserved groups of metabolites make ``A A.T`` singular, so a little is added to its diagonal; what that
    changes is taken out again by going over the solution some times more.
    """

    def __init__(self, matrix: csr_array) -> None:
        size = norm(matrix, axis=1)
        # Rows of length 1 have the same null space, and numbers of one order.
        self._matrix = (diags_array(1 / np.where(size > 0, size, 1.0)) @ matrix).tocsr()
        self._transposed = self._matrix.T.tocsr()
        self._gram = self._matrix @ self._transposed
        added = diags_array(np.full(size.size, _ADDED))
        self._factors = splu((self._gram + added).tocsc())

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[Q, K]`` to ``[Q, K]``."""
        wanted = self._matrix @ x
        y = np.zeros_like(wanted)
        for _ in range(_ROUNDS):
            y += self._factors.solve(wanted - self._gram @ y)
        projected: NDArray[np.float64] = x - self._transposed @ y
        return projected

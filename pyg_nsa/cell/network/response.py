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
more (:data:`_RESTING`); MOMA with all bounds is no nearer to optimal growth, but further off, and takes a hundred times as long. No linear program is
solved for a deletion, and no label is looked at; the wildtype's fluxes come from one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.shared import once_per_graph

__all__ = ["FluxResponse"]

_RELATION = ("reaction", "rmr", "metabolite")
_RESTING = 3.0  # weight of an irreversible reaction without wildtype flux; that of the others is 1
_RANK = 1e-10  # of the largest entry on the diagonal: below it rows depend on those before
_BLOCKED = 1e-9  # length of a row: below it the reaction has no flux in any steady state
_SINGULAR = 1e-9  # of the largest eigenvalue: below it two lost reactions are one to the null space
_KEPT = 100_000  # results, a number each


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
        balance = np.zeros((count, int(graph["metabolite"].num_nodes)))  # W^-1 S^T
        share = amount * way[node] / self.weight[of]
        np.add.at(balance, (of[chosen], metabolite[chosen]), share[chosen])
        basis = _null_space(balance)
        size = np.linalg.norm(basis, axis=1, keepdims=True)
        # Lengths of rows do not matter, and some reactions run a million times slower than others.
        self._rows = np.divide(basis, size, out=np.zeros_like(basis), where=size > _BLOCKED)
        start = basis.T @ (self.weight * self.flux)
        self._excess = self._rows @ start
        grows = np.zeros(count)
        grows[self._unit[first]] = reactions.objective.cpu().double().numpy()[first] * way[first]
        growth = basis.T @ (grows / self.weight)
        self._gains = self._rows @ growth / (growth @ start)
        self._known: dict[bytes, float] = {}

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
            rows = self._rows[lost]
            force = np.linalg.pinv(rows @ rows.T, _SINGULAR, hermitian=True) @ self._excess[lost]
            found = min(max(1.0 - float(self._gains[lost] @ force), 0.0), 1.0)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = found
        return found


def _null_space(balance: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[Q, K]``, orthonormal columns to which all columns of ``balance`` ``[Q, M]`` are orthogonal."""
    basis, upper, _ = qr(balance, pivoting=True, overwrite_a=True, check_finite=False)
    size = np.abs(np.diagonal(upper))
    rank = int((size > _RANK * size.max(initial=0.0)).sum())
    return np.ascontiguousarray(basis[:, rank:])

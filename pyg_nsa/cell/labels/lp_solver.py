"""One flux-balance LP after another, each with its own set of inactive reactions.

HiGHS solves them with the simplex method from the basis of a similar LP, with feasibility tolerances of 1e-9: at the usual
1e-6 genes of genome-scale models come out essential, or not, by accident.

What an LP gives depends on its inactive reactions and its starting basis only, to the last bit: HiGHS forgets everything
else before each solve. So it does not matter in which order, in which process, or in which of several interrupted runs
an LP was solved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork

__all__ = ["TOLERANCE", "LpSolver", "State", "linear_program", "pack_bases", "unpack_bases"]

TOLERANCE = 1e-9
_STATUS = [highspy.HighsBasisStatus(i) for i in range(5)]


@dataclass(frozen=True, eq=False)
class State:
    """An optimum of one set of inactive reactions.

    Attributes:
        growth: The objective; 0 where there is no steady state.
        support: Ascending int32 indices of the reactions that carry flux in the optimum found.
        basis: HiGHS' basis, for warm starts; ``None`` where the state is infeasible, or the basis was not kept.
    """

    growth: float
    support: NDArray[np.int32]
    basis: highspy.HighsBasis | None


class LpSolver:
    """Growth of one model with some reactions inactive.

    Args:
        network: The metabolic model, with its bounds (medium) and objective.
    """

    def __init__(self, network: MetabolicNetwork) -> None:
        self.network = network
        self._solver = linear_program(network)
        self._fixed = np.empty(0, np.int32)

    def solve(self, inactive: NDArray[np.int32], basis: highspy.HighsBasis | None) -> State:
        """Solve one LP.

        Args:
            inactive: Ascending int32 indices of the reactions whose flux is fixed to 0.
            basis: Where to start; ``None`` for HiGHS' own choice.

        Returns:
            The optimum; growth 0 without support and basis, if no steady state is left.

        Raises:
            ValueError: If growth is unbounded.
            RuntimeError: If HiGHS gives up, which says something about the model's numbers.
        """
        solver, network = self._solver, self.network
        restored = np.setdiff1d(self._fixed, inactive, assume_unique=True)
        if len(restored):
            solver.changeColsBounds(
                len(restored), restored, network.lower[restored], network.upper[restored]
            )
        if len(inactive):
            zeros = np.zeros(len(inactive))
            solver.changeColsBounds(len(inactive), inactive, zeros, zeros)
        self._fixed = inactive
        # What the last LP left behind would change the last bits of this one.
        solver.clearSolver()
        if basis is not None:
            solver.setBasis(basis)
        solver.run()
        status = solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal and basis is not None:
            # A verdict from a warm start is confirmed by a solve from scratch: it is rare, and decides life or death.
            solver.clearSolver()
            solver.run()
            status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return State(0.0, np.empty(0, np.int32), None)
        if status in (
            highspy.HighsModelStatus.kUnbounded,
            highspy.HighsModelStatus.kUnboundedOrInfeasible,
        ):
            raise ValueError(
                f"Model {network.model_id!r}: growth is unbounded. Give its uptake reactions finite bounds."
            )
        if status != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(
                f"Model {network.model_id!r}: HiGHS stopped with {solver.modelStatusToString(status)!r} on an LP "
                f"with {len(inactive)} inactive reactions."
            )
        fluxes = np.asarray(solver.getSolution().col_value)
        # Below the tolerance a flux can be set to 0 and the steady state still holds to the tolerance.
        support = np.flatnonzero(np.abs(fluxes) > TOLERANCE).astype(np.int32)
        growth = max(float(network.objective @ fluxes), 0.0)
        return State(growth, support, solver.getBasis())


def linear_program(network: MetabolicNetwork) -> highspy.Highs:
    """The FBA problem of the wildtype, ready to run: one row per metabolite, one column per reaction.

    Args:
        network: The model.

    Returns:
        A silent, single-threaded HiGHS with tolerances of 1e-9.
    """
    matrix = network.stoichiometry
    problem = highspy.HighsLp()
    problem.num_row_, problem.num_col_ = matrix.shape
    problem.sense_ = highspy.ObjSense.kMaximize
    problem.col_cost_ = network.objective
    problem.col_lower_ = network.lower
    problem.col_upper_ = network.upper
    problem.row_lower_ = np.zeros(matrix.shape[0])
    problem.row_upper_ = np.zeros(matrix.shape[0])
    problem.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    problem.a_matrix_.start_ = np.asarray(matrix.indptr, np.int32)
    problem.a_matrix_.index_ = np.asarray(matrix.indices, np.int32)
    problem.a_matrix_.value_ = np.asarray(matrix.data, np.float64)
    solver = highspy.Highs()
    options: dict[str, bool | int | float | str] = {
        "output_flag": False,
        "threads": 1,
        "solver": "simplex",
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
    }
    for option, value in options.items():
        solver.setOptionValue(option, value)
    solver.passModel(problem)
    return solver


def pack_bases(bases: Sequence[highspy.HighsBasis | None], width: int) -> NDArray[np.uint8]:
    """Bases as plain numbers.

    Args:
        bases: ``n`` bases; ``None`` for none.
        width: Reactions and metabolites of the model, together.

    Returns:
        [n, width] uint8: HiGHS' status of each reaction, then of each metabolite; all 255 for none.
    """
    packed = np.full((len(bases), width), 255, np.uint8)
    for row, basis in zip(packed, bases, strict=True):
        if basis is not None:
            row[:] = np.frombuffer(
                bytes(map(int, (*basis.col_status, *basis.row_status))), np.uint8
            )
    return packed


def unpack_bases(packed: NDArray[np.uint8], reactions: int) -> list[highspy.HighsBasis | None]:
    """The bases that :func:`pack_bases` was given.

    Args:
        packed: [n, width] uint8.
        reactions: Number of reactions.
    """
    bases: list[highspy.HighsBasis | None] = []
    for row in packed:
        if not len(row) or row[0] == 255:
            bases.append(None)
            continue
        statuses = [_STATUS[i] for i in row.tolist()]
        basis = highspy.HighsBasis()
        basis.col_status, basis.row_status = statuses[:reactions], statuses[reactions:]
        basis.valid, basis.alien = True, False
        bases.append(basis)
    return bases

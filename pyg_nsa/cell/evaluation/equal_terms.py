"""Equal terms for a comparison: the width at which a model has as many parameters as another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch_geometric.data import HeteroData

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import Perturbation, PerturbationCollate
from pyg_nsa.cell.training.experiment import Builder

__all__ = ["TOLERANCE", "MatchError", "count_parameters", "match_parameters", "with_width"]

#: How far apart two numbers of parameters may be to count as equal.
TOLERANCE = 0.05

_WIDEST = 4096


class MatchError(ValueError):
    """No width has the wanted number of parameters."""


def count_parameters(config: CellConfig, build: Builder, graph: HeteroData) -> int:
    """Number of parameters of a model, sizes that the first forward pass infers included.

    Args:
        config: Its configuration.
        build: What builds it.
        graph: The base graph.
    """
    with torch.random.fork_rng(devices=[]):
        model = build(config, graph)
    if any(isinstance(p, torch.nn.UninitializedParameter) for p in model.parameters()):
        nothing = Perturbation(0, torch.empty(0, dtype=torch.long), torch.zeros(2))
        with torch.no_grad():
            model(graph, PerturbationCollate(graph)([nothing]))
    return sum(p.numel() for p in model.parameters())


def with_width(config: CellConfig, width: int, head: int | None = None) -> CellConfig:
    """The configuration with another ``operator.hidden_channels``, and ``readout.hidden_channels`` (``None``: as it is)."""
    operator = config.operator.model_copy(update={"hidden_channels": width})
    readout = config.readout
    if head is not None:
        readout = readout.model_copy(update={"hidden_channels": head})
    return config.model_copy(update={"operator": operator, "readout": readout})


def match_parameters(
    config: CellConfig,
    build: Builder,
    graph: HeteroData,
    wanted: int,
    tolerance: float = TOLERANCE,
) -> tuple[CellConfig, int]:
    """Chooses ``operator.hidden_channels``, a multiple of the heads, for a number of parameters.

    Where the nearest widths are too far off, ``readout.hidden_channels`` makes up for the rest.

    Args:
        config: The configuration.
        build: What builds its model.
        graph: The base graph.
        wanted: The number of parameters.
        tolerance: Largest relative difference.

    Returns:
        The configuration, and its number of parameters.

    Raises:
        MatchError: No width comes near.
    """
    heads = config.operator.heads

    @cache
    def count(steps: int, head: int | None = None) -> int:
        return count_parameters(with_width(config, steps * heads, head), build, graph)

    below = _largest(lambda steps: count(steps), wanted, _WIDEST // heads)
    options = {steps: count(steps) for steps in (below, below + 1) if steps > 0}
    best = min(options, key=lambda steps: abs(options[steps] - wanted))
    if abs(options[best] - wanted) <= tolerance * wanted:
        return with_width(config, best * heads), options[best]
    # Wider nodes or a wider head: the head grows in steps of one.
    for steps in (below, below - 1):
        if steps > 0:
            head = _largest(lambda h, steps=steps: count(steps, h), wanted, _WIDEST)  # type: ignore[misc]
            found = {h: count(steps, h) for h in (head, head + 1) if h > 0}
            near = min(found, key=lambda h: abs(found[h] - wanted))
            if abs(found[near] - wanted) <= tolerance * wanted:
                return with_width(config, steps * heads, near), found[near]
    raise MatchError(
        f"no operator.hidden_channels gives {wanted:,} parameters within {tolerance:.0%}; the nearest is "
        f"{best * heads} with {options[best]:,}. Change operator.heads (widths are multiples of it), or use --match none."
    )


def _largest(count: Callable[[int], int], wanted: int, limit: int) -> int:
    """The largest ``n`` with ``count(n) <= wanted``, of a growing count; 0 if there is none."""
    low, high = 0, 1
    while high <= limit and count(high) <= wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= wanted else (low, middle)
    return low

"""The part of the network around a knockout that a drawing has room for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MAX_NODES", "Neighbourhood", "choose_neighbourhood"]

MAX_NODES = 40
"""Most nodes that the drawing of a knockout shows."""


@dataclass(frozen=True)
class Neighbourhood:
    """The part of the network around a knockout that is drawn.

    Attributes:
        nodes: (type, id) of each node, by type.
        deleted: Those that the knockout removes.
        edges: Rows of the attention table between these nodes.
        left_out: How many nodes of the table are not drawn.
    """

    nodes: tuple[tuple[str, str], ...]
    deleted: frozenset[tuple[str, str]]
    edges: pd.DataFrame
    left_out: int


def choose_neighbourhood(
    attention: pd.DataFrame, genes: Sequence[str], max_nodes: int = MAX_NODES
) -> Neighbourhood:
    """The nodes around deleted genes that are bound to them by the strongest attention.

    Starts with the deleted genes and adds, one at a time, the node with the most attention to and from those chosen so
    far (in the wildtype or the knockout, whichever is more), so that what is drawn hangs together. No type takes more than
    45 % of the places while another can have them.

    Args:
        attention: Columns relation, source_type, source, target_type, target, weight_wildtype, weight_knockout.
        genes: The deleted genes.
        max_nodes: Most nodes.

    Returns:
        The neighbourhood. Deleted are the genes, reactions with an edge to or from one of them, and reactions without any
        attention left.
    """
    source = list(zip(attention["source_type"], attention["source"], strict=True))
    target = list(zip(attention["target_type"], attention["target"], strict=True))
    weights = attention[["weight_wildtype", "weight_knockout"]].fillna(0.0)
    strength = weights.max(axis=1).to_numpy(float)
    every = dict.fromkeys([*source, *target])
    neighbours: dict[tuple[str, str], dict[tuple[str, str], float]] = {node: {} for node in every}
    for a, b, weight in zip(source, target, strength, strict=True):
        neighbours[a][b] = neighbours[a].get(b, 0.0) + weight
        neighbours[b][a] = neighbours[b].get(a, 0.0) + weight
    start = [("gene", g) for g in dict.fromkeys(genes) if ("gene", g) in every][:max_nodes]
    cap = max(1, math.ceil(0.45 * max_nodes))
    chosen: dict[tuple[str, str], None] = {}
    pull = dict.fromkeys(every, 0.0)
    room = dict.fromkeys({node_type for node_type, _ in every}, cap)

    def add(node: tuple[str, str]) -> None:
        chosen[node] = None
        room[node[0]] -= 1
        for other, weight in neighbours[node].items():
            pull[other] += weight + 1e-9

    for node in start:
        add(node)
    while len(chosen) < min(max_nodes, len(every)):
        rest = [n for n in every if n not in chosen]
        joined = [n for n in rest if pull[n] > 0]
        if not joined and start:
            break
        roomy = [n for n in joined or rest if room[n[0]] > 0]
        add(max(roomy or joined or rest, key=lambda n: pull[n] or sum(neighbours[n].values())))
    deleted = _deleted(attention, source, target, weights, set(genes))
    inside = np.array([a in chosen and b in chosen for a, b in zip(source, target, strict=True)])
    types = [t for t in ("gene", "reaction", "metabolite") if t in room]
    types += sorted(set(room) - set(types))
    nodes = sorted(chosen, key=lambda n: types.index(n[0]))
    return Neighbourhood(
        tuple(nodes),
        frozenset(deleted & set(chosen)),
        attention[inside.astype(bool)].reset_index(drop=True),
        len(every) - len(chosen),
    )


def _deleted(
    attention: pd.DataFrame,
    source: list[tuple[str, str]],
    target: list[tuple[str, str]],
    weights: pd.DataFrame,
    genes: set[str],
) -> set[tuple[str, str]]:
    """Nodes that are gone: metabolites never are, whatever attention they have left."""
    out = {n for n in {*source, *target} if n[0] == "gene" and n[1] in genes}
    for a, b in zip(source, target, strict=True):
        if a in out and a[0] == "gene" and b[0] == "reaction":
            out.add(b)
        if b in out and b[0] == "gene" and a[0] == "reaction":
            out.add(a)
    totals: dict[tuple[str, str], NDArray] = {}
    for a, b, pair in zip(source, target, weights.to_numpy(float), strict=True):
        for node in (a, b):
            if node[0] == "reaction":
                totals[node] = totals.get(node, np.zeros(2)) + pair
    return out | {n for n, (before, after) in totals.items() if before > 0 and after == 0}

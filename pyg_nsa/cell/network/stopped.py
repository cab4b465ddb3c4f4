"""What a deletion stops by the connections of the network alone, by name, for a reader."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.cell.network.blocked import BlockedReactions
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.reaction_nodes import reaction_id
from pyg_nsa.cell.network.scope import Scope

__all__ = ["what_stops"]


def what_stops(graph: HeteroData, genes: Sequence[str]) -> dict[str, list[str]]:
    """Reactions that can run in the wildtype and in no direction any more after a deletion, and what can't be made then.

    Args:
        graph: The base graph, with ``node_ids``.
        genes: Ids of the deleted genes.

    Returns:
        Ids of the reactions that lose their last enzyme (``enzymes_lost``), of those that are blocked in turn (``blocked``), of the
        metabolites that can't be made from the nutrients any more (``missing``), and of the reactions of the objective that starve
        of them (``growth``). Empty for a graph without stoichiometry or directions; without ``growth`` if it has no objective.
    """
    if not BlockedReactions.known(graph):
        return {}
    reactions = graph["reaction"]
    names = [reaction_id(v) for v in reactions.node_ids]
    finder, scope = BlockedReactions(graph), Scope(graph)
    number = {gene: i for i, gene in enumerate(graph["gene"].node_ids)}
    deleted = torch.tensor([number[gene] for gene in genes], dtype=torch.long)
    dead = ~DeletionRule(graph).alive_one(deleted)["reaction"]
    blocked = finder(dead[None])[0]
    starved, missing = (mask[0] for mask in scope(dead[None]))

    def stopped(before: Tensor, gone: Tensor) -> set[str]:
        """Reactions of which some node ran, and none does any more."""
        ran, runs = (mask.nonzero().view(-1).tolist() for mask in (before, before & ~gone))
        return {names[v] for v in ran} - {names[v] for v in runs}

    enzyme = {names[v] for v in (~dead).nonzero().view(-1).tolist()}
    found = sorted(stopped(torch.from_numpy(finder.open).bool(), blocked | dead))
    metabolites = graph["metabolite"].node_ids
    out = {
        "enzymes_lost": [r for r in found if r not in enzyme],
        "blocked": [r for r in found if r in enzyme],
        "missing": sorted(metabolites[m] for m in missing.nonzero().view(-1).tolist()),
    }
    if "objective" in reactions:
        grows = reactions.objective.cpu() > 0
        out["growth"] = sorted(stopped(torch.from_numpy(scope.runs) & grows, starved))
    return out

"""What the options of :class:`~pyg_nsa.api.PairOptions` promise. The target is a :class:`~pyg_nsa.testing.subject.Subject`."""

from __future__ import annotations

import torch

from pyg_nsa.api import PairOptions
from pyg_nsa.attention import EdgeSet
from pyg_nsa.testing.results import NotApplicable, Tally
from pyg_nsa.testing.subject import Subject

__all__ = ["pair_options"]


def pair_options(subject: Subject, tally: Tally) -> None:
    """Options derived from `PairOptions` do what that says, within one node type: `symmetrize` adds the reversed pair of every pair,
    `self_loops` the pair of every node with itself. A ValueError may refuse either.
    """
    if not isinstance(subject.options, PairOptions):
        raise NotApplicable("the options are not derived from PairOptions")
    subject.need_attention("and has no pairs")
    if not subject.is_within:
        raise NotApplicable("both are for edge types within one node type")
    plain = _codes(_pairs(subject))
    size = subject.graph().num_nodes[0]
    wanted = {
        "symmetrize": ({(key, query) for query, key in plain}, "the reversed pair"),
        "self_loops": ({(node, node) for node in range(size)}, "a node's pair with itself"),
    }
    for option, (pairs, what) in wanted.items():
        try:
            found = _codes(_pairs(subject, option))
        except ValueError as refusal:
            tally.expect(str(refusal), f"{option} is refused without a word")
            continue
        query, key = min(pairs - found, default=(None, None))
        tally.expect(
            query is None,
            f"with {option}=True {what} is missing: query {query}, key {key}. The host applies edge_dropout alone; hand the others on in "
            'pairs(): inputs.edges_from_index("edge_index", symmetrize=options.symmetrize, self_loops=options.self_loops)',
        )


def _pairs(subject: Subject, option: str | None = None) -> EdgeSet:
    """The pairs with one of the options, or with neither."""
    chosen = subject.with_options(
        symmetrize=option == "symmetrize", self_loops=option == "self_loops"
    )
    layer, graph = chosen.build(), chosen.graph()
    with torch.no_grad():
        return chosen.pairs_and_bias(layer, chosen.call(layer, graph))[0]


def _codes(edges: EdgeSet) -> set[tuple[int, int]]:
    return set(zip(edges.row.tolist(), edges.col.tolist(), strict=True))

"""Checks of what an edge kind keeps between calls, where relations and calls share their edges.

Their target is a :class:`~pyg_nsa.testing.subject.Subject`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.testing.graphs import SmallGraph, is_structure
from pyg_nsa.testing.results import NotApplicable, Tally
from pyg_nsa.testing.subject import Call, Subject

__all__ = ["same_edges"]

_KEPT = (
    "inputs.edges_from_index gives one EdgeSet for one tensor, to all relations, layers and calls: keep in its derived only what "
    "follows from the edges alone, never from other fields, deletions or x, and find the rest anew in each call"
)


def same_edges(subject: Subject, tally: Tally) -> None:
    """Calls and relations that share one tensor of edges give what they give over copies of it, whatever their other fields and
    deleted nodes are.
    """
    graph = subject.graph()
    others = {
        "other fields and rows": subject.graph(seed=31, index=graph.index),
        "other deleted nodes": graph.with_deleted(_dead(subject, graph)),
    }
    layer = subject.layer()
    for what, other in others.items():
        calls = [subject.call(layer, g) for g in (graph, other)]
        wanted = [subject.rows(layer, call=call) for call in calls]
        for order in ((0, 1), (1, 0)):
            shared = _over_one_tensor(subject, [subject.call(layer, g) for g in (graph, other)])
            for number in order:
                tally.close(
                    subject.rows(layer, call=shared[number]),
                    wanted[number],
                    f"a call with {what} over the same tensor of edges gets rows that are left from the call before; {_KEPT}",
                )
        if not subject.gives_messages:
            shared = _over_one_tensor(subject, [subject.call(layer, g) for g in (graph, other)])
            _expect_own_bias(subject, tally, what, calls, shared)


def _expect_own_bias(
    subject: Subject, tally: Tally, what: str, calls: list[Call], shared: list[Call]
) -> None:
    """As in a stack of two relations: the pairs of both are there before the bias of either."""
    layer = subject.layer()
    term = subject.module(layer)
    assert isinstance(term, EdgeTerm)
    inputs = [subject.inputs(call) for call in shared]
    pairs = [term.pairs(each) for each in inputs]
    for call, own, edges in zip(calls, inputs, pairs, strict=True):
        wanted_edges, wanted = subject.pairs_and_bias(layer, call)
        message = (
            f"two relations over one tensor of edges, with {what}, get each other's pairs or bias"
        )
        tally.expect(
            torch.equal(edges.edge_index(), wanted_edges.edge_index()), f"{message}; {_KEPT}"
        )
        bias = term.bias(own, edges)
        if bias is not None and wanted is not None:
            tally.close(bias, wanted, f"{message}; {_KEPT}")


def _dead(subject: Subject, graph: SmallGraph) -> tuple[Tensor, Tensor]:
    src, dst = (torch.arange(n) == 2 for n in graph.num_nodes)
    return (src, src) if subject.is_within else (src, dst)


def _over_one_tensor(subject: Subject, calls: list[Call]) -> list[Call]:
    """The calls, the second with the edges of the first where they are the same.

    Raises:
        NotApplicable: There are no edges that both could share.
    """
    first, second = calls
    edges = {
        name: values[subject.edge_type]
        for name, values in first.items()
        if is_structure(name.removesuffix("_dict")) and subject.edge_type in values
    }
    out = dict(second)
    for name, value in edges.items():
        if torch.equal(value, second[name][subject.edge_type]):
            out[name] = {**second[name], subject.edge_type: value}
    if all(out[name] is second[name] for name in edges):
        raise NotApplicable("the kind reads no field with the edges")
    return [first, out]

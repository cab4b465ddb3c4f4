"""Whether calls leave their inputs as they were. The target is what :class:`~pyg_nsa.testing.subject.Layered` says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyg_nsa.nn.edge_term import EdgeTerm
from pyg_nsa.testing.results import Tally
from pyg_nsa.testing.subject import Layered, Subject

__all__ = ["expect_unchanged", "inputs_unchanged"]


def inputs_unchanged(subject: Layered, tally: Tally) -> None:
    """A call does not write to its inputs; of an attention kind, `pairs` and `bias` leave the pairs and `inputs.fields` as they are, too,
    which other relations and layers read.
    """
    expect_unchanged(subject, tally, lambda rows: rows.sum().backward())
    if isinstance(subject, Subject) and not subject.gives_messages:
        _expect_pairs_unchanged(subject, tally)


def _expect_pairs_unchanged(subject: Subject, tally: Tally) -> None:
    layer = subject.layer()
    term = subject.module(layer)
    assert isinstance(term, EdgeTerm)
    inputs = subject.inputs(subject.call(layer, subject.graph()))
    fields = dict(inputs.fields)
    edges = term.pairs(inputs)
    tensors = {n: v for n, v in vars(edges).items() if isinstance(v, Tensor)}
    before = {name: (value.clone(), value._version) for name, value in tensors.items()}
    term.bias(inputs, edges)
    for name, (value, version) in before.items():
        same = getattr(edges, name) is tensors[name] and tensors[name]._version == version
        tally.expect(
            same and torch.equal(tensors[name], value),
            f"bias() changes edges.{name}, and other relations, layers and calls may share the set; work on a copy",
        )
    changed = [n for n, v in inputs.fields.items() if fields.get(n) is not v]
    gone = sorted(fields.keys() - inputs.fields.keys())
    tally.expect(
        not changed and not gone,
        f"a call changes inputs.fields: {', '.join([*changed, *gone])}; keep what you make of a field in a variable of your own",
    )


def expect_unchanged(subject: Layered, tally: Tally, use: Callable[[Tensor], object]) -> None:
    """Expects the inputs of a call to be what they were, after `use(rows)`."""
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    tensors = {
        f"{name}[{key}]": value
        for name, values in call.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    before = {name: (value.clone(), value._version) for name, value in tensors.items()}
    use(subject.rows(layer, call=call))
    for name, value in tensors.items():
        tally.expect(
            torch.equal(value, before[name][0]) and value._version == before[name][1],
            f"a call writes to {name}; work on a copy",
        )

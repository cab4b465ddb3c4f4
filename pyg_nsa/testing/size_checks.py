"""Sizes that are not known before the first call. The target is a :class:`~pyg_nsa.testing.subject.Subject`."""

from __future__ import annotations

import torch

from pyg_nsa.testing.results import Finding, Tally
from pyg_nsa.testing.subject import Subject

__all__ = ["lazy_channels"]


def lazy_channels(subject: Subject, tally: Tally) -> None:
    """`context.in_channels` of (-1, -1), which is what a layer gets that is built without `in_channels`, are taken from the first call
    and lead to the same parameters as given ones.
    """
    graph, given = subject.graph(), subject.build()
    try:
        lazy = subject.build(channels=-1)
        with torch.no_grad():
            rows = subject.rows(lazy, graph)
    except Exception as error:
        raise Finding(
            f"with context.in_channels=(-1, -1) it fails: {type(error).__name__}: {error}; make what depends on them in the first call, "
            "by torch_geometric.nn.Linear(-1, n) or torch.nn.LazyLinear(n) for example"
        ) from error
    with torch.no_grad():
        wanted = subject.rows(given, graph)
    tally.expect(
        rows.shape == wanted.shape, f"rows are {list(rows.shape)}, not {list(wanted.shape)}"
    )
    shapes = [{n: tuple(p.shape) for n, p in m.named_parameters()} for m in (lazy, given)]
    differing = sorted(n for n, _ in shapes[0].items() ^ shapes[1].items())
    tally.expect(
        not differing,
        f"with context.in_channels=(-1, -1) other parameters come than with given ones: {', '.join(differing)}",
    )

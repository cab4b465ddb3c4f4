"""Checks that run others in training mode, where a module may go other ways than in evaluation mode.

Their target is a :class:`~pyg_nsa.testing.subject.Subject` or an
:class:`~pyg_nsa.testing.operator_subject.OperatorSubject`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyg_nsa.testing import graph_checks, operator_checks
from pyg_nsa.testing.input_checks import expect_unchanged
from pyg_nsa.testing.results import Finding, NotApplicable, Tally
from pyg_nsa.testing.subject import Call, Layered, Subject
from pyg_nsa.testing.training_checks import expect_finite_gradients, gradients

__all__ = ["training_batch", "training_gradients", "training_inputs"]


class InTraining:
    """A subject whose layers are in training mode; a call leaves their buffers as they were, so that every call starts from the same
    state.
    """

    def __init__(self, subject: Layered) -> None:
        self._subject: Any = subject

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subject, name)

    def layer(self, seed: int = 0) -> nn.Module:
        """A layer that has run once, its parameters shaken."""
        layer: nn.Module = self._subject.layer(seed)
        return layer.train()

    def rows(
        self, layer: nn.Module, graph: Any = None, call: Call | None = None, seed: int = 0
    ) -> Tensor:
        """What the layer gives."""
        call = self._subject.call(layer, graph) if call is None else call
        rows: Tensor = self._subject.rows(_on_copies(layer)[0], call=call, seed=seed)
        return rows

    def run(
        self, layer: nn.Module, graph: Any = None, call: Call | None = None, seed: int = 0
    ) -> dict[str, Tensor]:
        """Rows by node type, of an operator."""
        call = self._subject.call(layer, graph) if call is None else call
        rows: dict[str, Tensor] = self._subject.run(_on_copies(layer)[0], call=call, seed=seed)
        return rows

    def changed_buffers(self, layer: nn.Module) -> list[str]:
        """Names of the buffers that a call changes."""
        forward, copies = _on_copies(layer)
        self._subject.rows(forward, call=self._subject.call(layer, self._subject.graph()))
        return [n for n, b in layer.named_buffers() if not torch.equal(copies[n], b)]


def _on_copies(layer: nn.Module) -> tuple[Callable[..., Any], dict[str, Tensor]]:
    """The layer as a function that reads and writes copies of its buffers, and the copies."""
    copies = {n: b.clone() for n, b in layer.named_buffers()}
    return lambda **call: functional_call(layer, copies, kwargs=call), copies


def training_inputs(subject: Layered, tally: Tally) -> None:
    """A call in training mode does not write to its inputs either."""
    # Backward passes are the next check's business.
    _run(lambda trained, tally: expect_unchanged(trained, tally, Tensor.detach), subject, tally)


def training_gradients(subject: Layered, tally: Tally) -> None:
    """In training mode, too, gradients are what finite differences in float64 say, under one seed; with running statistics, which have
    no gradient, they are finite.
    """
    trained = InTraining(subject)
    layer = trained.layer()
    graph = subject.graph()
    if not torch.equal(trained.rows(layer, graph), trained.rows(layer, graph)):
        raise NotApplicable("in training mode torch's seed does not decide what a call gives")
    if trained.changed_buffers(layer):
        expect_finite_gradients(layer, trained.rows(layer, graph), tally, "in training mode ")
        return
    check = gradients if isinstance(subject, Subject) else operator_checks.gradients
    _run(check, subject, tally)


def training_batch(subject: Layered, tally: Tally) -> None:
    """In training mode, too, a batch of graphs gives what each graph gives alone, unless calls draw random numbers or keep running
    statistics, as BatchNorm does.
    """
    trained = InTraining(subject)
    layer, graph = trained.layer(), subject.graph()
    kept = trained.changed_buffers(layer)
    if kept:
        raise NotApplicable(f"calls in training mode change {', '.join(kept)}")
    if not torch.equal(trained.rows(layer, graph, seed=1), trained.rows(layer, graph, seed=2)):
        raise NotApplicable("calls in training mode draw random numbers")
    check = graph_checks.batch if isinstance(subject, Subject) else operator_checks.batch
    _run(check, subject, tally)


def _run(check: Callable[[Any, Tally], None], subject: Layered, tally: Tally) -> None:
    try:
        check(InTraining(subject), tally)
    except Finding as found:
        raise Finding(f"in training mode: {found}") from found

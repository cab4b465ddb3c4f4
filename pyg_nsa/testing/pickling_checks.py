"""Saving whole modules. The target is what :class:`~pyg_nsa.testing.subject.Layered` says."""

from __future__ import annotations

import copy
import io

import torch
from torch import Tensor, nn

from pyg_nsa.testing.results import Finding, Tally
from pyg_nsa.testing.subject import Layered

__all__ = ["pickled"]


def pickled(subject: Layered, tally: Tally) -> None:
    """`torch.save(layer)` works, as it has to where layers go to other processes, and the loaded layer gives the same rows; after a call
    in training `copy.deepcopy(layer)` works too, as moving averages of weights and early stopping need it.
    """
    layer, graph = subject.layer(), subject.graph()
    file = io.BytesIO()
    try:
        torch.save(layer, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    except Exception as error:
        raise Finding(
            f"torch.save(layer) and torch.load fail: {type(error).__name__}: {error}; keep no lambdas, functions of functions, locks "
            "or open files in a module, and define its class at the top of a file"
        ) from error
    text = "a layer that was saved with torch.save and loaded again gives other rows"
    tally.close(subject.rows(again, graph), subject.rows(layer, graph), text)
    subject.rows(layer.train(), graph)
    try:
        copy.deepcopy(layer)
    except Exception as error:
        kept = ", ".join(_of_a_call(layer))
        raise Finding(
            f"after a call {kept} holds what it computed, and with it the memory of the call; detach it, or keep nothing "
            "(copy.deepcopy(layer) fails)"
            if kept
            else f"after a call copy.deepcopy(layer) fails: {type(error).__name__}: {error}"
        ) from error


def _of_a_call(layer: nn.Module) -> list[str]:
    """The attributes that hold what a call computed, alone or in a list."""
    return [
        ".".join(filter(None, (name, attribute)))
        for name, module in layer.named_modules()
        for attribute, value in vars(module).items()
        for one in (value if isinstance(value, list | tuple) else [value])[:1]
        if isinstance(one, Tensor) and one.grad_fn is not None
    ]

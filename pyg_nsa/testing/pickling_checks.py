"""Saving whole modules. The target is what :class:`~pyg_nsa.testing.subject.Layered` says."""

from __future__ import annotations

import io

import torch

from pyg_nsa.testing.results import Finding, Tally
from pyg_nsa.testing.subject import Layered

__all__ = ["pickled"]


def pickled(subject: Layered, tally: Tally) -> None:
    """`torch.save(layer)` works, as it has to where layers go to other processes, and the loaded layer gives the same rows."""
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

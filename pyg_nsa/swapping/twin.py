"""A copy of a model that stands for it in a trial."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pyg_nsa.swapping.problems import trial_error

__all__ = ["gpus", "twin_of"]


@contextmanager
def twin_of(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of a model to be called, without gradients and dropout.

    Functions are not copied, and one that closes over the model (``lambda x: self.conv(x)``) would call the model itself. So the
    copy's attributes are lent to the model's modules for as long: whoever calls those gets the copy's parts, and neither
    parameters without sizes nor anything else of the model changes.

    Args:
        model: The model; it is left as it was, as is the state of random numbers.

    Raises:
        SwapError: The model can't be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise trial_error(
            f"data is given, but the model can't be copied for a trial: {error}"
        ) from error
    modules, copies = list(model.modules()), list(twin.modules())
    pairs = zip(modules, copies, strict=True) if len(modules) == len(copies) else ()
    # A class may say itself how it is copied, to something else.
    lent = [(one, vars(one), vars(other)) for one, other in pairs if type(one) is type(other)]
    devices = gpus(model)
    twin.eval()
    try:
        for module, _, of_the_copy in lent:
            object.__setattr__(module, "__dict__", of_the_copy)
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield twin
    finally:
        for module, own, _ in lent:
            object.__setattr__(module, "__dict__", own)


def gpus(model: nn.Module) -> list[int]:
    """CUDA devices whose random numbers the initialisation of a model may draw."""
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})

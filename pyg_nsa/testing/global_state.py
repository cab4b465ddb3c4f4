"""What a whole program shares and a plugin has to leave alone: random-number generators and settings of torch.

The target of the check is what :class:`~pyg_nsa.testing.subject.Layered` says.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pyg_nsa.testing.graphs import building, seeded
from pyg_nsa.testing.results import Tally
from pyg_nsa.testing.subject import Layered

__all__ = ["global_state", "kept_global_state"]

#: No plugin seeds torch with this number by chance.
_SEED = 20_011


def global_state(subject: Layered, tally: Tally) -> None:
    """Neither `build` nor a call changes what the whole program shares: nothing seeds a random-number generator or draws from those of
    NumPy and Python (a call in training mode may draw), and settings of torch, such as the default dtype, stay as they are.
    """
    before = _settings()
    # Modules are imported by the first layer and the first call, and may draw.
    layer, graph = subject.layer(), subject.graph()
    call = subject.call(layer, graph)
    with building(_SEED):
        drawn = _seeded_generators()
        subject.make()
        _expect_own_seed(tally, "build")
    _expect_same({**before, **drawn}, tally, "build")
    for mode in (False, True):
        what = f"a call in {'training' if mode else 'evaluation'} mode"
        layer.train(mode)
        with seeded(_SEED):
            drawn = _seeded_generators()
            layer(**call)
            _expect_own_seed(tally, what)
        _expect_same({**before, **({} if mode else drawn)}, tally, what)


def _expect_own_seed(tally: Tally, what: str) -> None:
    tally.expect(
        torch.initial_seed() == _SEED,
        f"{what} seeds torch's random numbers, of the whole program; a torch.Generator of your own, or torch.random.fork_rng, leaves "
        "them as they are",
    )


def _expect_same(before: dict[str, Any], tally: Tally, what: str) -> None:
    generators = _generators()
    after = {**_settings(), **generators}
    for name, value in before.items():
        remedy = (
            "torch's seed decides about a model, so draw with torch"
            if name in generators
            else "it is a setting of the whole program"
        )
        tally.expect(after[name] == value, f"{what} changes {name}; {remedy}")


def _settings() -> dict[str, Any]:
    return {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.get_num_threads()": torch.get_num_threads(),
    }


def _generators() -> dict[str, Any]:
    # The generator that all share is meant, here and below.
    kind, keys, *others = np.random.get_state()  # noqa: NPY002
    return {
        "the random numbers of NumPy": (kind, bytes(keys), *others),  # type: ignore[arg-type]
        "the random numbers of Python": random.getstate(),
    }


def _seeded_generators() -> dict[str, Any]:
    """Their states under a seed that no plugin chooses; `kept_global_state` is around every check."""
    np.random.seed(_SEED)  # noqa: NPY002
    random.seed(_SEED)
    return _generators()


@contextlib.contextmanager
def kept_global_state() -> Iterator[None]:
    """Puts back whatever a plugin changes of it."""
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    of_numpy = np.random.get_state()  # noqa: NPY002
    of_python = random.getstate()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)

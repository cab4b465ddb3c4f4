"""What is compared: the parts that the layers of one relation and of many have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .workloads import Workload

OURS = "pyg_nsa"
PYG = "PyG"
TORCH = "torch"


class NotRun(Exception):
    """A contender that cannot run in a setting, with the reason: stated in the tables, and no failure."""


@dataclass(frozen=True)
class Setting:
    """One measurement's conditions; small enough to travel to another process as JSON."""

    workload: Workload = field(default_factory=Workload)
    channels: int = 64
    heads: int = 4
    batch: int = 1
    dtype: str = "float32"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.__dict__, "workload": dict(self.workload.__dict__)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Setting:
        """The inverse of :meth:`to_json`."""
        return cls(**{**values, "workload": Workload(**values["workload"])})


class Step:
    """A module on its input, ready to be run.

    Args:
        module: Its parameters get gradients.
        call: Runs it on the leaves.
        leaves: Inputs; they get gradients too, as inside a network.
        dtype: ``"bfloat16"`` runs it under autocast.
        trains: Whether a backward pass exists.
        state: What represents the graph, in bytes; built before, and not part of a step.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[[], Any],
        leaves: Sequence[Tensor],
        dtype: str,
        state: int,
        trains: bool = True,
    ) -> None:
        self.module, self.call, self.leaves = module, call, list(leaves)
        self.autocast = dtype == "bfloat16"
        self.state, self.trains = state, trains
        self._grads: list[Tensor] | None = None

    def _outputs(self) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            out = self.call()
        return list(out.values()) if isinstance(out, dict) else [out]

    def forward(self) -> list[Tensor]:
        """Inference: nothing is kept for a backward pass."""
        with torch.no_grad():
            return self._outputs()

    def train(self) -> None:
        """Forward and backward."""
        outputs = self._outputs()
        if self._grads is None:  # at the warm-up
            self._grads = [torch.randn_like(out) for out in outputs]
        torch.autograd.backward(outputs, self._grads)

    def clear(self) -> None:
        """Drops gradients."""
        self.module.zero_grad(set_to_none=True)
        for leaf in self.leaves:
            leaf.grad = None


@dataclass(frozen=True)
class Contender:
    """A way to compute a layer.

    Attributes:
        name: In tables.
        group: :data:`OURS`, :data:`PYG` or :data:`TORCH`.
        includes: What its time covers.
        make: Builds it for a setting; raises :class:`NotRun` where it cannot.
        needs: Estimate of the bytes that a training step and its inputs need.
        grows: What its time grows with, to skip sizes that would take too long: ``"edges"`` or ``"matrix"``.
        sections: Where it takes part; empty: everywhere.
        slow_in: Sections in which it runs only when asked for a full run, because it compiles for each shape.
    """

    name: str
    group: str
    includes: str
    make: Callable[[Setting], Step]
    needs: Callable[[Setting, int, int], float]
    grows: str = "edges"
    sections: tuple[str, ...] = ()
    slow_in: tuple[str, ...] = ()

    def takes_part(self, section: str) -> bool:
        """Whether it is measured there."""
        return not self.sections or section in self.sections


def nbytes(*values: Any) -> int:
    """Bytes of all tensors in tuples, lists, dictionaries and this package's objects; shared memory counts once."""
    found: dict[int, int] = {}
    _collect(values, found)
    return sum(found.values())


def _collect(value: Any, found: dict[int, int]) -> None:
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()  # a view keeps all of it alive
    elif isinstance(value, dict):
        _collect(list(value.values()), found)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, found)
    elif type(value).__module__.startswith("pyg_nsa"):
        _collect(getattr(value, "__dict__", {}), found)


def leaf(*shape: int, seed: int = 0) -> Tensor:
    """Random input that wants a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).requires_grad_()

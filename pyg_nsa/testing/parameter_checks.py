"""Whether all that is learned is registered. The target is what :class:`~pyg_nsa.testing.subject.Layered` says."""

from __future__ import annotations

from torch import Tensor, nn

from pyg_nsa.testing.results import Tally
from pyg_nsa.testing.subject import Layered

__all__ = ["parameters"]


def parameters(subject: Layered, tally: Tally) -> None:
    """All that has a gradient is a parameter of the layer: no tensor that asks for one is kept in a list or as a plain attribute, where no
    optimizer, no state dict and no `.to(device)` finds it.
    """
    layer = subject.layer()
    known = {id(p) for p in layer.parameters()}
    for leaf in _leaves(subject.rows(layer, subject.graph())):
        tally.expect(
            id(leaf) in known,
            f"{_named(layer, leaf)} of shape {list(leaf.shape)} has a gradient and is no parameter of the layer, so that no optimizer, no state "
            "dict and no .to(device) finds it; assign an nn.Parameter to the module itself, several to an nn.ParameterList",
        )


def _leaves(rows: Tensor) -> list[Tensor]:
    """The tensors whose gradients a backward pass from `rows` fills."""
    found: list[Tensor] = []
    seen, waiting = set(), [rows.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            found.append(leaf)
        waiting.extend(before for before, _ in node.next_functions)
    return found


def _named(layer: nn.Module, leaf: Tensor) -> str:
    """Where a tensor is kept in a layer, as far as it shows."""
    for name, module in layer.named_modules():
        for attribute, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value
            parts = list(held) if isinstance(held, list | tuple) or held is not value else [held]
            if any(part is leaf for part in parts):
                return f"what {'.'.join(filter(None, (name, attribute)))} holds,"
    return "a tensor"

"""Several linear layers of the same rows as one matrix product."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

__all__ = ["project"]


def project(x: Tensor, *layers: Any) -> tuple[Tensor, ...]:
    """``layer(x)`` of each layer.

    Plain linear layers are multiplied at once: the rows are read once, and their gradient is written once. What is more
    than a plain layer (hooks, parametrizations, adapters, a layer that waits for its first input) is called as it is.

    Args:
        x: ``[*, F]``.
        layers: :class:`torch.nn.Linear` or PyG's, or anything that takes and returns rows.

    Returns:
        One ``[*, F_out]`` for each layer; rows of plain layers are slices of one tensor.
    """
    if len(layers) == 1 or not all(_is_plain(layer) for layer in layers):
        return tuple(layer(x) for layer in layers)
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor | None] = [layer.bias for layer in layers]
    bias = None
    if any(b is not None for b in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([w.new_zeros(w.size(0)) if b is None else b for w, b in pairs])
    y = F.linear(x, torch.cat(weights), bias)
    return y.split([weight.size(0) for weight in weights], dim=-1)


def _is_plain(layer: nn.Module) -> bool:
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return type(layer) in (Linear, nn.Linear) and not any(hooks)

"""Linear layers: several of the same rows as one matrix product, compiled kernels where they fit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from pyg_nsa.compiled import linear

__all__ = ["apply", "is_plain", "project"]


def apply(layer: Any, x: Tensor) -> Tensor:
    """``layer(x)`` of a linear layer, by the compiled kernels where they fit and nothing else hangs on the layer.

    Args:
        layer: :class:`torch.nn.Linear` or PyG's, or anything that takes and returns rows.
        x: ``[*, F]``.
    """
    return _linear(x, layer.weight, layer.bias) if is_plain(layer) else layer(x)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if linear.fits(x, weight, bias):
        return linear.linear(x, weight, bias)
    return F.linear(x, weight, bias)


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
    if len(layers) == 1 or not all(is_plain(layer) for layer in layers):
        return tuple(apply(layer, x) for layer in layers)
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor | None] = [layer.bias for layer in layers]
    bias = None
    if any(b is not None for b in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([w.new_zeros(w.size(0)) if b is None else b for w, b in pairs])
    y = _linear(x, torch.cat(weights), bias)
    return y.split([weight.size(0) for weight in weights], dim=-1)


def is_plain(layer: nn.Module, *types: type[nn.Module]) -> bool:
    """Whether a layer is one of these and nothing else is to happen when it is called: no hooks, no subclass.

    Args:
        layer: The layer.
        *types: Default: a linear layer, torch's or PyG's.
    """
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return type(layer) in (types or (Linear, nn.Linear)) and not any(hooks)

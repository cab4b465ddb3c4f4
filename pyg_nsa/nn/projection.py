"""Linear layers and norms by the compiled kernels where they fit; several linear layers of the same rows as one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from pyg_nsa.compiled.linear import fits, fits_layer, linear, stacked
from pyg_nsa.compiled.norm import layer_norm_and_rows

__all__ = ["apply", "check_columns", "check_dtype", "is_plain", "normed", "project"]


def apply(layer: Any, x: Tensor, start: Tensor | None = None) -> Tensor:
    """``start + layer(x)`` of a linear layer, by the compiled kernels where they fit and nothing else hangs on the layer.

    Args:
        layer: :class:`torch.nn.Linear` or PyG's, or anything that takes and returns rows.
        x: ``[*, F]``.
        start: ``[*, F_out]``, what the result is added to.
    """
    if is_plain(layer):
        out = (*x.shape[:-1], layer.weight.size(0))
        same = start is None or (start.shape == out and fits(start, layer.weight))
        if same and fits_layer(x, layer.weight, layer.bias):
            return linear(x, layer.weight, layer.bias, start)
    return layer(x) if start is None else start + layer(x)


def check_columns(node_type: str, x: Tensor, layer: Any) -> None:
    """Whether a linear layer takes rows with this number of columns.

    Raises:
        ValueError: It does not; the message says of which node type they are.
    """
    size = getattr(layer, "in_channels", -1)
    # Two comparisons: torch.compile takes a size that it leaves open for a member of no tuple.
    if size != -1 and size != x.size(-1):
        raise ValueError(
            f"x of node type '{node_type}' has {x.size(-1)} columns, but this module was made for {size} (in_channels, or its first "
            "call)"
        )


def check_dtype(node_type: str, x: Tensor, layer: Any) -> None:
    """Whether a linear layer takes rows of this dtype; under autocast any of floating point.

    Raises:
        TypeError: It does not; the message says of which node type they are.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"x of node type '{node_type}' must be of floating point, got {x.dtype}: x.float(), or learned embeddings of what "
            "the integers name"
        )
    # Not the attribute: a parametrization would be computed for it.
    weight = layer._parameters.get("weight")
    if weight is None or x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type):
        return
    raise TypeError(
        f"x of node type '{node_type}' is {x.dtype}, but the layer's weights are {weight.dtype}: give it x.to({weight.dtype}), or bring "
        f"the layer to the data's dtype with layer.to({x.dtype})"
    )


def normed(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """``norm(x)`` of a layer norm, by the compiled kernels under the same conditions, and ``x`` for the residual branch."""
    if is_plain(norm, nn.LayerNorm):
        weight, bias, eps = norm.weight, norm.bias, float(norm.eps)  # type: ignore[arg-type]
        if isinstance(weight, Tensor) and isinstance(bias, Tensor) and fits_layer(x, weight, bias):
            return layer_norm_and_rows(x, weight, bias, eps)
    return norm(x), x


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
    weight, bias = stacked(*((layer.weight, layer.bias) for layer in layers))
    y = linear(x, weight, bias) if fits_layer(x, weight, bias) else F.linear(x, weight, bias)
    return y.split([layer.weight.size(0) for layer in layers], dim=-1)


def is_plain(layer: nn.Module, *types: type[nn.Module]) -> bool:
    """Whether a layer is one of these and nothing else is to happen when it is called: no hooks, no subclass, no ``forward`` of its own.

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
    # Libraries that wrap layers put a forward on the instance.
    own = (
        any(hooks) or "forward" in layer.__dict__ or torch.nn.modules.module._has_any_global_hook()
    )
    return type(layer) in (types or (Linear, nn.Linear)) and not own

"""What a model is called with when it is tried on data."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from pyg_nsa.swapping.problems import trial_error

__all__ = ["arguments"]


def arguments(model: nn.Module, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a model's call.

    A forward may write into what it gets: graphs and dictionaries are copies, whose tensors are the same.

    Args:
        model: The model.
        data: A `HeteroData`, from which the arguments of `forward` are taken by name; or the arguments themselves: a tuple, or
            a mapping by name.

    Raises:
        SwapError: The data don't say all of them, or are the metadata of a graph.
        TypeError: It is none of these.
    """
    if isinstance(data, list) and data and all(hasattr(d, "metadata") for d in data):
        raise trial_error(
            f"data is a list of {len(data)} graphs; give one of them, or all as Batch.from_data_list(data)"
        )
    if _is_metadata(data):
        raise trial_error(
            "data is the metadata of a graph (its node types and edge types), and no arguments of the model's call: give the graph "
            "itself, swap(model, config, data), or leave data out: swap(model, config)"
        )
    if isinstance(data, tuple | list):
        return tuple(map(_own, data)), {}
    if isinstance(data, Mapping):
        return (), {name: _own(value) for name, value in data.items()}
    if not hasattr(data, "collect") or not hasattr(data, "metadata"):
        raise TypeError(
            "data must be a torch_geometric HeteroData, or the arguments of the model's call: a tuple, or a mapping by name; "
            f"got {type(data).__name__}"
        )
    kwargs: dict[str, Any] = {}
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name.endswith("_dict"):
            found = data.collect(name.removesuffix("_dict"), allow_empty=True)
            if found or parameter.default is parameter.empty:
                kwargs[name] = found
        elif name in ("data", "batch", "hetero_data", "graph"):
            kwargs[name] = _own(data)
        elif parameter.default is parameter.empty:
            if not kwargs and name in ("x", "edge_index"):
                kwargs[name] = data.collect(name, allow_empty=True)
                continue
            raise trial_error(
                f"the model's forward has the argument '{name}', which a HeteroData does not say; pass data=(…), the tuple of "
                "arguments with which you call the model"
            )
    return (), kwargs


def _is_metadata(data: Any) -> bool:
    """Whether it is what `HeteroData.metadata()` gives, which `build_operator` takes in the place of a graph."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    if not all(isinstance(part, tuple | list) and part for part in data):
        return False
    node_types, edge_types = data
    return all(isinstance(t, str) for t in node_types) and all(
        isinstance(e, tuple | list) and len(e) == 3 and all(isinstance(name, str) for name in e)
        for e in edge_types
    )


def _own(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, dict) or hasattr(value, "metadata") else value

"""One call of a copy of the model on data, watched at its layers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import HeteroConv

from pyg_nsa.errors import Problem
from pyg_nsa.nn.call_fields import NODE_FIELDS, POSITIONAL
from pyg_nsa.nn.hetero_inputs import HeteroInputs
from pyg_nsa.swapping.layers import EdgeType, Layer
from pyg_nsa.swapping.problems import SwapError
from pyg_nsa.swapping.swapped_conv import without_semantic

__all__ = ["Call", "answer", "gpus", "watch"]


@dataclass
class Call:
    """What a layer was called with, and what it returned.

    Attributes:
        args: Dictionaries by place.
        kwargs: Dictionaries by name.
        out: What the layer returned.
        sizes: Columns of `x` of each node type.
        fields: What was passed for each edge type, without `_dict`.
        unknown_before: Arguments of `kwargs` that only its replacement takes, so that the layer was called without them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: dict[str, Any]
    sizes: dict[str, int]
    fields: dict[EdgeType, set[str]]
    unknown_before: tuple[str, ...] = ()

    def dictionary(self, name: str) -> Mapping[Any, Any]:
        """What was passed as a field (without `_dict`), by place or by name."""
        place = self._place(name)
        found: Mapping[Any, Any] = (
            self.args[place] if isinstance(place, int) else self.kwargs[place]
        )
        return found

    def with_values(
        self, values: Mapping[tuple[str, Any], Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with some values in the place of others.

        Args:
            values: By field (without `_dict`) and edge type or node type.
        """
        args, kwargs = list(self.args), dict(self.kwargs)
        for (name, key), value in values.items():
            place = self._place(name)
            if isinstance(place, int):
                args[place] = {**args[place], key: value}
            else:
                kwargs[place] = {**kwargs[place], key: value}
        return tuple(args), kwargs

    def _place(self, name: str) -> int | str:
        if f"{name}_dict" in self.kwargs:
            return f"{name}_dict"
        return POSITIONAL.index(name)

    def widths(self) -> dict[str, int]:
        """Size of the output rows of each node type that got some."""
        return {t: h.size(-1) for t, h in self.out.items() if isinstance(h, Tensor)}


def watch(
    model: nn.Module, layers: list[Layer], data: Any, new_fields: Collection[str] = ()
) -> tuple[dict[str, Call], list[str]]:
    """Calls a copy of the model, and keeps each layer's first call, by the layer's path.

    A forward that is written for the replacements already may pass what the layers before do not take, such as `batch_dict`:
    each is called without.

    Args:
        model: The model; it is not touched, nor is the state of random numbers.
        layers: What to watch.
        data: A `HeteroData`, from which the arguments of `forward` are taken by name; or the arguments themselves: a tuple, or
            a mapping by name.
        new_fields: Fields by edge type that the configured kinds read, without `_dict`.

    Returns:
        The calls, and notes about layers that were not called.

    Raises:
        SwapError: The model can't be called so, or fails.
    """
    args, kwargs = _arguments(model, data)
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise _refused(
            f"data is given, but the model can't be copied for a trial: {error}"
        ) from error
    seen: dict[str, Call] = {}
    new = {f"{name}_dict" for name in (*NODE_FIELDS, *new_fields)}
    for layer in layers:
        part = twin.get_submodule(layer.path)
        held: dict[str, Any] = {}
        part.register_forward_pre_hook(_hold_back(held, new), with_kwargs=True)
        part.register_forward_hook(_keep(seen, layer.path, held), with_kwargs=True)
    try:
        with _in_evaluation(twin), torch.random.fork_rng(devices=gpus(model)):
            twin(*args, **kwargs)
    except Exception as error:
        raise _refused(
            f"the model as it is, before any swap, fails on this data: {type(error).__name__}: {error}"
        ) from error
    missed = [layer.path for layer in layers if layer.path not in seen]
    return seen, [f"{path} was not called by the model on this data" for path in missed]


def answer(
    module: nn.Module, call: Call, values: Mapping[tuple[str, Any], Any] | None = None
) -> dict[str, Any]:
    """What a replacement gives for a call, without gradients and dropout.

    Args:
        module: The replacement.
        call: What it is called with.
        values: What takes the place of some values (see :meth:`Call.with_values`).
    """
    args, kwargs = call.with_values(values or {})
    with _in_evaluation(module):
        out: dict[str, Any] = module(*args, **kwargs)
    return out


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    """No gradients, no dropout; modes come back as they were."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def gpus(model: nn.Module) -> list[int]:
    """CUDA devices whose random numbers the initialisation of a model may draw."""
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


def _hold_back(held: dict[str, Any], new: Collection[str]) -> Any:
    """A hook that calls a layer without the arguments that only its replacement takes, and keeps them in ``held``."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        held.clear()
        taken = _taken(module)
        if taken is not None:
            held.update({k: v for k, v in kwargs.items() if k in new and k not in taken})
        return args, {k: v for k, v in kwargs.items() if k not in held}

    return hook


def _taken(layer: nn.Module) -> set[str] | None:
    """Names of the arguments that a layer takes; None if any."""
    convs = layer.convs.values() if isinstance(layer, HeteroConv) else [layer]
    parameters = [p for conv in convs for p in inspect.signature(conv.forward).parameters.values()]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    end = "_dict" if isinstance(layer, HeteroConv) else ""
    return {f"{p.name}{end}" for p in parameters}


def _keep(seen: dict[str, Call], path: str, held: dict[str, Any]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if path in seen:
            return
        if isinstance(out, tuple):
            # The copy is called as the model calls it, HANConv's semantic attention weights included.
            without_semantic(args, kwargs)
        dictionaries = tuple(a for a in args if isinstance(a, Mapping))
        named = {k: v for k, v in {**kwargs, **held}.items() if k.endswith("_dict")}
        inputs = HeteroInputs("swap", dictionaries, named)
        fields: dict[EdgeType, set[str]] = {}
        for name, values in inputs.fields.items():
            for key, value in values.items():
                if isinstance(key, tuple) and value is not None:
                    fields.setdefault(key, set()).add(name)
        sizes = {t: x.size(-1) for t, x in inputs.x_dict.items() if isinstance(x, Tensor)}
        seen[path] = Call(dictionaries, named, out, sizes, fields, tuple(held))

    return hook


def _arguments(model: nn.Module, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(data, list) and data and all(hasattr(d, "metadata") for d in data):
        raise _refused(
            f"data is a list of {len(data)} graphs; give one of them, or all as Batch.from_data_list(data)"
        )
    if isinstance(data, tuple | list):
        return tuple(data), {}
    if isinstance(data, Mapping):
        return (), dict(data)
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
            kwargs[name] = data
        elif parameter.default is parameter.empty:
            if not kwargs and name in ("x", "edge_index"):
                kwargs[name] = data.collect(name, allow_empty=True)
                continue
            raise _refused(
                f"the model's forward has the argument '{name}', which a HeteroData does not say; pass data=(…), the tuple of "
                "arguments with which you call the model"
            )
    return (), kwargs


def _refused(message: str) -> SwapError:
    return SwapError([Problem("", message, "trial")])

"""One call of a copy of the model on data, watched at its layers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import HeteroConv

from pyg_nsa.nn.call_fields import NODE_FIELDS, POSITIONAL, ReadFields
from pyg_nsa.nn.hetero_inputs import HeteroInputs
from pyg_nsa.swapping.arguments import arguments
from pyg_nsa.swapping.layers import EdgeType, Layer
from pyg_nsa.swapping.problems import trial_error
from pyg_nsa.swapping.swapped_conv import without_semantic
from pyg_nsa.swapping.twin import twin_of

__all__ = ["Call", "answer", "watch"]


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
    args, kwargs = arguments(model, data)
    seen: dict[str, Call] = {}
    new = {f"{name}_dict" for name in (*NODE_FIELDS, *new_fields)}
    with twin_of(model) as twin:
        for layer in layers:
            part = twin.get_submodule(layer.path)
            part.forward = _watched(part, seen, layer.path, new)
        try:
            twin(*args, **kwargs)
        except Exception as error:
            raise trial_error(
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
        with torch.no_grad(), warnings.catch_warnings():
            # The report says it.
            warnings.filterwarnings("ignore", ".* which none of its relations reads")
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _watched(
    layer: nn.Module, seen: dict[str, Call], path: str, new: Collection[str]
) -> Callable[..., Any]:
    """A layer's forward, which keeps its first call, and goes without the arguments that only the replacement takes."""
    forward, taken = layer.forward, _taken(layer)

    def watched(*args: Any, **kwargs: Any) -> Any:
        held = {}
        if taken is not None:
            held = {k: v for k, v in kwargs.items() if k in new and k not in taken}
        kwargs = {k: v for k, v in kwargs.items() if k not in held}
        out = forward(*args, **kwargs)
        if path not in seen:
            seen[path] = _read(args, kwargs, held, out)
        return out

    return watched


def _taken(layer: nn.Module) -> set[str] | None:
    """Names of the arguments that a layer takes; None if any."""
    convs = layer.convs.values() if isinstance(layer, HeteroConv) else [layer]
    parameters = [p for conv in convs for p in inspect.signature(conv.forward).parameters.values()]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    end = "_dict" if isinstance(layer, HeteroConv) else ""
    return {f"{p.name}{end}" for p in parameters}


def _read(args: tuple[Any, ...], kwargs: dict[str, Any], held: dict[str, Any], out: Any) -> Call:
    if isinstance(out, tuple):
        # The copy is called as the model calls it, HANConv's semantic attention weights included.
        without_semantic(args, kwargs)
    dictionaries = tuple(a for a in args if isinstance(a, Mapping))
    named = {k: v for k, v in {**kwargs, **held}.items() if k.endswith("_dict")}
    # The layer takes all of them, whatever their names resemble.
    read = ReadFields(frozenset(k.removesuffix("_dict") for k in named))
    inputs = HeteroInputs("swap", dictionaries, named, read=read)
    fields: dict[EdgeType, set[str]] = {}
    for name, values in inputs.fields.items():
        for key, value in values.items():
            if isinstance(key, tuple) and value is not None:
                fields.setdefault(key, set()).add(name)
    sizes = {t: x.size(-1) for t, x in inputs.x_dict.items() if isinstance(x, Tensor)}
    return Call(dictionaries, named, out, sizes, fields, tuple(held))

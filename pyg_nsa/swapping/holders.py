"""What else of a model holds a layer, besides the places where torch looks for modules."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from pyg_nsa.errors import Problem
from pyg_nsa.swapping.layers import Layer

__all__ = ["held_elsewhere"]

_TORCHS_OWN = frozenset(vars(nn.Module()))
_CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_HOLDERS: dict[type, str] = {
    partial: "functools.partial",
    MethodType: "bound method",
    FunctionType: "function",
    weakref.ref: "weak reference",
    nn.Module: "plain attribute",
}
_CLOSED = (type, ModuleType, Tensor, np.ndarray, *weakref.ProxyTypes)


def held_elsewhere(model: nn.Module, layers: Sequence[Layer]) -> list[Problem]:
    """What would keep a layer after its place has been given to another module.

    Looks through plain containers, ``functools.partial``, bound methods, closures, defaults of arguments and attributes of
    objects, as deep as they go. What a function takes from the names of its file is not seen; a trial on data is (see
    :mod:`~pyg_nsa.swapping.rehearsal`).

    Args:
        model: The model.
        layers: Those that are to be replaced.

    Returns:
        One problem for each place.
    """
    wanted = {id(layer.module): layer for layer in layers}
    inside = tuple(f"{path}." for layer in layers for path in layer.paths)
    # Modules of the model are gone through on their own: what stands in a place of theirs is looked up there at each call.
    seen = {id(module) for module in model.modules()}
    problems = []
    for path, module in model.named_modules():
        if id(module) in wanted or path.startswith(inside):
            continue  # what a layer consists of goes with it
        own = {name: value for name, value in vars(module).items() if name not in _TORCHS_OWN}
        problems += [
            _problem(wanted[id(value)], f"{path}.{name}".lstrip("."), module)
            for name, value in own.items()
            if id(value) in wanted
        ]
        todo = deque((f"{path}.{name}".lstrip("."), value) for name, value in own.items())
        while todo:
            place, holder = todo.popleft()
            if id(holder) in seen or issubclass(type(holder), _CLOSED):
                continue
            seen.add(id(holder))
            for part, value in _parts(holder):
                if id(value) in wanted:
                    problems.append(_problem(wanted[id(value)], place, holder))
                else:
                    todo.append((f"{place}{part}", value))
    return problems


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, each with what is written behind the value's name to get there."""
    kind = type(value)
    if issubclass(kind, dict):
        yield from ((f"[{key!r}]", held) for key, held in value.items())
    elif issubclass(kind, _CONTAINERS):
        yield from ((f"[{place}]", held) for place, held in enumerate(value))
    elif issubclass(kind, partial):
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", value.keywords
    elif issubclass(kind, MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif issubclass(kind, FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield f" ({name})", cell.cell_contents
            except ValueError:  # nothing has been assigned to the name yet
                continue
        yield ".__defaults__", value.__defaults__
        yield ".__kwdefaults__", value.__kwdefaults__
    elif issubclass(kind, weakref.ref):
        yield "()", value()
    if hasattr(value, "__dict__"):
        yield from ((f".{name}", held) for name, held in vars(value).items())


def _problem(layer: Layer, place: str, holder: Any) -> Problem:
    kind = type(holder)
    if issubclass(kind, _CONTAINERS):
        return Problem(
            layer.path,
            f"'{place}', a plain {kind.__name__}, also holds this layer and would keep the old one; use a torch.nn.ModuleList or "
            "ModuleDict",
            "plain_container",
        )
    what = next((text for one, text in _HOLDERS.items() if issubclass(kind, one)), kind.__name__)
    return Problem(
        layer.path,
        f"'{place}', a {what}, also holds this layer and would keep the old one; let it look the layer up when it is called "
        f"(model.{layer.path}), or make it after the swap",
        "held_elsewhere",
    )

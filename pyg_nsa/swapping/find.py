"""Which layers of a model are to be replaced, and what to say where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch_geometric.nn import HANConv, HeteroConv, HGTConv, MessagePassing

from pyg_nsa.errors import Problem, nearest
from pyg_nsa.nn import HeteroNSAConv
from pyg_nsa.swapping.holders import held_elsewhere
from pyg_nsa.swapping.layers import Layer, can_replace, read, width_of
from pyg_nsa.swapping.problems import SwapError
from pyg_nsa.swapping.swapped_conv import SwappedConv

__all__ = ["find"]


def find(model: nn.Module, where: str | Sequence[str]) -> tuple[list[Layer], list[str]]:
    """The layers of a model that a glob over their paths chooses, and notes about what is left alone.

    A module at several places is one layer, chosen if any of its paths is.

    Raises:
        SwapError: No layer, one that is the model itself, or one that something else than a module also holds.
    """
    globs = _globs(where)
    places: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        places.setdefault(module, []).append(path)
    inside = [p for m, paths in places.items() if isinstance(m, _DONE) for p in paths]
    chosen, notes = [], []
    for module, paths in places.items():
        matches = any(fnmatchcase(path, glob) for path in paths for glob in globs)
        if not matches or any(path.startswith(f"{p}.") for path in paths for p in inside):
            continue
        if can_replace(module):
            chosen.append(read(module, paths))
        elif isinstance(module, _KNOWN) and not isinstance(module, HeteroNSAConv):
            notes.append(
                f"{paths[0]} is a {type(module).__name__} with a forward of its own, whose call swap can't know: left alone"
            )
    transformed = {p[0]: layers for m, p in places.items() if (layers := _to_hetero(m))}
    found = [path for layer in chosen for path in layer.paths]
    missed = [glob for glob in globs if not any(fnmatchcase(path, glob) for path in found)]
    if missed:
        _nothing(places, missed, transformed)
    notes += [
        f"{p or 'the model'} was made by to_hetero, which leaves no layer to replace: left alone"
        for p in transformed
    ]
    _check_wrappers(model, chosen)
    _check_places(model, chosen)
    return chosen, notes


def _globs(where: str | Sequence[str]) -> list[str]:
    if isinstance(where, str):
        return [where]
    if isinstance(where, list | tuple) and where and all(isinstance(one, str) for one in where):
        return list(where)
    raise TypeError(f"where must be a glob such as 'encoder.*', or a list of some, got {where!r}")


_KNOWN = (HeteroConv, HGTConv, HANConv)
_DONE = (HeteroNSAConv, SwappedConv)


def _check_places(model: nn.Module, layers: list[Layer]) -> None:
    problems = []
    for layer in layers:
        if "" in layer.paths:
            problems.append(
                Problem(
                    "",
                    f"the model itself is the {layer.name}, and swap replaces layers inside of a model: put it into one, or "
                    "build its replacement with HeteroNSAConv.from_config(config)",
                    "root",
                )
            )
    problems += held_elsewhere(model, layers)
    if problems:
        raise SwapError(problems)


def _check_wrappers(model: nn.Module, layers: list[Layer]) -> None:
    """Refuses layers inside of what has looked at the model's parameters or code already."""
    problems = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        what = _wrapper(module)
        if what and any(p.startswith(prefix) for layer in layers for p in layer.paths):
            problems.append(
                Problem(
                    path,
                    f"{'the module' if path else 'the model'} went through {what} already, which would go on with the old layers: swap "
                    f"first, then {what}",
                    "wrapped",
                )
            )
    if problems:
        raise SwapError(problems)


def _wrapper(module: nn.Module) -> str:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return type(module).__name__
    return "torch.compile" if hasattr(module, "_orig_mod") else ""


def _nothing(
    places: dict[nn.Module, list[str]],
    globs: list[str],
    transformed: dict[str, dict[str, nn.ModuleDict]],
) -> None:
    there = [(paths[0], m) for m, paths in places.items() if can_replace(m)]
    if there:
        names = [path for path, _ in there]
        listed = ", ".join(f"{path} ({type(m).__name__})" for path, m in there)
        message = (
            f"where={' or '.join(map(repr, globs))} matches no layer; layers that swap can replace: {listed}",
            "no_match",
        )
        raise SwapError([Problem("", *message, suggestion=_wider(globs[0], names))])
    if transformed:
        raise SwapError([Problem(p, _refusal(t), "to_hetero") for p, t in transformed.items()])
    like = [
        f"{paths[0] or 'the model itself'} ({type(m).__name__})"
        for m, paths in places.items()
        if isinstance(m, (MessagePassing, *_KNOWN, *_DONE))
    ]
    raise SwapError(
        [
            Problem(
                "",
                "the model has no layer to replace: swap knows HeteroConv, HGTConv and HANConv; "
                + (f"its convolutions: {', '.join(like)}" if like else "it has no convolutions"),
                "no_layer",
            )
        ]
    )


def _wider(glob: str, names: list[str]) -> str | None:
    """A glob near to one that matches none of the names, which matches some."""
    for near in (glob.replace(".*", "*"), f"{glob}*", f"*.{glob}", f"*{glob}*"):
        if any(fnmatchcase(name, near) for name in names):
            return near
    return nearest(glob, names)


# --- to_hetero ------------------------------------------------------------------------------------------------------------------


def _to_hetero(module: nn.Module) -> dict[str, nn.ModuleDict]:
    """The convolutions of a model that to_hetero made, by name: one dictionary each, with a conv per edge type."""
    if not isinstance(module, torch.fx.GraphModule):
        return {}
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleDict)
        and len(part) > 0
        and all(k.count("__") >= 2 and isinstance(c, MessagePassing) for k, c in part.items())
    }


def _refusal(layers: dict[str, nn.ModuleDict]) -> str:
    first = next(iter(layers.values()))
    types = [tuple(key.split("__", 2)) for key in first]
    names = [name.replace(".", "_") for name in layers]
    built, calls = [], []
    for name, part in zip(names, layers.values(), strict=True):
        width = width_of(next(iter(part.values())))
        heads = "" if width is None or width % 4 == 0 else f", heads={2 if width % 2 == 0 else 1}"
        size = "..." if width is None else width
        built.append(
            f'        self.{name} = HeteroNSAConv(dict.fromkeys(edge_types, "adjacency_mask"), hidden_channels={size}{heads})'
        )
        calls.append(f"        x_dict = self.{name}(x_dict, edge_index_dict)")
        calls.append("        x_dict = {t: x.relu() for t, x in x_dict.items()}")
    code = [
        f"edge_types = {types}",
        "class Model(torch.nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        *built,
        "    def forward(self, x_dict, edge_index_dict):",
        *calls[:-1],
        "        return x_dict",
    ]
    convs = ", ".join(
        f"{name}: {len(part)} x {type(next(iter(part.values()))).__name__}"
        for name, part in layers.items()
    )
    return (
        "to_hetero has written the message passing of this model out in a traced graph, conv by conv "
        f"({convs}), so there is no layer to replace. In place of to_hetero(...), write the layers as HeteroConv and swap "
        "those, or as HeteroNSAConv at once:\n\n"
        + "\n".join(f"    {line}" if line else line for line in code)
        + "\n"
    )

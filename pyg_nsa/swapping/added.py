"""What a layer has that its PyG class does not have: a model may use it besides the layer's call."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import nn
from torch_geometric.nn import HANConv, HeteroConv, HGTConv

from pyg_nsa.errors import Problem
from pyg_nsa.swapping.layers import replaced_class
from pyg_nsa.swapping.plan import Plan
from pyg_nsa.swapping.problems import SwapError

__all__ = ["lacking", "settle"]

_METADATA = (["a"], [("a", "r", "a")])
_EXAMPLES = {
    HeteroConv: lambda: HeteroConv({("a", "r", "a"): nn.Identity()}),
    HGTConv: lambda: HGTConv(1, 1, _METADATA),
    HANConv: lambda: HANConv(1, 1, _METADATA),
}


def lacking(plan: Plan, module: nn.Module) -> str:
    """What a layer has that neither its PyG class nor its replacement has, in words; empty if nothing."""
    layer = plan.layer
    parts, others = _added(layer.module)
    names = [*parts, *(name for name in others if not hasattr(module, name))]
    if not names:
        return ""
    kind = type(layer.module).__name__
    who = f"its {kind}" if kind == layer.name else f"its class {kind}"
    return f"{who} has {', '.join(names)} besides what a {layer.name} has; what takes its place has not"


def settle(plans: Sequence[Plan], built: Sequence[nn.Module], called: Container[str]) -> None:
    """Notes what a layer lacks where a model got along with its replacement; else warns, or refuses.

    Args:
        plans: The plans, whose notes and warnings are added to.
        built: Their replacements.
        called: Paths of those that a rehearsal called.

    Raises:
        SwapError: Submodules, parameters or buffers go with a layer, and nothing shows that the model can do without.
    """
    problems = []
    for plan, module in zip(plans, built, strict=True):
        text = lacking(plan, module)
        if not text:
            continue
        if plan.layer.path in called:
            plan.notes.append(text)
        elif _added(plan.layer.module)[0]:
            problems.append(Problem(plan.layer.path, f"{text}; {_MEND}", "added_parts"))
        else:
            plan.warnings.append(text)
    if problems:
        raise SwapError(problems)


_MEND = (
    "pass data=…, with which the swapped model is tried, keep such parts beside the layer and not in it, or leave the layer as it is "
    "(where='…')"
)


def _added(layer: nn.Module) -> tuple[list[str], list[str]]:
    """Submodules, parameters and buffers that a plain layer of the same PyG class does not have; other public names."""
    base = replaced_class(layer)
    with torch.device("meta"):  # draws no random numbers
        plain = _EXAMPLES[base]()
    parts = [name for name in _parts(layer) if name not in _parts(plain)]
    names = [*vars(layer), *(name for name in dir(type(layer)) if not hasattr(base, name))]
    others = [n for n in names if not (n in vars(plain) or n.startswith("_") or n in parts)]
    return parts, list(dict.fromkeys(others))


def _parts(module: nn.Module) -> list[str]:
    return [*module._modules, *module._parameters, *module._buffers]

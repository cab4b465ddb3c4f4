"""Rows and notes of a swap's report."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.parameter import is_lazy

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import nearest
from pyg_nsa.plain_values import plain_values
from pyg_nsa.swapping.attempt import was_tried
from pyg_nsa.swapping.layers import Layer, describe
from pyg_nsa.swapping.plan import Plan
from pyg_nsa.swapping.problems import show
from pyg_nsa.swapping.report import SwapRow
from pyg_nsa.swapping.trial import Call

__all__ = ["row_of", "sharing", "strangers"]


def row_of(plan: Plan, module: nn.Module, calls: Mapping[str, Call]) -> SwapRow:
    """The row of a layer, before and after."""
    layer = plan.layer
    tried = was_tried(plan, calls)
    unknown_before = calls[layer.path].unknown_before if layer.path in calls else ()
    path, *others = layer.paths
    new = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    gone = [n for n, _ in layer.module.named_parameters(remove_duplicate=False) if n not in new]
    hooked = [
        name or "itself"
        for name, part in layer.module.named_modules()
        if any(map(_is_the_users, _hooks(part)))
    ]
    notes = list(plan.notes)
    if hooked:
        notes.append(f"hooks go with the old modules: {', '.join(hooked)}")
    if gone and not any(p.requires_grad for p in layer.module.parameters()):
        notes.append("its parameters were frozen (requires_grad=False); the new ones are trained")
    if unknown_before:
        notes.append(
            f"tried without {', '.join(unknown_before)} before the swap, which only its replacement takes"
        )
    if layer.name == "HANConv":
        notes.append("return_semantic_attention_weights=True is refused: there are no such weights")
    own = plan.config
    shown = [f"hidden={own.hidden_channels}", f"heads={own.heads}"]
    if own.operator == "hetero_nsa":  # the others are one step, whatever the pattern
        shown = [f"pattern={own.pattern!r}", *shown[own.pattern is None :]]
    before, after = (_count(m) for m in (layer.module, module))
    sizes = own.in_channels if isinstance(own.in_channels, dict) else {}
    return SwapRow(
        path,
        tuple(others),
        describe(layer.module),
        f"{'HeteroNSAConv' if own.operator == 'hetero_nsa' else own.operator}({', '.join(shown)})",
        tuple(plan.relations),
        tuple(plan.unused),
        dict(sizes),
        dict(plan.widths),
        before[0],
        after[0],
        before[1],
        after[1],
        tuple(f"{path}.{name}" for name in gone),
        plain_values(own, exclude_defaults=True),
        tried,
        tuple(notes),
        tuple(plan.warnings),
    )


def _count(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    lazy = [p for p in parameters if is_lazy(p)]
    return sum(p.numel() for p in parameters if not is_lazy(p)), len(lazy)


def strangers(layers: list[Layer], config: HeteroNSAConfig) -> list[str]:
    """Notes about edge types of the configuration that no layer has."""
    there = list(dict.fromkeys(e for layer in layers for e in layer.convs))
    notes = []
    for spec in config.edges:
        if spec.edge_type not in there:
            near = nearest(show(spec.edge_type), map(show, there))
            question = f"; did you mean {near}?" if near else ""
            notes.append(f"edges has {show(spec.edge_type)}, which no replaced layer has{question}")
    return notes


def sharing(model: nn.Module, layers: list[Layer]) -> list[str]:
    """Notes about parameters that a replaced layer shared with the rest of the model, or with another layer."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    notes = []
    for layer in layers:
        prefixes = tuple(f"{path}." for path in layer.paths)
        shared = [
            (mine[0], others)
            for same in names.values()
            if (mine := [n for n in same if n.startswith(prefixes)])
            and (others := [n for n in same if not n.startswith(prefixes)])
        ]
        if shared:
            listed = ", ".join(f"{mine} (also {', '.join(others)})" for mine, others in shared)
            notes.append(f"parameters of {layer.path} that are shared no longer: {listed}")
    return notes


def _hooks(module: nn.Module) -> list[object]:
    """What runs around a module's forward and backward pass."""
    sorts = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    return [hook for sort in sorts for hook in sort.values()]


def _is_the_users(hook: object) -> bool:
    """Whether a hook is not one with which torch and PyG find the sizes of lazy parameters."""
    return not str(getattr(hook, "__module__", "")).startswith(("torch.", "torch_geometric."))

"""``swap``: plan all layers, build all replacements, then put them in."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import Problem, nearest
from pyg_nsa.load import load_config
from pyg_nsa.registry import Registry
from pyg_nsa.swapping.find import find
from pyg_nsa.swapping.layers import EdgeType, Layer, describe
from pyg_nsa.swapping.mixing import graph_of_nodes, mixes_graphs
from pyg_nsa.swapping.plan import Plan, SwapConfig, build, make_plan
from pyg_nsa.swapping.problems import SwapError, show
from pyg_nsa.swapping.report import SwapReport, SwapRow
from pyg_nsa.swapping.trial import Call, gpus, in_evaluation, watch
from pyg_nsa.swapping.unread import unread_fields

__all__ = ["swap"]

_MIXES = (
    "graphs of a batch see each other (self-attention, S, and kinds that pair nodes without edges), since the call does not say which "
    "graph a node is of: let the model's forward pass batch_dict=data.batch_dict, or use 'pattern: M'"
)


def swap(
    model: nn.Module,
    config: HeteroNSAConfig | Mapping[str, Any] | str | Path,
    data: Any = None,
    dry_run: bool = False,
    *,
    where: str | Sequence[str] = "*",
    registry: Registry | None = None,
) -> SwapReport:
    """Replaces the heterogeneous convolutions of a model by the operator that a configuration declares.

    Layers are :class:`~torch_geometric.nn.HeteroConv`, :class:`~torch_geometric.nn.HGTConv` and
    :class:`~torch_geometric.nn.HANConv` modules. What replaces one has its edge types and channels, its mode, device and dtype,
    and is called as it was. The model is changed in place, all layers or (on an error) none.

    Args:
        model: The model.
        config: A configuration, a mapping, or the path of a YAML, JSON or TOML file. Without ``edges`` each edge type gets a
            default kind. ``in_channels``, ``out_channels`` and HeteroConv's ``aggr`` are the layer's; ``hidden_channels`` and
            ``heads`` are as well where the configuration does not set them.
        data: A ``HeteroData``, or the arguments of the model's call (a tuple, or a mapping by name). A copy of the model is then
            called once, to see sizes and fields that modules do not tell, and each replacement is called as its layer was.
        dry_run: Only report; the model and the state of random numbers stay as they are.
        where: A glob over the paths in ``model.named_modules()``, or several.
        registry: Where kinds are looked up (default: the installed plugins).

    Returns:
        A report: ``print(report)`` shows a table of before and after.

    Raises:
        SwapError: All that stands in the way, with the paths of the layers; the model is as it was.
        ConfigError: The configuration is not valid.
        TypeError: ``model`` is no module, or ``data`` no data.
    """
    _check_arguments(model, config)
    if not isinstance(config, HeteroNSAConfig):
        config = load_config(config, SwapConfig, registry=registry)
    layers, notes = find(model, where)
    calls: dict[str, Call] = {}
    if data is not None:
        calls, missed = watch(model, layers, data, _fields(config, registry))
        notes += missed
    _check_node_types(layers, config)
    plans = _plans(layers, config, calls, registry)
    with torch.random.fork_rng(devices=gpus(model), enabled=dry_run):
        built = _build_all(plans, calls, graph_of_nodes(data), _with_ids(data), registry)
    notes += _strangers(layers, config)
    notes += _sharing(model, layers)
    rows = tuple(_row(plan, module, calls) for plan, module in zip(plans, built, strict=True))
    if not dry_run:
        for layer, module in zip(layers, built, strict=True):
            for path in layer.paths:
                parent, _, name = path.rpartition(".")
                model.get_submodule(parent)._modules[name] = module
    return SwapReport(rows, dry_run, tuple(notes))


def _check_arguments(model: Any, config: Any) -> None:
    if isinstance(model, nn.Module) and not isinstance(config, nn.Module):
        if not isinstance(config, HeteroNSAConfig | Mapping | str | Path):
            raise TypeError(
                "swap expects its configuration as a mapping, a HeteroNSAConfig, or the path of a file, got "
                f"{type(config).__name__}"
            )
        return
    got = f"a {type(model).__name__}"
    if isinstance(model, type) and issubclass(model, nn.Module):
        got = f"the class {model.__name__}: make a model of it first, {model.__name__}(...)"
    elif isinstance(config, nn.Module):
        got += ", and a module as its configuration: the model comes first, swap(model, config)"
    raise TypeError(f"swap expects a torch.nn.Module as its model, got {got}")


def _fields(config: HeteroNSAConfig, registry: Registry | None) -> set[str]:
    """Fields that the kinds of a configuration read."""
    lookup = config.registry(registry)
    return {
        name for spec in config.edges for name in lookup.edge_kind(spec.kind).fields(spec.options)
    }


def _plans(
    layers: list[Layer],
    config: HeteroNSAConfig,
    calls: Mapping[str, Call],
    registry: Registry | None,
) -> list[Plan]:
    plans: list[Plan] = []
    problems: list[Problem] = []
    for layer in layers:
        plan = make_plan(layer, config, calls.get(layer.path), registry)
        if isinstance(plan, Plan):
            plans.append(plan)
        else:
            problems += plan
    if problems:
        hint = ""
        if any(p.code == "unmatched_edge_type" for p in problems):
            listed = ", ".join(show(spec.edge_type) for spec in config.edges)
            hint = (
                f"edges has {listed}; add an entry for each edge type that lacks one, set 'unmatched: skip' to leave such edge "
                "types out, or choose fewer layers with where='…'"
            )
        raise SwapError(problems, hint)
    return plans


def _build_all(
    plans: list[Plan],
    calls: Mapping[str, Call],
    graph_of: Mapping[str, Tensor],
    numbered: Collection[str],
    registry: Registry | None,
) -> list[nn.Module]:
    built: list[nn.Module] = []
    problems: list[Problem] = []
    cause: Exception | None = None
    for plan in plans:
        layer = plan.layer
        try:
            with warnings.catch_warnings():
                # The HeteroConv has said this already.
                warnings.filterwarnings("ignore", "There exist node types")
                module = build(plan, registry)
            tensors = [*layer.module.parameters(), *layer.module.buffers()]
            like = next((t for t in tensors if t.is_floating_point()), None)
            if like is not None:
                module.to(device=like.device, dtype=like.dtype)
            module.train(layer.module.training)
            if _was_tried(plan, calls):
                _try(plan, module, calls[layer.path])
                if graph_of and mixes_graphs(module, calls[layer.path], graph_of):
                    plan.warnings.append(_MIXES)
                if _may_leave_unread(plan.config):
                    plan.warnings += _unread(plan, module, calls[layer.path])
                plan.warnings += _lost_ids(plan, calls[layer.path], numbered)
        except Exception as error:
            problems.append(Problem(layer.path, _reason(error), "build"))
            cause = cause or error
            continue
        built.append(module)
    if problems:
        raise SwapError(problems) from cause
    return built


def _reason(error: Exception) -> str:
    """Why a replacement can't be built or called; assertions in convs have no words of their own."""
    notes = getattr(error, "__notes__", ())
    if str(error):
        return "; ".join([str(error), *notes])
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"its replacement fails with {type(error).__name__} in {place.name}, {Path(place.filename).name}:{place.lineno}"
    return "; ".join([f"{text}: {place.line}" if place.line else text, *notes])


def _may_leave_unread(config: HeteroNSAConfig) -> bool:
    """Whether edges or fields may matter to nothing without a word of the plan: another operator, or blocks that use no edges."""
    return config.operator != "hetero_nsa" or (
        config.pattern is not None and "M" not in config.pattern
    )


def _unread(plan: Plan, module: nn.Module, call: Call) -> list[str]:
    """What went into the layer and makes no difference any more, where the plan does not say so already."""
    known = {(name, r.edge_type) for r in plan.relations for name in r.unread}
    found = [one for one in unread_fields(module, call, plan.layer.convs) if one not in known]
    by_field: dict[str, list[EdgeType]] = {}
    for name, edge_type in found:
        by_field.setdefault(name, []).append(edge_type)
    return [
        f"{name} of {', '.join(map(show, edge_types))} went into the {plan.layer.name}, and makes no difference to the rows of its "
        "replacement"
        for name, edge_types in by_field.items()
    ]


def _with_ids(data: Any) -> list[str]:
    """Node types of which the data say by `n_id` which nodes of the base graph there are."""
    if not hasattr(data, "node_types"):
        return []
    return [t for t in data.node_types if data[t].get("n_id") is not None]


def _lost_ids(plan: Plan, call: Call, numbered: Collection[str]) -> list[str]:
    passed = call.kwargs.get("n_id_dict") or {}
    lost = [t for t in plan.config.num_nodes if t in numbered and t not in passed]
    if not lost or plan.config.operator != "hetero_nsa":
        return []
    return [
        f"n_id of {', '.join(lost)} is in the data and does not reach the layer, so learned embeddings go by rows: let the model's "
        "forward pass n_id_dict=data.n_id_dict"
    ]


def _was_tried(plan: Plan, calls: Mapping[str, Call]) -> bool:
    return plan.layer.path in calls and not plan.lacks_fields


def _try(plan: Plan, module: nn.Module, call: Call) -> None:
    """Calls a replacement as its layer was called; lazy parameters get their sizes."""
    with in_evaluation(module):
        out = module(*call.args, **call.kwargs)
    for node_type, before in call.out.items():
        # None: no messages in this call; a stack of blocks has rows even then.
        now = out.get(node_type)
        if node_type in out and (before is None or (now is not None and now.shape == before.shape)):
            continue
        got = "nothing" if now is None else f"shape {list(now.shape)}"
        raise ValueError(
            f"called as the {plan.layer.name} was called, its replacement gives {got} for node type '{node_type}', the layer "
            f"gave {'None' if before is None else f'shape {list(before.shape)}'}"
        )


def _row(plan: Plan, module: nn.Module, calls: Mapping[str, Call]) -> SwapRow:
    layer = plan.layer
    tried = _was_tried(plan, calls)
    unknown_before = calls[layer.path].unknown_before if layer.path in calls else ()
    path, *others = layer.paths
    new = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    gone = [n for n, _ in layer.module.named_parameters(remove_duplicate=False) if n not in new]
    hooked = [
        name or "itself"
        for name, part in layer.module.named_modules()
        if any(
            map(_is_the_users, (*part._forward_hooks.values(), *part._forward_pre_hooks.values()))
        )
    ]
    notes = list(plan.notes)
    if hooked:
        notes.append(f"hooks go with the old modules: {', '.join(hooked)}")
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
        own.model_dump(mode="json", exclude_defaults=True),
        tried,
        tuple(notes),
        tuple(plan.warnings),
    )


def _count(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    lazy = [p for p in parameters if is_lazy(p)]
    return sum(p.numel() for p in parameters if not is_lazy(p)), len(lazy)


def _check_node_types(layers: list[Layer], config: HeteroNSAConfig) -> None:
    """Refuses names of node types that neither a layer nor an edge type has; each layer takes of them what it has."""
    declared = (t for spec in config.edges for t in (spec.edge_type[0], spec.edge_type[2]))
    of_layers = (t for layer in layers for t in layer.node_types)
    there = list(dict.fromkeys((*of_layers, *declared)))
    problems = [
        Problem(
            "",
            f"{key} names node type '{name}', which no replaced layer has; node types: {', '.join(there)}",
            "unknown_node_type",
            suggestion=nearest(name, there),
        )
        for key, names in (
            ("sab.node_types", config.sab.node_types or ()),
            ("num_nodes", config.num_nodes),
        )
        for name in names
        if name not in there
    ]
    if problems:
        raise SwapError(problems)


def _strangers(layers: list[Layer], config: HeteroNSAConfig) -> list[str]:
    """Notes about edge types of the configuration that no layer has."""
    there = list(dict.fromkeys(e for layer in layers for e in layer.convs))
    notes = []
    for spec in config.edges:
        if spec.edge_type not in there:
            near = nearest(show(spec.edge_type), map(show, there))
            question = f"; did you mean {near}?" if near else ""
            notes.append(f"edges has {show(spec.edge_type)}, which no replaced layer has{question}")
    return notes


def _sharing(model: nn.Module, layers: list[Layer]) -> list[str]:
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


def _is_the_users(hook: object) -> bool:
    """Whether a hook is not one with which torch and PyG find the sizes of lazy parameters."""
    return not str(getattr(hook, "__module__", "")).startswith(("torch.", "torch_geometric."))

"""``swap``: plan all layers, build all replacements, then put them in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import Problem, nearest
from pyg_nsa.load import load_config
from pyg_nsa.nn.declared import current_config
from pyg_nsa.registry import Registry
from pyg_nsa.swapping.added import settle
from pyg_nsa.swapping.attempt import attempt, reason, was_tried
from pyg_nsa.swapping.find import find
from pyg_nsa.swapping.layers import Layer
from pyg_nsa.swapping.plan import Plan, SwapConfig, build, make_plan
from pyg_nsa.swapping.problems import SwapError, show
from pyg_nsa.swapping.rehearsal import rehearse
from pyg_nsa.swapping.report import SwapReport
from pyg_nsa.swapping.rows import row_of, sharing, strangers
from pyg_nsa.swapping.trial import Call, watch
from pyg_nsa.swapping.trimming import warn_of_trimming
from pyg_nsa.swapping.twin import gpus

__all__ = ["swap"]


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
            called once, to see sizes and fields that modules do not tell, each replacement is called as its layer was, and a copy
            of the swapped model is called once, which has to call the replacements and no old layer.
        dry_run: Only report; the model and the state of random numbers stay as they are.
        where: A glob over the paths in ``model.named_modules()``, or several.
        registry: Where kinds are looked up (default: the installed plugins).

    Returns:
        A report: ``print(report)`` shows a table of before and after.

    Raises:
        SwapError: All that stands in the way, with the paths of the layers: something else that holds an old layer, submodules
            that a subclass adds, and so on; the model is as it was.
        ConfigError: The configuration is not valid.
        TypeError: ``model`` is no module, or ``data`` no data.
    """
    _check_arguments(model, config)
    if not isinstance(config, HeteroNSAConfig):
        config = load_config(config, SwapConfig, registry=registry)
    config = current_config(config, config.registry(registry))
    layers, notes = find(model, where)
    calls: dict[str, Call] = {}
    if data is not None:
        calls, missed = watch(model, layers, data, _fields(config, registry))
        notes += missed
    _check_node_types(layers, config)
    plans = _plans(layers, config, calls, registry)
    warn_of_trimming(plans, calls)
    with torch.random.fork_rng(devices=gpus(model), enabled=dry_run):
        built = _build_all(plans, calls, data, registry)
    called = set() if data is None else rehearse(model, plans, built, calls, data)
    settle(plans, built, called)
    notes += strangers(layers, config)
    notes += sharing(model, layers)
    rows = tuple(row_of(plan, module, calls) for plan, module in zip(plans, built, strict=True))
    if not dry_run:
        for layer, module in zip(layers, built, strict=True):
            layer.replace(model, module)
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
    data: Any,
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
            if was_tried(plan, calls):
                attempt(plan, module, calls[layer.path], data)
        except Exception as error:
            problems.append(Problem(layer.path, reason(error), "build"))
            cause = cause or error
            continue
        built.append(module)
    if problems:
        raise SwapError(problems) from cause
    return built


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

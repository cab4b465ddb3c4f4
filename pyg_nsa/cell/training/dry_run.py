"""What a training would be: the model, its parameters, its steps, and the memory of one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import PerturbationCollate
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.known_labels import check_known, part_lines
from pyg_nsa.cell.data.splits import Split, make_split
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.training.experiment import builders
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.cell.training.trainer import run_once, training_sampler

__all__ = ["dry_run", "parameter_counts", "saved_bytes"]


def dry_run(config: CellConfig, cache: Path | None = None) -> str:
    """Describes the training of a configuration, and writes nothing.

    Graph and labels come from the cache; what is not there is built in a temporary folder.

    Args:
        config: The configuration.
        cache: Where graphs and labels are kept between runs.

    Returns:
        Text for a terminal.

    Raises:
        ConfigError: The configuration does not fit the graph.
        ValueError: No training instance has a known label.
    """
    try:
        return _describe(config, open_dataset(config, cache, progress=False, build=False), True)
    except FileNotFoundError:
        with TemporaryDirectory() as folder:
            return _describe(config, open_dataset(config, Path(folder), progress=True), False)


def _describe(config: CellConfig, dataset: PerturbationDataset, cached: bool) -> str:
    graph, how = dataset.graph, config.training
    split = make_split(dataset.table, config.data.split, config.data.fractions, config.seed)
    check_known(split, dataset.table)
    sampler = training_sampler(dataset, split, config, config.seed)
    index = [i for _, i in zip(range(how.batch_size), sampler, strict=False)]
    batch = PerturbationCollate(graph)(dataset.__getitems__(index))
    sampler.set_epoch(0)
    lines = [f"{config.title}: dry run, nothing is trained or written", ""]
    nodes = ", ".join(f"{int(graph[t].num_nodes):,} {t}" for t in graph.node_types)
    lines.append(f"graph      {config.data.model}: {nodes}")
    if not cached:
        lines.append("           (not in the cache; built for this dry run only)")
    lines += [
        f"           {' '.join(t)}: {graph[t].edge_index.size(1):,}" for t in graph.edge_types
    ]
    lines += _instances(dataset, split)
    steps = -(-len(sampler) // how.batch_size)
    most = min(how.batch_size, len(sampler))
    limit = "" if how.max_minutes is None else f", or {how.max_minutes:g} minutes"
    lines.append(
        f"training   {steps:,} step{'s' * (steps != 1)} of {most} instances per epoch, {how.epochs} epochs: {steps * how.epochs:,} "
        f"steps at most{limit}"
    )
    y_train = torch.from_numpy(dataset.table.y[split.train])
    for name, build in builders(config).items():
        lightning.seed_everything(config.seed, verbose=False)
        module = CellModule(build(config, graph), graph, how, y_train, steps)
        run_once(module, [batch])
        lines += ["", f"model      {name}", *_parts(module.model), *_memory(module, batch)]
    return "\n".join(lines)


def _instances(dataset: PerturbationDataset, split: Split) -> list[str]:
    lines = [f"instances  {len(dataset):,}, {dataset.bytes_per_instance:.0f} bytes each"]
    return lines + [f"           {line}" for line in part_lines(split, dataset.table)]


# ---- parameters ------------------------------------------------------------------------------------------------------


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters by part: the children of the model, and those of its operator.

    Args:
        model: The model, with its lazy layers initialised.

    Returns:
        Dotted names and counts, parts without parameters left out; they sum to the whole.
    """
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        depth = 2 if words[0] == "operator" else 1
        part = ".".join(words[: min(depth, len(words) - 1)]) or name
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def _parts(model: nn.Module) -> list[str]:
    counts = parameter_counts(model)
    width = max(len(name) for name in [*counts, "all"])
    rows = [*counts.items(), ("all", sum(counts.values()))]
    return [f"           {name:<{width}}  {count:>12,} parameters" for name, count in rows]


# ---- memory ----------------------------------------------------------------------------------------------------------


def saved_bytes(module: CellModule, batch: Any) -> int:
    """Bytes that one forward pass keeps for the backward pass, parameters and the base graph left out.

    Every tensor that autograd saves is counted once, by its storage, so views cost nothing.
    """
    known = {_storage(t) for t in _tensors(module)}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        key = _storage(tensor)
        if key not in known:
            found[key] = tensor.untyped_storage().nbytes()
        return tensor

    kept: list[Tensor] = []  # a storage that is freed and used again would be counted once
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = module.loss(batch)
    loss.backward()
    module.zero_grad(set_to_none=True)
    return sum(found.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _tensors(module: CellModule) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    yield from _inside(module.graph.to_dict())
    yield from _inside(
        module.model.prepared(module.graph) if hasattr(module.model, "prepared") else {}
    )


def _inside(value: Any) -> Iterator[Tensor]:
    """Tensors in nested mappings and lists, and in objects that hold them as attributes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        yield from _inside(vars(value))


def _memory(module: CellModule, batch: Any) -> list[str]:
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    module.train()
    enabled = module.config.precision == "bf16-mixed"
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        saved = saved_bytes(module, batch)
    rows = [
        ("parameters", parameters),
        ("gradients", parameters),
        ("optimizer (AdamW: two moments)", 2 * parameters),
        (f"kept for the backward pass of {len(batch)} instances", saved),
        ("together", 4 * parameters + saved),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"           {name:<{width}}  {_size(count):>10}" for name, count in rows]
    return [
        "           memory of a step, measured on one forward and backward pass on the CPU:",
        *lines,
        "           (intermediate results of single operations come on top)",
    ]


def _size(count: int) -> str:
    if count < 2**20:
        return f"{count / 2**10:,.1f} KiB"
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.2f} GiB"

"""Training of the cell model in one process and in several: instances per second, and what a plan for more data needs.

Each measurement is a process group of its own, started by torchrun; one process runs by itself, without a group. Several
processes are measured twice: with the joint batch of one process, which is the same training, and with a joint batch that
grows with them, so that each has as much to do as one by itself. Rounds go through all of it, in a new random order each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import PerturbationLoader
from pyg_nsa.cell.data.splits import MixedSampler, make_split
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.labels.simulated import simulate_labels
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.network.metabolic_model import MetabolicNetwork, load_model
from pyg_nsa.cell.training.distributed import SharedBatches
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.load import load_config

from . import machine
from .machine import progress
from .page import fill
from .plan import plan_table
from .tables import table


def run(args: argparse.Namespace) -> int:
    """The command; 1 if a measurement failed."""
    if args.child_out:
        return _child(args)
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": _command(args),
        "machine": {**machine.describe(), "threads": args.threads},
        "threads_per_process": args.threads,
        "rows": [],
    }
    batch_size = args.batch_size or load_config(args.config, CellConfig).training.batch_size
    samples: dict[tuple[int, int], list[float]] = {}
    for n in args.processes:
        samples |= {(n, batch_size): [], (n, n * batch_size): []}
    work: list[float] = []
    order = list(samples)
    for number in range(args.rounds):
        random.Random(number).shuffle(order)
        for setting in order:
            processes, size = setting
            progress(
                f"== round {number + 1} of {args.rounds}: {processes} processes, batches of {size}"
            )
            found = _in_processes(processes, size, args)
            if "error" in found:
                print(f"FAILED: {processes} processes: {found['error']}", file=sys.stderr)
                return 1
            samples[setting].append(found.pop("instances_per_second"))
            seconds = found.pop("core_seconds")
            if setting == min(samples):
                work.append(seconds)
                results["training"] = found
    results["training"]["core_seconds"] = statistics.median(work)
    results["rows"] = rows(samples)
    if args.labels:
        progress("== labels")
        results["labels"] = simulate(load_config(args.config, CellConfig).data.model)
    for name, text in render(results).items():
        print(f"\n## {name}\n\n{text}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {args.out}")
    if args.write_docs:
        fill(args.out.parent / "scale_out.md", render(results))
    return 0


def rows(samples: dict[tuple[int, int], list[float]]) -> list[dict[str, float]]:
    """Medians, by number of processes and joint batch, and ratios to that of the fewest processes."""
    medians = {setting: statistics.median(values) for setting, values in sorted(samples.items())}
    first = min(medians)
    return [
        {
            "processes": setting[0],
            "batch_size": setting[1],
            "instances_per_second": median,
            "lowest": min(samples[setting]),
            "highest": max(samples[setting]),
            "runs": len(samples[setting]),
            "times": median / medians[first],
        }
        for setting, median in medians.items()
    ]


def render(results: dict[str, Any]) -> dict[str, str]:
    """Markdown by the names of the page's markers."""
    training = results["training"]
    head = [
        f"{results['date']}, {machine.one_line(results['machine'])}.",
        f"Command: `{results['command']}`.",
        f"{training['graph']}, {training['parameters']:,} parameters, "
        f"threads for each process: {results['threads_per_process']}.",
        "",
    ]
    speeds = table(
        (
            "processes",
            "joint batch",
            "instances/s",
            "lowest and highest",
            "runs",
            "times one process",
        ),
        [
            (
                f"{row['processes']}",
                f"{row['batch_size']}",
                f"{row['instances_per_second']:.1f}",
                f"{row['lowest']:.1f}–{row['highest']:.1f}",
                f"{row['runs']}",
                f"{row['times']:.2f}",
            )
            for row in results["rows"]
        ],
        left=0,
    )
    out = {"processes": "\n".join([*head, speeds])}
    if "labels" in results:
        out["plan"] = "\n".join([*head, plan_table(results)])
    return out


def simulate(model: str) -> dict[str, Any]:
    """Labels of all singles and pairs, simulated anew by one core: how many instances and LPs, and the core's seconds."""
    network = MetabolicNetwork.from_cobra(load_model(model))
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        labels = simulate_labels(network, folder, progress=False)
        seconds = time.process_time() - start
    return {
        "model": model,
        "instances": len(labels),
        "interacting": int(labels.interacting.sum()),
        "lps": labels.provenance["lps"],
        "core_seconds": seconds,
        "bytes_per_instance": labels.nbytes / len(labels),
    }


# ---- one measurement -------------------------------------------------------------------------------------------------


def _in_processes(processes: int, batch_size: int, args: argparse.Namespace) -> dict[str, Any]:
    """A measurement in new processes."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone"]
        start += ["--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [*start, str(Path(__file__).parent), "processes", "--child-out", str(path)]
        command += ["--batch-size", str(batch_size)]
        for name in ("config", "cache", "steps", "warm_up", "threads"):
            if getattr(args, name) is not None:
                command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        done = subprocess.run(command, env=environment, stdout=sys.stderr)
        if done.returncode:
            return {"error": f"ended with {done.returncode}"}
        return json.loads(path.read_text())


def _child(args: argparse.Namespace) -> int:
    """Measures in this process, which may be one of several."""
    torch.set_num_threads(args.threads)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        dist.init_process_group("gloo")
    found = measure_here(
        load_config(args.config, CellConfig),
        args.cache,
        batch_size=args.batch_size,
        steps=args.steps,
        warm_up=args.warm_up,
    )
    if size == 1 or dist.get_rank() == 0:
        args.child_out.write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()
    return 0


class Loss(nn.Module):
    """DDP wants a module whose forward gives the loss."""

    def __init__(self, module: CellModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any) -> torch.Tensor:
        return self.module.loss(batch)


def measure_here(
    config: CellConfig, cache: Path | None, *, batch_size: int | None, steps: int, warm_up: int
) -> dict[str, Any]:
    """Instances per second of training steps: batch, forward, backward, gradients of all processes, AdamW.

    ``core_seconds`` for each instance are this process's, which other work on the machine changes less than the time.

    Args:
        config: What to train.
        cache: Folder of graph and labels (default: as for ``pyg-nsa train``).
        batch_size: Instances in a joint batch (default: the configuration's).
        steps: How many steps are timed.
        warm_up: How many before them are not.
    """
    batch_size = batch_size or config.training.batch_size
    dataset = open_dataset(config, cache, progress=False)
    split = make_split(dataset.table, config.data.split, config.data.fractions, config.seed)
    sampler = MixedSampler(
        dataset.table,
        split.train,
        rates=config.data.rates,
        size=batch_size * (warm_up + steps),
        seed=config.seed,
    )
    loader = PerturbationLoader(dataset, batch_sampler=SharedBatches(sampler, batch_size))
    torch.manual_seed(config.seed)
    y_train = torch.from_numpy(dataset.table.y)
    module = CellModule(
        build_model(config, dataset.graph), dataset.graph, config.training, y_train, steps
    )
    with torch.no_grad():  # lazy layers take their sizes
        module.model(dataset.graph, next(iter(loader)))
    together = dist.is_initialized()
    loss: nn.Module = DistributedDataParallel(Loss(module)) if together else Loss(module)
    optimizer = module.configure_optimizers()
    batches = iter(loader)
    start = start_of_work = 0.0
    for number in range(warm_up + steps):
        if number == warm_up:
            if together:
                dist.barrier()
            start, start_of_work = time.perf_counter(), time.process_time()
        loss(next(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()
    if together:
        dist.barrier()
    seconds, work = time.perf_counter() - start, time.process_time() - start_of_work
    nodes = ", ".join(f"{dataset.graph[t].num_nodes:,} {t}s" for t in dataset.graph.node_types)
    return {
        "instances_per_second": steps * batch_size / seconds,
        "core_seconds": work * (dist.get_world_size() if together else 1) / (steps * batch_size),
        "batch_size": batch_size,
        "graph": f"{config.data.model} ({nodes})",
        "nodes": sum(int(dataset.graph[t].num_nodes) for t in dataset.graph.node_types),
        "parameters": sum(p.numel() for p in module.model.parameters()),
    }


def _command(args: argparse.Namespace) -> str:
    """What to type to repeat this; without names of folders."""
    parts = ["python tests/benchmarks processes --processes", *map(str, args.processes)]
    for name in ("batch_size", "steps", "warm_up", "rounds", "threads"):
        if getattr(args, name) is not None:
            parts += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    if args.config.name != "demo.yaml":
        parts += ["--config", args.config.name]
    if args.labels:
        parts.append("--labels")
    return " ".join(parts)

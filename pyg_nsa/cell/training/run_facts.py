"""What a report says about a run, beside its numbers: the graph, the split, versions, the machine, durations."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import Split
from pyg_nsa.cell.training.trainer import Trained

__all__ = ["machine", "run_facts", "versions"]

_PACKAGES = ("pyg-nsa", "torch", "torch-geometric", "lightning", "cobra", "highspy")


def run_facts(
    config: CellConfig,
    dataset: PerturbationDataset,
    split: Split,
    trained: Mapping[str, Trained],
    label_seconds: float,
) -> dict[str, Any]:
    """Plain values for ``run.json``.

    Args:
        config: The configuration.
        dataset: All instances.
        split: Their parts.
        trained: The trained models by name.
        label_seconds: How long graph and labels took.
    """
    graph = dataset.graph
    simulated = config.data.labels.startswith("simulated")
    source = "simulated by FBA" if simulated else f"measured ({Path(config.data.labels).name})"
    if left_out := dataset.table.provenance.get("left_out"):
        source += f", {left_out:,} row{'s' if left_out != 1 else ''} with unknown genes left out"
    return {
        "title": config.title,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "organism": config.data.model,
        "seed": config.seed,
        "graph": {
            "nodes": {t: int(graph[t].num_nodes) for t in graph.node_types},
            "edges": {" ".join(t): int(graph[t].edge_index.size(1)) for t in graph.edge_types},
        },
        "split": split.counts(),
        "split_kind": split.kind,
        "versions": versions(),
        "machine": machine(),
        "seconds": {
            "labels": round(label_seconds, 1),
            "training": {name: round(t.seconds, 1) for name, t in trained.items()},
        },
        "parameters": {
            name: sum(p.numel() for p in t.module.model.parameters()) for name, t in trained.items()
        },
        "label_source": source,
        "interacting_above": dataset.table.interacting_above,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine() -> str:
    """The machine in one line: system, cores, threads, GPU."""
    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{threads} thread{'s' if threads != 1 else ''}, "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    )

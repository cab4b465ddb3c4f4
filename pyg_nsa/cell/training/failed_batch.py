"""A loss that is not a number: which batch it came from, saved together with the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import HeteroData

from pyg_nsa.cell.data.batch import PerturbationBatch
from pyg_nsa.cell.training.distributed import gather, is_first

__all__ = ["NotFiniteError", "not_finite_error"]


class NotFiniteError(RuntimeError):
    """The loss or its gradient became NaN or infinite.

    Attributes:
        file: Batch and parameters, for :func:`pyg_nsa.cell.training.restore.load_failed_batch`; ``None`` if they were not saved.
    """

    def __init__(self, message: str, file: Path | None = None) -> None:
        super().__init__(message)
        self.file = file


def not_finite_error(
    what: str,
    value: float,
    batch: PerturbationBatch,
    graph: HeteroData,
    module: nn.Module,
    step: int,
    identity: Mapping[str, Any],
    folder: Path | None,
) -> NotFiniteError:
    """The error for a batch, which is saved together with the parameters. All processes must call this together.

    Args:
        what: What is not finite.
        value: Its value.
        batch: This process's share of the batch.
        graph: The base graph.
        module: The module, with the parameters that gave the value.
        step: Number of the step.
        identity: What a checkpoint says of itself.
        folder: Where to save; ``None``: nowhere.
    """
    mine = [
        {"index": int(i), "genes": genes.tolist(), "y": y.tolist()}
        for i, genes, y in zip(batch.index, batch.genes, batch.y, strict=True)
    ]
    items = gather(np.array(mine, dtype=object)).tolist()
    broken = [name for name, p in module.named_parameters() if not bool(p.isfinite().all())]
    message = (
        f"{what} is {value} at step {step}, in the batch of instances "
        f"{[item['index'] for item in items]}"
    )
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        message += f"; parameters that are not finite already: {', '.join(broken[:3])}{more}"
    message += "; try a smaller training.learning_rate or training.gradient_clip"
    if folder is None:
        return NotFiniteError(message)
    path = folder / f"not_finite_step_{step}.pt"
    load = (
        "from pyg_nsa.cell.training.restore import load_failed_batch\n"
        f"module, batch = load_failed_batch({str(path)!r})\n"
        "prediction, _ = module.model(module.graph, batch)"
    )
    if is_first():
        gene_ids = graph["gene"].node_ids
        for item in items:
            item["gene_ids"] = [gene_ids[g] for g in item["genes"]]
        content = {
            "what": what,
            "value": value,
            "step": step,
            "instances": items,
            "state_dict": module.state_dict(),
            "how_to_load": load,
            **identity,
        }
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    lines = "".join(f"\n    {line}" for line in load.splitlines())
    return NotFiniteError(
        f"{message}\nThe batch and the parameters are in {path}. To look at them:{lines}", path
    )

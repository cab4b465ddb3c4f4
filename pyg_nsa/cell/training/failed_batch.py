"""A loss that is not a number: which batch it came from, and how to look at it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyg_nsa.cell.data.batch import Perturbation, PerturbationBatch, PerturbationCollate
from pyg_nsa.cell.training.distributed import gather, is_first

if TYPE_CHECKING:
    from pyg_nsa.cell.training.lightning_module import CellModule

__all__ = ["NotFiniteError", "load_failed_batch", "not_finite_error"]


class NotFiniteError(RuntimeError):
    """The loss or its gradient became NaN or infinite.

    Attributes:
        file: Batch and parameters, for :func:`load_failed_batch`; ``None`` if they were not saved.
    """

    def __init__(self, message: str, file: Path | None = None) -> None:
        super().__init__(message)
        self.file = file


def not_finite_error(
    module: CellModule, what: str, value: float, batch: PerturbationBatch, folder: Path | None
) -> NotFiniteError:
    """The error for a batch, which is saved together with the parameters. All processes must call this together.

    Args:
        module: The module, with the parameters that gave the value.
        what: What is not finite.
        value: Its value.
        batch: This process's share of the batch.
        folder: Where to save; ``None``: nowhere.
    """
    mine = [
        {"index": int(i), "genes": genes.tolist(), "y": y.tolist()}
        for i, genes, y in zip(batch.index, batch.genes, batch.y, strict=True)
    ]
    items = gather(np.array(mine, dtype=object)).tolist()
    broken = [name for name, p in module.named_parameters() if not bool(p.isfinite().all())]
    message = (
        f"{what} is {value} at step {module.global_step}, in the batch of instances "
        f"{[item['index'] for item in items]}"
    )
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        message += f"; parameters that are not finite already: {', '.join(broken[:3])}{more}"
    message += "; try a smaller training.learning_rate or training.gradient_clip"
    if folder is None:
        return NotFiniteError(message)
    path = folder / f"not_finite_step_{module.global_step}.pt"
    load = (
        "from pyg_nsa.cell.training.failed_batch import load_failed_batch\n"
        f"module, batch = load_failed_batch({str(path)!r})\n"
        "prediction, _ = module.model(module.graph, batch)"
    )
    if is_first():
        gene_ids = module.graph["gene"].node_ids
        for item in items:
            item["gene_ids"] = [gene_ids[g] for g in item["genes"]]
        content = {
            "what": what,
            "value": value,
            "step": module.global_step,
            "instances": items,
            "state_dict": module.state_dict(),
            "how_to_load": load,
            **module.identity,
        }
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    lines = "".join(f"\n    {line}" for line in load.splitlines())
    return NotFiniteError(
        f"{message}\nThe batch and the parameters are in {path}. To look at them:{lines}", path
    )


def load_failed_batch(
    path: str | Path, cache: Path | None = None
) -> tuple[CellModule, PerturbationBatch]:
    """The module with the parameters that gave a loss that is not finite, and the batch.

    Args:
        path: The file that the error names.
        cache: Where graphs are kept between runs, as for training.

    Raises:
        CheckpointError: The file cannot be read, or the graph is another one now.
    """
    from pyg_nsa.cell.training.checkpoint import read_checkpoint
    from pyg_nsa.cell.training.restore import restore_module

    path = Path(path)
    state = read_checkpoint(path)
    module = restore_module(state, path, cache=cache)
    items = [
        Perturbation(
            item["index"], torch.tensor(item["genes"], dtype=torch.long), torch.tensor(item["y"])
        )
        for item in state["instances"]
    ]
    return module, PerturbationCollate(module.graph)(items)

"""The GPU benchmark's table: three kinds of masked attention in the cell model, and what others report of theirs."""

from __future__ import annotations

from typing import Any

from .arguments import GPU_CONTENDERS
from .tables import table

#: Said by others of their implementation: four GPUs, two instances on each.
REPORTED = {"instances_per_second": 1.1, "gpus": 4, "batch_per_gpu": 2}
NOT_MEASURED = "not measured yet"


def gpu_table(contenders: dict[str, dict[str, Any]]) -> str:
    """Markdown.

    Args:
        contenders: What was found of each, by name; of what is missing the table says that it was not measured.
    """
    head = ("masked attention", "instances/s", "largest batch", "peak memory")
    rows = [(name, *_cells(contenders.get(name))) for name in GPU_CONTENDERS]
    said = f"reported by others, on {REPORTED['gpus']} GPUs"
    batch = f"{REPORTED['batch_per_gpu']} on each"
    rows.append((said, str(REPORTED["instances_per_second"]), batch, "–"))
    return table(head, rows)


def _cells(found: dict[str, Any] | None) -> tuple[str, str, str]:
    """The fastest batch size counts, and its memory; largest is any that ran."""
    if found is None:
        return (NOT_MEASURED,) * 3
    ended = next(
        (
            f"{said}: {found[what]}".replace("|", "/").replace("\n", " ")
            for what, said in (("error", "failed"), ("not_run", "not run"))
            if what in found
        ),
        "",
    )
    best = found.get("best")
    if best is None:
        return ended, "–", "–"
    peak = "–" if best["peak_gb"] is None else f"{best['peak_gb']:.2f} GB at batch {best['batch']}"
    largest = str(found["largest_batch"]) + (f"; then {ended}" if ended else "")
    return f"{best['instances_per_second']:.2f}", largest, peak

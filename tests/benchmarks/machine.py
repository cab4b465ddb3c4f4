"""The machine: what it is, and how fast it moves and multiplies numbers."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pyg_nsa.compiled.linear import fits, linear_forward

from .timing import interleave

_ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")


def describe() -> dict[str, Any]:
    """Processor, memory, versions, threads, and settings that decide about speed."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": _version("torch_geometric"),
        "numba": _version("numba"),
        "pyg_nsa": _version("pyg_nsa"),
        # PyG uses these where they are installed.
        "pyg_extensions": [
            name
            for name in ("pyg_lib", "torch_scatter", "torch_sparse")
            if importlib.util.find_spec(name)
        ],
        "mkl": torch.backends.mkl.is_available(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "allocator": {name: os.environ[name] for name in _ALLOCATOR if os.environ.get(name)},
    }


def one_line(machine: dict[str, Any]) -> str:
    """For captions."""
    extensions = ", ".join(machine["pyg_extensions"]) or "no compiled PyG extension"
    numba = f"numba {machine['numba']}, " if "numba" in machine else ""  # not in older results
    return (
        f"{machine['processor']} ({machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gb']} GB), Python {machine['python']}, torch {machine['torch']}, "
        f"torch_geometric {machine['torch_geometric']} ({extensions}), {numba}"
        f"OMP_WAIT_POLICY={machine['omp_wait_policy']}"
    )


def speeds(nodes: int, channels: int, degree: int, *, seconds: float) -> dict[str, float]:
    """What this machine attains.

    Args:
        nodes: Rows that are gathered from: those of the layer, so that they lie in the same cache.
        channels: Their size.
        degree: Rows gathered for each result.
        seconds: Time for the measurement.

    Returns:
        ``triad_gb_s``, bandwidth of ``a = b + s c`` on arrays that fit in no cache (256 MB each at full size);
        ``gather_gb_s``, bytes of rows read by a sum over random rows; ``matmul_gflop_s``, a float32 product,
        torch's of large matrices or the projections' by this library, whichever is faster; ``skinny_gflop_s``, torch's at a projection's
        size.
    """
    size = 1 << 26 if nodes > 1000 else 1 << 20
    a, b, c = (torch.zeros(size) for _ in range(3))
    rows = torch.randn(nodes, channels)
    index = torch.randint(nodes, (nodes, degree))
    edge = 2048 if nodes > 1000 else 256
    left, right, product = torch.randn(edge, edge), torch.randn(edge, edge), torch.empty(edge, edge)
    weight, skinny = torch.randn(channels, channels), torch.empty(nodes, channels)
    wide = torch.randn(4 * channels, channels)
    found = interleave(
        {
            "triad": lambda: torch.add(b, c, alpha=3.0, out=a),
            "gather": lambda: F.embedding_bag(index, rows, mode="sum"),
            "matmul": lambda: torch.mm(left, right, out=product),
            "skinny": lambda: torch.mm(rows, weight, out=skinny),
            "own": lambda: (
                linear_forward(rows, wide, None) if fits(rows, wide) else torch.mm(rows, wide.t())
            ),
        },
        rounds=30,
        seconds=seconds,
    )
    second = {name: summary["ms"] / 1e3 for name, summary in found.items()}
    return {
        "triad_gb_s": 3 * 4 * size / second["triad"] / 1e9,
        "gather_gb_s": 4 * channels * nodes * degree / second["gather"] / 1e9,
        "matmul_gflop_s": max(
            2 * edge**3 / second["matmul"], 2 * nodes * channels * len(wide) / second["own"]
        )
        / 1e9,
        "skinny_gflop_s": 2 * nodes * channels**2 / second["skinny"] / 1e9,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError):
        return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def progress(text: str) -> None:
    """To stderr: standard output holds the tables."""
    print(text, file=sys.stderr, flush=True)

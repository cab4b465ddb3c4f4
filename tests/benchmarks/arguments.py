"""Names and options that the command line needs before anything heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

#: Of the CPU benchmark, in the order in which they run.
SECTIONS = (
    "machine",
    "layer",
    "hetero",
    "edges",
    "density",
    "nodes",
    "heads",
    "batch",
    "bfloat16",
    "profile",
    "edge_set",
    "mask_state",
    "ordering",
)

#: Of the GPU benchmark.
GPU_CONTENDERS = (
    "HeteroNSA",
    "FlexAttention, dense masks",
    "HeteroConv of TransformerConv",
)


def add_gpu_arguments(parser: argparse.ArgumentParser, root: Path) -> None:
    """Options of ``gpu``."""
    parser.description = (
        "The cell model on a GPU: instances per second, and the largest batch that fits."
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny graph, to exercise the code")
    parser.add_argument("--yeast", default="", help="folder of the yeast tables")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each batch size")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--max-batch", type=int, help="default 512; with --small 4")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="for each contender, compiling included"
    )
    parser.add_argument("--contenders", nargs="+", choices=GPU_CONTENDERS, metavar="NAME")
    parser.add_argument("--out", type=Path, default=root / "docs" / "benchmarks-gpu.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--child-out", type=Path, help=argparse.SUPPRESS)

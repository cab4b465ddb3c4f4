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
    parser.add_argument(
        "--first-batch", type=int, default=1, help="the smallest that is tried first"
    )
    parser.add_argument("--max-batch", type=int, help="default 512; with --small 4")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="for each contender, compiling included"
    )
    parser.add_argument("--contenders", nargs="+", choices=GPU_CONTENDERS, metavar="NAME")
    parser.add_argument("--out", type=Path, default=root / "docs" / "benchmarks-gpu.json")
    parser.add_argument(
        "--write-docs", action="store_true", help="fill in benchmarks.md beside the JSON file too"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--child-out", type=Path, help=argparse.SUPPRESS)


def add_processes_arguments(parser: argparse.ArgumentParser, root: Path) -> None:
    """Options of ``processes``."""
    parser.description = "Training of the cell model in one process and in several, on this machine's CPU: instances per second."
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument(
        "--config",
        type=Path,
        default=root / "pyg_nsa" / "cell" / "demo.yaml",
        help="what to train (default: the configuration of `pyg-nsa demo`)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        help="of graphs and labels, which are made before anything is measured (default: as for pyg-nsa)",
    )
    parser.add_argument("--batch-size", type=int, help="joint batch (default: the configuration's)")
    parser.add_argument("--steps", type=int, default=20, help="that are timed in each run")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--labels", action="store_true", help="simulate labels too, for the plan")
    parser.add_argument("--out", type=Path, default=root / "docs" / "benchmarks-processes.json")
    parser.add_argument(
        "--write-docs", action="store_true", help="fill in scale_out.md beside the JSON file too"
    )
    parser.add_argument("--child-out", type=Path, help=argparse.SUPPRESS)

"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .arguments import SECTIONS, add_gpu_arguments, add_processes_arguments
from .machine import progress

ROOT = Path(__file__).resolve().parents[2]
_KEEP = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    args = _parser().parse_args(arguments)
    return args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="cpu | gpu | processes | docs")

    cpu = commands.add_parser("cpu", help="compare layers on the CPU", description=_cpu.__doc__)
    cpu.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    cpu.add_argument("--yeast", default="", help="folder of the yeast tables (default: left out)")
    cpu.add_argument("--full", action="store_true", help="more rounds, and slow compilations too")
    cpu.add_argument("--scale", type=float, default=1.0, help="of all workloads, for smoke tests")
    cpu.add_argument("--channels", type=int, default=64)
    cpu.add_argument("--heads", type=int, nargs="+", default=[4, 8])
    cpu.add_argument("--rounds", type=int, help="at most (default 15; full: 31)")
    cpu.add_argument("--seconds", type=float, help="per comparison (default 12; full: 60)")
    cpu.add_argument("--max-gb", type=float, help="of one contender (default 4; full: 16)")
    cpu.add_argument("--max-step", type=float, help="seconds of a step (default 6; full: 60)")
    cpu.add_argument("--no-memory", action="store_true", help="times only")
    cpu.add_argument(
        "--no-kept-memory",
        action="store_true",
        help="leave out the second run of 'layer' with an allocator that keeps memory",
    )
    cpu.add_argument("--seed", type=int, default=0)
    cpu.add_argument("--out", type=Path, default=ROOT / "docs", help="of benchmarks.json and .png")
    cpu.add_argument("--write-docs", action="store_true", help="fill in docs/benchmarks.md too")
    cpu.add_argument("--json-only", action="store_true", help=argparse.SUPPRESS)
    cpu.set_defaults(run=_cpu)

    gpu = commands.add_parser("gpu", help="train the cell model on a GPU")
    add_gpu_arguments(gpu, ROOT)
    gpu.set_defaults(run=_gpu)

    processes = commands.add_parser("processes", help="train in one process and in several")
    add_processes_arguments(processes, ROOT)
    processes.set_defaults(run=_processes)

    docs = commands.add_parser("docs", help="picture and tables from benchmarks.json again")
    docs.add_argument("--out", type=Path, default=ROOT / "docs")
    docs.set_defaults(run=_docs)

    child = commands.add_parser("child")
    child.add_argument("spec")
    child.set_defaults(run=_child)
    return parser


def _cpu(args: argparse.Namespace) -> int:
    """Compares layers on the CPU: tables on stdout, progress on stderr; writes benchmarks.json and benchmarks.png."""
    from .cpu import CpuBenchmark, Options
    from .goals import goals
    from .yeast import missing_files

    if args.yeast:
        lacks = missing_files(args.yeast)
        if lacks:
            print(f"--yeast {args.yeast}: the folder lacks {', '.join(lacks)}", file=sys.stderr)
            return 2
    else:
        progress("yeast tables not given (--yeast DIR): generated graphs only")
    options = Options(
        sections=tuple(args.only),
        channels=args.channels,
        heads=tuple(args.heads),
        scale=args.scale,
        rounds=args.rounds or (31 if args.full else 15),
        seconds=args.seconds if args.seconds is not None else (60.0 if args.full else 12.0),
        max_gb=args.max_gb or (16.0 if args.full else 4.0),
        max_step=args.max_step or (60.0 if args.full else 6.0),
        with_memory=not args.no_memory,
        full=args.full,
        yeast=args.yeast,
        seed=args.seed,
    )
    results = CpuBenchmark(options).run()
    results["command"] = _command(args)
    if args.json_only:
        print(json.dumps(results))
        return 0
    if "layer" in args.only and not args.no_kept_memory:
        results["kept_memory"] = _with_kept_memory(args)
    results["goals"] = goals(results)
    results = _rounded(results)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n")
    _print_tables(results)
    _finish(results, args.out, write_page=args.write_docs)
    failed = list(errors(results))
    for what in failed:
        print(f"FAILED: {what}", file=sys.stderr)
    return 1 if failed else 0


def _with_kept_memory(args: argparse.Namespace) -> dict[str, Any]:
    """The section 'layer' once more, in a process whose allocator gives nothing back to the system.

    Memory that is newly mapped in each step can cost more than the computation, most for those that allocate most; a
    program that keeps its memory does not pay for it.
    """
    progress("== layer, with memory kept by the allocator")
    command = [sys.executable, str(Path(__file__).parent), "cpu", "--only", "layer", "--no-memory"]
    command += ["--json-only", "--scale", str(args.scale), "--channels", str(args.channels)]
    command += ["--seed", str(args.seed), "--heads"]
    command += [str(h) for h in args.heads] + (["--yeast", args.yeast] if args.yeast else [])
    for name in ("rounds", "seconds", "max_gb", "max_step"):
        if getattr(args, name) is not None:
            command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    done = subprocess.run(
        command + (["--full"] if args.full else []),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **_KEEP},
    )
    if done.returncode:
        return {"error": f"the process ended with {done.returncode}"}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"machine": found["machine"], "layer": found["layer"]}


def _gpu(args: argparse.Namespace) -> int:
    """Trains the cell model on a GPU (see gpu.py)."""
    from .gpu import run

    return run(args)


def _processes(args: argparse.Namespace) -> int:
    """Trains in one process and in several (see processes.py)."""
    from .processes import run

    return run(args)


def _docs(args: argparse.Namespace) -> int:
    """Draws the picture and fills in the page from a benchmarks.json that is there."""
    path = args.out / "benchmarks.json"
    if not path.is_file():
        print(f"{path}: no such file; `make bench` writes it", file=sys.stderr)
        return 2
    _finish(json.loads(path.read_text()), args.out, write_page=True)
    return 0


def _child(args: argparse.Namespace) -> int:
    """Measures the memory of one contender in this process (see memory.py)."""
    from .contenders import Setting
    from .hetero_layers import HETERO_LAYERS
    from .layers import LAYERS
    from .memory import measure_here

    spec = json.loads(args.spec)
    contenders = HETERO_LAYERS if spec["section"] == "hetero" else LAYERS
    contender = next(c for c in contenders if c.name == spec["name"])
    print(json.dumps(measure_here(contender, Setting.from_json(spec["setting"]))))
    return 0


def _finish(results: dict[str, Any], out: Path, *, write_page: bool) -> None:
    from .figure import draw
    from .page import fill
    from .tables import render

    draw(results, out / "benchmarks.png")
    if write_page:
        page = out / "benchmarks.md"
        if not page.is_file():
            progress(f"{page}: no such file; tables were not written")
            return
        for name in fill(page, render(results)):
            progress(f"{page} has no place for '{name}'")


def _print_tables(results: dict[str, Any]) -> None:
    from .tables import render

    for name, text in render(results).items():
        print(f"\n## {name}\n\n{text}")


def errors(value: Any, where: str = "") -> list[str]:
    """Every ``error`` in nested results, with its place."""
    out: list[str] = []
    if isinstance(value, dict):
        if isinstance(value.get("error"), str):
            name = value.get("contender") or value.get("name") or ""
            out.append(f"{where} {name}: {value['error']}".strip())
        for key, item in value.items():
            out += errors(item, f"{where}/{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            out += errors(item, where)
    return out


def _command(args: argparse.Namespace) -> str:
    """What to type to repeat this; without names of folders."""
    parts = ["python tests/benchmarks cpu"]
    parser = _parser()
    default = vars(parser.parse_args(["cpu"]))
    for name in ("scale", "channels", "rounds", "seconds", "max_gb", "max_step", "seed"):
        value = getattr(args, name)
        if value != default[name]:
            parts.append(f"--{name.replace('_', '-')} {value:g}")
    if list(args.heads) != default["heads"]:
        parts.append("--heads " + " ".join(map(str, args.heads)))
    if tuple(args.only) != tuple(default["only"]):
        parts.append("--only " + " ".join(args.only))
    for flag in ("full", "no_memory", "no_kept_memory"):
        if getattr(args, flag):
            parts.append("--" + flag.replace("_", "-"))
    return " ".join(parts) + (" --yeast DIR" if args.yeast else "")


def _rounded(value: Any) -> Any:
    """Floats with five significant digits; what is not finite as text, since JSON has no such number."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value

"""The cell model on a GPU: instances per second, and the largest batch that fits.

Hidden size 64, 8 heads, pattern MS, bfloat16 autocast, forward and backward. Each contender runs in a process of its own,
one after another, so that one that runs out of memory or breaks the device leaves the others alone; a failure is printed
and stands in the JSON, and the exit status is 1.

Batch sizes double until memory or time ends or the limit is reached; then the gap is halved, to within an eighth. Each size is
compiled anew, which takes a minute or so: ``--first-batch`` skips small ones.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import json
import re
import statistics
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from . import gpu_models, machine
from .arguments import GPU_CONTENDERS
from .contenders import NotRun
from .gpu_table import REPORTED, gpu_table
from .machine import progress
from .page import fill
from .workloads import Workload
from .yeast import missing_files


def run(args: argparse.Namespace) -> int:
    """The command; 2 if the device is missing, 1 if a contender failed."""
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "no CUDA device: torch.cuda.is_available() is False, so there is nothing to measure. "
            "`--device cpu --small` runs the same code on a tiny graph.",
            file=sys.stderr,
        )
        return 2
    if args.device == "cpu" and not args.small:
        print("--device cpu exercises the code only; say --small with it", file=sys.stderr)
        return 2
    lacks = missing_files(args.yeast) if args.yeast else []
    if lacks:
        print(f"--yeast {args.yeast}: the folder lacks {', '.join(lacks)}", file=sys.stderr)
        return 2
    if args.max_batch is None:
        args.max_batch = 4 if args.small else 512
    if args.child:
        return _child(args)
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": _device(args.device),
        "machine": machine.describe(),
        "model": {
            "channels": args.channels,
            "heads": args.heads,
            "pattern": "MS",
            "dtype": args.dtype,
            "graph": "tiny" if args.small else "yeast" if args.yeast else "generated",
        },
        "reported_by_others": REPORTED,
        "contenders": {},
    }
    print(f"device: {results['device']}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in args.contenders or GPU_CONTENDERS:
        progress(f"== {name}")
        found = _in_child(name, args)
        results["contenders"][name] = found
        failed |= "error" in found
        _print(name, found)
        # After each contender, so that an interrupted run leaves what it has.
        args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(
        f"reported by others: {REPORTED['instances_per_second']} instances/s on {REPORTED['gpus']} GPUs, "
        f"batch {REPORTED['batch_per_gpu']} on each"
    )
    print(f"written to {args.out}")
    if args.write_docs:
        fill(args.out.parent / "benchmarks.md", render(results))
    return 1 if failed else 0


def render(results: dict[str, Any]) -> dict[str, str]:
    """Markdown by the names of the page's markers."""
    device = results["device"]
    memory = f" ({device['memory_gb']} GB)" if "memory_gb" in device else ""
    head = (
        f"{results['date']}, {device['name']}{memory}, {results['model']['graph']} graph, "
        f"{machine.one_line(results['machine'])}."
    )
    return {"gpu": f"{head}\n\n{gpu_table(results['contenders'])}"}


def _device(kind: str) -> dict[str, Any]:
    if kind == "cpu":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
        "count_used": 1,
    }


def _print(name: str, found: dict[str, Any]) -> None:
    if "not_run" in found:
        print(f"{name}: not run: {found['not_run']}")
    if found.get("best"):
        best = found["best"]
        peak = "" if best["peak_gb"] is None else f", peak {best['peak_gb']:.2f} GB"
        print(
            f"{name}: {best['instances_per_second']:.2f} instances/s at batch {best['batch']}{peak}; "
            f"largest batch that ran: {found['largest_batch']} ({found['ended_by']})"
        )
    if "error" in found:
        line = "!" * 78
        print(f"{line}\n{name} FAILED: {found['error']}\n{line}")


# ---- one contender, in its own process -----------------------------------------------------------------------------------


def _in_child(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Results of a contender; what the process wrote before it broke is kept, and stays beside the results where this one is killed too."""
    words = re.sub("[^a-z]+", "-", name.lower())
    path = args.out.with_name(f"{args.out.stem}.{words}.json")
    path.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).parent), "gpu", "--child", name]
    command += ["--child-out", str(path), "--device", args.device, "--dtype", args.dtype]
    for option in ("channels", "heads", "steps", "warm_up", "first_batch", "max_batch", "minutes"):
        command += ["--" + option.replace("_", "-"), str(getattr(args, option))]
    command += ["--small"] if args.small else []
    command += ["--yeast", args.yeast] if args.yeast else []
    # Compiling happens inside a step, where the child cannot look at the clock.
    limit = 60 * (args.minutes + 15)
    status, said = _tell(command, limit)
    found: dict[str, Any] = {"batches": []}
    if path.is_file():
        found = json.loads(path.read_text())
        path.unlink()
    if status and "error" not in found:
        how = f"was killed after {limit / 60:.0f} minutes" if status < 0 else f"ended with {status}"
        found["error"] = f"the process {how} and said:\n{said}"
    return found


def _tell(command: list[str], limit: float) -> tuple[int, str]:
    """The exit status of a process, and the end of what it said, which is passed on while it says it."""
    last: collections.deque[str] = collections.deque(maxlen=15)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(limit, process.kill)
        watch.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                sys.stderr.write(line)
                last.append(line)
        finally:
            watch.cancel()
    return process.returncode, "".join(last).strip()


def _child(args: argparse.Namespace) -> int:
    found: dict[str, Any] = {"batches": [], "best": None, "largest_batch": 0, "ended_by": ""}

    def save() -> None:
        partial = args.child_out.with_suffix(".part")
        partial.write_text(json.dumps(found))
        partial.replace(args.child_out)  # a killed process leaves the last whole result

    try:
        _Trial(args, found, save).search()
    except NotRun as reason:
        found["not_run"] = str(reason)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:2000]
        found["traceback"] = traceback.format_exc()[-6000:]
        traceback.print_exc()
    save()
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Also where a library or a compiled graph says it in another exception's words."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "outofmemory", "alloc_failed")
    )


class _Trial:
    """One contender: steps of growing batches."""

    def __init__(self, args: argparse.Namespace, found: dict[str, Any], save: Any) -> None:
        self.args, self.found, self.save = args, found, save
        self.cuda = args.device == "cuda"
        if args.child == "FlexAttention, dense masks" and not self.cuda:
            raise NotRun("FlexAttention has no backward pass on a CPU")
        torch.manual_seed(0)
        kind = "yeast_cell" if args.yeast else "cell"
        workload = Workload(kind, scale=0.02 if args.small else 1.0, yeast=args.yeast)
        self.graph = gpu_models.cell_data(workload.graph())
        model = gpu_models.build(args.child, self.graph, args.channels, args.heads)
        self.device = torch.device(args.device)
        self.model = model.to(self.device).train()
        self.deadline = time.monotonic() + 60 * args.minutes

    def search(self) -> None:
        """Doubles, then halves the gap."""
        fits, fails, size = 0, None, self.args.first_batch
        ended = "the limit of this run"
        while size <= self.args.max_batch:
            outcome = self._measure(size)
            if outcome is not None:
                fails, ended = size, outcome
                break
            fits, size = size, 2 * size
            if time.monotonic() > self.deadline:
                ended = f"the time limit of {self.args.minutes:g} minutes"
                break
        while fails is not None and fails - fits > max(1, fits // 8):
            if time.monotonic() > self.deadline:
                ended += f"; not narrowed further for lack of time, {fails} is too much"
                break
            middle = (fits + fails) // 2
            outcome = self._measure(middle)
            if outcome is None:
                fits = middle
            else:
                fails = middle
        self.found["largest_batch"], self.found["ended_by"] = fits, ended
        if fits == 0:
            raise RuntimeError(f"no batch that was tried fits: {ended}")

    def _measure(self, size: int) -> str | None:
        """Adds a batch size to the results; why it does not fit, or ``None``."""
        outcome = None
        try:
            row = self._steps(size)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            said = str(error).strip().splitlines() or [type(error).__name__]
            outcome = f"out of memory at batch {size}: {said[0][:200]}"
        # Outside of the handler, where the exception no longer holds the failed step's tensors.
        if outcome is not None:
            self._clean()
            progress(f"   {outcome}")
            self.found["batches"].append({"batch": size, "out_of_memory": outcome})
            self.save()
            return outcome
        progress(
            f"   batch {size}: {row['instances_per_second']:.2f} instances/s, peak {row['peak_gb']} GB, "
            f"first step {row['first_step_s']:.1f} s"
        )
        self.found["batches"].append(row)
        self.found["largest_batch"] = max(self.found["largest_batch"], size)
        best = self.found["best"]
        if best is None or row["instances_per_second"] > best["instances_per_second"]:
            self.found["best"] = row
        self.save()
        self._clean()
        return None

    def _steps(self, size: int) -> dict[str, Any]:
        batches = [
            gpu_models.perturbations(self.graph, size, seed).to(self.device) for seed in (0, 1)
        ]
        first = self._timed(batches[0])  # compiles
        for number in range(max(1, self.args.warm_up)):
            self._timed(batches[number % 2])
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = [self._timed(batches[n % 2]) for n in range(max(1, self.args.steps))]
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.cuda else None
        median = statistics.median(seconds)
        return {
            "batch": size,
            "step_ms": 1e3 * median,
            "fastest_ms": 1e3 * min(seconds),
            "slowest_ms": 1e3 * max(seconds),
            "steps": len(seconds),
            "instances_per_second": size / median,
            "peak_gb": peak,
            "first_step_s": first,
        }

    def _timed(self, batch: Any) -> float:
        """Seconds of a step: forward, loss, backward; dropping the gradients is not counted."""
        self.model.zero_grad(set_to_none=True)
        half = self.args.dtype == "bfloat16"
        if self.cuda:
            torch.cuda.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
        begun = time.perf_counter()
        with torch.autocast(self.args.device, torch.bfloat16, enabled=half):
            predicted, _ = self.model(self.graph, batch)
        loss = (predicted.float() - batch.y).square().mean()
        loss.backward()
        if self.cuda:
            end.record()
            torch.cuda.synchronize()
            # Events leave out what the host does before the first kernel; the wall clock does not. The longer counts.
            elapsed = max(start.elapsed_time(end) / 1e3, time.perf_counter() - begun)
        else:
            elapsed = time.perf_counter() - begun
        if not bool(loss.isfinite()):
            raise RuntimeError(f"the loss is {float(loss)}")
        return elapsed

    def _clean(self) -> None:
        self.model.zero_grad(set_to_none=True)
        # Compiled variants of this batch size are of no use to the next, and their number is limited.
        torch._dynamo.reset()
        gc.collect()
        if self.cuda:
            with contextlib.suppress(torch.OutOfMemoryError):
                torch.cuda.synchronize()
            torch.cuda.empty_cache()

"""Peak memory of one run, each contender in a fresh process.

The process builds graph and module, runs once (warm-up: caches, threads, compiled code), drops the gradients, gives freed
memory back to the system, and notes its resident set. Then the kernel's record of the peak (``VmHWM``) is reset, and the
run that counts begins. The result is the new peak minus the resident set before: activations, gradients and scratch
memory, without graph, masks, module and libraries. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyg_nsa.compiled.kept_pages import give_back

from .contenders import Contender, NotRun, Setting

#: Every tensor of a page or more is mapped by itself, so that freed memory does not hide in the allocator.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure(section: str, name: str, setting: Setting, timeout: float = 600) -> dict[str, Any]:
    """Runs the measurement in a process of its own.

    Returns:
        ``forward`` and ``step`` in MB (``step`` is ``None`` without a backward pass), and whether the peak could be
        ``reset``; or ``not_run`` or ``error`` with the reason.
    """
    spec = json.dumps({"section": section, "name": name, "setting": setting.to_json()})
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            [sys.executable, str(folder), "child", spec],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **_MALLOC},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {timeout:.0f} s"}
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        return json.loads(last[0])
    except json.JSONDecodeError:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        return {"error": f"the process ended with {done.returncode} and said: {said[0][:300]}"}


def measure_here(contender: Contender, setting: Setting) -> dict[str, Any]:
    """What the child process does."""
    try:
        step = contender.make(setting)
    except NotRun as reason:
        return {"not_run": str(reason)}
    out: dict[str, Any] = {"forward": None, "step": None, "reset": True}
    for what, function in (("forward", step.forward), ("step", step.train)):
        if what == "step" and not step.trains:
            continue
        function()
        step.clear()
        _trim()
        before = _status("VmRSS")
        out["reset"] &= _reset_peak()
        function()
        out[what] = round(max(_status("VmHWM") - before, 0) / 1e6, 2)
        step.clear()
    return out


def _trim() -> None:
    gc.collect()
    give_back()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> bool:
    """Whether the record of the peak was reset; if not, it includes the warm-up, which is the same run."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")

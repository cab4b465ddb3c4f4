"""The measurements on the CPU, section by section."""

from __future__ import annotations

import datetime
import math
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from pyg_nsa import EdgeSet
from pyg_nsa.attention.csr_calls import csr_tensors

from . import floor, machine, mask_state, memory, ordering
from .arguments import SECTIONS
from .contenders import Contender, NotRun, Setting
from .hetero_layers import HETERO_LAYERS
from .layers import LAYERS, check_agreement
from .machine import progress
from .timing import interleave, time_steps, warm_up
from .workloads import (
    GENES,
    PHYSICAL_EDGES,
    Workload,
    only_relation,
)

#: Edges of each point of the growth curves.
GROWTH = (10_000, 31_623, 100_000, 316_228, 1_000_000, 3_162_278, 10_000_000)
#: Nodes at the physical relation's number of edges.
NODE_GROWTH = (2_203, 6_607, 19_821, 59_463, 178_389)
HEADS = (1, 2, 4, 8, 16)
BATCHES = (1, 2, 4, 8, 16)
#: Where memory is measured too: each takes a fresh process.
MEMORY_GROWTH = (10_000, 100_000, 1_000_000)
MEMORY_HEADS = (1, 4, 16)
MEMORY_BATCHES = (1, 4, 16)


@dataclass(frozen=True)
class Options:
    """What is measured, and how long it may take.

    Attributes:
        sections: Which of :data:`SECTIONS`.
        channels: Channels of all layers.
        heads: Numbers of heads of the main comparisons; growth is measured with the first.
        scale: Size of all workloads, for smoke tests.
        rounds: Rounds of interleaved runs at most.
        seconds: After this time in one comparison no new round is begun (beyond a few, see :mod:`.timing`).
        max_gb: A contender that would need more in a step is left out, and the table says so.
        max_step: Likewise one whose step would take longer, in seconds.
        with_memory: Whether to measure memory.
        full: More rounds, and the contenders whose compilation takes minutes.
        yeast: Folder of the yeast tables.
        seed: Of the generated graphs.
    """

    sections: tuple[str, ...] = SECTIONS
    channels: int = 64
    heads: tuple[int, ...] = (4, 8)
    scale: float = 1.0
    rounds: int = 15
    seconds: float = 12.0
    max_gb: float = 4.0
    max_step: float = 6.0
    with_memory: bool = True
    full: bool = False
    yeast: str = ""
    seed: int = 0


class CpuBenchmark:
    """Runs the sections and gathers rows.

    A row is one contender in one setting: ``forward`` and ``step`` (summaries in ms), ``memory`` (MB), ``state_mb``; or
    ``not_run`` or ``error`` with the reason.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.speeds: dict[str, float] | None = None
        #: Seconds of a step at sizes that are done, for the decision about larger ones.
        self._last: dict[str, tuple[float, float]] = {}

    def run(self) -> dict[str, Any]:
        """All sections that were asked for."""
        started = time.perf_counter()
        options = self.options
        results: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "machine": machine.describe(),
            "options": {
                "channels": options.channels,
                "heads": list(options.heads),
                "scale": options.scale,
                "rounds": options.rounds,
                "seconds": options.seconds,
                "max_gb": options.max_gb,
                "max_step": options.max_step,
                "full": options.full,
                "yeast": bool(options.yeast),
                "seed": options.seed,
            },
            "contenders": {
                "layer": [describe(c) for c in LAYERS],
                "hetero": [describe(c) for c in HETERO_LAYERS],
            },
        }
        for name in options.sections:
            progress(f"== {name} ({time.perf_counter() - started:.0f} s)")
            self._last.clear()
            results[name if name != "machine" else "speeds"] = getattr(self, f"_{name}")()
        results["seconds"] = round(time.perf_counter() - started)
        return results

    # ---- comparisons -----------------------------------------------------------------------------------------------------

    def compare(
        self,
        section: str,
        contenders: Iterable[Contender],
        setting: Setting,
        label: str,
        share: float = 1.0,
    ) -> list[dict[str, Any]]:
        """One row for each contender, timed side by side for a share of the time of a main comparison."""
        options = self.options
        sizes = size_of(setting.workload)
        steps, rows = {}, []
        for contender in contenders:
            if not contender.takes_part(section):
                continue
            row: dict[str, Any] = {
                "workload": label,
                **sizes,
                "channels": setting.channels,
                "heads": setting.heads,
                "batch": setting.batch,
                "dtype": setting.dtype,
                "contender": contender.name,
                "group": contender.group,
            }
            rows.append(row)
            reason = self._too_large(contender, setting, sizes)
            if section in contender.slow_in and not options.full:
                reason = "compiled anew for each shape; run with --full"
            if reason is None:
                try:
                    steps[contender.name] = contender.make(setting)
                    row["state_mb"] = steps[contender.name].state / 1e6
                except NotRun as error:
                    reason = str(error)
                except (
                    Exception
                ) as error:  # one contender's failure is a result, and the others go on
                    row["error"] = f"{type(error).__name__}: {error}"[:500]
            if reason is not None:
                row["not_run"] = reason
        for name in list(steps):
            try:
                warm_up(steps[name])
            except Exception as error:
                failed = next(row for row in rows if row["contender"] == name)
                failed["error"] = f"{type(error).__name__}: {error}"[:500]
                del steps[name]
        found = time_steps(steps, rounds=options.rounds, seconds=share * options.seconds)
        for row in rows:
            row.update(found.get(row["contender"], {}))
            self._remember(row)
            progress("   " + brief(row))
        return rows

    def _too_large(
        self, contender: Contender, setting: Setting, sizes: dict[str, int]
    ) -> str | None:
        needed = contender.needs(setting, sizes["nodes"], sizes["edges"]) / 1e9
        if needed > self.options.max_gb:
            return f"would need {needed:.0f} GB"
        done = self._last.get(contender.name)
        if done is None:
            return None
        size = _size(contender.grows, sizes, setting.batch)
        seconds = done[1] * size / done[0]
        return f"a step would take {seconds:.0f} s" if seconds > self.options.max_step else None

    def _remember(self, row: dict[str, Any]) -> None:
        measured = row.get("step") or row.get("forward")
        if not measured:
            return
        everyone = (*LAYERS, *HETERO_LAYERS)
        contender = next(c for c in everyone if c.name == row["contender"])
        size = _size(contender.grows, row, row["batch"])
        self._last[contender.name] = (size, measured["ms"] / 1e3)

    def _memory(
        self,
        section: str,
        contenders: Iterable[Contender],
        setting: Setting,
        rows: list[dict[str, Any]],
    ) -> None:
        """Adds ``memory`` to the rows of one comparison."""
        if not self.options.with_memory:
            return
        by_name = {row["contender"]: row for row in rows}
        names = [
            c.name
            for c in contenders
            if c.name in by_name and not {"not_run", "error"} & set(by_name[c.name])
        ]
        # Nothing is timed meanwhile, so processes may share the machine.
        with ThreadPoolExecutor(max_workers=2) as pool:
            found = pool.map(lambda name: memory.measure(section, name, setting), names)
            for name, measured in zip(names, found, strict=True):
                by_name[name]["memory"] = measured
                progress(f"   memory: {name}: {measured}")
                if "error" in measured:
                    by_name[name]["error"] = f"memory: {measured['error']}"

    def _setting(self, workload: Workload, **changes: Any) -> Setting:
        return replace(Setting(workload, self.options.channels, self.options.heads[0]), **changes)

    def _workloads(self, kind: str) -> dict[str, Workload]:
        options = self.options
        out = {f"generated {kind}": Workload(kind, seed=options.seed).scaled(options.scale)}
        if options.yeast:
            out[f"yeast {kind}"] = Workload(f"yeast_{kind}", yeast=options.yeast, seed=options.seed)
        return out

    # ---- sections --------------------------------------------------------------------------------------------------------

    def _machine(self) -> dict[str, Any]:
        nodes = max(64, round(GENES * self.options.scale))
        found = machine.speeds(nodes, self.options.channels, 22, seconds=self.options.seconds / 3)
        progress("   " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
        self.speeds = found
        return found

    def _layer(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        agreement = {}
        for label, workload in self._workloads("physical").items():
            for heads in self.options.heads:
                setting = self._setting(workload, heads=heads)
                some = self.compare("layer", LAYERS, setting, label)
                self._memory("layer", LAYERS, setting, some)
                rows += some
            agreement[label] = check_agreement(self._setting(workload))
            progress(f"   largest relative difference from TransformerConv: {agreement[label]}")
        return {"rows": rows, "agreement": agreement}

    def _hetero(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for label, workload in self._workloads("cell").items():
            for heads in self.options.heads:
                setting = self._setting(workload, heads=heads)
                some = self.compare("hetero", HETERO_LAYERS, setting, label)
                self._memory("hetero", HETERO_LAYERS, setting, some)
                rows += some
        return {"rows": rows}

    def _growth(
        self,
        section: str,
        settings: Iterable[Setting],
        memory_at: Callable[[Setting], bool] = lambda setting: False,
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        # Small scales make some sizes equal.
        for setting in dict.fromkeys(settings):
            some = self.compare(section, LAYERS, setting, f"generated, {section}", share=0.4)
            if memory_at(setting):
                self._memory(section, LAYERS, setting, some)
            rows += some
        return rows

    def _sized(self, edges: int, nodes: int) -> Workload:
        """A physical graph; sizes are scaled, and the seed is that of the run."""
        workload = Workload("physical", nodes, edges, seed=self.options.seed)
        return workload.scaled(self.options.scale)

    def _edges(self) -> dict[str, Any]:
        """Nodes grow with the edges, at the physical relation's mean degree."""
        degree = PHYSICAL_EDGES / GENES
        settings = [self._setting(self._sized(e, round(e / degree))) for e in GROWTH]
        with_memory = {self._sized(e, round(e / degree)) for e in MEMORY_GROWTH}
        rows = self._growth("edges", settings, lambda s: s.workload in with_memory)
        return {"rows": rows, "exponents": exponents(rows, 100_000 * self.options.scale)}

    def _density(self) -> dict[str, Any]:
        """The genes stay, and their edges grow."""
        rows = self._growth("density", [self._setting(self._sized(e, GENES)) for e in GROWTH])
        return {"rows": rows, "exponents": exponents(rows, 100_000 * self.options.scale)}

    def _nodes(self) -> dict[str, Any]:
        settings = [self._setting(self._sized(PHYSICAL_EDGES, n)) for n in NODE_GROWTH]
        return {"rows": self._growth("nodes", settings)}

    def _heads(self) -> dict[str, Any]:
        workload = self._sized(PHYSICAL_EDGES, GENES)
        return {
            "rows": self._growth(
                "heads",
                [self._setting(workload, heads=h) for h in HEADS if self.options.channels % h == 0],
                lambda setting: setting.heads in MEMORY_HEADS,
            )
        }

    def _batch(self) -> dict[str, Any]:
        workload = self._sized(PHYSICAL_EDGES, GENES)
        settings = [self._setting(workload, batch=b) for b in BATCHES]
        return {"rows": self._growth("batch", settings, lambda s: s.batch in MEMORY_BATCHES)}

    def _bfloat16(self) -> dict[str, Any]:
        """Under autocast, beside float32; whether the results agree."""
        workload = self._workloads("physical")["generated physical"]
        rows: list[dict[str, Any]] = []
        some = [c for c in LAYERS if not c.sections and c.name != "FlexAttention, dense bool mask"]
        for dtype in ("float32", "bfloat16"):
            rows += self.compare(
                "bfloat16", some, self._setting(workload, dtype=dtype), "generated"
            )
        outputs = {}
        block = next(c for c in LAYERS if c.name == "MaskedAttentionBlock")
        exact, half = (
            block.make(self._setting(workload, dtype=dtype)) for dtype in ("float32", "bfloat16")
        )
        half.module.load_state_dict(exact.module.state_dict())
        expected, got = exact.forward()[0], half.forward()[0].float()
        half.train()
        gradients = [p.grad for p in half.module.parameters() if p.grad is not None]
        outputs["relative_difference"] = float((got - expected).norm() / expected.norm())
        outputs["finite"] = bool(
            got.isfinite().all() and all(bool(g.isfinite().all()) for g in gradients)
        )
        return {"rows": rows, **outputs}

    def _profile(self) -> dict[str, Any]:
        workload = self._workloads("physical")["generated physical"]
        sizes = size_of(workload)
        speed = self.speeds or self._machine()
        out = []
        for heads in self.options.heads:
            setting = self._setting(workload, heads=heads)
            parts = floor.profile(setting, rounds=self.options.rounds, seconds=self.options.seconds)
            least = floor.floor(sizes["nodes"], sizes["edges"], setting.channels, heads, speed)
            out.append({"heads": heads, **sizes, "parts": parts, "floor": least})
            progress(f"   {heads} heads: floor {least['floor_ms']:.1f} ms, {parts['whole']}")
        return {"layers": out}

    def _edge_set(self) -> dict[str, Any]:
        """How long it takes to build what a graph's layers share, and whether it happens once for a tensor."""
        workload = self._workloads("physical")["generated physical"]
        nodes, index = only_relation(workload.graph())
        shuffled = index[:, torch.randperm(index.size(1))]

        def build(pairs: torch.Tensor) -> tuple[EdgeSet, Any]:
            edges = EdgeSet.from_edge_index(pairs, nodes, nodes)
            return edges, csr_tensors(edges)  # what the first attention derives

        # Copies, since the edge set of a tensor that it has seen is looked up.
        found = interleave(
            {
                "sorted": lambda: build(index.clone()),
                "shuffled": lambda: build(shuffled.clone()),
                "again": lambda: build(index),
            },
            rounds=self.options.rounds,
            seconds=self.options.seconds,
        )
        first, second = build(index), build(index)
        once = all(a is b for a, b in zip(first, second, strict=True))
        return {"edges": index.size(1), **found, "once": once}

    def _mask_state(self) -> dict[str, Any]:
        return {
            label: mask_state.mask_state(workload.graph(), (1, 8, 64))
            for kind in ("physical", "cell")
            for label, workload in self._workloads(kind).items()
        }

    def _ordering(self) -> dict[str, Any]:
        return {
            label: ordering.occupancy(workload.graph())
            for label, workload in self._workloads("cell").items()
        }


def describe(contender: Contender) -> dict[str, str]:
    """For the tables' legend."""
    return {"name": contender.name, "group": contender.group, "includes": contender.includes}


def size_of(workload: Workload) -> dict[str, int]:
    """Nodes and edges of all types; without building generated graphs."""
    if workload.kind == "physical":
        return {"nodes": workload.nodes, "edges": workload.edges}
    graph = workload.graph()
    return {
        "nodes": sum(graph[t].num_nodes for t in graph.node_types),
        "edges": sum(graph[t].edge_index.size(1) for t in graph.edge_types),
    }


def _size(grows: str, sizes: dict[str, int], batch: int) -> float:
    return batch * float(sizes["nodes"] ** 2 if grows == "matrix" else sizes["edges"])


def exponents(rows: list[dict[str, Any]], smallest: float) -> dict[str, dict[str, Any]]:
    """Least-squares slope of log time against log edges, of contenders with three sizes or more.

    Sizes below ``smallest`` are left out: fixed costs would flatten the slope there.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get("step") and row["edges"] >= 0.99 * smallest:
            logs = (math.log10(row["edges"]), math.log10(row["step"]["ms"]))
            points.setdefault(row["contender"], []).append(logs)
    out = {}
    for name, found in points.items():
        if len(found) >= 3:
            slope = statistics.linear_regression(*zip(*found, strict=True)).slope
            ends = [round(10 ** found[i][0]) for i in (0, -1)]
            out[name] = {"exponent": slope, "from": ends[0], "to": ends[1]}
    return out


def brief(row: dict[str, Any]) -> str:
    """A row for the progress lines."""
    what = row.get("error") or row.get("not_run")
    if what is None:
        times = (f"{row[k]['ms']:.1f} ms {k}" for k in ("forward", "step") if row.get(k))
        what = ", ".join(times)
    return (
        f"{row['nodes']} nodes, {row['edges']} edges, {row['heads']} heads, batch {row['batch']}, "
        f"{row['dtype']}: {row['contender']}: {what}"
    )

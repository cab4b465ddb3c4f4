"""The benchmarks run, at tiny sizes; nothing here looks at a time."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from benchmarks import gpu_models, machine, mask_state, page, tables, timing, workloads
from benchmarks.arguments import GPU_CONTENDERS
from benchmarks.cli import errors, main
from benchmarks.contenders import Setting, nbytes
from benchmarks.cpu import CpuBenchmark, Options, exponents
from benchmarks.goals import goals
from benchmarks.gpu_table import gpu_table
from benchmarks.hetero_layers import HETERO_LAYERS
from benchmarks.layers import LAYERS
from benchmarks.memory import measure_here
from benchmarks.workloads import Workload

from pyg_nsa import edge_attention
from pyg_nsa.cell.config import CellConfig

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--scale", "0.01", "--rounds", "1", "--seconds", "0", "--heads", "2", "--channels", "16"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmarks")
    sections = ["machine", "layer", "hetero", "heads", "bfloat16"]
    sections += ["profile", "edge_set", "mask_state", "ordering"]
    # Compiling takes most of a minute; uncompiled, FlexAttention gives the same.
    with torch._dynamo.config.patch(disable=True):
        status = main(
            [
                "cpu",
                *TINY,
                "--no-memory",
                "--no-kept-memory",
                "--out",
                str(folder),
                "--only",
                *sections,
            ]
        )
    assert status == 0
    assert (folder / "benchmarks.png").stat().st_size > 10_000
    return json.loads((folder / "benchmarks.json").read_text())


@pytest.mark.parametrize(("section", "contenders"), [("layer", LAYERS), ("hetero", HETERO_LAYERS)])
def test_all_contenders_run(
    results: dict[str, Any], section: str, contenders: tuple[Any, ...]
) -> None:
    rows = results[section]["rows"]
    assert [row["contender"] for row in rows] == [
        c.name for c in contenders if c.takes_part(section)
    ]
    for row in rows:
        if "FlexAttention" in row["contender"]:
            assert row.get("forward") or row["not_run"]
            assert not row.get("step")
        else:
            assert row["forward"]["ms"] > 0
            assert row["step"]["ms"] > 0
            assert row["state_mb"] > 0


def test_versions_that_decide_about_speed_are_recorded(results: dict[str, Any]) -> None:
    assert results["machine"]["numba"] == version("numba")
    assert f"numba {version('numba')}" in tables.render(results)["machine"]


def test_no_errors(results: dict[str, Any]) -> None:
    assert errors(results) == []


def test_same_parameters_give_the_same_result(results: dict[str, Any]) -> None:
    (differences,) = results["layer"]["agreement"].values()
    assert {"SDPA, dense bool mask", "NSAConv"} <= set(differences)
    assert max(differences.values()) < 1e-5


def test_every_part_has_a_place_on_the_page(results: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    parts = tables.render(results)
    assert {"machine", "goals", "layer", "hetero", "heads", "profile", "ordering"} <= set(parts)
    assert page.fill(copy, parts) == []
    assert parts["layer"] in copy.read_text()
    before = copy.read_text()
    page.fill(copy, parts)
    assert copy.read_text() == before


def test_goals_are_judged(results: dict[str, Any]) -> None:
    found = goals(results)
    assert {type(row["met"]) for row in found} == {bool}
    by_goal = {row["goal"]: row["met"] for row in found}
    assert by_goal["mask state of a batch is that of one graph"]
    assert by_goal["bfloat16 autocast works"]


def test_mask_state_is_measured_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def met() -> list[bool]:
        rows = mask_state.mask_state(Workload("cell", scale=0.05).graph(), (1, 4))
        assert [row["alive"] for row in rows] == [826, 4 * 826]  # 330 + 356 + 140 nodes
        assert [row["num_tiles"] for row in rows] == [33, 33]  # all: 3 * 3 twice, 3 * 3, 3 * 2
        assert all(row["tiles"] > 4096 * 33 and row["edge_set"] > 0 for row in rows)
        return [goal["met"] for goal in goals({"mask_state": {"cell": rows}})]

    assert met() == [True]

    def keeps_a_mask_for_each_instance(q: Any, *arguments: Any, **masks: Any) -> Any:
        arguments[2].derived["masks"] = q.new_ones(q.shape[:2])
        return edge_attention(q, *arguments, **masks)

    monkeypatch.setattr(mask_state, "edge_attention", keeps_a_mask_for_each_instance)
    assert met() == [False]


def test_an_edge_set_that_is_built_in_every_call_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = Options(scale=0.01, rounds=1, seconds=0.0)

    def met() -> list[bool]:
        found = CpuBenchmark(options)._edge_set()
        return [found["once"], *(goal["met"] for goal in goals({"edge_set": found}))]

    assert met() == [True, True]
    monkeypatch.setattr("pyg_nsa.attention.edges._built_from", lambda tensor: None)
    assert met() == [False, False]


@pytest.mark.parametrize(("duration", "rounds"), [(0.4, 5), (1.5, 3)])
def test_few_rounds_at_least(monkeypatch: pytest.MonkeyPatch, duration: float, rounds: int) -> None:
    clock = [0.0]

    def run() -> None:
        clock[0] += duration

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    found = timing.interleave({"a": run}, rounds=15, seconds=0.1)
    assert found["a"]["runs"] == rounds
    assert math.isclose(found["a"]["ms"], 1e3 * duration)


def test_slow_ones_do_not_take_rounds_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def taking(duration: float) -> Callable[[], None]:
        def run() -> None:
            clock[0] += duration

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    functions = {"dense": taking(2.5), "sparse": taking(0.03), "PyG": taking(0.3)}
    found = timing.interleave(functions, rounds=15, seconds=3.0)
    assert {name: summary["runs"] for name, summary in found.items()} == {
        "dense": 3,
        "sparse": 10,  # 9 rounds of 0.33 s are within 3 s
        "PyG": 10,
    }
    assert timing.interleave(functions, rounds=4, seconds=100.0)["dense"]["runs"] == 4


def test_growth_tables_have_time_and_memory() -> None:
    def row(heads: int, name: str, **found: Any) -> dict[str, Any]:
        sizes = {"workload": "w", "nodes": 5, "edges": 9, "batch": 1, "channels": 8}
        known = {"dtype": "float32", "contender": name, "group": "PyG", "heads": heads}
        return {**sizes, **known, **found}

    rows = [
        row(1, "a", step={"ms": 2.0}, memory={"forward": 1.0, "step": 7.0}),
        row(1, "b", forward={"ms": 3.0}, memory={"forward": 4.0, "step": None}),
        row(2, "a", step={"ms": 5.0}),
        row(2, "b", not_run="too large"),
        row(4, "a", step={"ms": 6.0}, memory={"forward": 1.0, "step": 8.0}),
        row(4, "b", not_run="too large"),
    ]
    times, memory = tables.render(
        {"date": "", "machine": machine.describe(), "heads": {"rows": rows}}
    )["heads"].split("\n\nPeak memory of a step, MB:\n\n")
    assert "| 1 | 5 | 9 | 2.0 | (3.0) |" in times
    assert "| 2 | 5 | 9 | 5.0 | [1] |" in times
    assert "[1] not run: too large." in times
    assert memory.splitlines()[2:] == ["| 1 | 5 | 9 | 7.0 | (4.0) |", "| 4 | 5 | 9 | 8.0 | – |"]


def test_exponent_of_a_power_law() -> None:
    def row(edges: int) -> dict[str, Any]:
        return {"contender": "a", "edges": edges, "step": {"ms": 3 * edges**1.5}}

    found = exponents([row(edges) for edges in (10, 100, 1000, 10_000)], 100)
    assert math.isclose(found["a"]["exponent"], 1.5)
    assert (found["a"]["from"], found["a"]["to"]) == (100, 10_000)


def test_errors_are_found_wherever_they_are() -> None:
    nested = {"layer": {"rows": [{"contender": "a", "error": "broke"}, {"contender": "b"}]}}
    assert errors(nested) == ["layer/rows a: broke"]


# ---- workloads -----------------------------------------------------------------------------------------------------------


def test_cell_graph_has_the_cells_sizes() -> None:
    graph = Workload("cell").graph()
    assert {t: graph[t].num_nodes for t in graph.node_types} == {
        "gene": 6_607,
        "reaction": 7_122,
        "metabolite": 2_806,
    }
    counts = {t[1]: graph[t].edge_index.size(1) for t in graph.edge_types}
    assert counts == {"physical": 144_211, "regulates": 16_101, "gpr": 5_450, "rmr": 26_325}
    for edge_type in graph.edge_types:
        source, target = graph[edge_type].edge_index
        assert int(source.max()) < graph[edge_type[0]].num_nodes
        assert int(target.max()) < graph[edge_type[2]].num_nodes
        place = target * graph[edge_type[0]].num_nodes + source
        assert (place.diff() > 0).all()  # sorted, and unique
    signs = graph[workloads.RMR].stoichiometry.sign().unique()
    assert signs.tolist() == [-1, 1]


def test_physical_pairs_have_both_directions_and_hubs() -> None:
    index = workloads.symmetric_pairs(2000, 20_001, seed=1)
    forward, backward = (set(map(tuple, pairs.t().tolist())) for pairs in (index, index.flip(0)))
    assert forward == backward
    assert len(forward) == 20_001
    degree = index[1].bincount()
    assert degree.max() > 10 * degree.float().mean()


def test_generator_depends_on_the_seed_alone() -> None:
    first, again, other = (
        workloads.power_law_pairs(50, 70, 300, seed, 2.5, 6.0) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_union_is_copies_side_by_side() -> None:
    index = torch.tensor([[0, 2], [1, 1]])
    assert workloads.union_index(index, 3, 2).tolist() == [[0, 2, 3, 5], [1, 1, 4, 4]]


def test_setting_survives_json() -> None:
    setting = Setting(Workload("cell", scale=0.5, seed=3), heads=8, dtype="bfloat16")
    assert Setting.from_json(json.loads(json.dumps(setting.to_json()))) == setting


# ---- memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_peak_memory_sees_a_large_tensor() -> None:
    contender = next(c for c in LAYERS if c.name == "TransformerConv")
    setting = Setting(Workload(nodes=2_000, edges=100_000))
    found = measure_here(contender, setting)
    one_message = 100_000 * setting.channels * 4 / 1e6
    assert found["step"] > one_message


def test_bytes_of_shared_memory_count_once() -> None:
    x = torch.zeros(10)
    assert nbytes(x, [x, {"again": x}], x[:5]) == 40


# ---- GPU -----------------------------------------------------------------------------------------------------------------


def test_gpu_benchmark_without_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("name", GPU_CONTENDERS)
def test_gpu_benchmark_on_the_cpu(name: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    small = ["--small", "--device", "cpu", "--steps", "1", "--warm-up", "1", "--max-batch", "2"]
    assert main(["gpu", *small, "--child", name, "--child-out", str(path)]) == 0
    found = json.loads(path.read_text())
    assert "error" not in found
    if "FlexAttention" in name:
        assert "no backward pass" in found["not_run"]
    else:
        assert [row["batch"] for row in found["batches"]] == [1, 2]
        assert found["largest_batch"] == 2


def test_gpu_model_has_the_cell_models_order_of_nodes() -> None:
    graph = gpu_models.cell_data(Workload("cell", scale=0.02).graph())
    models = {name: gpu_models.build(name, graph, 16, 2) for name in GPU_CONTENDERS}
    default = CellConfig.model_fields["node_order"].default
    assert models["HeteroNSA"].node_order == default != "natural"
    assert "order_dict" in models["HeteroNSA"].prepared(graph)
    for name, model in models.items():
        if name != "HeteroNSA":
            assert "order_dict" not in model.prepared(graph)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_gpu_competitor_with_dense_masks_attends_as_it_should(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Uncompiled, and with gradients on a CPU, which FlexAttention refuses."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    graph = gpu_models.cell_data(Workload("cell", scale=0.01).graph())
    sizes = {t: int(graph[t].num_nodes) for t in graph.node_types}
    operator = gpu_models.DenseFlexOperator(graph, 16, 2, sizes, _compile=False)
    batch = gpu_models.perturbations(graph, 3)
    batch.alive_dict["gene"][2] = False
    arguments = operator.prepare(graph)
    arguments["x_dict"] = {t: x.expand(3, -1, -1) for t, x in arguments["x_dict"].items()}
    torch._dynamo.reset()
    out = operator(mask_dict=batch.alive_dict, **arguments)
    assert {t: tuple(x.shape) for t, x in out.items()} == {t: (3, n, 16) for t, n in sizes.items()}
    torch.stack([x.square().sum() for x in out.values()]).sum().backward()
    for name, parameter in operator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias of keys moves all logits of a row alike.
        if not (name.startswith("lin_key") and name.endswith("bias")):
            assert parameter.grad.any(), name

    mask = arguments["adj_mask_dict"][workloads.GPR] & batch.alive_dict["gene"][:, None, :]
    source, target = (torch.randn(3, sizes[t], 16) for t in ("gene", "reaction"))
    got = operator._message(workloads.GPR, source, target, mask)
    q, k, v = (
        lin[workloads.GPR](rows).unflatten(-1, (2, 8)).transpose(1, 2)
        for lin, rows in (
            (operator.lin_query, target),
            (operator.lin_key, source),
            (operator.lin_value, source),
        )
    )
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask[:, None])
    expected = expected.masked_fill(~mask.any(-1)[:, None, :, None], 0.0)  # no key, no message
    expected = operator.lin_out[workloads.GPR](expected.transpose(1, 2).flatten(-2))
    assert not got[2].any()
    torch.testing.assert_close(got, expected)


def test_gpu_table() -> None:
    contenders = {
        "HeteroNSA": {
            "best": {"instances_per_second": 12.345, "batch": 8, "peak_gb": 3.21},
            "largest_batch": 24,
        },
        "FlexAttention, dense masks": {"best": None, "error": "out of|memory\nat once"},
    }
    killed = {**contenders["HeteroNSA"], "error": "the process ended with -9"}
    later = gpu_table({**contenders, "HeteroNSA": killed})
    assert "| HeteroNSA | 12.35 | 24; then failed: the process ended with -9 | 3.21 GB" in later
    text = gpu_table(contenders)
    assert "| HeteroNSA | 12.35 | 24 | 3.21 GB at batch 8 |" in text
    assert "| FlexAttention, dense masks | failed: out of/memory at once | – | – |" in text
    assert "| HeteroConv of TransformerConv |" + " not measured yet |" * 3 in text
    assert "| reported by others, on 4 GPUs | 1.1 | 2 on each | – |" in text


def test_gpu_what_a_process_says_is_passed_on_and_its_end_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from benchmarks.gpu import _tell

    code = "import sys; [print(i, file=sys.stderr) for i in range(40)]; sys.exit(3)"
    status, said = _tell([sys.executable, "-c", code], 60)
    assert (status, said.splitlines()) == (3, [str(i) for i in range(25, 40)])
    assert capfd.readouterr().err.splitlines() == [str(i) for i in range(40)]
    status, _ = _tell([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert status < 0


def test_gpu_table_on_the_page() -> None:
    """What the benchmark found, or that it was not run."""
    found = ROOT / "docs" / "benchmarks-gpu.json"
    results = json.loads(found.read_text()) if found.is_file() else {"contenders": {}}
    assert gpu_table(results["contenders"]) in (ROOT / "docs" / "benchmarks.md").read_text()


def test_gpu_out_of_memory_is_told_from_failure() -> None:
    from benchmarks.gpu import _is_out_of_memory

    assert _is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert _is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not _is_out_of_memory(RuntimeError("an illegal memory access was encountered"))


@pytest.mark.parametrize(
    ("first", "sizes"), [(1, [1, 2, 4, 8, 16, 32, 24, 20, 22]), (16, [16, 32, 24, 20, 22])]
)
def test_gpu_search_for_the_largest_batch(
    monkeypatch: pytest.MonkeyPatch, first: int, sizes: list[int]
) -> None:
    from benchmarks import gpu

    tried = []

    class Args:
        first_batch, max_batch, minutes = first, 512, 1.0

    def measure(self: Any, size: int) -> str | None:
        tried.append(size)
        return None if size <= 21 else "out of memory"

    trial = gpu._Trial.__new__(gpu._Trial)
    trial.args, trial.found, trial.deadline = Args(), {}, math.inf
    monkeypatch.setattr(gpu._Trial, "_measure", measure)
    trial.search()
    assert tried == sizes
    assert trial.found == {"largest_batch": 20, "ended_by": "out of memory"}


# ---- processes -----------------------------------------------------------------------------------------------------------


def test_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement in one process; tests/cell/test_distributed.py does it in two."""
    from benchmarks import processes

    config = ["--config", str(ROOT / "pyg_nsa" / "cell" / "textbook.yaml")]
    small = [*config, "--cache", str(tmp_path / "cache"), "--batch-size", "2", "--steps", "1"]
    small += ["--warm-up", "0", "--threads", str(torch.get_num_threads())]
    child = tmp_path / "child.json"
    assert main(["processes", *small, "--child-out", str(child)]) == 0
    found = json.loads(child.read_text())
    assert found["instances_per_second"] > 0
    assert found["batch_size"] == 2
    assert found["nodes"] == 137 + 207 + 72

    speeds = {(1, 2): [10.0, 12.0, 11.0], (2, 2): [18.0, 25.0, 16.5], (2, 4): [18.0, 25.0, 22.0]}

    def measured(number: int, size: int, args: Any) -> dict[str, Any]:
        speed = speeds[number, size].pop(0)
        return {**found, "instances_per_second": speed, "core_seconds": number / 8}

    monkeypatch.setattr(processes, "_in_processes", measured)
    page_file = tmp_path / "scale_out.md"
    page_file.write_text((ROOT / "docs" / "scale_out.md").read_text())
    out = ["--out", str(tmp_path / "processes.json"), "--rounds", "3", "--labels", "--write-docs"]
    assert main(["processes", *small, *out]) == 0
    results = json.loads((tmp_path / "processes.json").read_text())
    assert [(row["processes"], row["batch_size"]) for row in results["rows"]] == list(speeds)
    assert [row["instances_per_second"] for row in results["rows"]] == [11.0, 18.0, 22.0]
    assert results["rows"][2]["times"] == 2.0
    assert results["training"]["core_seconds"] == 1 / 8  # of one process
    text = page_file.read_text()
    assert "| 2 | 4 | 22.0 | 18.0–25.0 | 3 | 2.00 |" in text
    assert "20 bytes per instance" in text
    assert page.fill(page_file, processes.render(results)) == []  # every part has its place


def test_a_plan_counts_from_what_was_measured() -> None:
    from benchmarks.plan import plan

    results = {
        "labels": {
            "bytes_per_instance": 20.0,
            "core_seconds": 36.0,
            "instances": 10**6,
            "lps": 1800,
        },
        "training": {"nodes": 8640, "batch_size": 8, "parameters": 10**6, "core_seconds": 0.02},
    }
    values = {row["what"]: row["value"] for row in plan(results, 10**8)}
    assert values["genes and labels"] == "2.0 GB in 100 shards of 20 MB"
    assert values["labels, if new instances share LPs as all pairs do"] == "1.0 core hours"
    assert values["labels, if every instance needs an LP of its own"] == "556 core hours"
    assert values["one pass of training on CPUs"] == "556 core hours"
    assert values["gradients that each process sends in a step"] == "8.0 MB"


def test_processes_reports_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import processes

    monkeypatch.setattr(processes, "_in_processes", lambda *_: {"error": "ended with 1"})
    out = tmp_path / "processes.json"
    assert main(["processes", "--out", str(out), "--processes", "2"]) == 1
    assert "FAILED: 2 processes: ended with 1" in capsys.readouterr().err
    assert not out.exists()

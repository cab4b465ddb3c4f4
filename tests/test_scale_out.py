"""docs/scale_out.md: its scripts, manifests and examples are valid, and call what there is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from ruamel.yaml import YAML

from pyg_nsa.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale_out.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.S | re.M)


def options_of(arguments):
    """What pyg-nsa understands by its arguments; click complains of options that there are not."""
    group, context, names = main, None, []
    while hasattr(group, "get_command"):
        name, *arguments = arguments
        names.append(name)
        group = group.get_command(context, name)
        assert group is not None, f"there is no command {' '.join(names)}"
    return names, group.make_context(name, list(arguments)).params


def after_launcher(words):
    """The arguments of pyg-nsa in a command of torchrun or srun."""
    if "pyg-nsa" in words:
        return words[words.index("pyg-nsa") + 1 :]
    assert words[words.index("-m") + 1] == "pyg_nsa"
    return words[words.index("-m") + 2 :]


def test_commands_are_those_that_there_are():
    commands = [
        line.removeprefix("$ ").replace("\\\n", " ")
        for block in blocks("console")
        for line in re.findall(r"^\$ (?:.*\\\n)*.*", block, flags=re.M)
    ]
    ours = [shlex.split(command) for command in commands if "tests/benchmarks" not in command]
    assert len(ours) == 3
    for words in ours:
        names, options = options_of(after_launcher(words))
        assert names == ["train"]
        assert str(options["config"]) == "my.yaml"


def test_benchmark_commands_are_those_that_there_are():
    from benchmarks.cli import _parser

    commands = re.findall(r"^\$ python tests/benchmarks (.*)", PAGE, flags=re.M)
    assert commands
    for command in commands:
        assert _parser().parse_args(command.split()).labels


def test_the_slurm_script(tmp_path):
    (script,) = blocks("bash")
    assert script.startswith("#!/bin/bash\n#SBATCH")
    file = tmp_path / "pyg_nsa.sbatch"
    file.write_text(script)
    done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # What it starts, with srun and the environment's activation in place of the real ones.
    bin = tmp_path / "cell" / ".venv" / "bin"
    bin.mkdir(parents=True)
    (bin / "activate").write_text('srun() { printf "%s\\n" "$*" >> "$HOME/started"; }\n')
    environment = {"HOME": str(tmp_path), "SLURM_CPUS_PER_TASK": "8", "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", str(file)], check=True, env=environment)
    labels, train = map(shlex.split, (tmp_path / "started").read_text().splitlines())
    names, options = options_of(after_launcher(labels))
    assert (names, options["model"], options["workers"]) == (["cell", "labels"], "iJO1366", 8)
    names, options = options_of(after_launcher(train))
    assert (names, options["resume"], options["no_progress"]) == (["train"], True, True)


def test_the_kubernetes_manifest():
    (text,) = blocks("yaml")
    service, job = YAML(typ="safe").load_all(text)
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    flags = dict(word.lstrip("-").split("=") for word in container["command"] if "=" in word)
    assert int(flags["nnodes"]) == spec["completions"]
    assert int(flags["nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert flags["master-addr"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert {int(flags["master-port"])} == {port["containerPort"] for port in container["ports"]}
    # torchrun itself understands them.
    from torch.distributed.run import get_args_parser

    command = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in container["command"]]
    parsed = get_args_parser().parse_args(command[1:])
    assert (parsed.node_rank, parsed.module, parsed.training_script) == (1, True, "pyg_nsa")
    names, options = options_of(parsed.training_script_args)
    assert (names, options["resume"]) == (["train"], True)


def fake_ray(monkeypatch, started):
    """Just enough of Ray Train to import the script and start it."""
    ray, train, for_torch = (ModuleType(name) for name in ("ray", "ray.train", "ray.train.torch"))
    for name in ("FailureConfig", "RunConfig", "ScalingConfig"):
        setattr(train, name, lambda **arguments: arguments)

    def trainer(loop, **arguments):
        started.update(arguments)
        return SimpleNamespace(fit=lambda: loop(arguments["train_loop_config"]))

    for_torch.TorchTrainer = trainer
    for module in (ray, train, for_torch):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_ray_script(monkeypatch, tmp_path):
    script = next(block for block in blocks("python") if "ray.train" in block)
    config = tmp_path / "my.yaml"
    config.write_text((ROOT / "pyg_nsa" / "cell" / "textbook.yaml").read_text())
    script = script.replace("/net/", f"{tmp_path}/")
    started, called = {}, []
    fake_ray(monkeypatch, started)
    from pyg_nsa.cell.training import run

    def run_training(config, folder, **arguments):
        called.append((config.data.model, folder, arguments))

    monkeypatch.setattr(run, "run_training", run_training)
    exec(compile(script, "ray_script.py", "exec"), {"__name__": "__main__"})
    assert started["scaling_config"]["num_workers"] == 8
    wanted = {"cache": tmp_path / "cache", "progress": False, "resume": True}
    assert called == [("textbook", tmp_path / "runs" / "my", wanted)]


def test_a_loop_of_your_own(tmp_path):
    from pyg_nsa.cell import PerturbationDataset, build_model
    from pyg_nsa.cell.config import CellConfig
    from pyg_nsa.cell.data.batch import PerturbationCollate
    from pyg_nsa.load import load_config

    namespace = {}
    script = next(block for block in blocks("python") if "def train(model" in block)
    exec(compile(script, "loop.py", "exec"), namespace)
    config = load_config(ROOT / "pyg_nsa" / "cell" / "textbook.yaml", CellConfig)
    dataset = PerturbationDataset(tmp_path, "textbook", features=["degree"], progress=False)
    model = build_model(config, dataset.graph)
    with torch.no_grad():
        model(dataset.graph, PerturbationCollate(dataset.graph)([dataset.get(0)]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        namespace["train"](model, dataset, epochs=1)
    finally:
        dist.destroy_process_group()
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    assert len(changed) > len(before) // 2


def test_the_tables_are_those_of_the_recorded_run():
    run = json.loads((ROOT / "docs" / "benchmarks-processes.json").read_text())
    assert {row["processes"] for row in run["rows"]} == {1, 2}
    (table,) = re.findall(r"<!-- bench:processes -->\n(.*?)<!-- /bench", PAGE, flags=re.S)
    (plan,) = re.findall(r"<!-- bench:plan -->\n(.*?)<!-- /bench", PAGE, flags=re.S)
    for row in run["rows"]:
        assert (
            f"| {row['processes']} | {row['batch_size']} | {row['instances_per_second']:.1f} |"
            in table
        )
    for text in (table, plan):
        assert f"{run['training']['parameters']:,} parameters" in text
        assert run["command"] in text
    # The model of `pyg-nsa demo`, whose size stands in the comparison too.
    comparison = (ROOT / "docs" / "comparison.md").read_text()
    assert f"| hetero_nsa | 48 | {run['training']['parameters']:,} |" in comparison


@pytest.mark.parametrize("name", ["processes", "plan"])
def test_numbers_come_with_their_command_or_not_at_all(name):
    (text,) = re.findall(rf"<!-- bench:{name} -->\n(.*?)<!-- /bench:{name} -->", PAGE, flags=re.S)
    assert "Not measured on a quiet machine yet." in text or "|" in text

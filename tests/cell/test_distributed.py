"""Two processes do what one does: under torchrun, by themselves and through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cell import two_processes

from pyg_nsa.cell.config import CellConfig, TrainingConfig
from pyg_nsa.cell.data.splits import MixedSampler, split_by_gene
from pyg_nsa.cell.evaluation.metrics import evaluate
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.training.distributed import SharedBatches, placement
from pyg_nsa.cell.training.experiment import run_experiment
from pyg_nsa.load import load_config

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*command: str) -> str:
    """What a command printed to stdout; each process has one thread."""
    tests = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": tests,
    }
    done = subprocess.run(
        [*TORCHRUN, *command], capture_output=True, text=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- who takes what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size"), [(12, 4), (13, 4), (5, 7), (1, 4), (0, 4)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_divide_every_batch_between_them(n, batch_size, size):
    shares = [list(SharedBatches(range(n), batch_size, rank, size)) for rank in range(size)]
    joint = list(SharedBatches(range(n), batch_size, 0, 1))
    assert {len(batches) for batches in shares} == {len(joint)}
    assert len(SharedBatches(range(n), batch_size, 0, size)) == len(joint)
    for batch, *parts in zip(joint, *shares, strict=True):
        assert sorted(i for part in parts for i in part) == batch
    assert sorted(i for batches in shares for batch in batches for i in batch) == list(range(n))


def test_processes_draw_disjoint_parts_of_the_same_epoch(dataset):
    split = split_by_gene(dataset.table, (0.7, 0.1, 0.2), 0)

    def epoch(number, rank, size):
        sampler = MixedSampler(dataset.table, split.train, size=50, seed=3)
        sampler.set_epoch(number)
        return [i for batch in SharedBatches(sampler, 8, rank, size) for i in batch]

    for number in (0, 5):
        whole, first, second = (epoch(number, *who) for who in ((0, 1), (0, 2), (1, 2)))
        assert len(set(whole)) == 50  # so that disjoint positions are disjoint instances
        assert sorted(first + second) == sorted(whole)
        assert first == epoch(number, 0, 2)
    assert epoch(0, 0, 2) != epoch(5, 0, 2)


def test_more_processes_than_instances_in_a_batch():
    with pytest.raises(
        ValueError, match=r"batch_size 2 is shared by 3 processes.*training.batch_size to 3 or more"
    ):
        next(iter(SharedBatches(range(9), 2, 0, 3)))


LAUNCHERS = {
    "none": ({}, (1, 1)),
    "torchrun": (
        {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
        (2, 4),
    ),
    "srun": (
        {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "2"},
        (3, 2),
    ),
    "srun of one task": ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, (1, 1)),
    "a shell inside of a SLURM job": (
        {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "bash"},
        (1, 1),
    ),
}


@pytest.fixture
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name.endswith(("RANK", "WORLD_SIZE")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_auto_is_what_the_launcher_started(launcher, no_launcher):
    environment, (nodes, devices) = LAUNCHERS[launcher]
    for name, value in environment.items():
        no_launcher.setenv(name, value)
    found = placement(TrainingConfig())
    assert (found["num_nodes"], found["devices"]) == (nodes, devices)
    assert found["strategy"] == ("ddp" if nodes * devices > 1 else "auto")
    assert found["use_distributed_sampler"] is False


def test_what_the_configuration_says_comes_first(no_launcher):
    found = placement(TrainingConfig(devices=2, num_nodes=3))
    assert (found["num_nodes"], found["devices"], found["strategy"]) == (3, 2, "ddp")
    assert placement(TrainingConfig(strategy="ddp"))["strategy"] == "ddp"


def test_machines_with_different_numbers_of_processes(no_launcher):
    for name, value in LAUNCHERS["torchrun"][0].items():
        no_launcher.setenv(name, value)
    no_launcher.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(
        ValueError, match=r"8 processes in all and 3 on this machine.*the same number"
    ):
        placement(TrainingConfig())


# ---- two processes beside one ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(cache):
    return two_processes.open_dataset(cache)


@pytest.fixture(scope="module")
def out(dataset, cache, tmp_path_factory):
    """The folder that two processes under torchrun have filled."""
    out = tmp_path_factory.mktemp("two")
    run(two_processes.__file__, str(cache), str(out))
    return out


@pytest.fixture(scope="module")
def found(out):
    """What each of the two processes found."""
    return [torch.load(out / f"found-by-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(dataset):
    """Gradients in one process, on the joint batches."""
    return {name: two_processes.gradients(dataset, name) for name in two_processes.MODELS}


@pytest.mark.parametrize(
    "case",
    [
        "different numbers of labels",
        "no interacting pair",
        "no label on one process",
        "no label at all",
        "nothing for one process",
        "no gene left on one process",
    ],
)
@pytest.mark.parametrize("model", two_processes.MODELS)
def test_gradients_are_those_of_the_joint_batch(model, case, found, alone):
    wanted = alone[model][case]
    assert (wanted["loss"] == 0) == (case == "no label at all")
    for process in found:
        got = process["gradients"][model][case]
        torch.testing.assert_close(got["loss"], wanted["loss"], rtol=1e-12, atol=0)
        assert got["gradients"].keys() == wanted["gradients"].keys()
        # Without any gene the product of all genes' predicted fitness is large, and so is what rounding leaves of a zero.
        rounding = 1e-12 * max(1.0, float(wanted["loss"]))
        for name, gradient in wanted["gradients"].items():
            assert got["gradients"][name] is not None, f"{name} has no gradient"
            torch.testing.assert_close(
                got["gradients"][name], gradient, rtol=1e-8, atol=rounding, msg=f"{case}: {name}"
            )


def test_the_cases_are_what_they_are_called(dataset):
    """The two processes have different numbers of labels, so that averaging their means would be wrong."""
    known = {
        name: [sum(int(item.y.isfinite().sum()) for item in items[rank::2]) for rank in range(2)]
        for name, items in two_processes.cases(dataset).items()
    }
    assert known["different numbers of labels"][0] > known["different numbers of labels"][1] > 0
    assert known["no label on one process"][1] == 0 < known["no label on one process"][0]
    assert known["no label at all"] == [0, 0]
    assert len(two_processes.cases(dataset)["nothing for one process"]) == 1


def test_a_loss_that_is_not_finite_on_one_process_stops_both(found, dataset):
    joint = [item.index for item in two_processes.cases(dataset)["different numbers of labels"]]
    for process in found:
        assert "the loss is inf at step 0" in process["overflow"]
        assert f"the batch of instances {joint};" in process["overflow"]


@pytest.mark.parametrize("launcher", ["training", "other launcher"])
def test_lightning_trains_as_in_one_process(launcher, found, dataset, tmp_path):
    wanted = two_processes.training(dataset, tmp_path)
    assert wanted["steps"] == [3, 6]
    for process in found:
        got = process[launcher]
        assert got["steps"] == wanted["steps"]
        np.testing.assert_allclose(got["losses"], wanted["losses"], rtol=1e-4)
        assert got["predictions"].shape == (two_processes.PREDICTED, 2)
        np.testing.assert_allclose(got["predictions"], wanted["predictions"], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(
        found[0][launcher]["predictions"], found[1][launcher]["predictions"]
    )


def test_the_first_clock_decides_when_time_is_up(found):
    assert [process["first clock ahead"]["steps"] for process in found] == [[1], [1]]
    assert [process["second clock ahead"]["steps"] for process in found] == [[3, 6], [3, 6]]


def test_one_process_that_is_asked_to_stop_stops_both(found):
    """Lightning's handler of SIGTERM sends from within it, while the other process waits for gradients."""
    for process in found:
        assert [message.split(";")[0] for message in process["asked"]] == [
            "stopped in epoch 0, at step 2"
        ] * 2


def test_processes_draw_different_random_numbers(found):
    assert not torch.equal(*(process["random"] for process in found))


def test_the_benchmark_of_processes_trains_in_two(found):
    for process in found:
        assert process["benchmark"]["instances_per_second"] > 0
        assert process["benchmark"]["batch_size"] == 4


def test_only_the_first_process_writes_files(found, out):
    assert len(found) == 2
    assert (out / "folder-of-0" / "training" / "best.ckpt").is_file()
    assert [path for path in (out / "folder-of-1").rglob("*") if path.is_file()] == []


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_under_torchrun(cache, dataset, tmp_path):
    file = tmp_path / "cell.yaml"
    text = two_processes.TEXTBOOK.read_text()
    for old, new in {
        "evaluation_pairs: 200": "evaluation_pairs: 7\n  features: [degree]",
        "hidden_channels: 16": "hidden_channels: 8",
        "epochs: 3": "epochs: 2",
        "instances_per_epoch: 256": "instances_per_epoch: 9",
        "batch_size: 32": "batch_size: 4",
    }.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    folder = tmp_path / "two"
    shown = run(
        *("-m", "pyg_nsa", "train", str(file), "-o", str(folder)),
        *("--cache", str(cache), "--no-progress"),
    )
    assert shown.count("graph and labels of textbook") == 1
    assert shown.count("report: ") == 1
    assert (folder / "report.html").is_file()
    config = load_config(file, CellConfig)
    split = split_by_gene(dataset.table, config.data.fractions, config.seed)
    _, one = run_experiment(
        "hetero_nsa", build_model, dataset, split, config, tmp_path / "one", progress=False
    )
    two = pd.read_csv(folder / "predictions.csv").query("model == 'hetero_nsa'")
    assert two["index"].tolist() == one["index"].tolist()
    numbers = ["fitness_pred", "gene_interaction_pred"]
    np.testing.assert_allclose(two[numbers], one[numbers], rtol=1e-3, atol=1e-4)
    got = pd.read_csv(folder / "metrics.csv").query("model == 'hetero_nsa'")
    wanted = evaluate(one)
    assert got["n"].tolist() == wanted["n"].tolist()
    mse = [table.query("metric == 'mse'")["value"].to_numpy() for table in (got, wanted)]
    assert np.isfinite(mse[0]).all()
    np.testing.assert_allclose(*mse, rtol=1e-2)

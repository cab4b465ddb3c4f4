"""Training of one model: resumed is uninterrupted, what stops it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import random
import re
import signal
import threading
import time
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from cell.tiny import tiny_config

from pyg_nsa.cell.data.splits import split_by_gene
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.training import interrupt, lightning_module
from pyg_nsa.cell.training import trainer as training
from pyg_nsa.cell.training.checkpoint import CheckpointError, graph_fingerprint, read_checkpoint
from pyg_nsa.cell.training.experiment import run_experiment
from pyg_nsa.cell.training.failed_batch import NotFiniteError
from pyg_nsa.cell.training.interrupt import StopRequest, TrainingInterrupted, stop_on_signals
from pyg_nsa.cell.training.restore import load_failed_batch, restore
from pyg_nsa.cell.training.resuming import ResumableLoader

STEPS = 3  # in an epoch: 40 instances, 16 in a batch


@pytest.fixture(scope="module")
def dataset(cell_cache, tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("config"))
    return open_dataset(config, cell_cache, progress=False)


class Experiment:
    """Runs an experiment with few instances to predict; keyword arguments are fields of the training's configuration."""

    def __init__(self, dataset, folder):
        self.dataset = dataset
        self.folder = folder
        self.last = folder / "last.ckpt"

    def __call__(self, *, resume=False, build=build_model, sets=(), **how):
        self.folder.mkdir(exist_ok=True)
        config = tiny_config(self.folder, *sets, **how)
        split = split_by_gene(self.dataset.table, config.data.fractions, config.seed)
        return run_experiment(
            "hetero_nsa",
            build,
            self.dataset,
            split,
            config,
            self.folder,
            parts={"val": split.val[:10], "test": split.test[:10]},
            resume=resume,
            progress=False,
        )

    def logs(self):
        return sorted(path.name for path in (self.folder / "logs").iterdir())


@pytest.fixture
def experiment(dataset, tmp_path):
    return Experiment(dataset, tmp_path / "run")


class StopAfter(StopRequest):
    """Asks to stop once it was looked at a number of times, which is after that many steps but the last of an epoch."""

    def __init__(self, looks):
        self.left = looks + 1  # the first look is before the first step
        self.handlers = {}

    @property
    def requested(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture
def stop_after(monkeypatch):
    """``with stop_after(n):`` training that begins inside is asked to stop when it looks for the n-th time."""

    @contextlib.contextmanager
    def within(looks):
        with monkeypatch.context() as patch:
            patch.setattr(
                training, "stop_on_signals", lambda: contextlib.nullcontext(StopAfter(looks))
            )
            yield

    return within


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    """Two epochs with dropout, and so with random numbers in every step."""
    experiment = Experiment(dataset, tmp_path_factory.mktemp("uninterrupted"))
    return *experiment(patience=9), read_checkpoint(experiment.last)


def assert_same(a, b, path="checkpoint"):
    """The same down to the last bit; only clocks, file names and versions of logs may differ."""
    if path.endswith(
        ("['seconds']", "_path']", "dirpath']", "['best_k_models']", "_model_score']")
    ):
        return
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), path
    elif isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}[{i}]")
    else:
        assert a == b, path


# ---- resuming --------------------------------------------------------------------------------------------------------


# Steps 1 and 2 of an epoch are looked at twice each when asked to stop, the end of an epoch as well.
@pytest.mark.parametrize(("looks", "step"), [(1, 2), (2, 3), (3, 4)], ids=lambda value: str(value))
def test_resumed_is_uninterrupted_bit_for_bit(experiment, stop_after, uninterrupted, looks, step):
    with (
        stop_after(looks),
        pytest.raises(TrainingInterrupted, match=rf"at step {step}; saved to .*last.ckpt"),
    ):
        experiment(patience=9)
    # What happens between two processes must not matter.
    torch.rand(7), np.random.rand(7), random.random()  # noqa: NPY002
    trained, predictions = experiment(resume=True, patience=9)
    wanted, wanted_predictions, wanted_state = uninterrupted
    assert trained.fresh
    state = read_checkpoint(experiment.last)
    for key in (
        "state_dict",
        "optimizer_states",
        "lr_schedulers",
        "loops",
        "callbacks",
        "global_step",
    ):
        assert_same(state[key], wanted_state[key], key)
    assert_same(state["pyg_nsa_progress"], wanted_state["pyg_nsa_progress"], "progress")
    columns = [c for c in trained.history if c != "seconds"]
    pd.testing.assert_frame_equal(
        trained.history[columns], wanted.history[columns], check_exact=True
    )
    pd.testing.assert_frame_equal(predictions, wanted_predictions, check_exact=True)
    assert experiment.logs() == ["version_0", "version_1"]


def test_interrupted_twice(experiment, stop_after, uninterrupted):
    for looks, resume in ((0, False), (1, True)):
        with stop_after(looks), pytest.raises(TrainingInterrupted):
            experiment(resume=resume, patience=9)
    trained, _ = experiment(resume=True, patience=9)
    for name, value in uninterrupted[0].module.state_dict().items():
        assert torch.equal(value, trained.module.state_dict()[name]), name


def test_a_finished_training_is_not_trained_again(experiment, monkeypatch, uninterrupted):
    _, predictions = experiment(patience=9)
    monkeypatch.setattr(training, "_trainer", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(
        "pyg_nsa.cell.training.experiment.predict", lambda *_: pytest.fail("predicted again")
    )
    trained, again = experiment(resume=True, patience=9)
    assert not trained.fresh
    assert len(trained.history) == 2
    assert trained.seconds > 0
    pd.testing.assert_frame_equal(again, predictions, check_exact=True)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_which_epoch_is_kept(experiment, keep, monkeypatch):
    def worse_and_worse(self, batch, batch_idx):
        self.log("val_loss", torch.tensor(float(self.current_epoch)), batch_size=1)

    monkeypatch.setattr(lightning_module.CellModule, "validation_step", worse_and_worse)
    trained, _ = experiment(epochs=3, keep=keep)
    assert read_checkpoint(trained.checkpoint)["epoch"] == (2 if keep == "last" else 0)
    state = read_checkpoint(experiment.last)["state_dict"]
    same = all(torch.equal(state[k], v) for k, v in trained.module.state_dict().items())
    assert same == (keep == "last")


def test_early_stopping_counts_as_finished(experiment, monkeypatch):
    # No step is taken, so no epoch is better than the first.
    trained, _ = experiment(epochs=9, patience=2, learning_rate=1e-30)
    assert len(trained.history) == 3
    monkeypatch.setattr(training, "_trainer", lambda *_: pytest.fail("trained again"))
    again, _ = experiment(resume=True, epochs=9, patience=2, learning_rate=1e-30)
    assert len(again.history) == 3


def test_without_resume_it_starts_anew(experiment, stop_after, uninterrupted):
    with stop_after(1), pytest.raises(TrainingInterrupted):
        experiment(patience=9)
    trained, _ = experiment(patience=9)
    assert trained.history["step"].tolist() == [STEPS, 2 * STEPS]
    assert experiment.logs() == ["version_0"]


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_predictions_of_a_training_that_was_replaced_are_not_those_of_the_new_one(
    experiment, monkeypatch
):
    experiment(epochs=1, learning_rate=1e-3)
    with monkeypatch.context() as patch:
        patch.setattr("pyg_nsa.cell.training.experiment.predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            experiment(epochs=1, learning_rate=1e-2)
    assert experiment.last.is_file()
    assert not (experiment.folder / "predictions.csv").exists()
    trained, table = experiment(resume=True, epochs=1, learning_rate=1e-2)
    assert not trained.fresh
    wanted = experiment.folder.with_name("another")
    experiment.folder, experiment.last = wanted, wanted / "last.ckpt"
    pd.testing.assert_frame_equal(table, experiment(epochs=1, learning_rate=1e-2)[1])


def test_predictions_older_than_the_checkpoint_are_made_again(experiment):
    """As where an earlier version left them beside a new checkpoint."""
    _, wanted = experiment(epochs=1)
    file = experiment.folder / "predictions.csv"
    wanted.assign(fitness_pred=0.123).to_csv(file, index=False)
    _, trusted = experiment(resume=True, epochs=1)
    assert (trusted["fitness_pred"] == 0.123).all()
    before = experiment.last.stat().st_mtime_ns - 1
    os.utime(file, ns=(before, before))
    _, again = experiment(resume=True, epochs=1)
    pd.testing.assert_frame_equal(again, wanted, check_exact=True)


def test_predictions_of_a_version_without_a_column_are_made_again(experiment):
    _, wanted = experiment(epochs=1)
    file = experiment.folder / "predictions.csv"
    wanted.drop(columns="interacting").assign(fitness_pred=0.123).to_csv(file, index=False)
    _, again = experiment(resume=True, epochs=1)
    pd.testing.assert_frame_equal(again, wanted, check_exact=True)


def test_a_changed_configuration_is_refused_with_the_difference(experiment, stop_after):
    with stop_after(0), pytest.raises(TrainingInterrupted):
        experiment()
    with pytest.raises(CheckpointError) as caught:
        experiment(resume=True, learning_rate=0.5, sets=["data.rates=[0.2, 0.5, 0.3]"])
    for line in (
        "training.learning_rate: 0.002 before, 0.5 now",
        "data.rates[0]: 0.3 before, 0.2 now",
        "Undo the changes, or train anew into another folder (-o); 'pyg-nsa train' can also do so over this one, by --force instead of --resume.",
    ):
        assert line in str(caught.value)
    assert "epochs" not in str(caught.value)
    # None of these changes a parameter.
    experiment(
        resume=True, sets=["title=Other", "training.checkpoint_every.steps=1", "baselines=[]"]
    )


def test_another_graph_or_split_is_refused(experiment, stop_after, dataset, monkeypatch):
    with stop_after(0), pytest.raises(TrainingInterrupted):
        experiment()
    graph = dataset.graph
    renamed, moved = graph.clone(), graph.clone()
    renamed["gene"].node_ids = graph["gene"].node_ids[::-1]
    moved["gene"].x = graph["gene"].x + 1
    for other, message in (
        (renamed, "the graph: the metabolic model or the gene tables have other content"),
        (moved, "features of 137 gene nodes: bounds or the objective"),
    ):
        monkeypatch.setattr(dataset, "graph", other)
        with pytest.raises(CheckpointError, match=message):
            experiment(resume=True)
    monkeypatch.setattr(dataset, "graph", graph)
    other = replace(dataset.table, fitness=dataset.table.fitness * np.float32(0.5))
    monkeypatch.setattr(dataset, "table", other)
    with pytest.raises(CheckpointError, match="training instances: other labels or another split"):
        experiment(resume=True)


def test_a_checkpoint_of_a_version_with_another_model_says_so(experiment, cell_cache):
    trained, _ = experiment(epochs=1)
    for file in (experiment.last, trained.checkpoint):
        state = torch.load(file, weights_only=True)
        state["pyg_nsa"]["version"] = "0.0.9"
        del state["state_dict"]["label_low"]
        torch.save(state, file)
    message = r"ckpt: was written by another version .*\(0\.0\.9; this is .*other parameters: label_low\. Train anew"
    with pytest.raises(CheckpointError, match=message):
        experiment(epochs=1, resume=True)
    with pytest.raises(CheckpointError, match=message):
        restore(trained.checkpoint, cell_cache)


@pytest.mark.parametrize("name", ["state_dict", "callbacks", "pyg_nsa_progress"])
def test_what_a_checkpoint_lacks_is_named(experiment, cell_cache, name):
    trained, _ = experiment(epochs=1)
    for file in (experiment.last, trained.checkpoint):
        state = torch.load(file, weights_only=True)
        del state[name], state["pyg_nsa"]["graph"]
        torch.save(state, file)
    with pytest.raises(
        CheckpointError, match=rf"last.ckpt: lacks what .*: .*pyg_nsa.graph.*{name}|{name}.*graph"
    ):
        experiment(epochs=1, resume=True)
    with pytest.raises(CheckpointError, match=r"best.ckpt: lacks what .*pyg_nsa.graph"):
        restore(trained.checkpoint, cell_cache)


def test_a_configuration_of_another_version_is_told_with_the_file(experiment, cell_cache):
    trained, _ = experiment(epochs=1)
    state = torch.load(trained.checkpoint, weights_only=True)
    state["pyg_nsa_config"]["operator"]["later"] = 3
    state["pyg_nsa"]["version"] = "9.0"
    torch.save(state, trained.checkpoint)
    message = r"best.ckpt: holds a configuration .*written by 9\.0.*\n    operator.later: Extra inputs .*\nUse the version"
    with pytest.raises(CheckpointError, match=message):
        restore(trained.checkpoint, cell_cache)


def test_a_damaged_checkpoint_says_so(experiment):
    experiment.folder.mkdir()
    experiment.last.write_bytes(b"PK\3\4 half of it")
    with pytest.raises(CheckpointError, match=r"last.ckpt: cannot be read as a checkpoint"):
        experiment(resume=True)
    torch.save({"state_dict": {}}, experiment.last)
    with pytest.raises(CheckpointError, match="not a checkpoint of 'pyg-nsa train'"):
        experiment(resume=True)
    torch.save({"numbers": torch.ones(100)}, experiment.last)
    content = bytearray(experiment.last.read_bytes())
    at = content.find(torch.ones(100).numpy().tobytes())
    assert at > 0
    content[at + 7] ^= 0x80  # the sign of one number: torch reads it without a word
    experiment.last.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged .* does not fit its checksum"):
        experiment(resume=True)


def test_checkpoints_within_an_epoch(experiment, monkeypatch):
    """A kill loses the work since the last checkpoint; each save must leave a whole file."""
    saved = []
    real = os.replace

    def replace(source, target):
        real(source, target)
        if str(target).endswith("last.ckpt"):
            saved.append(read_checkpoint(target)["global_step"])

    monkeypatch.setattr("pyg_nsa.cell.training.resuming.os.replace", replace)
    experiment(sets=["training.checkpoint_every={steps: 1}"])
    # Not after the last step of an epoch but behind its validation.
    assert saved == [1, 2, 3, 4, 5, 6]
    saved.clear()
    experiment(epochs=1)
    assert saved == [3]
    saved.clear()
    clock = types.SimpleNamespace(
        monotonic=itertools.count(0.0, 40.0).__next__
    )  # a look takes 40 seconds
    monkeypatch.setattr("pyg_nsa.cell.training.resuming.time", clock)
    experiment(epochs=1, sets=["training.checkpoint_every.minutes=1"])
    assert saved == [2, 3]


def test_time_before_an_interruption_counts(experiment, stop_after, monkeypatch):
    clock = types.SimpleNamespace(monotonic=itertools.count(0.0, 0.01).__next__)
    monkeypatch.setattr(lightning_module, "time", clock)
    with stop_after(1), pytest.raises(TrainingInterrupted):
        experiment(max_minutes=1, epochs=50)
    state = read_checkpoint(experiment.last)
    assert 0 < state["pyg_nsa_progress"]["seconds"] < 1
    state["pyg_nsa_progress"]["seconds"] = 59.9
    torch.save(state, experiment.last)
    trained, _ = experiment(resume=True, max_minutes=1, epochs=50)
    assert len(trained.history) < 5
    assert trained.history["learning_rate"].iloc[0] < 1e-6
    assert trained.seconds > 60


# ---- the loader ------------------------------------------------------------------------------------------------------


def test_a_loader_goes_on_in_the_middle_of_an_epoch(dataset):
    def batches(loader):
        return [batch.index.tolist() for batch in loader]

    part = dataset[list(range(10))]
    whole = batches(ResumableLoader(part, 4))
    loader = ResumableLoader(part, 4)
    iterator = iter(loader)
    first = next(iterator).index.tolist()
    state = loader.state_dict()
    other = ResumableLoader(part, 4)
    other.load_state_dict(state)
    assert [first, *batches(other)] == whole
    assert batches(other) == whole  # the next epoch is a whole one
    list(iterator)
    assert loader.state_dict() == {"batches": 0}
    before = torch.get_rng_state()
    batches(ResumableLoader(part, 4, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends_the_process(number, monkeypatch, capsys):
    ended = []
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert "stopping after this step; once more stops at once" in capsys.readouterr().err
        monkeypatch.setattr(os, "kill", lambda process, sent: ended.append((process, sent)))
        signal.raise_signal(number)  # as `timeout` sends it, to the process and to its group
        assert ended == []
        later = time.monotonic() + 2
        monkeypatch.setattr(interrupt, "time", types.SimpleNamespace(monotonic=lambda: later))
        signal.raise_signal(number)
        assert ended == [(os.getpid(), number)]
        assert signal.getsignal(number) is signal.SIG_DFL  # so that the kill does end it
    assert signal.getsignal(number) is before


def test_other_threads_get_no_signals_and_train_all_the_same():
    seen = []

    def work():
        with stop_on_signals() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


# ---- what is not a number --------------------------------------------------------------------------------------------


def poisoned(after):
    """Builds a model whose prediction, or whose gradient, is NaN from a call in training on."""

    def build(config, graph):
        model = build_model(config, graph)
        calls = itertools.count()

        def hook(module, args, output):
            late = module.training and torch.is_grad_enabled() and next(calls) >= after
            return (output[0] * float("nan"), output[1]) if late else output

        model.register_forward_hook(hook)
        return model

    return build


def test_nan_loss_stops_with_the_batch_saved_and_named(experiment, cell_cache, dataset):
    with pytest.raises(NotFiniteError) as caught:
        experiment(build=poisoned(after=1))
    error = caught.value
    assert error.file == experiment.folder / "not_finite_step_1.pt"
    content = torch.load(error.file, weights_only=True)
    items = content["instances"]
    assert [item["index"] for item in items] == [
        int(i) for i in re.search(r"instances \[([\d, ]+)\]", str(error))[1].split(", ")
    ]
    assert len(items) == 16
    for item in items:
        assert tuple(item["gene_ids"]) == dataset.table.ids(item["index"])
    assert "the loss is nan at step 1" in str(error)
    assert "training.learning_rate or training.gradient_clip" in str(error)
    assert f"load_failed_batch({str(error.file)!r})" in str(error)
    assert content["how_to_load"].splitlines()[0] in str(error)
    module, batch = load_failed_batch(error.file, cell_cache)
    assert batch.index.tolist() == [item["index"] for item in items]
    wanted = dataset.table.y[batch.index.numpy()]
    np.testing.assert_array_equal(batch.y.numpy(), wanted)
    for name, value in module.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])
    # Without the poison this batch is harmless.
    assert torch.isfinite(module.model(module.graph, batch)[0]).all()


def test_a_gradient_that_is_not_finite_stops_before_the_step(experiment):
    def build(config, graph):
        model = build_model(config, graph)
        model.head.each[0].lins[-1].weight.register_hook(lambda gradient: gradient * float("inf"))
        return model

    with pytest.raises(
        NotFiniteError, match=r"norm of the gradient is (inf|nan) at step 0"
    ) as caught:
        experiment(build=build)
    saved = torch.load(caught.value.file, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in saved.values())


def test_parameters_that_are_broken_already_are_named(experiment):
    def build(config, graph):
        model = build_model(config, graph)
        with torch.no_grad():
            model.head.each[0].lins[-1].bias.fill_(float("nan"))
        return model

    with pytest.raises(
        NotFiniteError,
        match=r"parameters that are not finite already: model.head.each.0.lins.2.bias",
    ):
        experiment(build=build)


# ---- how -------------------------------------------------------------------------------------------------------------


def test_bfloat16(experiment):
    trained, predictions = experiment(precision="bf16-mixed", epochs=1)
    assert np.isfinite(trained.history[["train_loss", "val_loss"]].to_numpy()).all()
    assert np.isfinite(predictions["fitness_pred"]).all()
    assert {p.dtype for p in trained.module.parameters()} == {torch.float32}


def test_statistics_of_the_training_split_are_in_the_checkpoint(experiment, dataset, monkeypatch):
    trained, _ = experiment(epochs=1)
    state = read_checkpoint(trained.checkpoint)["state_dict"]
    # Whatever the labels of held-out instances are.
    config = tiny_config(experiment.folder)
    split = split_by_gene(dataset.table, config.data.fractions, config.seed)
    fitness = dataset.table.fitness.copy()
    fitness[split.val], fitness[split.test] = 1e3, -1e3
    monkeypatch.setattr(dataset, "table", replace(dataset.table, fitness=fitness))
    again, _ = experiment(epochs=1)
    for name in ("label_mean", "label_std"):
        assert torch.equal(read_checkpoint(again.checkpoint)["state_dict"][name], state[name])


def test_logs_go_to_csv_and_to_tensorboard_where_it_is_installed(experiment, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name.startswith("tensorboard") else real(name),
    )
    trained, _ = experiment(epochs=1)
    steps = pd.read_csv(experiment.folder / "logs" / "version_0" / "metrics.csv")
    assert steps["train_loss"].notna().sum() == STEPS
    assert steps["val_loss"].notna().sum() == 1
    written = pd.read_csv(experiment.folder / "history.csv")
    pd.testing.assert_frame_equal(written, trained.history, check_dtype=False)
    made = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(training, "TensorBoardLogger", lambda *args, **kwargs: made.append(kwargs))
    training._loggers(experiment.folder)
    assert made == [{"name": "logs", "version": 1}]


def test_the_fingerprint_of_a_graph(dataset):
    graph = dataset.graph.clone()
    assert graph_fingerprint(graph) == graph_fingerprint(dataset.graph)
    graph["gene"].x = graph["gene"].x + 1  # features are compared with a tolerance instead
    assert graph_fingerprint(graph) == graph_fingerprint(dataset.graph)
    changed = set()
    for edge_type, field in (
        (("gene", "gpr", "reaction"), "hyperedge_index"),
        (("reaction", "rmr", "metabolite"), "stoichiometry"),
    ):
        other = dataset.graph.clone()
        other[edge_type][field][..., 0] += 1
        changed.add(graph_fingerprint(other))
    other = dataset.graph.clone()
    other["gene"].node_ids = [*other["gene"].node_ids[:-1], "b9999"]
    changed.add(graph_fingerprint(other))
    assert len(changed | {graph_fingerprint(dataset.graph)}) == 4

"""``pyg-nsa train``: --resume, --set, --dry-run, and what interrupts it."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cell.tiny import TEXT, tiny_config, write_config
from click.testing import CliRunner
from ruamel.yaml import YAML

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.splits import make_split
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.network.metabolic_model import model_file
from pyg_nsa.cell.training import dry_run as dry
from pyg_nsa.cell.training import run as run_module
from pyg_nsa.cell.training import run_lock as lock_module
from pyg_nsa.cell.training import trainer as training
from pyg_nsa.cell.training.checkpoint import read_checkpoint
from pyg_nsa.cell.training.lightning_module import CellModule
from pyg_nsa.cell.training.run_lock import run_lock
from pyg_nsa.cli import main
from pyg_nsa.load import load_config

RESULTS = ("predictions.csv", "metrics.csv", "hetero_nsa/predictions.csv")


@pytest.fixture
def invoke(cell_cache, tmp_path, monkeypatch):
    """Runs a command; the configuration lies in the working folder."""
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYG_NSA_CACHE", str(cell_cache))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pyg-nsa", *words])
        return CliRunner().invoke(main, words)

    return run


def train(invoke, *more):
    return invoke("train", "tiny.yaml", "-o", "run", "--no-progress", *more)


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def signal_at(monkeypatch, step, model=None):
    """Sends Ctrl-C in the middle of a step, once."""
    real, sent = CellModule.on_train_batch_start, []

    def hook(self, batch, batch_idx):
        name = self.identity["pyg_nsa"]["name"]
        if self.global_step == step and not sent and model in (None, name):
            sent.append(name)
            signal.raise_signal(signal.SIGINT)
        return real(self, batch, batch_idx)

    monkeypatch.setattr(CellModule, "on_train_batch_start", hook)


# ---- interrupting and resuming ---------------------------------------------------------------------------------------


def test_ctrl_c_saves_and_says_the_command_to_go_on(invoke, monkeypatch, tiny_run):
    signal_at(monkeypatch, step=3, model="hetero_conv")
    result = train(invoke)
    assert result.exit_code == 130, result.output
    assert "stopping after this step" in result.output
    assert "stopped in epoch 1, at step 4; saved to run/hetero_conv/last.ckpt" in result.output
    command = "pyg-nsa train tiny.yaml -o run --no-progress --resume"
    assert f"go on with: {command}\n" in result.output
    assert read_checkpoint("run/hetero_conv/last.ckpt")["global_step"] == 4
    trained = []
    real = training._trainer
    monkeypatch.setattr(training, "_trainer", lambda *a: (trained.append(a[1].name), real(*a))[1])
    result = invoke(*command.split()[1:])
    assert result.exit_code == 0, result.output
    assert "hetero_nsa: done (epoch 1, step 6)" in result.output
    assert "hetero_conv: interrupted in epoch 1, step 4" in result.output
    assert trained == ["hetero_conv"]
    for name in RESULTS:
        assert (Path("run") / name).read_bytes() == (tiny_run / name).read_bytes(), name
    history, wanted = (pd.read_csv(Path(f) / "history.csv") for f in ("run", tiny_run))
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), wanted.drop(columns="seconds"), check_exact=True
    )


@pytest.mark.parametrize(
    ("hook", "step", "said"),
    [
        ("on_fit_start", 0, "stopped before step 1"),
        ("on_train_batch_start", 2, "stopped in epoch 0, at step 3"),  # the last one of the epoch
        ("on_validation_batch_start", 3, "stopped in epoch 0, at step 3"),
        ("on_train_end", 6, "stopped after the training of hetero_nsa"),
    ],
)
def test_sigterm_saves_and_is_told_whenever_it_comes(
    invoke, monkeypatch, tiny_run, hook, step, said
):
    """Lightning listens to SIGTERM, too: it ended training unsaved, with status 0."""
    real, sent = getattr(CellModule, hook), []

    def terminated(self, *arguments):
        if self.global_step == step and not sent:
            sent.append(step)
            signal.raise_signal(signal.SIGTERM)
        return real(self, *arguments)

    monkeypatch.setattr(CellModule, hook, terminated)
    before = signal.getsignal(signal.SIGTERM)
    result = train(invoke)
    assert result.exit_code == 130, result.output
    assert said in result.output
    assert "go on with: " in result.output
    assert signal.getsignal(signal.SIGTERM) is before
    result = train(invoke, "--resume")
    assert result.exit_code == 0, result.output
    for name in RESULTS:
        assert (Path("run") / name).read_bytes() == (tiny_run / name).read_bytes(), name


def test_ctrl_c_outside_of_training(invoke, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "open_dataset", interrupted)
    result = train(invoke)
    assert result.exit_code == 130
    assert "go on with: pyg-nsa train tiny.yaml -o run --no-progress --resume" in result.output


KILLED = """
import os, signal, sys
from pyg_nsa.cell.training.lightning_module import CellModule
real = CellModule.on_train_batch_start
def hook(self, batch, batch_idx):
    if self.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, batch, batch_idx)
CellModule.on_train_batch_start = hook
from pyg_nsa.cli import main
main(sys.argv[1:])
"""


def test_a_kill_loses_the_work_since_the_last_checkpoint(invoke, tiny_run):
    words = ["train", "tiny.yaml", "-o", "run", "--no-progress"]
    words += ["--set", "training.checkpoint_every.steps=1", "--set", "baselines=[]"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words], capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert read_checkpoint("run/hetero_nsa/last.ckpt")["global_step"] == 4
    assert not list(Path("run").rglob("*.part"))
    result = invoke(*words, "--resume")
    assert result.exit_code == 0, result.output
    name = "hetero_nsa/predictions.csv"
    assert Path("run", name).read_bytes() == (tiny_run / name).read_bytes()


def test_resuming_a_finished_run_trains_nothing(invoke, monkeypatch, tiny_run):
    shutil.copytree(tiny_run, "run")
    monkeypatch.setattr(training, "_trainer", lambda *_: pytest.fail("trained again"))
    result = train(invoke, "--resume")
    assert result.exit_code == 0, result.output
    assert re.findall(r"(\w+): done", result.output) == ["hetero_nsa", "hetero_conv"]
    for name in RESULTS:
        assert Path("run", name).read_bytes() == (tiny_run / name).read_bytes(), name


def test_no_report_is_made_of_half_written_results(invoke, monkeypatch, tiny_run):
    shutil.copytree(tiny_run, "run")
    real = run_module.write_csv

    def stopped(path, table):
        if path == Path("run/metrics.csv"):
            raise KeyboardInterrupt
        real(path, table)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_csv", stopped)
        result = train(invoke, "--resume", "--set", "baselines=[mean]")
    assert result.exit_code == 130, result.output
    result = invoke("report", "run")
    assert result.exit_code == 1
    assert "run.json: no such file" in result.output
    result = train(invoke, "--resume", "--set", "baselines=[mean]")
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv("run/metrics.csv")["model"]) == {"hetero_nsa", "mean"}
    assert Path("run/run.json").is_file()


def test_a_further_baseline_is_trained_alone(invoke, monkeypatch, tiny_run):
    shutil.copytree(tiny_run, "run")
    trained = []
    real = training._trainer
    monkeypatch.setattr(training, "_trainer", lambda *a: (trained.append(a[1].name), real(*a))[1])
    result = train(invoke, "--resume", "--set", "baselines=[mean, embedding]")
    assert result.exit_code == 0, result.output
    assert "embedding: not begun" in result.output
    assert trained == ["embedding"]
    assert set(pd.read_csv("run/metrics.csv")["model"]) == {"hetero_nsa", "embedding", "mean"}


def far_enough(*args, **kwargs):
    raise ValueError("far enough")


def test_resuming_what_is_not_there_starts(invoke, monkeypatch):
    monkeypatch.setattr(run_module, "open_dataset", far_enough)
    result = train(invoke, "--resume")
    assert "hetero_nsa: not begun" in result.output
    assert "far enough" in result.output
    assert Path("run/config.yaml").read_text() == TEXT


def test_a_run_is_not_written_over_unless_forced(invoke, monkeypatch, tiny_run):
    shutil.copytree(tiny_run, "run")
    before = files_of("run")
    monkeypatch.setattr(run_module, "open_dataset", far_enough)
    result = train(invoke)
    assert result.exit_code == 1
    assert "run holds a run already" in result.output
    assert "--resume goes on with it, -o names another folder, --force trains anew" in result.output
    assert files_of("run") == before
    assert "far enough" in train(invoke, "--force").output
    both = train(invoke, "--force", "--resume")
    assert both.exit_code == 2 and "give one of them" in both.output


def test_one_process_at_a_time_in_a_folder(invoke, tiny_run):
    with run_lock(Path("new")):
        for words in (["train", "tiny.yaml", "-o", "new"], ["compare", "tiny.yaml", "-o", "new"]):
            result = invoke(*words, "--no-progress")
            assert result.exit_code == 1
            assert "new: another process is at work there" in result.output
            assert "wait for it, stop it, or name another folder (-o)" in result.output
    assert set(files_of("new")) == {Path(".lock")}
    shutil.copytree(tiny_run, "run")
    before = files_of("run")
    with run_lock(Path("run")):
        for how in ("--force", "--resume"):
            assert "run: another process is at work there" in train(invoke, how).output
    assert files_of("run") == before


def test_a_folder_is_free_after_a_run_that_failed(invoke, monkeypatch):
    monkeypatch.setattr(run_module, "open_dataset", far_enough)
    for _ in range(2):
        assert "far enough" in train(invoke).output


def test_processes_that_train_together_do_not_lock_each_other_out(tmp_path, monkeypatch):
    with run_lock(tmp_path):
        monkeypatch.setattr(lock_module, "is_first", lambda: False)
        with run_lock(tmp_path):
            pass


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "no locks")])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog, error):
    def acquire(self, timeout):
        raise error

    monkeypatch.setattr(lock_module.FileLock, "acquire", acquire)
    with run_lock(tmp_path / "run"):
        pass
    assert "the file system has no locks" in caplog.text


@pytest.mark.parametrize(
    "mistake",
    [
        "operator.edges[0].edge_type=[gene, gprr, reaction]",
        "readout.node_types=[protein]",
        "data.labels=broken.csv",
    ],
)
def test_what_fails_before_training_leaves_the_earlier_run_as_it_is(invoke, tiny_run, mistake):
    shutil.copytree(tiny_run, "run")
    Path("broken.csv").write_text("genes,fitness\nb0720,much\n")
    before = files_of("run")
    result = train(invoke, "--force", "--set", mistake)
    assert result.exit_code == 1, result.output
    assert files_of("run") == before


def test_a_mistake_in_the_second_model_is_found_before_the_first_is_trained(invoke, monkeypatch):
    monkeypatch.setattr(training, "_trainer", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(run_module, "builders", lambda _: {"fits": build_model, "not": far_enough})
    assert "far enough" in train(invoke).output


def test_nothing_of_the_earlier_run_is_beside_the_new_one(invoke, monkeypatch, tiny_run):
    shutil.copytree(tiny_run, "run")
    Path("run/notes.txt").write_text("mine")
    signal_at(monkeypatch, step=1)
    sets = ["--set", "training.learning_rate=0.001", "--set", "baselines=[mean]"]
    result = train(invoke, "--force", *sets)
    assert result.exit_code == 130, result.output
    assert (
        f"go on with: pyg-nsa train tiny.yaml -o run --no-progress {shlex.join(sets)} --resume"
        in result.output
    )
    names = {str(path.parts[0]) for path in files_of("run")} - {".lock"}
    assert names == {"config.json", "config.yaml", "hetero_nsa", "notes.txt"}
    assert not Path("run/hetero_nsa/predictions.csv").exists()
    report = invoke("report", "run")
    assert report.exit_code == 1 and "run.json: no such file" in report.output
    result = train(invoke, *sets, "--resume")
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv("run/metrics.csv")["model"]) == {"hetero_nsa", "mean"}


def test_a_forced_run_that_has_not_begun_is_not_gone_on_with(invoke, monkeypatch, tiny_run):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    shutil.copytree(tiny_run, "run")
    before = files_of("run")
    monkeypatch.setattr(run_module, "open_dataset", interrupted)
    result = train(invoke, "--force")
    assert result.exit_code == 130
    assert result.output.endswith(
        "go on with: pyg-nsa train tiny.yaml -o run --no-progress --force\n"
    )
    assert files_of("run") == before


def test_a_changed_configuration_is_refused_before_anything_is_built(invoke, monkeypatch, tiny_run):
    shutil.copytree(tiny_run, "run")
    before = files_of("run")
    monkeypatch.setattr(run_module, "open_dataset", lambda *a, **k: pytest.fail("built"))
    result = train(invoke, "--resume", "--set", "training.learning_rate=0.5", "--set", "seed=1")
    assert result.exit_code == 1
    assert "run: cannot be resumed, since what matters for the result has changed" in result.output
    assert "    seed: 0 before, 1 now\n" in result.output
    assert "    training.learning_rate: 0.002 before, 0.5 now\n" in result.output
    assert (
        "Undo the changes, or train anew: into another folder (-o), or with --force instead of --resume."
        in result.output
    )
    assert files_of("run") == before


PAIRS = "gene_a,gene_b\nb3916,b1723\nb2097,b2925\n"


@pytest.fixture(scope="module")
def project(cell_cache, tmp_path_factory):
    """A folder with a configuration, all that it names by relative paths, and its finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pairs.csv").write_text(PAIRS)
    shutil.copy(model_file("textbook"), folder / "organism.xml.gz")
    text = TEXT.replace(
        "model: textbook", "model: organism.xml.gz\n  gene_tables: {mine: pairs.csv}"
    )
    text = text.replace(
        "  edges:\n", "  edges:\n    - {edge_type: [gene, mine, gene], kind: adjacency_mask}\n"
    )
    text = text.replace("evaluation_pairs: 40", "evaluation_pairs: 40\n  labels: labels.csv")
    (folder / "tiny.yaml").write_text(
        text.replace("mean, product_of_singles, hetero_conv", "mean").replace(
            "epochs: 2", "epochs: 1"
        )
    )
    table = open_dataset(
        tiny_config(tmp_path_factory.mktemp("same")), cell_cache, progress=False
    ).table
    table.to_frame().to_csv(folder / "labels.csv", index=False)
    words = ["train", str(folder / "tiny.yaml"), "-o", str(folder / "run"), "--no-progress"]
    result = CliRunner().invoke(main, [*words, "--cache", str(cell_cache)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def moved(project, invoke):
    """A copy of it in the working folder."""
    shutil.copytree(project, ".", dirs_exist_ok=True)


def test_a_project_that_was_copied_is_resumed(invoke, moved, monkeypatch):
    monkeypatch.setattr(training, "_trainer", lambda *a: pytest.fail("trained again"))
    result = train(invoke, "--resume")
    assert result.exit_code == 0, result.output


def test_a_moved_run_predicts(invoke, moved, project, monkeypatch):
    """Where its metabolic model and tables lay, there is nothing any more; they are beside it."""
    hidden = project.with_name("elsewhere")
    checkpoint = next(Path("run").glob("*/best.ckpt"))
    before = invoke("predict", str(checkpoint), "b0720", "--json")
    assert before.exit_code == 0, before.output
    project.rename(hidden)
    try:
        after = invoke("predict", str(checkpoint), "b0720", "--json")
        assert after.exit_code == 0, after.output
        assert json.loads(after.output) == json.loads(before.output)
        Path("organism.xml.gz").unlink()
        gone = invoke("predict", str(checkpoint), "b0720")
        assert gone.exit_code == 1
        assert "organism.xml.gz" in gone.output
    finally:
        hidden.rename(project)


def test_a_model_predicts_without_the_labels_that_it_was_trained_on(invoke, project):
    checkpoint = next((project / "run").glob("*/best.ckpt"))
    words = ["predict", str(checkpoint), "b0720", "b0116", "--json"]
    wanted = json.loads(invoke(*words, "--without-labels").stdout)
    (project / "labels.csv").rename(project / "labels.hidden")
    try:
        without = invoke(*words, "--without-labels")
        assert without.exit_code == 0, without.output
        assert json.loads(without.stdout) == wanted
        assert not without.stderr
        default = invoke(*words)
        assert json.loads(default.stdout) == wanted
        assert (
            f"note: {project / 'labels.csv'}: no such file, so only predictions" in default.stderr
        )
        (project / "pairs.csv").rename(project / "pairs.hidden")
        gone = invoke(*words, "--without-labels")
        assert gone.exit_code == 1
        assert "the graph that it was trained on cannot be built again: " in gone.stderr
        assert "pairs.csv: no such file" in gone.stderr
    finally:
        for file in project.glob("*.hidden"):
            file.rename(file.with_suffix(".csv"))


def test_a_file_that_changed_on_the_way_is_refused_by_name(invoke, moved, project):
    Path("pairs.csv").write_text(PAIRS.replace("b2925", "b2926"))
    result = train(invoke, "--resume")
    assert result.exit_code == 1
    assert "the graph: the metabolic model or the gene tables have other content" in result.output
    was, now = project / "pairs.csv", Path("pairs.csv").absolute()
    assert f'data.gene_tables.mine: "{was}" before, "{now}" now' in result.output
    assert "data.labels" not in result.output


@pytest.mark.parametrize(
    ("part", "said"),
    [("train", "the training instances: other labels"), ("test", "those of validation or testing")],
)
def test_labels_that_changed_on_the_way_are_refused_by_name(invoke, moved, part, said):
    number = int(pd.read_csv("run/predictions.csv").query("part == 'test'")["index"].iloc[0])
    labels = pd.read_csv("labels.csv")
    if part == "train":
        config = load_config("tiny.yaml", CellConfig).relative_to(Path.cwd())
        table = open_dataset(config, progress=False).table
        number = int(make_split(table, "gene", config.data.fractions, 0).train[0])
    labels.loc[number, "fitness"] += 0.5
    labels.to_csv("labels.csv", index=False)
    result = train(invoke, "--resume")
    assert result.exit_code == 1
    assert said in result.output
    assert "data.labels: " in result.output and "gene_tables" not in result.output


def test_a_file_in_the_place_of_a_shipped_model_is_another(invoke, tiny_run, monkeypatch):
    shutil.copytree(tiny_run, "run")
    shutil.copy(model_file("textbook"), "organism.xml.gz")
    monkeypatch.setattr(run_module, "open_dataset", lambda *a, **k: pytest.fail("built"))
    result = train(invoke, "--resume", "--set", "data.model=organism.xml.gz")
    assert 'data.model: "textbook" before' in result.output


@pytest.fixture
def stopped(monkeypatch):
    """Lets a run end before it takes time."""

    def stop(*arguments, **options):
        raise ValueError("far enough")

    monkeypatch.setattr(run_module, "open_dataset", stop)


def test_a_demo_is_written_over_by_another(invoke, stopped):
    for words in (
        ["--small"],
        ["--small"],
        [],
    ):  # nothing, the small one, and the small one again is there
        assert "far enough" in invoke("demo", "--no-progress", *words).output
        assert json.loads(Path("runs/demo/config.json").read_text())["title"]
        Path("runs/demo/run.json").write_text("{}")
    result = invoke("demo", "--no-progress", "-o", "runs/demo")
    assert "far enough" in result.output


@pytest.mark.parametrize("config", ["tiny", "none", "broken", "list"])
def test_a_demo_spares_a_run_that_is_none(invoke, stopped, tiny_run, config):
    shutil.copytree(tiny_run, "runs/demo")
    file = Path("runs/demo/config.json")
    if config == "none":
        file.unlink()
    elif config != "tiny":
        file.write_text({"broken": "{", "list": "[]"}[config])
    before = files_of("runs/demo")
    result = invoke("demo", "--small", "--no-progress")
    assert result.exit_code == 1
    assert "runs/demo holds a run already (run.json); --resume goes on with it, -o" in result.output
    assert files_of("runs/demo") == before
    assert "far enough" in invoke("demo", "--small", "--no-progress", "--force").output


def test_a_demo_elsewhere_spares_even_a_demo(invoke, stopped):
    assert "far enough" in invoke("demo", "--small", "--no-progress", "-o", "mine").output
    Path("mine/run.json").write_text("{}")
    result = invoke("demo", "--small", "--no-progress", "-o", "mine")
    assert "mine holds a run already (run.json)" in result.output


# ---- mistakes in the file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "[gene, gpr, reaction]",
            "[gene, gprr, reaction]",
            "tiny.yaml:16:8: operator.edges[0].edge_type: the graph has no edge type (gene, gprr, reaction)\n"
            "    did you mean '(gene, gpr, reaction)'?\n",
        ),
        (
            "pattern: MSM",
            "pattern: null",
            "tiny.yaml:12:3: operator.pattern: the pattern is null (one bare step); the cell model needs a stack, such as MSM",
        ),
        (
            "pattern: MSM",
            "pattern: null\n  edgse: []",  # with another mistake
            "tiny.yaml:12:3: operator.pattern: the pattern is null (one bare step); the cell model needs a stack, such as MSM\n"
            "tiny.yaml:13:3: operator.edgse: unknown key 'edgse'\n",
        ),
        (
            "  evaluation_pairs: 40",
            "  fractions: [0.7, 0.3]",
            "tiny.yaml:6:3: data.fractions: expected three numbers, such as [0.7, 0.1, 0.2], got [0.7, 0.3]",
        ),
        (
            "  evaluation_pairs: 40",
            "  rates: [0.7, 0.3]",
            "tiny.yaml:6:3: data.rates: expected three numbers, such as [0.7, 0.1, 0.2], got [0.7, 0.3]",
        ),
        (
            "training:",
            "readout: {aggregations: [max, summ]}\ntraining:",
            "tiny.yaml:20:31: readout.aggregations[1]: 'summ' is not allowed\n    did you mean 'sum'?\n    allowed: sum, add, mean,",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(invoke, before, after, said, dry):
    file = Path("tiny.yaml")
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    result = train(invoke, *dry)
    assert result.exit_code == 1
    assert said in result.output.replace("Error: ", "")
    assert "needs_a_stack" not in result.output and "belongs to a stack" not in result.output
    assert "Traceback" not in result.output


def test_two_fractions_beside_the_file(invoke):
    result = train(invoke, "--set", "data.fractions=[0.8, 0.2]")
    assert (
        "Error: --set data.fractions=[0.8, 0.2]: data.fractions: expected three numbers, such as [0.7, 0.1, 0.2], got"
        in result.output
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("data.rates=[0, 0, 0]", "data.rates: three numbers of at least 0 (singles,"),
        ("data.rates=[-1, 1, 1]", "data.rates: three numbers of at least 0 (singles,"),
        (
            "data.features=[flux, degre]",
            "data.features[1]: 'degre' is not allowed\n    did you mean 'degree'?",
        ),
        ("seed=4294967296", "seed: input should be less than or equal to 4294967295, got"),
        ("readout.node_types=[]", "readout.node_types: list should have at least 1 item, got []"),
        ("training=5", "training: expected a mapping (keys and values), got 5"),
        ("training.learning_rate=nan", "training.learning_rate: input should be a valid number, got 'nan'\n"),
    ],
)  # fmt: skip
def test_values_that_no_training_can_use_are_told_at_once(invoke, value, said):
    result = train(invoke, "--set", value)
    assert result.exit_code == 1
    assert f"Error: --set {value}: {said}" in result.output
    assert "boolean" not in result.output


def test_a_response_that_would_not_be_read(invoke):
    result = train(invoke, "--set", "readout.response=true")
    assert "readout.response is a part of the deletion reading: set readout.d" in result.output
    more = ("--set", "readout.deletion=true", "--set", "data.features=[degree]")
    result = train(invoke, "--set", "readout.response=true", *more)
    assert "put flux into data.features" in result.output


# ---- --set -----------------------------------------------------------------------------------------------------------


def test_set_is_recorded_in_the_run(invoke, monkeypatch):
    monkeypatch.setattr(
        run_module, "open_dataset", lambda *a, **k: (_ for _ in ()).throw(ValueError("far enough"))
    )
    result = train(invoke, "--set", "training.epochs=7", "--set", "operator.edges[0].options={}")
    assert "far enough" in result.output
    text = Path("run/config.yaml").read_text()
    assert text.startswith("# --set training.epochs=7\n# --set operator.edges[0].options={}\n")
    assert "title: Tiny  # kept" in text
    assert YAML(typ="safe").load(text)["training"]["epochs"] == 7
    assert json.loads(Path("run/config.json").read_text())["training"]["epochs"] == 7


def test_set_is_checked_as_the_file_is(invoke):
    result = train(invoke, "--set", "training.epoch=7", "--set", "data.fractions=[0.5, 0.1, 0.1]")
    assert result.exit_code == 1
    assert (
        "--set training.epoch=7: training.epoch: unknown key 'epoch'\n    did you mean 'epochs'?"
        in result.output
    )
    assert not Path("run").exists()
    result = train(invoke, "--set", "data.fractions=[0.5, 0.1, 0.1]")
    assert (
        "tiny.yaml with --set data.fractions=[0.5, 0.1, 0.1]: data.fractions must be three"
        in result.output
    )


# ---- --dry-run -------------------------------------------------------------------------------------------------------


def test_dry_run_describes_and_writes_nothing(invoke, cell_cache, tiny_run, tmp_path):
    before = {p for p in cell_cache.rglob("*") if not p.name.endswith(".lock")}
    for cache, note in ((cell_cache, False), (tmp_path / "empty", True)):
        result = train(invoke, "--dry-run", "--cache", str(cache))
        assert result.exit_code == 0, result.output
        assert ("built for this dry run only" in result.output) == note
    assert {p for p in cell_cache.rglob("*") if not p.name.endswith(".lock")} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.yaml"]
    text = result.output
    assert "3 steps of 16 instances per epoch, 2 epochs: 6 steps at most" in text
    assert "137 gene, 207 reaction, 72 metabolite" in text
    assert re.search(r"train: 96 genes, 96 singles, [\d,]+ pairs", text)
    blocks = re.split(r"\nmodel +", text)[1:]
    assert [block.split()[0] for block in blocks] == ["hetero_nsa", "hetero_conv"]
    for block in blocks:
        counts = [
            int(count.replace(",", "")) for count in re.findall(r" ([\d,]+) parameters", block)
        ]
        assert sum(counts[:-1]) == counts[-1] > 1000
        assert "kept for the backward pass of 16 instances" in block
        assert "measured on one forward and backward pass on the CPU" in block


def test_dry_run_of_less_than_a_batch(invoke):
    few = ("--set", "training.instances_per_epoch=7", "--set", "training.batch_size=100")
    result = train(invoke, "--dry-run", *few)
    assert "1 step of 7 instances per epoch, 2 epochs: 2 steps at most" in result.output


def test_parameter_counts_are_those_of_the_model(cell_cache, tmp_path):
    config = tiny_config(tmp_path)
    dataset = open_dataset(config, cell_cache, progress=False)
    model = build_model(config, dataset.graph)
    training.run_once(
        CellModule(model, dataset.graph, config.training, torch.zeros(2, 2), 1),
        training.PerturbationLoader(dataset[:1], 1),
    )
    counts = dry.parameter_counts(model)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert counts["head"] == sum(p.numel() for p in model.head.parameters())
    assert counts["operator.inputs"] == sum(p.numel() for p in model.operator.inputs.parameters())


class Squares(torch.nn.Module):
    """Keeps its input and what comes of it, for the backward pass: 2 × 1,000 numbers; a parameter and views cost nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1000))
        self.graph = type("Graph", (), {"to_dict": lambda self: {}})()
        self.model = torch.nn.Module()
        self.config = None

    def loss(self, x):
        y = x * self.weight  # keeps x and the parameter
        return (y.view(10, 100) ** 2).sum()  # keeps y


def test_bytes_kept_for_the_backward_pass_are_counted_once():
    module = Squares()
    assert dry.saved_bytes(module, torch.randn(1000)) == 2 * 1000 * 4
    assert module.weight.grad is None


def test_memory_grows_with_the_batch(cell_cache, tmp_path):
    config = tiny_config(tmp_path)
    dataset = open_dataset(config, cell_cache, progress=False)
    module = CellModule(
        build_model(config, dataset.graph), dataset.graph, config.training, torch.zeros(2, 2), 1
    )
    loader = training.PerturbationLoader
    training.run_once(module, loader(dataset[:1], 1))
    few, many = (dry.saved_bytes(module, next(iter(loader(dataset[:n], n)))) for n in (4, 40))
    assert 5 < many / few < 11
    assert np.isfinite(many)

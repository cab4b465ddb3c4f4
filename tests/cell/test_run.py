"""The main job end to end on the textbook model: files, metrics, checkpoint, cache, command line."""

import io
import json
import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cell.tiny import tiny_config
from click.testing import CliRunner
from rich.console import Console

from pyg_nsa.cell.config import CellConfig, TrainingConfig
from pyg_nsa.cell.data.batch import PerturbationLoader
from pyg_nsa.cell.data.splits import split_by_gene
from pyg_nsa.cell.evaluation.comparison import run_comparison
from pyg_nsa.cell.evaluation.metrics import compare
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.training.dry_run import dry_run
from pyg_nsa.cell.training.lightning_module import (
    CellModule,
    NotFiniteError,
    label_range,
    label_statistics,
)
from pyg_nsa.cell.training.restore import restore
from pyg_nsa.cell.training.run import _print_metrics, run_training
from pyg_nsa.cell.training.run_facts import run_facts
from pyg_nsa.cell.training.trainer import predict
from pyg_nsa.cli import main
from pyg_nsa.load import load_config

TEXTBOOK = Path(__file__).parents[2] / "pyg_nsa" / "cell" / "textbook.yaml"


@pytest.fixture
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def cache(cell_cache):
    return cell_cache


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


@pytest.fixture
def dataset(config, cache):
    return open_dataset(config, cache, progress=False)


def test_it_writes_what_the_report_and_a_reader_need(run):
    for name in ("report.html", "predictions.csv", "metrics.csv", "history.csv", "config.yaml"):
        assert (run / name).stat().st_size > 0, name
    facts = json.loads((run / "run.json").read_text())
    assert facts["graph"]["nodes"] == {"gene": 137, "reaction": 207, "metabolite": 72}
    assert facts["label_source"] == "simulated by FBA"
    assert set(facts["parameters"]) == {"hetero_nsa", "hetero_conv"}
    history = pd.read_csv(run / "history.csv")
    assert history.groupby("model").size().to_dict() == {"hetero_nsa": 2, "hetero_conv": 2}
    assert np.isfinite(history[["train_loss", "val_loss"]].to_numpy()).all()


def test_facts_count_the_labels_that_were_left_out(tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text(
        "genes,fitness\n" + "".join(f"{g},1\n" for g in ("b0116", "b0118", "b0720", "zz"))
    )
    config = tiny_config(tmp_path, f"data.labels={path}", "data.unknown_labels=skip")
    dataset = open_dataset(config, tmp_path, progress=False)
    split = split_by_gene(dataset.table, (0.34, 0.33, 0.33))
    facts = run_facts(config, dataset, split, {}, 0.0)
    assert facts["label_source"] == "measured (measured.csv), 1 row with unknown genes left out"


def test_metrics_are_those_of_the_predictions_and_of_held_out_genes_only(run, cache):
    predictions = pd.read_csv(run / "predictions.csv")
    metrics = pd.read_csv(run / "metrics.csv")
    test = predictions.query("model == 'hetero_nsa' and part == 'test' and size == 1")
    wanted = compare(test["fitness"].to_numpy(), test["fitness_pred"].to_numpy())
    rows = metrics.query(
        "model == 'hetero_nsa' and part == 'test' and subset == 'singles' and target == 'fitness'"
    )
    assert rows.set_index("metric")["value"].to_dict() == pytest.approx(wanted)
    held_out = set(test["genes"])
    pairs = predictions.query("part == 'test' and size == 2")
    assert len(pairs)
    assert (pairs["interacting"] == (pairs["gene_interaction"].abs() > 1e-3)).all()
    assert pairs["genes"].str.split(";").map(lambda ids: bool(held_out & set(ids))).all()
    val = predictions.query("part == 'val'")
    assert not val["genes"].str.split(";").map(lambda ids: bool(held_out & set(ids))).any()


def test_the_checkpoint_holds_the_configuration_and_gives_the_same_predictions(run, cache, config):
    restored = restore(run / "hetero_nsa" / "best.ckpt", cache)
    assert restored.config == config
    dataset = open_dataset(config, cache, progress=False)
    wanted = pd.read_csv(run / "predictions.csv").query("model == 'hetero_nsa' and part == 'test'")
    got = predict(restored.module, dataset[wanted["index"].to_numpy()[:20]], 8)
    np.testing.assert_allclose(got[:, 0], wanted["fitness_pred"][:20], rtol=1e-3, atol=1e-4)


def test_a_second_run_reuses_graph_and_labels_and_is_the_same(run, cache, tmp_path, config, caplog):
    built = sorted((cache / "processed").glob("*"))
    config = config.model_copy(update={"baselines": []})
    with caplog.at_level(logging.INFO, "pyg_nsa.cell"):
        run_training(config, tmp_path / "run", cache=cache, progress=False)
    assert sorted((cache / "processed").glob("*")) == built
    assert "simulated" not in caplog.text
    first = pd.read_csv(run / "predictions.csv").query("model == 'hetero_nsa'")
    second = pd.read_csv(tmp_path / "run" / "predictions.csv")
    np.testing.assert_array_equal(first["fitness_pred"], second["fitness_pred"])


def test_it_stops_when_the_time_is_up_and_validates_what_it_has(cache, tmp_path):
    config = tiny_config(tmp_path, "baselines=[]", max_minutes=1e-4, epochs=50)
    run_training(config, tmp_path / "run", cache=cache, progress=False)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert len(history) == 1
    assert history["step"].item() < 3  # an epoch has three batches
    assert np.isfinite(history["val_loss"].item())
    assert (tmp_path / "run" / "hetero_nsa" / "last.ckpt").exists()


def test_an_operator_without_attention_of_its_own_has_no_drawing(cache, tmp_path):
    sets = [
        "operator.operator=hgt",
        "operator.dropout=0.0",
        "operator.pattern=M",
        "baselines=[mean]",
    ]
    config = tiny_config(tmp_path, *sets, epochs=1)
    run_training(config, tmp_path / "run", cache=cache, progress=False)
    assert (tmp_path / "run" / "hgt" / "best.ckpt").exists()
    assert not (tmp_path / "run" / "attention.csv").exists()
    assert "This run has no attention.csv" in (tmp_path / "run" / "report.html").read_text()


def test_label_statistics_leave_missing_values_out():
    nan = float("nan")
    mean, std = label_statistics(torch.tensor([[1.0, nan], [3.0, nan], [nan, nan]]))
    assert mean.tolist() == [2.0, 0.0]
    assert std.tolist() == pytest.approx([2**0.5, 1.0])


def test_predictions_stay_in_the_range_of_the_training_labels(dataset, config):
    nan = float("nan")
    y_train = torch.tensor([[0.2, nan], [0.9, nan], [nan, nan]])
    low, high = label_range(y_train)
    assert low.tolist() == pytest.approx([0.2, -math.inf])
    assert high.tolist() == pytest.approx([0.9, math.inf])
    assert label_range(y_train[:0])[0].tolist() == [-math.inf, -math.inf]
    model = build_model(config, dataset.graph).eval()
    module = CellModule(model, dataset.graph, TrainingConfig(), y_train, 1)
    batch = next(iter(PerturbationLoader(dataset[:4], 4)))
    free = module.predict_step(batch)
    assert ((free[:, 0] > 0.2) & (free[:, 0] < 0.9)).all()
    for bias, end in ((-99.0, 0.2), (99.0, 0.9)):
        with torch.no_grad():
            for one in model.head.each:
                one.lins[-1].bias.fill_(bias)
        told = module.predict_step(batch)
        torch.testing.assert_close(told[:, 0], torch.full((4,), end))
        assert told[:, 1].isnan().all()  # of interactions nothing was learned
    assert module.untrained_targets() == ("gene_interaction",)


def test_a_target_of_no_weight_is_not_predicted(dataset, config):
    model = build_model(config, dataset.graph).eval()
    batch = next(iter(PerturbationLoader(dataset[:4], 4)))
    y_train = torch.tensor([[0.2, -0.5], [0.9, 0.5]])
    for weight, untrained in ((1.0, ()), (0.0, ("gene_interaction",))):
        how = TrainingConfig(interaction_weight=weight)
        module = CellModule(model, dataset.graph, how, y_train, 1)
        assert module.untrained_targets() == untrained
        told = module.predict_step(batch)
        assert told[:, 0].isfinite().all()
        assert told[:, 1].isfinite().all() == (not untrained)


def test_what_was_never_trained_is_not_reported(cache, tmp_path):
    config = tiny_config(tmp_path, "data.labels=simulated-singles", "baselines=[mean]", epochs=1)
    run_training(config, tmp_path / "run", cache=cache, progress=False)
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert predictions["gene_interaction_pred"].isna().all()
    assert predictions["fitness_pred"].notna().all()
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert metrics[metrics["target"] == "gene_interaction"]["value"].isna().all()


def test_where_no_label_is_known_nothing_is_trained(cache, tmp_path, textbook_model):
    """A table whose columns came out empty would give a model that predicts nothing, and a report of dashes."""
    genes = [gene.id for gene in textbook_model.genes][:30]
    table = pd.DataFrame({"genes": genes, "fitness": None})
    table.to_csv(tmp_path / "empty.csv", index=False)
    config = tiny_config(tmp_path, f"data.labels={tmp_path / 'empty.csv'}", "baselines=[mean]")
    said = r"empty\.csv: nothing can be learned: none of the 21 training instances has a known fitness or gene_interaction"
    for attempt in (
        lambda: run_training(config, tmp_path / "run", cache=cache, progress=False),
        lambda: dry_run(config, cache),
        lambda: run_comparison({"tiny": config}, tmp_path / "compare", cache=cache, progress=False),
    ):
        with pytest.raises(ValueError, match=said):
            attempt()
    assert not (tmp_path / "run" / "hetero_nsa").exists()


def test_missing_labels_do_not_count_and_nan_loss_names_the_instances(dataset, config):
    batch = next(iter(PerturbationLoader(dataset[:4], 4)))  # singles have no interaction
    assert batch.y[:, 1].isnan().all()
    model = build_model(config, dataset.graph).eval()  # no dropout
    y_train = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module = CellModule(model, dataset.graph, TrainingConfig(), y_train, 1)
    loss = module.loss(batch)
    prediction, _ = model(dataset.graph, batch)
    wanted = (batch.y[:, 0] - module.label_mean[0]) / module.label_std[0]
    torch.testing.assert_close(loss, (prediction[:, 0] - wanted).square().mean())
    with torch.no_grad():
        model.head.each[0].lins[-1].bias.fill_(float("nan"))
    with pytest.raises(
        NotFiniteError, match=r"(?s)the loss is nan .* instances \[0, 1, 2, 3\].*learning_rate"
    ):
        module.loss(batch)


def test_command_line_reports_mistakes_without_a_traceback(tmp_path):
    file = tmp_path / "cell.yaml"
    text = TEXTBOOK.read_text().replace("kind: incidence_mask", "kind: incidense_mask", 1)
    file.write_text(text.replace("epochs: 3", "epoch: 3"))
    result = CliRunner().invoke(main, ["check", str(file), "--training"])
    assert result.exit_code == 1
    assert "unknown edge kind 'incidense_mask'" in result.output
    assert "did you mean 'incidence_mask'" in result.output
    assert "training.epoch" in result.output
    result = CliRunner().invoke(main, ["train", str(file), "-o", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "unknown edge kind 'incidense_mask'" in result.output
    assert "Traceback" not in result.output
    file.write_text(TEXTBOOK.read_text().replace("model: textbook", "model: no_such_model"))
    result = CliRunner().invoke(main, ["train", str(file), "-o", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "no_such_model" in result.output
    assert "textbook" in result.output


def test_no_name_is_cut_in_a_narrow_table():
    names = ["hetero_nsa", "mean", "product_of_singles", "scope", "hetero_conv", "hgt", "embedding"]
    row = ("test", "new pairs of known genes", "gene_interaction", "spearman", -0.1234, 1000)
    columns = ["model", "part", "subset", "target", "metric", "value", "n"]
    console = Console(width=110, file=io.StringIO())
    _print_metrics(console, pd.DataFrame([(name, *row) for name in names], columns=columns), "")
    text = console.file.getvalue()
    assert "…" not in text and text.count("-0.1234") == len(names)


@pytest.mark.parametrize(
    "command",
    [[], ["check"], ["train"], ["demo"], ["predict"], ["report"], ["plugins"], ["plugins", "list"]],
)
def test_every_command_has_help(command):
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_plugins_list():
    result = CliRunner().invoke(main, ["plugins", "list", "--load", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row["status"] for row in json.loads(result.output)}
    assert rows["stoichiometry_bias"] == "loaded"


def test_the_shipped_configurations_are_valid():
    for file in TEXTBOOK.parent.glob("*.yaml"):
        load_config(file, CellConfig)

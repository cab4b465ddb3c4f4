"""`pyg-nsa compare` where the training of one model fails: the others are compared, and the failure is told."""

import json

import numpy as np
import pandas as pd
import pytest
from cell.tiny import write_config
from click.testing import CliRunner

from pyg_nsa.cell.evaluation import cells
from pyg_nsa.cell.evaluation.comparison_page import (
    comparison_figure,
    differences,
    shown_rows,
    summary,
)
from pyg_nsa.cell.training.failed_batch import NotFiniteError
from pyg_nsa.cell.training.interrupt import TrainingInterrupted
from pyg_nsa.cli import main

trained = cells.run_experiment


@pytest.fixture
def compare(tmp_path, cell_cache, monkeypatch):
    """Compares `bad` and `good`, of which some models raise an error with some seeds."""
    text = write_config(tmp_path).read_text()
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(text)

    def run(error, failing, *more):
        def train(name, build, dataset, split, config, folder, **how):
            if (folder.parent.name.split("-")[0], how["seed"]) in failing:
                raise error
            return trained(name, build, dataset, split, config, folder, **how)

        monkeypatch.setattr(cells, "run_experiment", train)
        words = ["compare", str(tmp_path / "bad.yaml"), str(tmp_path / "good.yaml")]
        words += ["-o", str(tmp_path / "out"), "--cache", str(cell_cache), "--seeds", "2"]
        words += ["--match", "none", "--set", "data.labels=simulated-singles"]
        words += ["--set", "training.epochs=1", "--no-progress", *more]
        return CliRunner().invoke(main, words), tmp_path / "out"

    return run


def test_the_others_are_compared(compare):
    result, out = compare(NotFiniteError("the loss is nan\nsee there"), {("bad", 0)})
    assert result.exit_code == 1
    assert "1 of 4 trainings failed; the same command tries" in result.output
    facts = json.loads((out / "comparison.json").read_text())
    cells = {(c["model"], c["seed"]): c for c in facts["cells"]}
    assert {key for key, c in cells.items() if c["done"]} == {("bad", 1), ("good", 0), ("good", 1)}
    assert [key for key, c in cells.items() if "failed" in c] == [("bad", 0)]
    assert cells["bad", 0]["failed"] == "NotFiniteError: the loss is nan\nsee there"
    page = (out / "comparison.md").read_text()
    # A mean of the seeds that went well would flatter the model.
    row = next(line for line in page.splitlines() if line.startswith("| singles | fitness | mse"))
    assert row.split(" | ")[3] == "failed" and "±" in row.split(" | ")[4]
    assert "bad failed with seed 0 on split 0: NotFiniteError: the loss is nan (" in page
    (record,) = out.glob("cells/bad-*/seed-0/failed.txt")
    assert "Traceback" in record.read_text()
    table = pd.read_csv(out / "comparison.csv")
    assert set(table[table["model"] == "bad"]["seed"]) == {1}
    # The same command tries again, and trains nothing else.
    again, _ = compare(None, (), "--json")
    assert again.exit_code == 0 and not record.exists()
    assert again.output.count("done before") == 3
    assert not any("failed" in cell for cell in json.loads(again.stdout)["cells"])


def test_where_all_fail_that_is_told(compare):
    everything = {(model, seed) for model in ("bad", "good") for seed in (0, 1)}
    result, out = compare(KeyError("by a plugin"), everything, "--set", "baselines=[]")
    assert result.exit_code == 1 and "4 of 4 trainings failed" in result.output
    assert (
        "good failed with seed 1 on split 0: KeyError: 'by a plugin'"
        in (out / "comparison.md").read_text()
    )


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (TrainingInterrupted("stopped"), 130, "go on with"),
    ],
)
def test_what_would_stop_the_others_too_stops_all(compare, error, status, says):
    result, out = compare(error, {("bad", 0)})
    assert result.exit_code == status and says in result.output
    assert not list(out.glob("cells/good-*/seed-*/cell.json"))


def test_a_failed_model_has_no_numbers():
    rows = [
        (model, seed, "singles", "fitness", metric, 0.1 * seed + 0.2, 9)
        for model, seeds in (("a", (0, 1)), ("b", (1,)), ("c", (0, 1)))
        for seed in seeds
        for metric in ("pearson", "mse")
    ]
    metrics = pd.DataFrame(
        rows, columns=["model", "seed", "subset", "target", "metric", "value", "n"]
    )
    models = ["a", "b", "c", "d"]
    assert set(differences(metrics, models, {"b", "d"})["model"]) == {"c"}
    assert differences(metrics, ["d", "a"], {"d"}).empty
    shown = shown_rows(summary(metrics), models, {"b", "d"})
    assert shown[0][3:] == [
        "0.250 ± 0.071",
        "failed",
        "0.250 ± 0.071",
        "failed",
    ]
    figure = comparison_figure(metrics, models, failed={"b", "d"})
    words = [(text.get_text(), text.xy[1]) for text in figure.axes[0].texts]
    assert words == [("failed", -1), ("failed", -3)]
    assert np.isclose([bar.get_width() for bar in figure.axes[0].patches], 0.25).all()

"""The report reads only the run folder, shows what is there, and says what is not."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from pyg_nsa.cell.metrics import evaluate
from pyg_nsa.cell.report import RunFolderError, write_report


def make_run(folder, n=40, models=("hetero_nsa", "mean"), optional=True):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    tables = []
    for model in models:
        size = np.where(np.arange(n) < n // 2, 1, 2)
        fitness = rng.random(n)
        interaction = np.where(size == 2, rng.normal(0, 0.1, n), np.nan)
        constant = model == "mean"
        tables.append(
            pd.DataFrame(
                {
                    "model": model,
                    "part": np.where(np.arange(n) % 3 == 0, "val", "test"),
                    "index": np.arange(n),
                    "size": size,
                    "genes": ["b1" if s == 1 else "b1;b<2>" for s in size],
                    "fitness": fitness,
                    "gene_interaction": interaction,
                    "fitness_pred": 0.5 if constant else fitness + rng.normal(0, 0.1, n),
                    "gene_interaction_pred": np.where(size == 2, 0.0, np.nan),
                }
            )
        )
    predictions = pd.concat(tables)
    predictions.to_csv(folder / "predictions.csv", index=False)
    evaluate(predictions).to_csv(folder / "metrics.csv", index=False)
    history = {
        "model": "hetero_nsa",
        "epoch": [0, 1],
        "step": [8, 16],
        "seconds": [1.0, 2.0],
        "train_loss": [1.0, np.nan],
        "val_loss": [0.9, 0.8],
    }
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    (folder / "config.yaml").write_text("title: <script>alert(1)</script>\n")
    part = {"genes": 3, "instances": 9, "singles": 3, "pairs": 6}
    facts = {
        "title": "A run & <its> title",
        "created": "2026-01-01T00:00:00+00:00",
        "organism": "textbook",
        "graph": {"nodes": {"gene": 3}, "edges": {"gene gpr reaction": 4}},
        "split": {"train": part, "val": part, "test": part},
        "versions": {"python": "3.11"},
        "machine": "a machine",
        "seconds": {"labels": 1.0, "training": {"hetero_nsa": 2.0}},
        "parameters": {"hetero_nsa": 1234},
        "label_source": "simulated by FBA",
        "knockout": {
            "genes": ["b<2>"],
            "names": {"b<2>": "gltA"},
            "fitness": 0.0,
            "fitness_pred": 0.1,
        },
    }
    (folder / "run.json").write_text(json.dumps(facts))
    if optional:
        rows = [
            ("gpr", "gene", "b<2>", "reaction", "R1", 0.9, 0.0),
            ("rmr", "reaction", "R1", "metabolite", "m1", 0.4, 0.0),
            ("rev_rmr", "metabolite", "m1", "reaction", "R2", 0.3, 0.5),
        ]
        columns = ["relation", "source_type", "source", "target_type", "target"]
        columns += ["weight_wildtype", "weight_knockout"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "attention.csv", index=False)
        row = ("gene gpr reaction", 300, 200, 50, 6, 6, 4)
        columns = ["relation", "rows", "cols", "pairs", "tiles", "natural", "reordered"]
        pd.DataFrame([row], columns=columns).to_csv(folder / "occupancy.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    return write_report(folder).read_text()


def test_it_is_one_file_that_asks_nothing_of_a_network(page):
    assert page.count("data:image/png;base64,") >= 4
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert "<script" not in page.lower()


def test_names_are_escaped(page):
    assert "A run &amp; &lt;its&gt; title" in page
    assert "b&lt;2&gt;" in page or "gltA" in page
    assert "alert(1)" in page


def test_it_says_what_the_labels_are_and_who_was_compared(page):
    assert "simulat" in page
    for word in ("hetero_nsa", "mean", "1,234", "title: &lt;script&gt;"):
        assert word in page


def test_every_figure_has_an_alternative_text(page):
    images = re.findall(r"<img[^>]*>", page)
    assert images
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


def test_thousands_of_points_and_missing_optional_files(tmp_path):
    folder = make_run(tmp_path, n=6000, models=("hetero_nsa", "mean", "c", "d"), optional=False)
    page = write_report(folder).read_text()
    assert "attention.csv" in page
    assert "occupancy.csv" in page
    assert (folder / "figures" / "fitness_singles.png").exists()


@pytest.mark.parametrize("name", ["run.json", "predictions.csv", "metrics.csv", "history.csv"])
def test_a_missing_or_broken_file_is_named(tmp_path, name):
    folder = make_run(tmp_path)
    (folder / name).unlink()
    with pytest.raises(RunFolderError, match=re.escape(name)):
        write_report(folder)
    (folder / name).write_text('{"a": 1,')
    with pytest.raises(RunFolderError, match=re.escape(name)):
        write_report(folder)

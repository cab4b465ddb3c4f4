"""Deletions of three genes, from the split to the report, on the textbook model."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from cell.tiny import tiny_config
from rich.console import Console

from pyg_nsa.cell.data.splits import make_split
from pyg_nsa.cell.evaluation.comparison_page import comparison_figure, shown_rows, summary
from pyg_nsa.cell.evaluation.metrics import compare, evaluate
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.training.dry_run import dry_run
from pyg_nsa.cell.training.experiment import evaluation_instances
from pyg_nsa.cell.training.run import run_training


@pytest.fixture(scope="module")
def run(cell_cache, tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("triples"), io.StringIO()
    sets = ["data.labels=simulated-triples", "baselines=[mean, product_of_singles, scope]"]
    config = tiny_config(folder, *sets, epochs=1)
    console = Console(file=out, width=120)
    run_training(config, folder / "run", cache=cell_cache, progress=False, console=console)
    return SimpleNamespace(folder=folder / "run", config=config, printed=out.getvalue())


@pytest.fixture(scope="module")
def dataset(cell_cache, run):
    return open_dataset(run.config, cell_cache, progress=False)


@pytest.fixture(scope="module")
def split(dataset, run):
    return make_split(dataset.table, "gene", run.config.data.fractions, run.config.seed)


def test_triples_are_predicted_and_measured(run, split):
    predictions = pd.read_csv(run.folder / "predictions.csv").query("part == 'test' and size == 3")
    counts = predictions.groupby("model").size().to_dict()
    assert counts == dict.fromkeys(["hetero_nsa", "mean", "product_of_singles", "scope"], 40)
    held_out = set(split.test.tolist())
    assert set(predictions["index"]) <= held_out
    metrics = pd.read_csv(run.folder / "metrics.csv").query("part == 'test'")
    assert set(metrics["subset"]) == {"singles", "pairs", "interacting pairs", "triples"}
    metrics = metrics.set_index(["model", "subset", "target"]).sort_index()
    for model, own in predictions.groupby("model"):
        for target in ("fitness", "gene_interaction"):
            wanted = compare(own[target].to_numpy(), own[f"{target}_pred"].to_numpy())
            found = metrics.loc[(model, "triples", target)].set_index("metric")
            assert found["value"].to_dict() == pytest.approx(wanted, nan_ok=True)
            assert (found["n"] == 40).all()


def test_the_labels_of_triples_are_tau(run, dataset):
    """Against the definition, from the fitness of singles and pairs."""
    table = dataset.table
    rows = {tuple(g for g in genes if g >= 0): i for i, genes in enumerate(table.genes.tolist())}
    f = {genes: float(table.fitness[i]) for genes, i in rows.items()}
    predictions = pd.read_csv(run.folder / "predictions.csv")
    chosen = predictions.query("model == 'mean' and part == 'test' and size == 3")
    for i, tau in zip(chosen["index"], chosen["gene_interaction"], strict=True):
        a, b, c = table.genes[i].tolist()
        left = f[a, b, c] - f[a,] * f[b,] * f[c,]
        for x, y, z in ((a, b, c), (a, c, b), (b, c, a)):
            left -= (f[x, y] - f[x,] * f[y,]) * f[z,]
        assert tau == pytest.approx(left, abs=1e-5)


def test_as_many_triples_as_pairs_are_evaluated(dataset, split):
    table = dataset.table
    chosen = evaluation_instances(dataset, split, "test", 30, 0)
    for size in (2, 3):
        own = chosen[table.sizes[chosen] == size]
        assert len(own) == 30 and np.isin(own, split.test).all()
        assert table.interacting[own].sum() == 15
    assert np.array_equal(evaluation_instances(dataset, split, "test", 0, 0), split.test)
    # Which pairs are judged does not depend on triples.
    fewer = replace(split, test=split.test[table.sizes[split.test] < 3])
    pairs = evaluation_instances(dataset, fewer, "test", 30, 0)
    assert np.array_equal(pairs, chosen[table.sizes[chosen] < 3])


def test_counts_have_triples_where_there_are_any(dataset, split):
    counts = split.counts()
    sizes = dataset.table.sizes
    for name, of_part in counts.items():
        assert of_part["triples"] == (sizes[split.part(name)] == 3).sum() > 0
        assert of_part["instances"] == sum(of_part[s] for s in ("singles", "pairs", "triples"))
    assert sum(of_part["triples"] for of_part in counts.values()) == 12615
    pairs = make_split(dataset.table.select(sizes < 3))
    assert list(pairs.counts()["test"]) == ["genes", "instances", "singles", "pairs"]
    assert "triples" in split.lines()[0] and "triples" not in pairs.lines()[0]


def test_they_are_printed_and_in_the_report(run, dataset, split, cell_cache):
    count = split.counts()["test"]["triples"]
    assert f"{count:,} triples" in run.printed
    assert f"{count:,} triples" in dry_run(run.config, cell_cache)
    assert any(line.split()[1] == "triples" for line in run.printed.splitlines() if "mse" in line)
    page = (run.folder / "report.html").read_text()
    assert "<th>triples</th>" in page
    assert "and 40 triples in the test part" in page
    assert "of three genes, what the interactions of their pairs leave unexplained" in page
    assert "Gene interaction of triples: predicted against simulated." in page
    assert (run.folder / "figures" / "gene_interaction_triples.png").is_file()
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["split"]["test"]["triples"] == count


def test_without_triples_nothing_names_them(tiny_run):
    assert "triple" not in (tiny_run / "report.html").read_text()
    assert "triples" not in set(pd.read_csv(tiny_run / "metrics.csv")["subset"])
    facts = json.loads((tiny_run / "run.json").read_text())
    assert "triples" not in facts["split"]["test"]


def test_new_triples_of_known_genes_stand_apart(dataset):
    split = make_split(dataset.table, "both", (0.7, 0.1, 0.2), 0)
    chosen = evaluation_instances(dataset, split, "test", 30, 0)
    for by in ("gene", "pair"):
        own = np.intersect1d(chosen, split.held_out("test", by, 3))
        assert len(own) == 30
    table = pd.DataFrame({"size": 3, "held_out": ["gene", "pair", "pair"]})
    for column in ("fitness", "fitness_pred", "gene_interaction", "gene_interaction_pred"):
        table[column] = [0.1, 0.2, 0.3]
    found = evaluate(table.assign(model="m", part="test")).query("metric == 'mse' and n > 0")
    assert found.groupby("subset")["n"].unique().map(list).to_dict() == {
        "triples": [1],
        "new triples of known genes": [2],
    }


def test_a_comparison_has_rows_and_panels_of_triples():
    wanted = [(s, "gene_interaction", "mse", 0.1) for s in ("pairs", "triples")]
    table = pd.DataFrame(wanted, columns=["subset", "target", "metric", "value"])
    table = table.assign(model="a", seed=0, n=5)
    found = [row[:3] for row in shown_rows(summary(table), ["a"])]
    assert found == [[s, "gene_interaction", "mse"] for s in ("pairs", "triples")]
    titles = [ax.get_title(loc="left") for ax in comparison_figure(table, ["a"]).axes]
    assert titles[-1] == "triples: interaction τ, MSE" and len(titles) == 6


def test_more_than_three_genes_are_left_out_with_a_warning(caplog):
    genes = np.full((40, 4), -1, np.int32)
    for i in range(40):
        genes[i, : 1 + i % 4] = np.arange(i % 10, i % 10 + 1 + i % 4)
    values = np.linspace(0, 1, 40, dtype=np.float32)
    table = LabelTable(tuple("abcdefghijklmn"), genes, values, values)
    split = make_split(table, "gene", (0.4, 0.3, 0.3), 0)
    four = int((table.sizes[split.test] == 4).sum())
    chosen = evaluation_instances(SimpleNamespace(table=table), split, "test", 0, 0)
    assert four > 0 and set(table.sizes[chosen]) == {1, 2, 3}
    assert f"test part: {four} instances of more than three genes are not evaluated" in caplog.text

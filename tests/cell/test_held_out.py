"""What is new in a held-out instance, a gene or only the pair: in predictions, metrics, tables and headings."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from cell.tiny import tiny_config
from rich.console import Console

from pyg_nsa.cell.data.splits import make_split
from pyg_nsa.cell.evaluation.comparison_page import comparison_figure, shown_rows, summary
from pyg_nsa.cell.evaluation.metrics import compare, compare_models, evaluate
from pyg_nsa.cell.evaluation.subsets import subset_rows
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.report.files import RunFolderError
from pyg_nsa.cell.report.page import write_report
from pyg_nsa.cell.training.experiment import evaluation_instances, prediction_rows, run_experiment
from pyg_nsa.cell.training.run import run_training

NAN = float("nan")


def train(folder, cache, *overrides):
    """A run, and what it printed."""
    out = io.StringIO()
    config = tiny_config(folder, "baselines=[mean, product_of_singles]", *overrides, epochs=1)
    console = Console(file=out, width=120)
    run_training(config, folder / "run", cache=cache, progress=False, console=console)
    return SimpleNamespace(folder=folder / "run", config=config, printed=out.getvalue())


@pytest.fixture(scope="module")
def of_both(cell_cache, tmp_path_factory):
    return train(tmp_path_factory.mktemp("both"), cell_cache, "data.split=both")


@pytest.fixture(scope="module")
def of_pairs(cell_cache, tmp_path_factory):
    return train(tmp_path_factory.mktemp("pair"), cell_cache, "data.split=pair")


@pytest.fixture(scope="module")
def dataset(cell_cache, of_both):
    return open_dataset(of_both.config, cell_cache, progress=False)


def seen_genes(dataset, config):
    split = make_split(dataset.table, config.data.split, config.data.fractions, config.seed)
    return {dataset.table.gene_ids[g] for g in split.genes["train"]}


# ---- predictions and metrics ---------------------------------------------------------------------------------------------


def test_predictions_say_what_is_new(of_both, dataset):
    known = seen_genes(dataset, of_both.config)
    table = pd.read_csv(of_both.folder / "predictions.csv")
    for genes, held_out in zip(table["genes"], table["held_out"], strict=True):
        assert held_out == ("pair" if set(genes.split(";")) <= known else "gene")
    counts = table.query("model == 'mean'").groupby(["part", "size", "held_out"]).size()
    # Forty pairs of each kind, and the singles of held-out genes.
    assert counts.to_dict() == {
        ("val", 1, "gene"): 14,
        ("val", 2, "gene"): 40,
        ("val", 2, "pair"): 40,
        ("test", 1, "gene"): 27,
        ("test", 2, "gene"): 40,
        ("test", 2, "pair"): 40,
    }


def test_metrics_are_by_what_is_new(of_both, dataset):
    known = seen_genes(dataset, of_both.config)
    table = pd.read_csv(of_both.folder / "predictions.csv").query("part == 'test' and size == 2")
    metrics = pd.read_csv(of_both.folder / "metrics.csv").query("part == 'test'")
    metrics = metrics.set_index(["model", "subset", "target"]).sort_index()
    seen = table["genes"].map(lambda ids: set(ids.split(";")) <= known)
    new = seen & table["new_losses"]
    assert 0 < new[table["model"] == "mean"].sum() < 40
    for name, rows in (
        ("pairs", table[~seen]),
        ("new pairs of known genes", table[seen]),
        ("new pairs of known genes, new losses", table[new]),
    ):
        for model, own in rows.groupby("model"):
            for target in ("fitness", "gene_interaction"):
                wanted = compare(own[target].to_numpy(), own[f"{target}_pred"].to_numpy())
                found = metrics.loc[(model, name, target)]
                assert found.set_index("metric")["value"].to_dict() == pytest.approx(
                    wanted, nan_ok=True
                )
                assert (found["n"] == len(own)).all()


def test_new_losses_are_those_of_no_training_instance(of_both, dataset, textbook):
    simulator, table = GrowthSimulator(textbook), dataset.table
    data = of_both.config.data
    split = make_split(table, data.split, data.fractions, of_both.config.seed)

    def lost(i):
        return simulator.inactive_reactions(table.ids(int(i))).tobytes()

    seen = {lost(i) for i in split.train}
    rows = pd.read_csv(of_both.folder / "predictions.csv").query("model == 'mean'")
    assert rows["new_losses"].tolist() == [lost(i) not in seen for i in rows["index"]]


def rows(held_out, size, epsilon, predicted):
    return pd.DataFrame(
        {
            "model": "m",
            "part": "test",
            "size": size,
            "genes": [f"g{i}" for i in range(len(size))],
            "fitness": 0.5,
            "gene_interaction": epsilon,
            "fitness_pred": 0.5,
            "gene_interaction_pred": predicted,
            "held_out": held_out,
        }
    )


def test_evaluate_tells_new_pairs_from_new_genes():
    table = rows(
        ["gene", "gene", "pair", "pair", "pair"],
        [1, 2, 2, 2, 2],
        [NAN, 0.1, 0.2, 0.0, -0.4],
        [NAN, 0.0, 0.0, 0.3, 0.0],
    )
    out = evaluate(table).query("target == 'gene_interaction' and metric == 'mse'")
    assert list(evaluate(table)["subset"].unique()) == [
        "singles",
        "pairs",
        "interacting pairs",
        "new pairs of known genes",
        "interacting new pairs of known genes",
    ]
    assert out.set_index("subset")["value"].to_dict() == pytest.approx(
        {
            "pairs": 0.01,
            "interacting pairs": 0.01,
            "new pairs of known genes": (0.04 + 0.09 + 0.16) / 3,
            "interacting new pairs of known genes": 0.1,
        }
    )
    losses = table.assign(new_losses=[True, True, False, True, True])
    of_new = evaluate(losses).query("target == 'gene_interaction' and metric == 'mse'")
    assert of_new.set_index("subset")["value"].to_dict() == pytest.approx(
        {
            **out.set_index("subset")["value"].to_dict(),
            "new pairs of known genes, new losses": (0.09 + 0.16) / 2,
            "interacting new pairs of known genes, new losses": 0.16,
        }
    )
    plain = evaluate(table.drop(columns="held_out"))
    assert list(plain["subset"].unique()) == ["singles", "pairs", "interacting pairs"]
    assert plain.query("subset == 'pairs' and target == 'fitness'")["n"].unique() == [4]


def test_models_are_compared_on_new_pairs_alone():
    first = rows(["gene", "pair", "pair"], [2, 2, 2], [0.1, 0.2, 0.4], [9.0, 0.2, 0.2])
    second = rows(["gene", "pair", "pair"], [2, 2, 2], [0.1, 0.2, 0.4], [0.1, 0.1, 0.4])
    table = pd.concat([first, second.assign(model="n")], ignore_index=True)
    what = ("test", "new pairs of known genes", "gene_interaction", "mse")
    gap, _, _ = compare_models(table, *what, ("m", "n"))
    assert gap == pytest.approx(0.04 / 2 - 0.01 / 2)


@pytest.mark.parametrize(
    ("kind", "by"), [("gene", ["gene"]), ("pair", ["pair"]), ("both", ["gene", "pair"])]
)
def test_as_many_pairs_of_each_kind_are_evaluated(dataset, kind, by):
    table = dataset.table
    split = make_split(table, kind, (0.7, 0.1, 0.2), 0)
    chosen = evaluation_instances(dataset, split, "test", 30, 0)
    assert np.isin(chosen, split.test).all() and (np.diff(chosen) > 0).all()
    pairs = chosen[table.sizes[chosen] == 2]
    for name in ("gene", "pair"):
        own = np.intersect1d(pairs, split.held_out("test", name, 2))
        assert len(own) == (30 if name in by else 0)
        assert table.interacting[own].sum() == len(own) // 2
    every = evaluation_instances(dataset, split, "test", 0, 0)
    assert np.array_equal(every, split.test)


def test_only_a_split_of_both_has_the_column(dataset):
    for kind in ("gene", "pair", "both"):
        split = make_split(dataset.table, kind, (0.7, 0.1, 0.2), 0)
        index = split.test[:5]
        table = prediction_rows(dataset, split, "m", "test", index, np.zeros((5, 2)))
        assert ("held_out" in table) == (kind == "both")


def test_predictions_of_an_earlier_version_are_made_again(of_both, dataset):
    folder = of_both.folder / "hetero_nsa"
    file = folder / "predictions.csv"
    before = file.read_text()
    pd.read_csv(file).drop(columns="held_out").to_csv(file, index=False)
    config = of_both.config
    split = make_split(dataset.table, "both", config.data.fractions, config.seed)
    what = ("hetero_nsa", build_model, dataset, split, config, folder)
    _, table = run_experiment(*what, resume=True, progress=False)
    assert set(table["held_out"]) == {"gene", "pair"}
    assert file.read_text() == before


# ---- headings ------------------------------------------------------------------------------------------------------------


def test_headings_of_genes_and_pairs(of_both):
    page = (of_both.folder / "report.html").read_text()
    assert "On genes and pairs held out for testing</h3>" in page
    assert "new pairs of known genes" in page and "pairs with a held-out gene" in page
    assert "Main metrics on held-out test genes and pairs" in page
    assert "held-out validation genes and pairs" in page
    assert (of_both.folder / "figures" / "gene_interaction_new_pairs_of_known_genes.png").is_file()
    assert "† is told the true fitness of held-out genes" in page
    assert "40 are new pairs of known genes" in page
    assert "held-out test genes and pairs" in of_both.printed
    assert "new pairs of known genes" in of_both.printed


def test_headings_of_pairs(of_pairs):
    page = (of_pairs.folder / "report.html").read_text()
    assert "On pairs held out for testing</h3>" in page
    assert "The <em>pairs</em> were divided" in page and "The <em>genes</em>" not in page
    assert "Main metrics on held-out test pairs" in page
    # Training has the label of every gene, so that the product of singles is told nothing that the others are not.
    assert "held-out genes" not in page and "product_of_singles†" not in page
    assert "held-out test pairs" in of_pairs.printed
    assert "held_out" not in (of_pairs.folder / "predictions.csv").read_text()
    subsets = set(pd.read_csv(of_pairs.folder / "metrics.csv")["subset"])
    assert subsets == {"singles", "pairs", "interacting pairs"}


def test_a_run_that_does_not_say_is_of_held_out_genes(of_pairs):
    file = of_pairs.folder / "run.json"
    before = file.read_text()
    facts = json.loads(before)
    assert facts["split_kind"] == "pair"
    try:
        file.write_text(json.dumps({k: v for k, v in facts.items() if k != "split_kind"}))
        assert "On genes held out for testing</h3>" in write_report(of_pairs.folder).read_text()
        file.write_text(json.dumps(facts | {"split_kind": "cells"}))
        with pytest.raises(
            RunFolderError, match="'split_kind' to be one of 'gene', 'pair', 'both'"
        ):
            write_report(of_pairs.folder)
    finally:
        file.write_text(before)
        write_report(of_pairs.folder)


# ---- comparisons ---------------------------------------------------------------------------------------------------------


def measured(*subsets):
    wanted = [(s, "gene_interaction", "mse", 0.1) for s in subsets]
    table = pd.DataFrame(wanted, columns=["subset", "target", "metric", "value"])
    return table.assign(model="a", seed=0, n=5)


def test_a_comparison_has_rows_and_panels_of_what_there_is():
    table = measured("pairs", "new pairs of known genes")
    found = [(row[0], row[3]) for row in shown_rows(summary(table), ["a"])]
    assert found == [("pairs", "0.1000"), ("new pairs of known genes", "0.1000")]
    # Errors far below the others' are no zeros, and their bars are to be seen.
    least = table.assign(value=[0.1, 0.0000374])
    assert [row[3] for row in shown_rows(summary(least), ["a"])] == ["0.1000", "0.000037"]
    far = pd.concat([table, table.assign(model="b", value=0.001)])
    for drawn, scale in ((far, "log"), (table, "linear")):
        figure = comparison_figure(drawn, ["a", "b"])
        (axis,) = (
            ax
            for ax in figure.axes
            if ax.get_title(loc="left").startswith("pairs: interaction ε, MSE")
        )
        assert axis.get_xscale() == scale
    for subsets, first in (
        (["singles", "pairs"], ["single deletions", "pairs"]),
        (["pairs"], ["pairs"]),
        (["pairs", "new pairs of known genes"], ["pairs", "new pairs of known genes"]),
    ):
        axes = comparison_figure(measured(*subsets), ["a"]).axes
        titles = [ax.get_title(loc="left").split(":")[0] for ax in axes]
        assert titles == [name for name in first for _ in range(3)]


def test_subsets_are_disjoint_and_complete(of_both):
    table = pd.read_csv(of_both.folder / "predictions.csv")
    names = ("singles", "pairs", "new pairs of known genes")
    found = pd.concat([subset_rows(table, name) for name in names])
    assert found.index.is_unique and len(found) == len(table)

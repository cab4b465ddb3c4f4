"""Intervals: weighted metrics are those of repeated rows, and genes are what is resampled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pyg_nsa.cell.evaluation.bootstrap import (
    GeneBootstrap,
    interval,
    weighted_auroc,
    weighted_metrics,
)
from pyg_nsa.cell.evaluation.metrics import auroc, compare, compare_models, evaluate


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_weights_are_repetitions(rng):
    y = rng.normal(size=12).round(1)  # with ties
    y_hat = (y + rng.normal(size=12)).round(1)
    weights = rng.integers(0, 4, (20, 12)).astype(float)
    found = weighted_metrics(y, y_hat, weights)
    positive = y > 0
    curve = weighted_auroc(positive, y_hat, weights)
    for b, row in enumerate(weights.astype(int)):
        repeated = np.repeat(np.arange(12), row)
        wanted = compare(y[repeated], y_hat[repeated])
        for name, value in wanted.items():
            assert found[name][b] == pytest.approx(value), name
        assert curve[b] == pytest.approx(auroc(positive[repeated], y_hat[repeated]))


def test_undefined_is_nan(rng):
    weights = np.ones((1, 3))
    found = weighted_metrics(np.ones(3), np.arange(3.0), weights)
    assert np.isnan(found["pearson"][0])
    assert np.isnan(found["spearman"][0])
    assert found["mse"][0] == pytest.approx(2 / 3)
    assert np.isnan(weighted_auroc(np.ones(3, bool), np.arange(3.0), weights)[0])
    empty = np.empty((2, 0))
    assert np.isnan(weighted_metrics(np.empty(0), np.empty(0), empty)["spearman"]).all()


def test_an_instance_counts_as_the_product_of_its_genes_draws():
    bootstrap = GeneBootstrap(["a", "b", "a;b", "c;a"], replicates=200)
    weights = np.concatenate(list(bootstrap.weights(np.arange(4))))
    assert weights.shape == (200, 4)
    a, b, ab, ca = weights.T
    np.testing.assert_array_equal(ab, a * b)
    np.testing.assert_array_equal(ca, (3 - a - b) * a)  # three genes, three draws
    part = np.concatenate(list(bootstrap.weights(np.array([2]))))
    np.testing.assert_array_equal(part[:, 0], ab)


def test_intervals_cover(rng):
    """Of 100 samples the interval of a mean squared error of 1 should miss it in about 5."""
    missed = 0
    for _ in range(100):
        error = rng.normal(size=80)
        bootstrap = GeneBootstrap([f"g{i}" for i in range(80)], replicates=300)
        draws = [
            weighted_metrics(np.zeros(80), error, w, ("mse",))["mse"]
            for w in bootstrap.weights(np.arange(80))
        ]
        low, high = interval(np.concatenate(draws))
        missed += not low <= 1 <= high
    assert 1 <= missed <= 15


def test_pairs_that_share_a_gene_are_not_independent(rng):
    """Four genes are in all pairs, and decide the error: resampling pairs would promise far too much."""
    error = np.repeat([1.0, -1.0, 1.0, -1.0], 25)
    shared = [f"hub{i // 25};g{i}" for i in range(100)]
    apart = [f"g{i}" for i in range(100)]

    def width(genes):
        draws = [
            weighted_metrics(np.zeros(100), error + 1, w, ("mse",))["mse"]
            for w in GeneBootstrap(genes, 500).weights(np.arange(100))
        ]
        low, high = interval(np.concatenate(draws))
        return high - low

    assert width(shared) > 2 * width(apart)


def test_an_interval_that_is_mostly_undefined_is_none():
    assert np.isnan(interval(np.array([1.0, 2.0, np.nan]))).all()
    assert np.isnan(interval(np.array([]))).all()
    assert interval(np.linspace(0, 100, 101)) == pytest.approx((2.5, 97.5))


def predictions(rng, noise):
    genes = [f"g{i}" for i in range(30)]
    pairs = [f"g{i};g{j}" for i in range(30) for j in range(i)][:80]
    fitness = rng.random(110)
    fitness[::7] = 0.0
    return pd.concat(
        pd.DataFrame(
            {
                "model": model,
                "part": "test",
                "size": [1] * 30 + [2] * 80,
                "genes": genes + pairs,
                "fitness": fitness,
                "gene_interaction": np.where(np.arange(110) < 30, np.nan, fitness - 0.5),
                "fitness_pred": fitness + scale * rng.normal(size=110),
                "gene_interaction_pred": np.where(np.arange(110) < 30, np.nan, 0.1),
            }
        )
        for model, scale in noise.items()
    )


def test_evaluate_gives_intervals_around_its_values(rng):
    table = predictions(rng, {"good": 0.1, "bad": 1.0})
    plain = evaluate(table)
    sure = evaluate(table, replicates=200)
    pd.testing.assert_frame_equal(sure[plain.columns.tolist()], plain)
    known = sure.dropna()
    assert {"pearson", "spearman", "mse", "auroc"} == set(known["metric"])
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()
    assert (known["low"] < known["high"]).all()
    constant = sure.query("target == 'gene_interaction' and metric == 'pearson'")
    assert constant[["value", "low", "high"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(sure, evaluate(table, replicates=200))


def test_compare_models_is_paired(rng):
    table = predictions(rng, {"good": 0.1, "bad": 1.0, "same": 0.1})
    what = ("test", "singles", "fitness", "pearson")
    gap, low, high = compare_models(table, *what, ("good", "bad"))
    values = evaluate(table).query("subset == 'singles' and metric == 'pearson'").set_index("model")
    assert gap == pytest.approx(values.loc["good", "value"] - values.loc["bad", "value"])
    assert 0 < low < gap < high
    assert compare_models(table, *what, ("good", "good")) == (0.0, 0.0, 0.0)
    back = compare_models(table, *what, ("bad", "good"))
    assert back == pytest.approx((-gap, -high, -low))
    # Rows in another order, and instances that only one has, change nothing.
    mixed = table.sample(frac=1, random_state=0)
    extra = table[table["model"] == "good"].assign(genes=lambda t: "z" + t["genes"])
    again = compare_models(pd.concat([mixed, extra]), *what, ("good", "bad"))
    assert again == pytest.approx((gap, low, high))
    nothing = compare_models(table, "val", *what[1:], ("good", "bad"))
    assert np.isnan(nothing).all()

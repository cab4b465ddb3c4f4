import numpy as np
import pandas as pd
import pytest

from pyg_nsa.cell.evaluation.metrics import auroc, compare, evaluate
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.models.baselines import mean_of_training, product_of_singles


def test_auroc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    positive = rng.random(40) < 0.3
    score = rng.integers(0, 6, 40).astype(float)
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0 for p in score[positive] for n in score[~positive]
    ]
    assert auroc(positive, score) == pytest.approx(np.mean(wins))
    assert np.isnan(auroc(np.zeros(3, bool), np.arange(3.0)))


def test_compare_leaves_missing_values_out_and_says_nan_for_constants():
    y = np.array([1.0, 2.0, np.nan, 4.0])
    assert compare(y, np.array([1.0, 2.0, 9.0, 4.0]))["pearson"] == pytest.approx(1.0)
    assert compare(y, np.array([1.0, 2.0, 9.0, 4.0]))["mse"] == 0.0
    constant = compare(y, np.full(4, 2.0))
    assert np.isnan(constant["pearson"])
    assert constant["mse"] == pytest.approx((1 + 0 + 4) / 3)


def small_table():
    return LabelTable(
        gene_ids=("a", "b", "c"),
        genes=np.array([[0, -1], [1, -1], [2, -1], [0, 1], [0, 2]], np.int32),
        fitness=np.array([0.5, 0.8, np.nan, 0.3, 0.1], np.float32),
        gene_interaction=np.array([np.nan, np.nan, np.nan, -0.1, 0.0], np.float32),
    )


def test_product_of_singles():
    out = product_of_singles(small_table(), np.array([0]), np.array([0, 3, 4]))
    assert np.isnan(out[0]).all()  # a single is not a product
    assert out[1].tolist() == pytest.approx([0.4, 0.0])
    assert np.isnan(out[2]).all()  # c's own label is missing


def test_mean_of_training_is_by_number_of_genes():
    out = mean_of_training(small_table(), np.array([0, 1, 3]), np.array([2, 4]))
    assert out[0, 0] == pytest.approx(0.65)
    assert out[1].tolist() == pytest.approx([0.3, -0.1])


def test_evaluate_tells_subsets_apart():
    table = pd.DataFrame(
        {
            "model": "m",
            "part": "test",
            "size": [1, 1, 2, 2, 2],
            "fitness": [0.0, 1.0, 0.5, 0.7, 0.9],
            "gene_interaction": [np.nan, np.nan, 0.1, -0.2, 0.0],
            "fitness_pred": [0.1, 0.9, 0.5, 0.7, 0.9],
            "gene_interaction_pred": [np.nan, np.nan, 0.1, -0.2, 0.3],
        }
    )
    out = evaluate(table).set_index(["subset", "target", "metric"])
    assert out.loc[("singles", "fitness", "mse"), "value"] == pytest.approx(0.01)
    assert out.loc[("singles", "lethality", "auroc"), "value"] == 1.0
    assert out.loc[("pairs", "gene_interaction", "mse"), "value"] == pytest.approx(0.03)
    assert out.loc[("interacting pairs", "gene_interaction", "mse"), "value"] == pytest.approx(0.0)
    assert out.loc[("interacting pairs", "fitness", "pearson"), "n"] == 2
    # Where the data set says which interact, no threshold of simulated labels counts.
    told = evaluate(table.assign(interacting=[False, False, False, True, False]))
    told = told.set_index(["subset", "target", "metric"])
    assert told.loc[("interacting pairs", "gene_interaction", "mse"), "n"] == 1

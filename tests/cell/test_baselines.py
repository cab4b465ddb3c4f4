"""Predictions that need no network, against what they say they are."""

import numpy as np

from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.models.baselines import BASELINES, mean_of_training, product_of_singles

NAN = float("nan")


def make_table():
    genes = np.array([[0, -1], [1, -1], [2, -1], [0, 1], [0, 2], [1, 2], [0, 3]], np.int32)
    fitness = np.array([0.5, 0.8, 0.0, 0.4, 0.1, 0.3, 0.7], np.float32)
    epsilon = np.array([NAN, NAN, NAN, 0.0, 0.1, 0.3, NAN], np.float32)
    return LabelTable(("a", "b", "c", "d"), genes, fitness, epsilon)


def test_the_mean_is_that_of_training_instances_of_the_same_size():
    out = mean_of_training(make_table(), np.array([0, 1, 3, 5]), np.array([2, 4]))
    np.testing.assert_allclose(out[0], [0.65, NAN])  # no single has an interaction
    np.testing.assert_allclose(out[1], [0.35, 0.15])


def test_without_instances_of_a_size_the_mean_is_that_of_all():
    out = mean_of_training(make_table(), np.array([0, 1]), np.array([4]))
    np.testing.assert_allclose(out[0, 0], 0.65)


def test_the_product_is_told_the_singles_and_says_no_interaction():
    out = product_of_singles(make_table(), np.array([], np.int64), np.arange(7))
    assert np.isnan(out[:3]).all()
    np.testing.assert_allclose(out[3:6, 0], [0.4, 0.0, 0.0], atol=1e-7)
    assert (out[3:6, 1] == 0).all()
    assert np.isnan(out[6]).all()  # gene d has no single label


def test_names():
    assert set(BASELINES) == {"mean", "product_of_singles"}

"""Predictions that need no network, against what they say they are."""

import numpy as np
import pytest
import torch
from cell.naive_blocked import naive_blocked

from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.models.baselines import BASELINES, mean_of_training, product_of_singles
from pyg_nsa.cell.network.loans import Loans

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
    assert set(BASELINES) == {"mean", "product_of_singles", "scope"}


@pytest.fixture(scope="module")
def dataset(cell_cache):
    return PerturbationDataset(cell_cache, progress=False)


def test_the_scope_says_who_grows_at_all(dataset):
    graph, table = dataset.graph, dataset.table
    singles = np.flatnonzero(table.sizes == 1)
    pairs = np.flatnonzero(table.sizes == 2)
    wanted = np.concatenate([singles[:90], pairs[table.interacting[pairs]][::9], pairs[::700]])
    out = BASELINES["scope"](dataset, np.array([], np.int64), wanted)
    loans = Loans(graph)
    (growth,) = (graph["reaction"].objective > 0).nonzero().view(-1).tolist()
    gpr = graph["gene", "gpr", "reaction"].edge_index.t().tolist()
    known = {}

    def grows(genes):
        if genes not in known:
            dead = {r for g, r in gpr if g in genes}
            mask = torch.zeros(1, graph["reaction"].num_nodes, dtype=torch.bool)
            mask[0, list(dead)] = True
            known[genes] = float(not loans(mask)[0][0, growth])
            assert not (known[genes] and growth in naive_blocked(graph, dead))
        return known[genes]

    for i, (fitness, epsilon) in zip(wanted, out, strict=True):
        genes = tuple(int(g) for g in table.genes[i] if g >= 0)
        assert fitness == grows(genes)
        if len(genes) == 1:
            assert np.isnan(epsilon)
        else:
            assert epsilon == grows(genes) - grows(genes[:1]) * grows(genes[1:])
    assert {0.0, 1.0} == set(out[:, 0]) and (out[90:, 1] != 0).any()


def test_the_scope_of_triples_says_what_pairs_leave_unexplained(cell_cache):
    dataset = PerturbationDataset(cell_cache, labels="simulated-triples", progress=False)
    table = dataset.table
    triples = np.flatnonzero(table.sizes == 3)
    fitness, tau = BASELINES["scope"](dataset, np.array([], np.int64), triples).T
    # Asked one by one, through the rows of the single and double deletions.
    rows = {tuple(g for g in genes if g >= 0): i for i, genes in enumerate(table.genes.tolist())}
    members = [tuple(table.genes[i].tolist()) for i in triples]
    asked = sorted({s for a, b, c in members for s in ((a,), (b,), (c,), (a, b), (a, c), (b, c))})
    found = BASELINES["scope"](dataset, np.array([], np.int64), np.array([rows[s] for s in asked]))
    f = dict(zip(asked, found[:, 0], strict=True))
    for (a, b, c), together, got in zip(members, fitness, tau, strict=True):
        wanted = together - f[a,] * f[b,] * f[c,]
        for x, y, z in ((a, b, c), (a, c, b), (b, c, a)):
            wanted -= (f[x, y] - f[x,] * f[y,]) * f[z,]
        assert got == wanted
    # Not what a rule for pairs would say, and not the same for all.
    assert {0.0, 1.0} <= set(tau)
    assert (tau != fitness - [f[a,] * f[b,] * f[c,] for a, b, c in members]).any()


def test_the_scope_needs_to_know_the_network(dataset, monkeypatch):
    monkeypatch.delitem(dataset.graph["reaction"]._mapping, "objective")
    with pytest.raises(ValueError, match="baseline 'scope' needs the network.*Leave it out"):
        BASELINES["scope"](dataset, np.array([], np.int64), np.array([0]))

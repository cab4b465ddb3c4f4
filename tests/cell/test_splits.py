from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_nsa.cell.data.splits import (
    PARTS,
    MixedSampler,
    make_split,
    split_by_both,
    split_by_gene,
    split_by_pair,
)
from pyg_nsa.cell.labels.simulated import simulate_labels
from pyg_nsa.cell.labels.table import LabelTable
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import load_model


@pytest.fixture(scope="module")
def table(textbook, tmp_path_factory):
    return simulate_labels(textbook, tmp_path_factory.mktemp("labels"), progress=False)


def test_instances_follow_their_genes(table):
    split = split_by_gene(table, seed=3)
    part_of = {g: name for name in PARTS for g in split.genes[name].tolist()}
    assert len(part_of) == sum(len(split.genes[name]) for name in PARTS) == 137
    for name in PARTS:
        for i in split.part(name):
            parts = {part_of[g] for g in table.genes[i].tolist() if g >= 0}
            expected = "test" if "test" in parts else "val" if "val" in parts else "train"
            assert expected == name
    everything = np.concatenate([split.part(name) for name in PARTS])
    assert np.array_equal(np.sort(everything), np.arange(len(table)))
    assert [len(split.genes[name]) for name in PARTS] == [109, 14, 14]


def test_singles_and_pairs_are_told_apart(table):
    split = split_by_gene(table)
    for name in PARTS:
        assert (table.sizes[split.singles[name]] == 1).all()
        assert (table.sizes[split.pairs[name]] == 2).all()
        assert len(split.singles[name]) == len(split.genes[name])
        counts = split.counts()[name]
        assert counts["instances"] == counts["singles"] + counts["pairs"] == len(split.part(name))
    with pytest.raises(ValueError, match="Unknown part 'valid': expected one of train, val, test"):
        split.part("valid")


def test_seeds(table):
    one, again, other = (split_by_gene(table, seed=s).test for s in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_groups_stay_together(table):
    groups = np.arange(137) // 4
    split = split_by_gene(table, (0.6, 0.2, 0.2), seed=1, groups=groups)
    homes = {}
    for name in PARTS:
        for g in split.genes[name].tolist():
            homes.setdefault(groups[g], set()).add(name)
    assert all(len(parts) == 1 for parts in homes.values())
    assert sum(len(split.genes[name]) for name in PARTS) == 137


def test_split_errors(table):
    with pytest.raises(
        ValueError,
        match=r"three numbers >= 0 \(train, val, test\) that sum to 1, got \(0\.5, 0\.5\)",
    ):
        split_by_gene(table, (0.5, 0.5))
    few = table.select(np.array([0, 1]))
    with pytest.raises(
        ValueError, match=r"Too few genes \(2, in 2 groups\) for a val part of 0\.1\."
    ):
        split_by_gene(few)
    with pytest.raises(
        ValueError, match=r"groups: expected one number per gene \(137\), got shape \(3,\)"
    ):
        split_by_gene(table, groups=np.zeros(3, np.int64))
    whole = split_by_gene(few, (1, 0, 0))
    assert whole.train.tolist() == [0, 1]


def test_rates(table):
    split = split_by_gene(table)
    sampler = MixedSampler(table, split.train, rates=(0.2, 0.5, 0.3), size=1000)
    drawn = np.array(list(sampler))
    assert len(drawn) == len(sampler) == 1000
    assert set(drawn.tolist()) <= set(split.train.tolist())
    assert sampler.counts == {"singles": 200, "interacting": 500, "random": 300}
    assert (table.sizes[drawn] == 1).sum() == 200
    # Random pairs may interact too, as often as pairs do.
    assert 500 <= table.interacting[drawn].sum() < 600
    singles = Counter(drawn[table.sizes[drawn] == 1].tolist())
    assert set(singles) == set(
        split.singles["train"].tolist()
    )  # a new round only after all were drawn
    assert max(singles.values()) - min(singles.values()) <= 1


def test_epochs(table):
    one, other = MixedSampler(table, seed=5), MixedSampler(table, seed=5)
    first, second = list(one), list(one)
    assert first != second
    other.set_epoch(1)
    assert list(other) == second
    assert list(other) != second
    assert list(MixedSampler(table, seed=6)) != first


def test_default_size_and_positions(table):
    split = split_by_gene(table)
    sampler = MixedSampler(table, split.train, positions=True)
    known = len(split.singles["train"]) + int(table.interacting[split.train].sum())
    assert len(sampler) == round(known / 0.75)
    assert max(sampler) < len(split.train)
    plain = MixedSampler(table, split.train)
    assert split.train[list(MixedSampler(table, split.train, positions=True))].tolist() == list(
        plain
    )


def test_kinds_that_do_not_exist(table):
    split = split_by_gene(table)
    singles = MixedSampler(table, split.singles["train"])
    assert singles.counts == {"singles": 109, "interacting": 0, "random": 0}
    with pytest.raises(ValueError, match="No instance to draw: 109 instances, and none of a kind"):
        MixedSampler(table, split.singles["train"], rates=(0, 1, 1))
    with pytest.raises(
        ValueError, match=r"rates: expected three numbers >= 0 \(singles, interacting, random\)"
    ):
        MixedSampler(table, rates=(0, 0, 0))


def everything_that_is_ordered() -> str:
    """Hash of all that could depend on the order of a set."""
    graph = build_graph(load_model("textbook"), features=False)
    y = np.zeros(137, np.float32)
    genes = np.arange(137, dtype=np.int32)[:, None]
    table = LabelTable(tuple(graph["gene"].node_ids), genes, y, y)
    digest = hashlib.sha256()
    for edge_type in graph.edge_types:
        digest.update(graph[edge_type].edge_index.numpy().tobytes())
    said = [graph.edge_types, graph["reaction"].node_ids, split_by_gene(table).test.tolist()]
    said.append(list(MixedSampler(table)))
    digest.update(str(said).encode())
    return digest.hexdigest()


def test_nothing_depends_on_hashing():
    """Strings hash differently in every process, so another process is enough."""
    code = "from cell.test_splits import everything_that_is_ordered as f; print(f())"
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
        "PYTHONPATH": os.pathsep.join((str(tests.parent), str(tests))),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == everything_that_is_ordered()


def test_sampler_in_a_loader(table):
    sampler = MixedSampler(table, size=10)
    loader = torch.utils.data.DataLoader(range(len(table)), batch_size=5, sampler=sampler)
    assert len(list(loader)) == 2


def test_more_than_two_genes():
    y = np.zeros(3, np.float32)
    genes = np.array([[0, -1, -1], [0, 1, 2], [-1, -1, -1]], np.int32)
    table = LabelTable(("a", "b", "c"), genes, y, y)
    split = split_by_gene(table, (0, 0, 1))
    assert split.test.tolist() == [0, 1]
    assert split.train.tolist() == [2]  # the wildtype has no gene to hold out


# --- by pair, by both, and what every part needs ---


def interacting_pairs(table, index):
    return int((table.interacting & (table.sizes >= 2))[index].sum())


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.6, 0.1, 0.3), (0.9, 0.05, 0.05)])
@pytest.mark.parametrize("kind", ["gene", "pair", "both"])
def test_every_part_has_interacting_pairs(table, kind, fractions, caplog):
    for seed in range(10):
        split = make_split(table, kind, fractions, seed)
        assert split.kind == kind
        for name in PARTS:
            assert interacting_pairs(table, split.part(name)) > 0, (seed, name)
        everything = np.concatenate([split.part(name) for name in PARTS])
        assert np.array_equal(np.sort(everything), np.arange(len(table)))
    assert not caplog.text


def test_busy_and_quiet_genes_are_dealt_alike(table):
    pairs = table.genes[table.interacting]
    degree = np.bincount(pairs[pairs >= 0], minlength=137)
    busy = np.flatnonzero(degree >= 8)
    assert len(busy) > 40
    for seed in range(5):
        split = split_by_gene(table, (0.5, 0.25, 0.25), seed)
        counts = [int(np.isin(split.genes[name], busy).sum()) for name in PARTS]
        assert np.abs(np.array(counts) - len(busy) * np.array([0.5, 0.25, 0.25])).max() <= 2


def test_split_by_pair(table):
    split = split_by_pair(table, (0.7, 0.1, 0.2), seed=2)
    assert split.singles["train"].tolist() == list(range(137))
    assert not len(split.singles["val"]) and not len(split.singles["test"])
    assert [len(split.pairs[name]) for name in PARTS] == [5870, 838, 1677]
    # Interacting pairs by themselves, too: 880 of 8385.
    assert [interacting_pairs(table, split.part(n)) for n in PARTS] == [616, 88, 176]
    assert len(split.genes["train"]) == 137
    assert np.array_equal(split.held_out("test", "pair"), split.test)
    assert not len(split.held_out("test", "gene"))
    again, other = (
        split_by_pair(table, (0.7, 0.1, 0.2), 2),
        split_by_pair(table, (0.7, 0.1, 0.2), 3),
    )
    assert np.array_equal(again.test, split.test)
    assert not np.array_equal(other.test, split.test)


def test_split_by_both(table):
    by_gene, split = split_by_gene(table, seed=4), split_by_both(table, seed=4)
    part_of = {g: name for name in PARTS for g in by_gene.genes[name].tolist()}
    for name in ("val", "test"):
        assert np.array_equal(split.held_out(name, "gene"), by_gene.part(name))
        new = split.held_out(name, "pair")
        assert abs(len(new) - 0.1 * len(by_gene.pairs["train"])) <= 2
        for i in new:
            assert table.sizes[i] == 2
            assert {part_of[g] for g in table.genes[i].tolist()} == {"train"}
    assert np.array_equal(split.singles["train"], by_gene.singles["train"])
    assert {n: g.tolist() for n, g in split.genes.items()} == {
        n: g.tolist() for n, g in by_gene.genes.items()
    }


def test_triples_go_with_their_strictest_pair():
    genes = np.array(
        [[0, 1, -1], [0, 2, -1], [1, 2, -1], [1, 3, -1], [0, 1, 2], [2, 3, 4]], np.int32
    )
    y = np.zeros(6, np.float32)
    table = LabelTable(tuple("abcde"), genes, y, y)
    orders = set()
    for seed in range(30):
        split = split_by_pair(table, (0.4, 0.3, 0.3), seed)
        part = np.empty(6, np.int64)
        for k, name in enumerate(PARTS):
            part[split.part(name)] = k
        assert part[4] == max(part[:3])  # its pairs are the first three
        orders.add(tuple(part[:4]))
    assert len(orders) > 5


def test_a_part_without_interactions_is_said(caplog):
    genes = np.array([[i, j] for i in range(8) for j in range(i + 1, 8)], np.int32)
    y = np.zeros(len(genes), np.float32)
    y[0] = 0.5  # a single interacting pair, which can be in one part only
    table = LabelTable(tuple("abcdefgh"), genes, y, y)
    for kind in ("gene", "pair", "both"):
        caplog.clear()
        make_split(table, kind, (0.5, 0.25, 0.25))
        assert len(caplog.messages) == 2
        assert f"split by {kind}: the " in caplog.text
        assert "part has none of the 1 interacting instances; use a larger fraction" in caplog.text


def test_wrong_splits(table):
    with pytest.raises(ValueError, match="split 'genes': expected one of 'gene', 'pair', 'both'"):
        make_split(table, "genes")
    singles = table.select(np.arange(137))
    with pytest.raises(ValueError, match=r"Too few pairs \(0\) for a train part of 0\.8"):
        split_by_pair(singles)
    with pytest.raises(ValueError, match=r"three numbers >= 0 \(train, val, test\) that sum to 1"):
        split_by_pair(table, (0.5, 0.2, 0.2))

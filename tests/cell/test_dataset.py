from __future__ import annotations

import logging
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cell.networks import toy_network
from torch.utils.data import DataLoader as TorchLoader
from torch_geometric.data import HeteroData
from torch_geometric.loader import DataLoader

from pyg_nsa import HeteroNSAConv
from pyg_nsa.cell.data import dataset as dataset_module
from pyg_nsa.cell.data.batch import (
    Perturbation,
    PerturbationBatch,
    PerturbationCollate,
    PerturbationLoader,
)
from pyg_nsa.cell.data.dataset import PerturbationDataset
from pyg_nsa.cell.data.splits import MixedSampler, split_by_gene
from pyg_nsa.cell.files.sealed_file import DamagedFileError, read_sealed, write_sealed
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.network.deletion import DeletionRule
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.metabolic_model import ModelFileError
from pyg_nsa.cell.network.sizes import dense_mask_bytes, graph_bytes, readable
from pyg_nsa.cell.network.transforms import DenseBoolMasks
from pyg_nsa.cli.graphs import read_graphs

GPR = ("gene", "gpr", "reaction")
NODE_TYPES = ("gene", "reaction", "metabolite")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cell")


@pytest.fixture(scope="module")
def dataset(root):
    return PerturbationDataset(root, progress=False)


def naive_alive(graph, genes):
    """The deletion rule by a loop over edges."""
    alive = {t: [True] * graph[t].num_nodes for t in NODE_TYPES}
    for g in genes:
        alive["gene"][g] = False
    for g, r in graph[GPR].hyperedge_index.T.tolist():
        if g in genes:
            alive["reaction"][r] = False
    return alive


# --- instances and batches ---


def test_instances_are_small(dataset):
    assert len(dataset) == 8522
    assert dataset.bytes_per_instance < 100
    item = dataset[137]
    assert isinstance(item, Perturbation)
    assert item.index == 137
    assert item.genes.tolist() == [0, 1]
    assert item.genes.dtype == torch.int64
    assert item.y.shape == (2,)
    assert dataset[0].y[1].isnan()
    assert len(pickle.dumps(item)) < 1000
    assert repr(dataset) == "PerturbationDataset(8522 instances of e_coli_core, 20 bytes each)"
    assert re.fullmatch(
        r"20 bytes an instance beside one base graph of \d+\.\d kB; as dense boolean masks 124\.1 kB an instance",
        dataset.sizes,
    )


def test_bytes_of_the_dense_form(dataset):
    data = DenseBoolMasks()(dataset.to_hetero_data(0))
    masks = [data[e][n] for e in data.edge_types for n in ("adj_mask", "inc_mask") if n in data[e]]
    assert dense_mask_bytes(dataset.graph) == sum(mask.nbytes for mask in masks) == 124_064
    once = {t.data_ptr(): t.nbytes for t in everything(dataset.graph)}
    assert (
        graph_bytes(dataset.graph)
        == sum(once.values())
        < sum(t.nbytes for t in everything(dataset.graph))
    )
    # The cell of the example in the documentation of semantics, without reverse relations: 154 MB of masks an instance.
    example = HeteroData()
    for node_type, count in (("gene", 6607), ("reaction", 7122), ("metabolite", 2806)):
        example[node_type].num_nodes = count
    nothing = torch.empty(2, 0, dtype=torch.long)
    example["gene", "physical_interaction", "gene"].edge_index = nothing
    example["gene", "regulatory_interaction", "gene"].edge_index = nothing
    example[GPR].hyperedge_index = nothing
    example["reaction", "rmr", "metabolite"].hyperedge_index = nothing
    assert dense_mask_bytes(example) == 154_344_284 > 1e6 * dataset.bytes_per_instance
    assert [readable(n) for n in (20, 1999, 154_344_284, 3e9)] == [
        "20 bytes",
        "2.0 kB",
        "154.3 MB",
        "3.0 GB",
    ]


def everything(graph):
    return [v for s in graph.stores for v in s.values() if isinstance(v, torch.Tensor) and len(v)]


def test_selections_share_the_graph(dataset):
    split = split_by_gene(dataset.table)
    part = dataset[split.test]
    assert part.graph is dataset.graph
    assert len(part) == len(split.test)
    assert np.array_equal(part.index, split.test)
    assert part[3].index == split.test[3]
    assert [i.index for i in part.__getitems__([0, 2])] == split.test[[0, 2]].tolist()
    assert len(dataset[:10]) == 10


def test_many_items_equal_single_items(dataset):
    part = dataset[100:200]
    for single, many in zip(part, part.__getitems__(list(range(100))), strict=True):
        assert single.index == many.index
        assert torch.equal(single.genes, many.genes)
        torch.testing.assert_close(single.y, many.y, equal_nan=True)


def test_alive_against_loops(dataset):
    generator = np.random.default_rng(0)
    items = []
    for size in (0, 1, 2, 3, 7, 0):
        genes = np.sort(generator.choice(137, size, replace=False))
        items.append(Perturbation(size, torch.from_numpy(genes), torch.zeros(2)))
    batch = PerturbationCollate(dataset.graph)(items)
    for t in NODE_TYPES:
        expected = [naive_alive(dataset.graph, set(i.genes.tolist()))[t] for i in items]
        assert batch.alive_dict[t].tolist() == expected
        assert batch.alive_dict[t].dtype == torch.bool
    assert batch.alive_dict["metabolite"].all()


def test_clause_lost_is_not_reaction_inactive(toy):
    graph = build_graph(toy, features=False)
    alive = DeletionRule(graph).alive_one(
        torch.tensor([0])
    )  # a, of the complex a and b; c is the isozyme
    dead = [
        n
        for n, a in zip(graph["reaction"].node_ids, alive["reaction"].tolist(), strict=True)
        if not a
    ]
    assert dead == ["ab|0|forward", "ab|0|backward"]


def test_genes_without_reactions(dataset):
    table = pd.DataFrame([["b1241", "extra"]])
    network = toy_network({"growth": {"A": -1.0}}, {"growth": [{"b1241"}]})
    graph = build_graph(network, gene_tables={"physical": table}, unknown="add", features=False)
    alive = DeletionRule(graph).alive_one(torch.tensor([1]))
    assert alive["gene"].tolist() == [True, False]
    assert alive["reaction"].all()


def test_loader(dataset):
    loader = PerturbationLoader(dataset[:50], batch_size=16)
    batches = list(loader)
    assert [len(b) for b in batches] == [16, 16, 16, 2]
    batch = batches[0]
    assert isinstance(batch, PerturbationBatch)
    assert {t: list(a.shape) for t, a in batch.alive_dict.items()} == {
        "gene": [16, 137],
        "reaction": [16, 207],
        "metabolite": [16, 72],
    }
    assert batch.y.shape == (16, 2)
    assert batch.y.dtype == torch.float32
    assert batch.index.tolist() == list(range(16))
    assert [g.tolist() for g in batch.genes] == [[i] for i in range(16)]
    assert repr(batch) == (
        "PerturbationBatch(16 instances, alive: gene=[16, 137], reaction=[16, 207], metabolite=[16, 72])"
    )
    assert loader.graph is dataset.graph


def test_batch_moves(dataset):
    batch = next(iter(PerturbationLoader(dataset, 4)))
    moved = batch.to("meta")
    assert {
        t.device.type for t in (*moved.alive_dict.values(), *moved.genes, moved.y, moved.index)
    } == {"meta"}
    assert batch.y.device.type == "cpu"


def test_loader_with_workers_and_sampler(dataset):
    split = split_by_gene(dataset.table)
    sampler = MixedSampler(dataset.table, split.train, size=40)
    loader = PerturbationLoader(dataset, 20, sampler=sampler, num_workers=1)
    seen = torch.cat([batch.index for batch in loader])
    assert set(seen.tolist()) <= set(split.train.tolist())
    assert len(seen) == 40
    shuffled = [b.index.tolist() for b in PerturbationLoader(dataset[:8], 8, shuffle=True)]
    assert sorted(shuffled[0]) == list(range(8))


def test_plain_torch_loader_takes_the_collate(dataset):
    collate = PerturbationCollate(pickle.loads(pickle.dumps(dataset.graph)))
    batch = next(iter(TorchLoader(dataset, 3, collate_fn=pickle.loads(pickle.dumps(collate)))))
    assert len(batch) == 3


# --- graphs of their own ---


@pytest.mark.parametrize("numbering", ["compact", "wildtype"])
@pytest.mark.parametrize("i", [0, 60, 137, 4000, 8521])
def test_materialised_graph_against_loops(dataset, numbering, i):
    base, data = dataset.graph, dataset.to_hetero_data(i, numbering)
    genes = set(dataset[i].genes.tolist())
    alive = naive_alive(base, genes)
    assert data["gene"].cell_graph_idx_pert.tolist() == sorted(genes)
    assert data["gene"].ids_pert == list(dataset.table.ids(i))
    torch.testing.assert_close(data.y, dataset[i].y[None], equal_nan=True)
    label = {}
    for t in NODE_TYPES:
        total, store = base[t].num_nodes, data[t]
        kept = [n for n in range(total) if alive[t][n]]
        dead = [n for n in range(total) if not alive[t][n]]
        assert store.pert_mask.tolist() == [not a for a in alive[t]]
        assert torch.equal(store.x_pert, base[t].x[dead])
        assert store.x.shape == base[t].x.shape
        if numbering == "compact":
            label[t] = {n: k for k, n in enumerate(kept)}
            assert store.num_nodes == len(kept)
            assert store.mask.tolist() == [True] * len(kept) + [False] * len(dead)
            assert torch.equal(store.x[: len(kept)], base[t].x[kept])
            assert not store.x[len(kept) :].any()
        else:
            label[t] = {n: n for n in kept}
            assert store.num_nodes == total
            assert store.mask.tolist() == alive[t]
            assert torch.equal(store.x, base[t].x)
    assert data.edge_types == base.edge_types
    for e in base.edge_types:
        source, _, target = e
        expected, position = [], []
        for k, (u, v) in enumerate(base[e].edge_index.T.tolist()):
            if alive[source][u] and alive[target][v]:
                expected.append([label[source][u], label[target][v]])
                position.append(k)
        assert data[e].edge_index.T.tolist() == expected
        if source != target:
            assert torch.equal(data[e].hyperedge_index, data[e].edge_index)
        if "stoichiometry" in base[e]:
            assert torch.equal(data[e].stoichiometry, base[e].stoichiometry[position])
            assert torch.equal(data[e].edge_type, base[e].edge_type[position])


def test_unknown_numbering(dataset):
    with pytest.raises(ValueError, match="numbering='dense': expected 'compact' or 'wildtype'"):
        dataset.to_hetero_data(0, "dense")


def test_dense_masks(dataset):
    data = dataset.to_hetero_data(500, transform=DenseBoolMasks())
    for e in data.edge_types:
        source, _, target = e
        name, other = ("adj_mask", "inc_mask") if source == target else ("inc_mask", "adj_mask")
        mask = data[e][name]
        assert other not in data[e]
        assert mask.dtype == torch.bool
        assert mask.shape == (dataset.graph[source].num_nodes, dataset.graph[target].num_nodes)
        expected = {tuple(p) for p in data[e].edge_index.T.tolist()}
        assert {tuple(p) for p in mask.nonzero().tolist()} == expected
    # The base graph takes the transform as well.
    base = DenseBoolMasks()(
        build_graph(toy_network({"growth": {"A": -1.0}}, {"growth": [{"a"}]}), features=False)
    )
    assert base[GPR].inc_mask.tolist() == [[True]]


def test_collation_as_pyg_does_it(dataset):
    """The layout that semantics ask for: masks and x stride by N, indices by the real nodes."""
    part = dataset[[500, 60, 8000]]
    loader = DataLoader(
        part.materialised(transform=DenseBoolMasks()), batch_size=3, follow_batch=["x"]
    )
    batch = next(iter(loader))
    graphs = [part.to_hetero_data(i, transform=DenseBoolMasks()) for i in range(3)]
    assert [g["gene"].num_nodes for g in graphs] == [135, 136, 135]
    assert batch["gene"].num_nodes == 406
    assert batch["gene"].x.shape[0] == 3 * 137
    assert batch["gene"].x_ptr.tolist() == [0, 137, 274, 411]
    assert batch["gene"].x_batch.shape == (411,)
    assert batch["gene"].ptr.tolist() == [0, 135, 271, 406]
    assert batch["gene"].batch.shape == (406,)
    assert batch["gene"].mask.shape == batch["gene"].pert_mask.shape == (411,)
    assert batch["gene", "co_complex", "gene"].adj_mask.shape == (411, 137)
    assert batch[GPR].inc_mask.shape == (411, 207)
    assert batch["reaction", "rmr", "metabolite"].inc_mask.shape == (3 * 207, 72)
    assert batch.y.shape == (3, 2)
    assert len(batch["gene"].ids_pert) == 3
    for name in ("edge_index", "hyperedge_index"):
        shift_by = [
            g[GPR][name] + torch.tensor([[batch["gene"].ptr[k]], [batch["reaction"].ptr[k]]])
            for k, g in enumerate(graphs)
        ]
        assert torch.equal(batch[GPR][name], torch.cat(shift_by, 1))
    for e in batch.edge_types:  # the two forms of every relation agree
        source, _, target = e
        mask = batch[e]["adj_mask" if source == target else "inc_mask"]
        u, v = batch[e].edge_index
        graph = torch.searchsorted(batch[source].ptr, u, right=True) - 1
        row = u - batch[source].ptr[graph] + graph * dataset.graph[source].num_nodes
        column = v - batch[target].ptr[graph]
        assert set(zip(row.tolist(), column.tolist(), strict=True)) == {
            tuple(p) for p in mask.nonzero().tolist()
        }


@pytest.mark.parametrize("numbering", ["compact", "wildtype"])
def test_graphs_and_batches_survive_torch_save(tmp_path, dataset, numbering):
    part = dataset[[500, 60, 8000]]
    graphs = part.materialised(numbering, DenseBoolMasks())
    batch = next(iter(DataLoader(graphs, batch_size=3, follow_batch=["x"])))
    for data in (graphs[0], batch):
        torch.save(data.to_dict(), tmp_path / "data.pt")
        back = HeteroData.from_dict(torch.load(tmp_path / "data.pt", weights_only=True))
        assert_same_graph(back, data)
    # Whole graphs, too, with what `pyg-nsa check --data` reads them by.
    torch.save(graphs[0], tmp_path / "graph.pt")
    ((_, back),) = read_graphs(tmp_path / "graph.pt")
    assert_same_graph(back, graphs[0])
    # And a batch can be taken apart again.
    for one, other in zip(batch.to_data_list(), graphs, strict=True):
        for e in other.edge_types:
            assert torch.equal(one[e].edge_index, other[e].edge_index)
        assert torch.equal(one["gene"].pert_mask, other["gene"].pert_mask)


def assert_same_graph(one, other):
    assert one.node_types == other.node_types
    assert one.edge_types == other.edge_types
    for key in (*other.node_types, *other.edge_types):
        assert list(one[key].keys()) == list(other[key].keys())
        for name, value in other[key].items():
            if isinstance(value, torch.Tensor):
                assert one[key][name].dtype == value.dtype
                assert torch.equal(one[key][name], value)
            else:
                assert one[key][name] == value


def test_operators_take_both_forms_of_a_batch(dataset):
    """Sparse and dense give the same, so the format is what operators read."""
    part, out = dataset[[500, 60, 8000]], {}
    for route, transform in (("edge", None), ("mask", DenseBoolMasks())):
        loader = DataLoader(
            part.materialised(transform=transform), batch_size=3, follow_batch=["x"]
        )
        batch = next(iter(loader))
        torch.manual_seed(0)
        conv = HeteroNSAConv(
            {
                ("gene", "co_complex", "gene"): "adjacency_mask",
                GPR: "incidence_mask",
                ("reaction", "rmr", "metabolite"): "stoichiometry_bias",
            },
            hidden_channels=8,
            pattern="MS",
        ).eval()
        if route == "mask":
            for e in (("gene", "co_complex", "gene"), GPR):
                del batch[e].edge_index
                batch[e].pop("hyperedge_index", None)
        out[route] = conv(**conv.collect(batch))
    for t in NODE_TYPES:
        torch.testing.assert_close(out["edge"][t], out["mask"][t])


def test_wildtype_numbering_collates(dataset):
    loader = DataLoader(dataset[:4].materialised("wildtype"), batch_size=2, follow_batch=["x"])
    batch = next(iter(loader))
    assert batch["gene"].num_nodes == batch["gene"].x.shape[0] == 274
    assert torch.equal(batch["gene"].mask, ~batch["gene"].pert_mask)


def test_materialised_is_a_sequence(dataset):
    graphs = dataset[:3].materialised()
    assert len(list(graphs)) == len(graphs) == 3
    with pytest.raises(IndexError, match="instance 3 of 3"):
        graphs[3]


# --- files ---


def test_files_are_reused(root, dataset, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(dataset_module, "load_model", None)  # would fail if called
    again = PerturbationDataset(root)
    assert f"e_coli_core: 8522 instances from {root}" in caplog.text
    assert again.graph.edge_types == dataset.graph.edge_types
    assert again.graph["reaction"].node_ids == dataset.graph["reaction"].node_ids
    assert torch.equal(again.graph["reaction"].x, dataset.graph["reaction"].x)
    assert np.array_equal(again.table.fitness, dataset.table.fitness)


def test_other_options_never_meet_old_files(tmp_path, toy):
    first = PerturbationDataset(tmp_path, toy)
    plain = PerturbationDataset(tmp_path, toy, features=False)
    assert first.graph["gene"].x.shape[1] > plain.graph["gene"].x.shape[1] == 0
    names = sorted(
        p.name.split("-")[0]
        for p in (tmp_path / "processed").iterdir()
        if p.suffix in (".pt", ".npz")
    )
    assert names.count("graph") == 2
    assert names.count("labels") == 1  # labels depend on the model alone
    table = tmp_path / "physical.csv"
    table.write_text("a,b\n")
    one = PerturbationDataset(tmp_path, toy, gene_tables={"physical": table})
    table.write_text("a,b\nc,d\n")
    two = PerturbationDataset(tmp_path, toy, gene_tables={"physical": table})
    assert [d.graph["gene", "physical", "gene"].num_edges for d in (one, two)] == [1, 2]


def test_subsystems_tell_caches_apart_where_they_are_features(tmp_path, toy):
    def dataset(features, *subsystems):
        model = replace(toy, subsystems=subsystems)
        return PerturbationDataset(tmp_path, model, features=features)

    one = dataset(["subsystem"], "S", "", "", "")
    other = dataset(["subsystem"], "", "S", "", "")
    assert not torch.equal(one.graph["reaction"].x, other.graph["reaction"].x)
    assert dataset(["degree"], "S", "", "", "").processed_paths == (
        dataset(["degree"], "", "S", "", "").processed_paths
    )


@pytest.mark.parametrize("damage", ["cut", "first byte", "middle", "last byte"])
@pytest.mark.parametrize("victim", ["graph", "labels"])
def test_damaged_files_are_built_again(tmp_path, toy, caplog, victim, damage):
    first = PerturbationDataset(tmp_path, toy)
    (path,) = (p for p in (tmp_path / "processed").glob(f"{victim}-*") if p.suffix != ".lock")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[100:]
    else:
        content[{"first byte": 0, "middle": len(content) // 2, "last byte": -1}[damage]] ^= 1
    path.write_bytes(content)
    again = PerturbationDataset(tmp_path, toy)
    assert len(again) == 7
    assert f"{path}: damaged or written by something else" in caplog.text
    assert "Building again" in caplog.text
    assert np.array_equal(again.table.fitness, first.table.fitness)
    assert torch.equal(again.graph["gene"].x, first.graph["gene"].x)
    caplog.clear()
    PerturbationDataset(tmp_path, toy)  # whole again
    assert not caplog.text
    path.unlink()
    assert len(PerturbationDataset(tmp_path, toy)) == 7


def test_a_flip_of_any_byte_of_the_graph_is_found(tmp_path, toy):
    PerturbationDataset(tmp_path, toy, features=False)
    (path,) = (tmp_path / "processed").glob("graph-*.pt")
    assert "graph" in torch.load(path, weights_only=True)  # torch itself can read the file, too
    content = path.read_bytes()
    positions = np.random.default_rng(0).choice(len(content), 300, replace=False)
    for position in (*positions, *range(100), *range(len(content) - 100, len(content))):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="do not fit their checksum"):
            read_sealed(path)


def test_only_zip_files_are_sealed(tmp_path):
    with pytest.raises(ValueError, match="expected the bytes of a zip file without a comment"):
        write_sealed(tmp_path / "x.npz", b"no zip file")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_removed(tmp_path, toy):
    PerturbationDataset(tmp_path, toy)
    folder = tmp_path / "processed"
    for path in (*folder.glob("graph-*.pt"), *folder.glob("labels-*.npz")):
        path.rename(path.with_name(path.name + ".123-abcd.tmp"))
    PerturbationDataset(tmp_path, toy)
    assert not list(folder.glob("*.tmp"))


def test_force_reload(tmp_path, toy):
    PerturbationDataset(tmp_path, toy)
    (path,) = (tmp_path / "processed").glob("graph-*.pt")
    os.utime(path, (0, 0))
    PerturbationDataset(tmp_path, toy)
    assert path.stat().st_mtime == 0
    PerturbationDataset(tmp_path, toy, force_reload=True)
    assert path.stat().st_mtime > 0


def test_two_processes_build_labels_and_dataset_once(tmp_path):
    labels, root = str(tmp_path / "labels"), str(tmp_path / "dataset")
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "from pyg_nsa.cell.data.dataset import PerturbationDataset\n"
        "from pyg_nsa.cell.labels.simulated import simulate_labels\n"
        "from pyg_nsa.cell.network.metabolic_model import load_model\n"
        "print('ready', flush=True); sys.stdin.readline()\n"  # both start at once
        f"print(len(simulate_labels(load_model('textbook'), {labels!r})))\n"
        f"print(len(PerturbationDataset({root!r})))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=pipe, stdout=pipe, text=True
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("go\n", timeout=120)[0] for process in running]
    for text in said:
        assert text.count("\n8522\n") == 2, said
    assert sum(text.count("simulated 8522 instances") for text in said) == 2  # once in each folder
    assert sum("read from" in text for text in said) == 1
    assert sum("graph of e_coli_core: saved" in text for text in said) == 1
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {
        ".lock",
        ".journal",
        ".npz",
        ".pt",
    }


def test_measured_labels(tmp_path, toy):
    path = tmp_path / "measured.csv"
    path.write_text("genes,fitness,gene_interaction\na,0.9,\na;b,0.5,-0.1\n")
    dataset = PerturbationDataset(tmp_path, toy, labels=path)
    assert len(dataset) == len(PerturbationDataset(tmp_path, toy, labels=path)) == 2
    assert dataset[1].y.tolist() == pytest.approx([0.5, -0.1])
    path.write_text("genes,fitness\nzz,0.9\n")
    with pytest.raises(TableError, match="line 2: unknown gene 'zz'"):
        PerturbationDataset(tmp_path, toy, labels=path)
    with pytest.raises(TableError, match=r"none\.csv: no such file \(labels\)"):
        PerturbationDataset(tmp_path, toy, labels=tmp_path / "none.csv")


def test_label_table_as_labels(tmp_path, toy, dataset):
    simulated = PerturbationDataset(tmp_path, toy)
    few = PerturbationDataset(tmp_path, toy, labels=simulated.table.select(np.arange(2)))
    assert len(few) == 2
    with pytest.raises(ValueError, match="The labels belong to another graph"):
        PerturbationDataset(tmp_path, toy, labels=dataset.table)


def test_measured_labels_with_unknown_genes(tmp_path, toy, caplog):
    path = tmp_path / "measured.csv"
    path.write_text("genes,fitness\na,0.9\nzz,0.5\n")
    dataset = PerturbationDataset(tmp_path, toy, labels=path, unknown_labels="skip")
    assert len(dataset) == 1
    warning = f"{path}: left out 1 of 2 rows:\n  line 3: unknown gene 'zz'"
    assert caplog.messages == [warning]
    caplog.clear()
    again = PerturbationDataset(tmp_path, toy, labels=path, unknown_labels="skip")
    assert len(again) == 1
    assert caplog.messages == [warning]  # also where nothing was built
    with pytest.raises(TableError, match="line 3: unknown gene 'zz'"):
        PerturbationDataset(tmp_path, toy, labels=path)  # not the cache of the other option


@pytest.mark.parametrize(("above", "interacting"), [(None, 22), (0.08, 2)])
def test_measured_pairs_interact_above_a_threshold(tmp_path, textbook, caplog, above, interacting):
    names = list(textbook.genes)[:23]
    values = [0.05] * 20 + [-0.1, 0.2]
    rows = [f"{names[0]};{name},0.9,{v}" for name, v in zip(names[1:], values, strict=True)]
    path = tmp_path / "measured.csv"
    path.write_text("\n".join(["genes,fitness,gene_interaction", f"{names[0]},0.9,", *rows]))
    dataset = PerturbationDataset(
        tmp_path, "textbook", labels=path, features=False, interacting_above=above
    )
    assert dataset.table.interacting.sum() == interacting
    told = "22 of 22 measured deletions of several genes count as interacting" in caplog.text
    assert told == (interacting == 22)


def test_misspelt_labels(tmp_path, toy):
    with pytest.raises(TableError) as error:
        PerturbationDataset(tmp_path, toy, labels="simulated-tripels")
    expected = "simulated-tripels: no such file (labels). Did you mean 'simulated-triples'?"
    assert str(error.value) == expected


def test_which_deletions(tmp_path, toy):
    assert len(PerturbationDataset(tmp_path, toy, labels="simulated-singles")) == 4
    # a, b and c, of which c interacts with both others.
    triples = PerturbationDataset(tmp_path, toy, labels="simulated-triples")
    assert triples.table.sizes.tolist() == [1, 1, 1, 1, 2, 2, 2, 3]
    assert triples[7].genes.tolist() == [0, 1, 2]


def test_a_long_list_of_left_out_rows_lies_beside_the_labels(tmp_path, toy, caplog):
    path = tmp_path / "measured.csv"
    path.write_text("genes,fitness\na,0.9\n" + "".join(f"z{i},1\n" for i in range(12)))
    dataset = PerturbationDataset(tmp_path, toy, labels=path, unknown_labels="skip")
    (listing,) = Path(dataset.processed_dir).glob("labels-measured-*.problems.txt")
    assert caplog.text.rstrip().endswith(f"All 12 are listed in {listing}")
    assert listing.read_text().splitlines()[-1] == "line 14: unknown gene 'z11'"


def test_unknown_model(tmp_path):
    with pytest.raises(ModelFileError, match="Did you mean 'textbook'"):
        PerturbationDataset(tmp_path, "textbok")
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData

from pyg_nsa.cell.graph import build_graph
from pyg_nsa.cell.occupancy import COLUMNS, node_orders, tile_occupancy


def random_graph(seed=0, sizes=None, edges=60):
    sizes = sizes or {"gene": 23, "reaction": 31, "metabolite": 17}
    generator = torch.Generator().manual_seed(seed)
    graph = HeteroData()
    for node_type, n in sizes.items():
        graph[node_type].num_nodes = n
    for source, name, target, field in [
        ("gene", "regulates", "gene", "edge_index"),
        ("gene", "gpr", "reaction", "hyperedge_index"),
        ("reaction", "rmr", "metabolite", "hyperedge_index"),
    ]:
        ends = [torch.randint(sizes[t], (edges,), generator=generator) for t in (source, target)]
        graph[source, name, target][field] = torch.stack(ends)
    return graph


def naive(pairs, tile):
    """Tiles by a loop over the pairs."""
    seen = set()
    for query, key in pairs:
        seen.add((query // tile, key // tile))
    return len(seen)


@pytest.mark.parametrize("tile", [1, 4, 7, 128])
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_a_loop(seed, tile):
    graph = random_graph(seed)
    table = tile_occupancy(graph, tile).set_index("relation")
    orders = node_orders(graph)
    for source, name, target in graph.edge_types:
        store = graph[source, name, target]
        index = store["edge_index" if name == "regulates" else "hyperedge_index"].tolist()
        pairs = {(q, k) for k, q in zip(*index, strict=True)}
        moved = {
            (orders[target].tolist().index(q), orders[source].tolist().index(k)) for q, k in pairs
        }
        row = table.loc[f"{source} {name} {target}"]
        n_query, n_key = graph[target].num_nodes, graph[source].num_nodes
        assert (row.rows, row.cols, row.pairs) == (n_query, n_key, len(pairs))
        assert row.tiles == len(range(0, n_query, tile)) * len(range(0, n_key, tile))
        assert row.natural == naive(pairs, tile)
        assert row.reordered == naive(moved, tile)


def test_orders_are_permutations():
    graph = random_graph()
    for node_type, order in node_orders(graph).items():
        assert order.dtype == torch.int64
        assert sorted(order.tolist()) == list(range(graph[node_type].num_nodes))


def test_one_order_serves_both_directions(textbook):
    table = tile_occupancy(build_graph(textbook, features=False), 16).set_index("relation")
    forward, backward = table.loc["gene gpr reaction"], table.loc["reaction rev_gpr gene"]
    assert (forward.rows, forward.cols) == (backward.cols, backward.rows)
    for column in ("pairs", "tiles", "natural", "reordered"):
        assert forward[column] == backward[column]


def test_reordering_finds_a_hidden_band():
    n = 400
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    band = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    graph = HeteroData()
    graph["a"].num_nodes = n
    graph["a", "next", "a"].edge_index = shuffle[band]
    row = tile_occupancy(graph, 20).iloc[0]
    assert row.natural > 200
    assert row.reordered <= 2 * 20


def test_repeated_pairs_count_once():
    graph = HeteroData()
    graph["a"].num_nodes = 3
    graph["a", "to", "a"].edge_index = torch.tensor([[0, 0, 2], [1, 1, 0]])
    assert tile_occupancy(graph, 2).iloc[0].to_dict() == {
        "relation": "a to a",
        "rows": 3,
        "cols": 3,
        "pairs": 2,
        "tiles": 4,
        "natural": 2,
        "reordered": naive(
            [
                (o.index(q), o.index(k))
                for o in [node_orders(graph)["a"].tolist()]
                for k, q in [(0, 1), (2, 0)]
            ],
            2,
        ),
    }


def test_empty_relations_and_types():
    graph = random_graph(sizes={"gene": 5, "reaction": 3, "metabolite": 2}, edges=0)
    graph["ghost"].num_nodes = 0
    graph["ghost", "haunts", "gene"].edge_index = torch.empty((2, 0), dtype=torch.int64)
    table = tile_occupancy(graph)
    assert table[["pairs", "natural", "reordered"]].to_numpy().sum() == 0
    assert table.set_index("relation").loc["ghost haunts gene", "tiles"] == 0
    assert len(node_orders(graph)["ghost"]) == 0
    assert len(node_orders(graph)["gene"]) == 5


def test_graph_without_anything():
    assert node_orders(HeteroData()) == {}
    table = tile_occupancy(HeteroData())
    assert list(table.columns) == list(COLUMNS)
    assert table.empty


def test_relations_without_an_index_are_left_out():
    graph = random_graph()
    graph["gene", "dense", "gene"].adj_mask = torch.eye(23, dtype=torch.bool)
    assert "gene dense gene" not in set(tile_occupancy(graph)["relation"])


def test_bad_tile():
    with pytest.raises(ValueError, match="tile=0: expected a positive"):
        tile_occupancy(random_graph(), 0)


def test_round_trip_through_csv(tmp_path):
    table = tile_occupancy(random_graph(), 8)
    table.to_csv(tmp_path / "occupancy.csv", index=False)
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "occupancy.csv"))
    assert np.all(table["reordered"] <= table["tiles"])

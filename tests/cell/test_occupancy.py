"""Tile occupancy against a naive loop over pairs."""

import pytest
import torch
from torch_geometric.data import HeteroData

from pyg_nsa.cell.report.occupancy import COLUMNS, node_orders, tile_occupancy


def make_graph():
    torch.manual_seed(0)
    graph = HeteroData()
    graph["a"].num_nodes, graph["b"].num_nodes, graph["c"].num_nodes = 13, 9, 4
    graph["a", "r", "a"].edge_index = torch.randint(13, (2, 20))
    index = torch.stack([torch.randint(13, (15,)), torch.randint(9, (15,))])
    graph["a", "s", "b"].hyperedge_index = index
    graph["b", "none", "c"].edge_index = torch.empty(2, 0, dtype=torch.long)
    return graph


@pytest.mark.parametrize("method", ["natural", "rcm", "packed"])
@pytest.mark.parametrize("tile", [1, 2, 4, 128])
def test_counts_equal_a_python_loop(tile, method):
    graph = make_graph()
    orders = node_orders(graph, method, tile)
    place = {t: {int(n): k for k, n in enumerate(order)} for t, order in orders.items()}
    table = tile_occupancy(graph, tile, method).set_index("relation")
    for (src, name, dst), index in (
        (("a", "r", "a"), graph["a", "r", "a"].edge_index),
        (("a", "s", "b"), graph["a", "s", "b"].hyperedge_index),
    ):
        pairs = {(q, k) for k, q in index.t().tolist()}
        row = table.loc[f"{src} {name} {dst}"]
        assert row["pairs"] == len(pairs)
        assert row["natural"] == len({(q // tile, k // tile) for q, k in pairs})
        assert row["reordered"] == len(
            {(place[dst][q] // tile, place[src][k] // tile) for q, k in pairs}
        )
        rows, cols = graph[dst].num_nodes, graph[src].num_nodes
        assert row["tiles"] == -(-rows // tile) * -(-cols // tile)
    assert table.loc["b none c", ["pairs", "natural", "reordered"]].tolist() == [0, 0, 0]


def test_a_shuffled_path_comes_together():
    torch.manual_seed(0)
    shuffled = torch.randperm(512)
    path = HeteroData()
    path["a"].num_nodes = 512
    path["a", "next", "a"].edge_index = torch.stack([shuffled[:-1], shuffled[1:]])
    row = tile_occupancy(path, 64).iloc[0]
    assert row["reordered"] <= 8 + 7
    assert row["natural"] > 50


def test_bad_input():
    with pytest.raises(ValueError, match="tile=0: expected a positive number"):
        tile_occupancy(make_graph(), 0)
    with pytest.raises(
        ValueError, match="node order 'rmc': expected one of 'natural', 'rcm', 'packed'"
    ):
        tile_occupancy(make_graph(), method="rmc")
    assert list(tile_occupancy(HeteroData()).columns) == list(COLUMNS)

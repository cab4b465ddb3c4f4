"""Orders: permutations, deterministic, and few tiles; tile counts against a loop over the pairs."""

import subprocess
import sys

import pytest
import torch
from torch_geometric.data import HeteroData

from pyg_nsa.nn.node_order import (
    _meetings,
    check_orders,
    edge_indices,
    node_orders,
    occupied_tiles,
    places,
)

METHODS = ["natural", "rcm", "packed"]


def random_edges(num_src, num_dst, count, skew=1.0):
    """Edges whose ends are picked the more often the smaller they are: hubs, as real networks have them."""

    def ends(n):
        return (torch.rand(count) ** skew * n).long().clamp(max=n - 1)

    return torch.stack([ends(num_src), ends(num_dst)])


def directed():
    return {("a", "to", "a"): random_edges(90, 90, 200, 2.0)}, {"a": 90}


def undirected():
    index = random_edges(90, 90, 150, 2.0)
    return {("a", "with", "a"): torch.cat([index, index.flip(0)], 1)}, {"a": 90}


def bipartite():
    return {("a", "to", "b"): random_edges(70, 40, 120)}, {"a": 70, "b": 40}


def heterogeneous():
    index = random_edges(60, 45, 100, 1.5)
    edges = {
        ("a", "near", "a"): random_edges(60, 60, 90),
        ("a", "to", "b"): index,
        ("b", "rev_to", "a"): index.flip(0),
        ("b", "none", "c"): torch.empty(2, 0, dtype=torch.long),
        ("b", "many", "d"): random_edges(45, 20, 80).repeat(1, 2),  # each edge twice
    }
    # c has nodes and no edge, e has no node, and f is in no relation.
    return edges, {"a": 60, "b": 45, "c": 11, "d": 20, "e": 0, "f": 5}


def without_edges():
    return {("a", "to", "b"): torch.empty(2, 0, dtype=torch.long)}, {"a": 30, "b": 0}


GRAPHS = [directed, undirected, bipartite, heterogeneous, without_edges]


def naive(edges, place, tile):
    return {
        t: len({(place[t[2]][q] // tile, place[t[0]][k] // tile) for k, q in index.t().tolist()})
        for t, index in edges.items()
    }


@pytest.fixture(params=GRAPHS, ids=lambda make: make.__name__)
def graph(request):
    torch.manual_seed(0)
    return request.param()


@pytest.mark.parametrize("tile", [1, 7, 8, 128])
@pytest.mark.parametrize("method", METHODS)
def test_orders_are_permutations_whose_tiles_are_counted_right(graph, method, tile):
    edges, sizes = graph
    orders = node_orders(edges, sizes, method, tile)
    assert list(orders) == list(sizes)
    for node_type, order in orders.items():
        assert order.dtype == torch.int64
        assert sorted(order.tolist()) == list(range(sizes[node_type]))
    place = {t: places(order).tolist() for t, order in orders.items()}
    assert occupied_tiles(edges, sizes, orders, tile) == naive(edges, place, tile)


@pytest.mark.parametrize("tile", [1, 7, 8, 32])
def test_packed_is_never_worse_than_the_others(graph, tile):
    total = {
        method: sum(occupied_tiles(*graph, node_orders(*graph, method, tile), tile).values())
        for method in METHODS
    }
    assert total["packed"] <= min(total["natural"], total["rcm"])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_graph_has_the_same_order(graph, method):
    edges, sizes = graph
    first = node_orders(edges, sizes, method, 8)
    # Neither the order of the edges nor duplicates nor torch's and numpy's generators matter.
    shuffled = {t: i[:, torch.randperm(i.size(1))].repeat(1, 2) for t, i in edges.items()}
    again = node_orders(shuffled, sizes, method, 8)
    assert all(torch.equal(first[t], again[t]) for t in sizes)


@pytest.mark.parametrize("method", ["rcm", "packed"])
def test_a_direction_does_not_matter_to_the_neighbourhood(method):
    """A chain of arrows is as good as a chain: what counts is the pattern of A + Aᵀ."""
    torch.manual_seed(0)
    node = torch.randperm(256)
    flip = torch.rand(255) < 0.5
    one, two = node[:-1], node[1:]
    index = torch.stack([torch.where(flip, one, two), torch.where(flip, two, one)])
    edges, sizes = {("a", "to", "a"): index}, {"a": 256}
    tiles = occupied_tiles(edges, sizes, node_orders(edges, sizes, method, 32), 32)
    assert tiles["a", "to", "a"] <= 8 + 2 * 7


@pytest.mark.parametrize("method", ["rcm", "packed"])
def test_a_shuffled_band_is_found_again(method):
    torch.manual_seed(0)
    n, width, tile = 1024, 5, 64
    node = torch.arange(n)
    index = torch.cat([torch.stack([node[:-d], node[d:]]) for d in range(1, width + 1)], 1)
    index = torch.cat([index, index.flip(0)], 1)
    minimum = occupied_tiles({("a", "r", "a"): index}, {"a": n}, None, tile)["a", "r", "a"]
    assert minimum == 16 + 2 * 15
    shuffled = {("a", "r", "a"): torch.randperm(n)[index]}
    before = occupied_tiles(shuffled, {"a": n}, None, tile)["a", "r", "a"]
    orders = node_orders(shuffled, {"a": n}, method, tile)
    after = occupied_tiles(shuffled, {"a": n}, orders, tile)["a", "r", "a"]
    assert before == 16 * 16
    assert after <= 1.1 * minimum


def test_packed_finds_groups_that_no_band_has():
    """Blocks that every hub is joined to: neighbours by number can't be had, groups can."""
    torch.manual_seed(0)
    n, tile = 512, 32
    node = torch.randperm(n)
    blocks = node[tile:].view(-1, tile)
    inside = torch.cat([torch.combinations(b, 2)[torch.rand(496) < 0.3] for b in blocks])
    hubs = torch.cartesian_prod(node[:4], node[tile:])[torch.rand(4 * (n - tile)) < 0.5]
    index = torch.cat([inside, hubs]).t()
    edges, sizes = {("a", "r", "a"): torch.cat([index, index.flip(0)], 1)}, {"a": n}
    count = {
        m: sum(occupied_tiles(edges, sizes, node_orders(edges, sizes, m, tile), tile).values())
        for m in METHODS
    }
    assert count["packed"] < 0.6 * count["rcm"]


def test_packed_beats_reverse_cuthill_mckee_on_a_metabolic_network(ijo1366_graph):
    edges, sizes = edge_indices(ijo1366_graph), ijo1366_graph.num_nodes_dict
    total = {
        m: sum(occupied_tiles(edges, sizes, node_orders(edges, sizes, m)).values()) for m in METHODS
    }
    assert total["packed"] < 0.8 * total["rcm"] < 0.5 * total["natural"]


@pytest.fixture
def ijo1366_graph():
    pytest.importorskip("cobra")
    from pyg_nsa.cell import build_graph, load_model

    return build_graph(load_model("iJO1366"), features=False)


def test_edges_of_a_heterodata():
    data = HeteroData()
    data["a"].num_nodes, data["b"].num_nodes = 3, 2
    index = torch.tensor([[0, 1], [1, 0]])
    data["a", "e", "b"].edge_index = index
    data["b", "h", "a"].hyperedge_index = index
    data["a", "masked", "a"].adj_mask = torch.ones(3, 3, dtype=torch.bool)
    found = edge_indices(data)
    assert list(found) == [("a", "e", "b"), ("b", "h", "a")]
    assert all(value is index for value in found.values())


@pytest.mark.parametrize("num_groups", range(2, 12))
def test_all_groups_meet_once(num_groups):
    met = []
    for partner in _meetings(num_groups, 5):
        assert (partner[partner] == range(num_groups)).all()
        met += [(a, b) for a, b in enumerate(partner.tolist()) if a < b]
    assert len(met) == len(set(met)) == num_groups * (num_groups - 1) // 2


def test_mistakes_are_named():
    edges, sizes = bipartite()
    with pytest.raises(ValueError, match="node order 'metis': expected one of 'natural', 'rcm'"):
        node_orders(edges, sizes, "metis")
    for call in (node_orders, occupied_tiles):
        with pytest.raises(ValueError, match="tile=0: expected a positive number of nodes"):
            call(edges, sizes, tile=0)
        with pytest.raises(
            ValueError, match=r"\('a', 'to', 'b'\) joins nodes .* of type 'b', of w"
        ):
            call(edges, {"a": 70, "b": 3})
    with pytest.raises(ValueError, match="for node type 'x', which there is not; node types: a, b"):
        check_orders({"x": torch.arange(3)}, sizes)
    with pytest.raises(ValueError, match=r"permutation of its 40 nodes .* of shape \[3\]$"):
        check_orders({"b": torch.arange(3)}, sizes)
    with pytest.raises(ValueError, match="with nodes missing or repeated"):
        check_orders({"b": torch.zeros(40, dtype=torch.long)}, sizes)


def test_without_scipy_the_message_says_what_to_install():
    code = """
import sys
sys.modules["scipy"] = sys.modules["scipy.sparse"] = None
import torch
from pyg_nsa.nn.node_order import node_orders
edges, sizes = {("a", "r", "a"): torch.tensor([[0], [1]])}, {"a": 2}
assert node_orders(edges, sizes, "natural")["a"].tolist() == [0, 1]
try:
    node_orders(edges, sizes)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "need scipy: pip install scipy, or install pyg-nsa[cell]" in done.stdout

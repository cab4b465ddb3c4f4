"""``distance_bias`` against a breadth-first search with a queue."""

from collections import deque

import pytest
import torch
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import HeteroNSAConv, default_registry
from pyg_nsa_plugins import hops
from pyg_nsa_plugins.hops import TooManyPairsError, hop_distances

KIND = "distance_bias"


def naive_distances(index, num_nodes, longest, directed=True, self_loops=False, dead=()):
    """``{(source, target): distance}``, from each node with a queue."""
    after = {n: set() for n in range(num_nodes)}
    for src, dst in index.t().tolist():
        if src not in dead and dst not in dead:
            after[src].add(dst)
            if not directed:
                after[dst].add(src)
    found = {}
    for start in range(num_nodes):
        distance, queue = {start: 0}, deque([start])
        while queue:
            node = queue.popleft()
            for other in after[node]:
                if other not in distance and distance[node] < longest:
                    distance[other] = distance[node] + 1
                    queue.append(other)
        found.update({(start, end): d for end, d in distance.items() if d or self_loops})
    return found


def random_graph(num_nodes, num_edges):
    return torch.randint(num_nodes, (2, num_edges))  # directed, with duplicates and loops


def found_distances(one, term, inputs):
    """``{(source, target): distance}`` as the term sees it, by a table that holds the distances themselves."""
    with torch.no_grad():
        start = 0 if term.self_loops else 1
        steps = torch.arange(start, term.max_distance + 1.0)
        term.by_distance.weight.copy_(steps[:, None].expand(-1, 2))
    edges, bias = term(inputs)
    assert bool((bias[:, 0] == bias[:, 1]).all())
    return dict(zip(one.pairs(edges), bias[:, 0].long().tolist(), strict=True))


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("longest", [1, 2, 3, 20])
def test_against_a_queue(one, directed, self_loops, longest):
    for num_nodes, num_edges in ((1, 1), (6, 0), (12, 10), (30, 45), (15, 80)):
        index = random_graph(num_nodes, num_edges)
        options = {"directed": directed, "self_loops": self_loops}
        term = one.term(KIND, one.UU, max_distance=longest, **options)
        given = one.inputs(one.UU, sizes={"u": num_nodes}, edge_index=index)
        expected = naive_distances(index, num_nodes, longest, **options)
        assert found_distances(one, term, given) == expected


def test_networkx_agrees():
    networkx = pytest.importorskip("networkx")
    index = random_graph(40, 70)
    graph = networkx.DiGraph(index.t().tolist())
    expected = {
        (start, end): d
        for start, ends in networkx.all_pairs_shortest_path_length(graph, cutoff=4)
        for end, d in ends.items()
        if d
    }
    pairs, distance = hop_distances(index, 40, 4)
    assert dict(zip(map(tuple, pairs.t().tolist()), distance.tolist(), strict=True)) == expected


def test_the_frontier_is_expanded_in_parts(monkeypatch):
    index = random_graph(25, 60)
    whole = hop_distances(index, 25, 5)
    monkeypatch.setattr(hops, "_CHUNK", 7)
    for a, b in zip(whole, hop_distances(index, 25, 5), strict=True):
        assert torch.equal(a, b)


def test_direction(one):
    path = torch.tensor([[0, 1, 2], [1, 2, 3]])  # 0 -> 1 -> 2 -> 3: messages go forward
    term = one.term(KIND, one.UU, max_distance=2)
    assert set(one.pairs(term.pairs(one.inputs(one.UU, edge_index=path)))) == {
        (0, 1), (1, 2), (2, 3), (0, 2), (1, 3),
    }  # fmt: skip


@pytest.mark.parametrize("self_loops", [True, False])
def test_a_layer_against_dense_attention(one, self_loops):
    index, x = random_graph(6, 7), {"u": torch.randn(6, 3)}
    conv = one.layer(KIND, one.UU, max_distance=3, self_loops=self_loops)
    relation = conv.convs[one.UU]
    table = relation.term.by_distance.weight
    assert table.shape == (3 + self_loops, 2)
    bias = torch.full((6, 6, 2), float("-inf"))
    used = set()
    for (src, dst), d in naive_distances(index, 6, 3, self_loops=self_loops).items():
        row = d if self_loops else d - 1
        used.add(row)
        bias[dst, src] = table[row]
    out = conv(x, {one.UU: index})
    torch.testing.assert_close(out["u"], one.message(relation, (x["u"], x["u"]), bias))
    grads = one.gradients(conv, out)
    (grad,) = [g for n, g in grads.items() if "by_distance" in n]
    assert len(used) == len(table)
    assert bool((grad.abs().sum(1) > 0).all())  # every entry that a pair uses has a gradient


def graph(one, seed):
    g = torch.Generator().manual_seed(seed)
    data = HeteroData()
    data["u"].x = torch.randn(7 + seed, 3, generator=g)
    data["u"].pert_mask = torch.arange(7 + seed) == 2
    data[one.UU].edge_index = torch.randint(7 + seed, (2, 9), generator=g)
    return data


@pytest.mark.parametrize("pattern", [None, "MM"])
def test_a_batch_equals_its_graphs(one, pattern):
    conv = one.layer(KIND, one.UU, pattern=pattern, max_distance=3, self_loops=True)
    graphs = [graph(one, i) for i in range(3)]
    together = conv(**conv.collect(Batch.from_data_list(graphs)))["u"]
    single = torch.cat([conv(**conv.collect(data))["u"] for data in graphs])
    torch.testing.assert_close(together, single)


def test_deleted_nodes_are_on_no_path(one):
    path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    gone = torch.tensor([False, True, False, False, False, False])
    term = one.term(KIND, one.UU, max_distance=3)
    given = one.inputs(one.UU, layout={"u": {"pert_mask": gone}}, edge_index=path)
    assert one.pairs(term.pairs(given)) == [(2, 3)]
    # The same as the graph without the node, and nothing of it is kept for the next call.
    assert found_distances(one, term, given) == naive_distances(path, 6, 3, dead={1})
    whole = one.inputs(one.UU, edge_index=path)
    assert found_distances(one, term, whole) == naive_distances(path, 6, 3)
    x = torch.randn(6, 3)
    conv = one.layer(KIND, one.UU, max_distance=3)
    out = conv({"u": x}, {one.UU: path}, pert_mask_dict={"u": gone})["u"]
    rest = conv({"u": x[~gone]}, {one.UU: torch.tensor([[1], [2]])})["u"]
    torch.testing.assert_close(out[~gone], rest)


def test_compact_numbering(one):
    """Padding rows at the end of each graph: edges count real nodes only."""
    index = torch.tensor([[0, 1, 3, 4, 5], [1, 2, 4, 5, 6]])  # graphs of 3 and 4 nodes
    layout = {"u": {"ptr": torch.tensor([0, 3, 7])}}
    term = one.term(KIND, one.UU, max_distance=2)
    given = one.inputs(one.UU, sizes={"u": 10}, layout=layout, edge_index=index)
    rows = index + 2 * (index > 2)  # both graphs are five rows high
    assert found_distances(one, term, given) == naive_distances(rows, 10, 2)


def test_distances_are_found_once(one, monkeypatch):
    calls = []

    def counting(*args):
        calls.append(args)
        return hop_distances(*args)

    monkeypatch.setattr("pyg_nsa_plugins.distance_bias_term.hop_distances", counting)
    conv = one.layer(KIND, one.UU, pattern="MMM")
    x, index = torch.randn(6, 3), random_graph(6, 12)
    with torch.inference_mode():
        conv({"u": x}, {one.UU: index})
    for _ in range(2):
        one.gradients(conv, conv({"u": x}, {one.UU: index}))
    assert len(calls) == 1
    index[:, 0] = 0  # written to: another graph
    conv({"u": x}, {one.UU: index})
    assert len(calls) == 2
    data = HeteroData()
    data["u"].x, data[one.UU].edge_index = x, random_graph(6, 12)
    pytest.importorskip("scipy")
    plain = conv(**conv.collect(data))["u"]
    for order in ("natural", "rcm"):
        prepared = conv.prepare(data, order)
        torch.testing.assert_close(conv(**prepared)["u"], plain)
        before = len(calls)
        torch.testing.assert_close(conv(**prepared)["u"], plain)
        assert len(calls) == before


def test_an_order_without_prepared_pairs(one):
    conv = one.layer(KIND, one.UU, pattern="MS")
    call = ({"u": torch.randn(6, 3)}, {one.UU: random_graph(6, 9)})
    ordered = conv(*call, order_dict={"u": torch.randperm(6)})
    torch.testing.assert_close(ordered["u"], conv(*call)["u"])


def test_pairs_of_another_graph_are_refused(one):
    conv = one.layer(KIND, one.UU, pattern="M")
    data = HeteroData()
    data["u"].x, data[one.UU].edge_index = torch.randn(6, 3), torch.tensor([[0, 1], [1, 2]])
    prepared = conv.prepare(data)
    gone = {"u": torch.arange(6) == 1}
    with pytest.raises(
        ValueError, match="not the one that 'distance_bias' finds with max_distance=3"
    ) as caught:
        conv(**prepared, pert_mask_dict=gone)
    assert str(one.UU) in str(caught.value)
    other = one.layer(KIND, one.UU, pattern="M", max_distance=1)
    with pytest.raises(
        ValueError, match="not the one that 'distance_bias' finds with max_distance=1"
    ):
        other(**prepared)


def test_copies_of_one_graph(one):
    conv = one.layer(KIND, one.UU, pattern="M")
    x, index = torch.randn(2, 6, 3), random_graph(6, 9)
    out = conv({"u": x}, {one.UU: index})["u"]
    for b in range(2):
        torch.testing.assert_close(out[b], conv({"u": x[b]}, {one.UU: index})["u"])
    mask = torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(conv({"u": x}, {one.UU: index}, mask_dict={"u": mask})["u"], out)
    mask[1, 0] = False
    with pytest.raises(
        ValueError, match="'distance_bias' cannot serve copies .* type 'u' are deleted"
    ) as caught:
        conv({"u": x}, {one.UU: index}, mask_dict={"u": mask})
    assert str(one.UU) in str(caught.value) and "Batch" in str(caught.value)


def test_no_edges(one):
    none = torch.empty(2, 0, dtype=torch.long)
    conv = one.layer(KIND, one.UU)
    out = conv({"u": torch.randn(6, 3)}, {one.UU: none})
    assert out["u"].abs().max() == 0
    one.gradients(conv, out)
    term = one.term(KIND, one.UU, self_loops=True)
    assert one.pairs(term.pairs(one.inputs(one.UU, edge_index=none))) == [(i, i) for i in range(6)]


def test_wrong_inputs(one):
    with pytest.raises(
        ValueError, match="'distance_bias' .* needs an edge type within one node type"
    ) as caught:
        HeteroNSAConv({one.UV: KIND}, hidden_channels=8)
    assert str(one.UV) in str(caught.value)
    for options, text in (({"max_distance": 0}, "max_distance"), ({"max_hops": 2}, "max_hops")):
        with pytest.raises(ValueError, match=text):
            HeteroNSAConv({one.UU: {"kind": KIND, "options": options}}, hidden_channels=8)
    term = one.term(KIND, one.UU)
    with pytest.raises(ValueError, match=r"has no 'edge_index' \(nor hyperedge_index\)"):
        term.pairs(one.inputs(one.UU))
    with pytest.raises(ValueError, match="'edge_index' of edge type .*out of range"):
        term.pairs(one.inputs(one.UU, edge_index=torch.tensor([[0], [6]])))


def test_the_limit(one):
    ring = torch.stack([torch.arange(6), torch.arange(6).roll(-1)])
    given = one.inputs(one.UU, edge_index=ring)
    for longest in (2, 3):  # 12 and 18 pairs; the search stops early
        term = one.term(KIND, one.UU, max_distance=longest, max_pairs=11)
        with pytest.raises(
            ValueError, match=rf"max_distance={longest}: 12 pairs .* above max_pairs=11"
        ) as caught:
            term.pairs(given)
        assert str(one.UU) in str(caught.value)
    assert one.term(KIND, one.UU, max_distance=2, max_pairs=12).pairs(given).num_pairs == 12
    with pytest.raises(
        ValueError, match="above max_pairs=11"
    ):  # found before, by a term with another limit
        one.term(KIND, one.UU, max_distance=2, max_pairs=11).pairs(given)
    with pytest.raises(TooManyPairsError, match="12 pairs or more"):
        hop_distances(ring, 6, 2, 11)


def test_initialisation(one):
    big = one.term(KIND, one.UU, heads=64, max_distance=50)
    assert big.by_distance.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert "max_distance=50, directed=True, self_loops=False" in repr(big)
    assert default_registry().edge_kind(KIND).produces == {"mask", "bias"}

"""``all_pairs`` against a double loop."""

import pytest
import torch
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import EdgeSpec, HeteroNSAConv, default_registry

NONE = torch.empty(2, 0, dtype=torch.long)


def naive_pairs(src_graph, dst_graph):
    return [(s, d) for d, g in enumerate(dst_graph) for s, h in enumerate(src_graph) if g == h]


def test_one_graph_is_dense_cross_attention(one):
    x = {t: torch.randn(n, 3) for t, n in one.sizes.items()}
    for edge_type in (one.UU, one.UV):
        conv = one.layer("all_pairs", edge_type)
        out = conv(x, {edge_type: torch.randint(4, (2, 3))})  # the edges themselves are not read
        target = edge_type[2]
        bias = torch.zeros(one.sizes[target], 6, 2)
        expected = one.message(conv.convs[edge_type], (x["u"], x[target]), bias)
        torch.testing.assert_close(out[target], expected)
        one.gradients(conv, out)


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ([0, 0, 1, 2, 2, 2], [0, 1, 1, 2]),
        ([0, 0, 0, 2, 2, 2], [0, 0, 1, 2]),  # graph 1 has no source
        ([1, 1, 1, 1, 1, 1], [0, 1, 1, 1]),  # graph 0 has none
        ([0, 0, 1, 1, 1, 1], [2, 2, 2, 2]),  # no two in one graph
        ([2, 0, 1, 0, 2, 1], [1, 0, 2, 0]),  # rows in any order
    ],
)
def test_graphs_of_a_batch(one, src, dst):
    layout = {"u": {"batch": torch.tensor(src)}, "v": {"batch": torch.tensor(dst)}}
    edges = one.term("all_pairs").pairs(one.inputs(layout=layout, edge_index=NONE))
    assert one.pairs(edges) == naive_pairs(src, dst)
    assert (edges.num_keys, edges.num_queries) == (6, 4)


def test_no_nodes(one):
    edges = one.term("all_pairs").pairs(one.inputs(sizes={"u": 0, "v": 4}, edge_index=NONE))
    assert edges.num_pairs == 0 and edges.num_queries == 4


def graph(one, seed, deleted=False):
    g = torch.Generator().manual_seed(seed)
    data = HeteroData()
    for node_type, n in (("u", 3 + seed), ("v", 4)):
        data[node_type].x = torch.randn(n, 3, generator=g)
        if deleted:
            data[node_type].pert_mask = torch.arange(n) == seed
    data[one.UV].edge_index = NONE
    return data


@pytest.mark.parametrize("deleted", [False, True])
def test_a_batch_equals_its_graphs(one, deleted):
    graphs = [graph(one, i, deleted) for i in range(3)]
    conv = one.layer("all_pairs")
    together = conv(**conv.collect(Batch.from_data_list(graphs)))["v"]
    single = torch.cat([conv(**conv.collect(data))["v"] for data in graphs])
    torch.testing.assert_close(together, single)
    if deleted:  # as if the node had never been there
        data = graphs[1]
        x = {t: data[t].x[~data[t].pert_mask] for t in ("u", "v")}
        out = conv(x, {one.UV: NONE})["v"]
        torch.testing.assert_close(single[4:8][~data["v"].pert_mask], out)


def test_copies_of_one_graph_and_a_stack(one):
    conv = one.layer("all_pairs", pattern="MSM")
    x = {t: torch.randn(2, n, 3) for t, n in one.sizes.items()}
    mask = {t: torch.rand(2, n) < 0.7 for t, n in one.sizes.items()}
    out = conv(x, {one.UV: NONE}, mask_dict=mask)
    for b in range(2):
        alone = conv(
            {t: r[b] for t, r in x.items()},
            {one.UV: NONE},
            mask_dict={t: m[b] for t, m in mask.items()},
        )
        for t in out:
            living = mask[t][b]
            torch.testing.assert_close(out[t][b][living], alone[t][living])
    one.gradients(conv, out)


def test_the_limit(one):
    with pytest.raises(ValueError, match="'all_pairs' would make 24 pairs") as caught:
        one.term("all_pairs", max_pairs=23).pairs(one.inputs(edge_index=NONE))
    assert str(one.UV) in str(caught.value) and "raise the option: max_pairs: 24" in str(
        caught.value
    )
    assert one.term("all_pairs", max_pairs=24).pairs(one.inputs(edge_index=NONE)).num_pairs == 24
    layout = {"u": {"ptr": torch.tensor([0, 5, 6])}, "v": {"ptr": torch.tensor([0, 3, 4])}}
    with pytest.raises(ValueError, match=r"make 16 pairs \(the largest graph has 15\)"):
        one.term("all_pairs", max_pairs=15).pairs(one.inputs(layout=layout, edge_index=NONE))
    with pytest.raises(ValueError, match="max_pairs"):
        EdgeSpec(edge_type=one.UV, kind="all_pairs", options={"max_pairs": 0})


def test_graphs_at_one_end_only(one):
    layout = {"u": {"ptr": torch.tensor([0, 5, 6])}}
    with pytest.raises(
        ValueError, match="'u' comes in 2 graphs and 'v' in 1; pass ptr_dict"
    ) as caught:
        one.term("all_pairs").pairs(one.inputs(layout=layout, edge_index=NONE))
    assert str(one.UV) in str(caught.value)


def test_any_edge_field_makes_the_relation(one):
    kind = default_registry().edge_kind("all_pairs")
    for name in ("edge_index", "hyperedge_index", "adj_mask", "inc_mask"):
        assert kind.missing(kind.options(), {name}) == []
    assert kind.missing(kind.options(), {"weight"}) == [kind.fields(kind.options())]


def test_a_last_graph_without_nodes_of_one_type():
    """Its `batch` holds the first graph alone, and says so."""
    edge = ("a", "p", "b")
    layer = HeteroNSAConv({edge: "all_pairs"}, hidden_channels=8)
    x = {"a": torch.randn(4, 8), "b": torch.randn(2, 8)}
    none = {edge: torch.empty(2, 0, dtype=torch.long)}
    batch = {"a": torch.tensor([0, 0, 1, 1]), "b": torch.tensor([0, 0])}
    out = layer(x, none, batch_dict=batch)["b"]
    first = layer({"a": x["a"][:2], "b": x["b"]}, none)["b"]
    torch.testing.assert_close(out, first)

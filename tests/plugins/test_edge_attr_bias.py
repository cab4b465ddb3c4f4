"""``edge_attr_bias`` against a loop over edges."""

import pytest
import torch
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import EdgeSpec, HeteroNSAConv, default_registry


def naive_bias(index, attr, weight, num_src, num_dst):
    """``[N_dst, N_src, H]`` by a loop; -inf where there is no edge."""
    attr = attr[:, None] if attr.dim() == 1 else attr
    sums = {}
    for e, (src, dst) in enumerate(index.t().tolist()):
        sums[dst, src] = sums.get((dst, src), 0) + attr[e]
    out = torch.full((num_dst, num_src, weight.size(0)), float("-inf"))
    for (dst, src), total in sums.items():
        out[dst, src] = weight @ total
    return out


@pytest.mark.parametrize("columns", [0, 1, 5])
@pytest.mark.parametrize("bipartite", [False, True])
def test_against_a_loop(one, columns, bipartite):
    edge_type = one.UV if bipartite else one.UU
    num_src, num_dst = one.sizes[edge_type[0]], one.sizes[edge_type[2]]
    index = torch.stack([torch.randint(num_src, (15,)), torch.randint(num_dst, (15,))])
    index = torch.cat([index, index[:, :4]], dim=1)  # duplicates: attributes are summed
    attr = torch.randn(19, columns) if columns else torch.randn(19)
    attr.requires_grad_()
    conv = one.layer("edge_attr_bias", edge_type)
    x = {t: torch.randn(n, 3) for t, n in one.sizes.items()}
    out = conv(x, {edge_type: index}, edge_attr_dict={edge_type: attr})
    relation = conv.convs[edge_type]
    weight = relation.term.lin.weight
    assert weight.shape == (2, max(columns, 1))
    bias = naive_bias(index, attr, weight, num_src, num_dst)
    expected = one.message(relation, (x["u"], x[edge_type[2]]), bias)
    torch.testing.assert_close(out[edge_type[2]], expected)
    assert (
        one.gradients(conv, out)[
            "convs.{}.term.lin.weight".format("<" + "___".join(edge_type) + ">")
        ]
        .abs()
        .min()
        > 0
    )
    assert attr.grad.abs().sum() > 0


def test_direction(one):
    edges, bias = one.term("edge_attr_bias", one.UU)(
        one.inputs(one.UU, edge_index=torch.tensor([[2], [5]]), edge_attr=torch.ones(1))
    )
    assert one.pairs(edges) == [(2, 5)] and bias.shape == (1, 2)


def test_no_edges(one):
    conv = one.layer("edge_attr_bias")
    x = {t: torch.randn(n, 3) for t, n in one.sizes.items()}
    none = torch.empty(2, 0, dtype=torch.long)
    out = conv(x, {one.UV: none}, edge_attr_dict={one.UV: torch.empty(0, 4)})
    assert out["v"].shape == (4, 8) and out["v"].abs().max() == 0
    assert conv.convs[one.UV].term.lin.weight.shape == (2, 4)
    one.gradients(conv, out)


def test_a_batch_equals_its_graphs(one):
    def graph(seed):
        g = torch.Generator().manual_seed(seed)
        data = HeteroData()
        data["u"].x, data["v"].x = (
            torch.randn(5 + seed, 3, generator=g),
            torch.randn(4, 3, generator=g),
        )
        index = [torch.randint(n, (9,), generator=g) for n in (5 + seed, 4)]
        data[one.UV].edge_index = torch.stack(index)
        data[one.UV].edge_attr = torch.randn(9, 2, generator=g)
        return data

    graphs = [graph(i) for i in range(3)]
    conv = one.layer("edge_attr_bias")
    together = conv(**conv.collect(Batch.from_data_list(graphs)))["v"]
    single = torch.cat([conv(**conv.collect(data))["v"] for data in graphs])
    torch.testing.assert_close(together, single)


def test_another_field_and_symmetrize(one):
    kind = default_registry().edge_kind("edge_attr_bias")
    options = kind.options(edge_attr="flux", symmetrize=True)
    assert kind.fields(options) == ("edge_index", "hyperedge_index", "flux")
    assert kind.missing(options, {"edge_index", "edge_attr"}) == [("flux",)]
    term = one.term("edge_attr_bias", one.UU, edge_attr="flux", symmetrize=True)
    given = one.inputs(one.UU, hyperedge_index=torch.tensor([[0], [3]]), flux=torch.tensor([2]))
    edges, bias = term(given)
    assert one.pairs(edges) == [(3, 0), (0, 3)]
    torch.testing.assert_close(bias, 2 * term.lin.weight.t().expand(2, -1))


def test_wrong_inputs(one):
    index = torch.tensor([[0, 1], [1, 2]])
    term = one.term("edge_attr_bias")
    cases = [
        ({"edge_index": index}, ValueError, "has no 'edge_attr'; pass edge_attr_dict="),
        ({"edge_attr": torch.ones(2)}, ValueError, r"has no 'edge_index' \(nor hyperedge_index\)"),
        (
            {"edge_index": index, "edge_attr": torch.ones(3)},
            ValueError,
            "'edge_attr' of edge type .*one row per edge",
        ),
        (
            {"edge_index": index, "edge_attr": torch.ones(2, 2, 2)},
            ValueError,
            "'edge_attr' of edge type .*shape",
        ),
        (
            {"edge_index": index, "edge_attr": torch.tensor([1.0, float("nan")])},
            ValueError,
            "'edge_attr' .*at edge 1",
        ),
        (
            {"edge_index": index, "edge_attr": ["a", "b"]},
            TypeError,
            "'edge_attr' of edge type .*got list",
        ),
        (
            {"edge_index": index + 3, "edge_attr": torch.ones(2)},
            ValueError,
            "'edge_index' of edge type .*out of range",
        ),
    ]
    for fields, error, text in cases:
        with pytest.raises(error, match=text) as caught:
            term(one.inputs(**fields))
        assert str(one.UV) in str(caught.value)
    term(one.inputs(edge_index=index, edge_attr=torch.ones(2, 3)))
    with pytest.raises(
        ValueError, match="'edge_attr' of edge type .* has 1 columns, but .* made for 3"
    ):
        term(one.inputs(edge_index=index, edge_attr=torch.ones(2)))
    with pytest.raises(ValueError, match="edge_atr"):
        EdgeSpec(edge_type=one.UV, kind="edge_attr_bias", options={"edge_atr": "w"})


def test_in_a_stack_each_block_has_its_own_projection(one):
    conv = HeteroNSAConv(
        {one.UU: "edge_attr_bias"}, pattern="MM", hidden_channels=8, in_channels=3, heads=2
    )
    index = torch.randint(6, (2, 12))
    out = conv(
        {"u": torch.randn(6, 3)}, {one.UU: index}, edge_attr_dict={one.UU: torch.randn(12, 2)}
    )
    grads = one.gradients(conv, out)
    assert sum(n.endswith("term.lin.weight") for n in grads) == 2

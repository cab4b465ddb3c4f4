"""PyG's explainers and ``to_hetero``: as with TransformerConv, and against a naive loop."""

import pytest
import torch
from torch import nn
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.explain.algorithm.utils import clear_masks, set_hetero_masks, set_masks
from torch_geometric.nn import HeteroConv, TransformerConv, to_hetero
from torch_geometric.utils import coalesce

from pyg_nsa import EdgeSet, HeteroNSAConv, NSAConv, attention_maps
from pyg_nsa.attention.partial import partial_edge_attention
from pyg_nsa.nn.relation_attention import RelationAttention

UV, VU, UU = ("u", "to", "v"), ("v", "back", "u"), ("u", "near", "u")
KINDS = {UV: "adjacency_mask", VU: "stoichiometry_bias", UU: "adjacency_mask"}
SIZES = {"u": 9, "v": 7}
HOW = {"mode": "regression", "task_level": "node", "return_type": "raw"}


def edges(src, dst, n):
    index = torch.stack([torch.randint(src, (n,)), torch.randint(dst, (n,))])
    return coalesce(index)  # TransformerConv keeps an edge that occurs twice


def twins(*args, **kwargs):
    theirs = TransformerConv(*args, **kwargs).double()
    ours = NSAConv(*args, **kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# ---- the attention ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [None, 2])
@pytest.mark.parametrize("with_bias", [False, True])
def test_parts_of_pairs_against_a_loop(with_bias, copies):
    pairs = EdgeSet.from_edge_index(edges(5, 6, 17), 5, 6)
    lead = () if copies is None else (copies,)
    q, k, v = (torch.randn(*lead, n, 2, 3, dtype=torch.float64) for n in (6, 5, 5))
    parts = torch.rand(pairs.num_pairs, dtype=torch.float64)
    bias = torch.randn(pairs.num_pairs, 2, dtype=torch.float64) if with_bias else None
    alive_keys = torch.rand(*lead, 5) < 0.7
    alive_queries = torch.rand(*lead, 6) < 0.7
    out = partial_edge_attention(
        q, k, v, pairs, parts, bias, alive_keys=alive_keys, alive_queries=alive_queries
    )
    for b in range(copies or 1):
        at = () if copies is None else (b,)
        for i in range(6):
            mine = [
                p
                for p in range(pairs.num_pairs)
                if pairs.row[p] == i and alive_keys[at][pairs.col[p]] and alive_queries[at][i]
            ]
            for h in range(2):
                expected = torch.zeros(3, dtype=torch.float64)
                if mine:
                    logits = torch.stack(
                        [q[at][i, h] @ k[at][pairs.col[p], h] / 3**0.5 for p in mine]
                    )
                    if bias is not None:
                        logits = logits + bias[mine, h]
                    for p, weight in zip(mine, logits.softmax(0), strict=True):
                        expected = expected + parts[p] * weight * v[at][pairs.col[p], h]
                torch.testing.assert_close(out[at][i, h], expected)


def test_gradients_of_parts():
    pairs = EdgeSet.from_edge_index(edges(4, 4, 9), 4, 4)
    q, k, v = (torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    parts = (0.1 + 0.8 * torch.rand(pairs.num_pairs, dtype=torch.float64)).requires_grad_()
    bias = torch.randn(pairs.num_pairs, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *t: partial_edge_attention(*t[:3], pairs, *t[3:]), (q, k, v, parts, bias)
    )


# ---- NSAConv ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apply_sigmoid", [False, True])
@pytest.mark.parametrize("value", [None, 0.0, 1.0])
def test_an_edge_mask_does_what_it_does_in_transformer_conv(value, apply_sigmoid):
    index = edges(9, 9, 30)
    x = torch.randn(9, 5, dtype=torch.float64)
    found = []
    for conv in twins(5, 4, heads=2):
        mask = torch.rand(index.size(1), dtype=torch.float64, generator=torch.manual_seed(1))
        if value is not None:  # where Captum starts
            mask = torch.full_like(mask, value)
        mask.requires_grad_()
        set_masks(conv, mask, index, apply_sigmoid=apply_sigmoid)
        out = conv(x, index)
        out.sin().sum().backward()
        clear_masks(conv)
        assert conv.explain is None
        found.append((out.detach(), mask.grad, conv(x, index)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("algorithm", [GNNExplainer, AttentionExplainer])
def test_an_explanation_is_that_of_transformer_conv(algorithm):
    index = edges(9, 9, 30)
    x = torch.randn(9, 5, dtype=torch.float64)
    found = []
    for conv in twins(5, 4, heads=2):
        torch.manual_seed(2)
        explainer = Explainer(
            conv,
            GNNExplainer(epochs=20) if algorithm is GNNExplainer else AttentionExplainer(),
            explanation_type="model",
            node_mask_type="attributes" if algorithm is GNNExplainer else None,
            edge_mask_type="object",
            model_config=HOW,
        )
        found.append(explainer(x, index, index=torch.tensor([1, 4])))
    torch.testing.assert_close(found[0].edge_mask, found[1].edge_mask, atol=1e-6, rtol=1e-6)
    assert (
        0 < (found[0].edge_mask > 0).sum() < index.size(1)
    )  # edges that are too far away have none


def test_edges_that_are_one_pair_and_a_mask_of_another_size():
    conv = NSAConv(5, 4, heads=2)
    x, index = torch.randn(9, 5), torch.tensor([[0, 3, 0], [1, 1, 1]])
    set_masks(conv, torch.tensor([0.2, 0.5, 0.6]), index, apply_sigmoid=False)
    out = conv(x, index)
    set_masks(conv, torch.tensor([0.4, 0.5]), index[:, :2], apply_sigmoid=False)
    torch.testing.assert_close(out, conv(x, index[:, :2]))
    with pytest.raises(ValueError, match=r"edge mask has shape \[2\], but there are 3 edges"):
        conv(x, index)


# ---- HeteroNSAConv ---------------------------------------------------------------------------------------------------------


def hetero(pattern):
    conv = HeteroNSAConv(KINDS, pattern=pattern, hidden_channels=8, heads=2)
    x_dict = {t: torch.randn(n, 4) for t, n in SIZES.items()}
    index = {e: edges(SIZES[e[0]], SIZES[e[2]], 25) for e in KINDS}
    amounts = {VU: torch.randn(index[VU].size(1))}
    conv(x_dict, index, stoichiometry_dict=amounts)
    return conv, x_dict, index, amounts


@pytest.mark.parametrize("pattern", [None, "M", "MSM"])
def test_a_masked_edge_sends_nothing_and_the_others_weigh_what_they_weighed(pattern):
    conv, x_dict, index, amounts = hetero(pattern)
    plain = conv(x_dict, index, stoichiometry_dict=amounts)
    masks = {e: torch.full((i.size(1),), 40.0) for e, i in index.items()}
    set_hetero_masks(conv, masks, index)
    same = conv(x_dict, index, stoichiometry_dict=amounts)
    masks = {e: torch.full((i.size(1),), -40.0) for e, i in index.items()}
    set_hetero_masks(conv, masks, index)
    nothing = conv(x_dict, index, stoichiometry_dict=amounts)
    clear_masks(conv)
    empty = {e: i[:, :0] for e, i in index.items()}
    without = conv(x_dict, empty, stoichiometry_dict={VU: amounts[VU][:0]})
    for t in SIZES:
        torch.testing.assert_close(same[t], plain[t], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(nothing[t], without[t], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(plain[t], without[t], atol=1e-2)
        assert torch.equal(conv(x_dict, index, stoichiometry_dict=amounts)[t], plain[t])


class Regression(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv, self.lin = conv, nn.Linear(8, 1)

    def forward(self, x_dict, edge_index_dict, **kwargs):
        out = self.conv(x_dict, edge_index_dict, **kwargs)
        return self.lin(out["u"]) + self.lin(out["v"]).mean()


ODD = {
    "all_pairs": {},
    "distance_bias": {"max_distance": 1},
    "adjacency_mask": {"symmetrize": True, "self_loops": True},
}


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("ordered", [False, True])
def test_a_mask_is_of_the_edges_however_a_kind_finds_its_pairs(kind, ordered):
    """Each edge alone, against the same call whose weights are scaled by hand."""
    conv = HeteroNSAConv(
        {UU: {"kind": kind, "options": ODD[kind]}},
        pattern="M" if ordered else None,
        hidden_channels=8,
        heads=2,
        mlp_ratio=0,
    ).double()
    # As many edges as pairs for all_pairs: a mask by the pairs' order would fit, and be wrong.
    index = torch.cartesian_prod(torch.arange(4), torch.arange(4)).t()
    index = index[:, torch.randperm(16)]
    index = index if kind == "all_pairs" else index[:, index[0] != index[1]][:, :7]
    x = torch.randn(4, 8, dtype=torch.float64)
    more = {"order_dict": {"u": torch.tensor([2, 0, 3, 1])}} if ordered else {}
    call = ({"u": x}, {UU: index})
    conv(*call, **more)
    with attention_maps(conv) as maps:
        conv(*call, **more)
    (found,) = maps
    relation = next(m for m in conv.modules() if isinstance(m, RelationAttention))
    rows = entered = x
    if ordered:
        entrance = conv.stack.inputs["u"]
        entered = entrance.lin(x) + entrance.bias
        rows = conv.stack.blocks[0].norms["u"](entered)
    value = relation.conv.lin_value(rows).view(4, 2, 4)
    for e in range(index.size(1)):
        mask = torch.ones(index.size(1), dtype=torch.float64)
        mask[e] = 0.25
        set_hetero_masks(conv, {UU: mask}, {UU: index}, apply_sigmoid=False)
        out = conv(*call, **more)["u"]
        clear_masks(conv)
        message = torch.zeros(4, 2, 4, dtype=torch.float64)
        for (j, i), weight in zip(found.edge_index.t().tolist(), found.weights, strict=True):
            ends = [index[:, e].tolist()]
            if kind == "adjacency_mask":
                both = [c.tolist() for c in index.t()]
                own = [both.index([j, i])] if [j, i] in both else []
                own += [both.index([i, j])] if [i, j] in both and [i, j] != [j, i] else []
                part = sum(float(mask[n]) for n in own) / len(own) if own else 1.0
            else:
                part = 0.25 if [j, i] in ends else 1.0
            message[i] += part * weight[:, None] * value[j]
        expected = relation.lin_out(message.flatten(1))
        if ordered:
            expected = entered + expected
        torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pattern", [None, "M", "MSM"])
def test_gradients_of_edge_masks(pattern):
    conv, x_dict, index, amounts = hetero(pattern)
    conv = conv.double()
    x_dict = {t: x.double() for t, x in x_dict.items()}
    amounts = {VU: amounts[VU].double()}
    masks = [torch.randn(i.size(1), dtype=torch.float64).requires_grad_() for i in index.values()]

    def run(*masks):
        set_hetero_masks(conv, dict(zip(index, masks, strict=True)), index)
        out = conv(x_dict, index, stoichiometry_dict=amounts)
        return torch.cat([rows.flatten() for rows in out.values()])

    assert torch.autograd.gradcheck(run, masks, fast_mode=True)
    assert all(g.abs().max() > 1e-3 for g in torch.autograd.grad(run(*masks).square().sum(), masks))


@pytest.mark.parametrize("algorithm", [GNNExplainer, AttentionExplainer])
def test_an_explanation_of_hetero_conv_is_that_with_transformer_conv(algorithm):
    x_dict = {t: torch.randn(n, 4) for t, n in SIZES.items()}
    index = {e: edges(SIZES[e[0]], SIZES[e[2]], 25) for e in KINDS}
    theirs, ours = (
        Regression(HeteroConv({e: make(4, 4, heads=2) for e in KINDS}))
        for make in (TransformerConv, NSAConv)
    )
    ours.load_state_dict(theirs.state_dict())
    found = []
    for model in (ours, theirs):
        torch.manual_seed(2)
        explainer = Explainer(
            model,
            GNNExplainer(epochs=20) if algorithm is GNNExplainer else AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config=HOW,
        )
        found.append(explainer(x_dict, index, index=torch.tensor([1])).collect("edge_mask"))
    for e in KINDS:
        torch.testing.assert_close(found[0][e], found[1][e], atol=1e-4, rtol=1e-4)
    assert any(weights.max() > 0 for weights in found[0].values())


@pytest.mark.parametrize("pattern", [None, "M", "MSM"])
def test_explainers_run_on_a_heterogeneous_layer(pattern):
    conv, x_dict, index, amounts = hetero(pattern)
    explainer = Explainer(
        Regression(conv),
        GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config=HOW,
    )
    found = explainer(x_dict, index, stoichiometry_dict=amounts, index=torch.tensor([1]))
    for e, weights in found.collect("edge_mask").items():
        assert weights.shape == index[e].shape[1:]
        assert weights.max() > 0


@pytest.mark.parametrize("pattern", [None, "MSM"])
def test_attention_explainer_of_a_heterogeneous_layer(pattern):
    conv, x_dict, index, amounts = hetero(pattern)
    explainer = Explainer(
        Regression(conv),
        AttentionExplainer(reduce="mean"),
        explanation_type="model",
        edge_mask_type="object",
        model_config=HOW,
    )
    at = torch.tensor([1])
    found = explainer(x_dict, index, stoichiometry_dict=amounts, index=at).collect("edge_mask")
    for (src, rel, dst), weights in found.items():
        total = torch.zeros(SIZES[dst]).index_add(0, index[src, rel, dst][1], weights)
        # PyG leaves out what is further away from the node than there are layers.
        assert ((total - 1).abs() < 1e-5).any()
        assert ((total < 1e-5) | ((total - 1).abs() < 1e-5)).all()


# ---- to_hetero -------------------------------------------------------------------------------------------------------------


def test_to_hetero_gives_a_convolution_for_each_edge_type():
    class Two(nn.Module):
        def __init__(self, make):
            super().__init__()
            self.first, self.second = make((-1, -1), 4, heads=2), make((-1, -1), 4, heads=2)

        def forward(self, x, edge_index):
            return self.second(self.first(x, edge_index).relu(), edge_index)

    metadata = (list(SIZES), list(KINDS))
    x_dict = {t: torch.randn(n, 4) for t, n in SIZES.items()}
    index = {e: edges(SIZES[e[0]], SIZES[e[2]], 25) for e in KINDS}
    theirs, ours = (to_hetero(Two(make), metadata) for make in (TransformerConv, NSAConv))
    theirs(x_dict, index), ours(x_dict, index)
    ours.load_state_dict(theirs.state_dict())
    found, expected = ours(x_dict, index), theirs(x_dict, index)
    assert set(found) == set(SIZES)
    for t in SIZES:
        torch.testing.assert_close(found[t], expected[t], atol=1e-5, rtol=1e-5)

"""Attention weights of whole models: against a loop over the model's own projections, in every layout."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import HeteroConv, SAGEConv, TransformerConv

from pyg_nsa import HeteroNSAConv, NSAConv, attention_maps

UV, VU, UU = ("u", "to", "v"), ("v", "back", "u"), ("u", "near", "u")
KINDS = {UV: "adjacency_mask", VU: "stoichiometry_bias", UU: "adjacency_mask"}
SIZES = {"u": 9, "v": 7}


def example(pattern, **options):
    conv = HeteroNSAConv(KINDS, pattern=pattern, hidden_channels=8, heads=2, **options).eval()
    x_dict = {t: torch.randn(n, 4) for t, n in SIZES.items()}
    index = {}
    for e in KINDS:
        ends = [torch.randint(SIZES[t], (20,)) for t in (e[0], e[2])]
        index[e] = torch.stack(ends).unique(dim=1)
    amounts = {VU: torch.randn(index[VU].size(1))}
    call = {"x_dict": x_dict, "edge_index_dict": index, "stoichiometry_dict": amounts}
    conv(**call)
    return conv, call


def test_weights_of_a_bare_step_against_a_loop():
    conv, call = example(None)
    before = conv(**call)
    with attention_maps(conv) as maps:
        out = conv(**call)
    assert {found.edge_type for found in maps} == set(KINDS)
    for t in SIZES:
        torch.testing.assert_close(out[t], before[t])
    for found in maps:
        source, _, target = found.edge_type
        attention = conv.convs[found.edge_type]
        rows = {t: call["x_dict"][t] for t in SIZES}
        q = attention.conv.lin_query(rows[target]).view(-1, 2, 4)
        k = attention.conv.lin_key(rows[source]).view(-1, 2, 4)
        index = call["edge_index_dict"][found.edge_type]
        assert found.edge_index.shape == index.shape
        bias = {}
        for n, (j, i) in enumerate(index.t().tolist()):
            bias[j, i] = torch.zeros(2)
            if found.edge_type == VU:
                bias[j, i] = attention.term.lin(call["stoichiometry_dict"][VU][n].view(1, 1))[0]
        for n, (j, i) in enumerate(found.edge_index.t().tolist()):
            others = [a for a, b in bias if b == i]
            logits = torch.stack([(q[i] * k[a]).sum(-1) / 2 + bias[a, i] for a in others])
            expected = logits.softmax(0)[others.index(j)]
            torch.testing.assert_close(found.weights[n], expected, atol=1e-5, rtol=1e-4)


def test_every_block_and_only_inside_of_the_block():
    conv, call = example("MSM")
    with attention_maps(conv) as maps:
        conv(**call)
        assert len(maps) == 6
        conv(**call)
    assert len(maps) == 12
    conv(**call)
    assert len(maps) == 12
    assert [found.layer.split(".convs")[0] for found in maps[:6]] == ["stack.blocks.0"] * 3 + [
        "stack.blocks.2"
    ] * 3
    assert not any(found.weights.requires_grad for found in maps)
    # All hooks are gone: the layers run as fast as before.
    assert not any(m._forward_pre_hooks for m in conv.modules())


def test_an_order_of_the_nodes_is_undone():
    conv, call = example("M")
    with attention_maps(conv) as plain:
        conv(**call)
    orders = {t: torch.randperm(n) for t, n in SIZES.items()}
    with attention_maps(conv) as ordered:
        conv(**call, order_dict=orders)
    for a, b in zip(plain, ordered, strict=True):
        assert a.edge_type == b.edge_type
        mine = {tuple(e): w for e, w in zip(a.edge_index.t().tolist(), a.weights, strict=True)}
        found = {tuple(e): w for e, w in zip(b.edge_index.t().tolist(), b.weights, strict=True)}
        assert (
            set(mine)
            == set(found)
            == set(map(tuple, call["edge_index_dict"][a.edge_type].t().tolist()))
        )
        for e in mine:
            torch.testing.assert_close(mine[e], found[e], atol=1e-5, rtol=1e-4)


def test_copies_of_a_graph_and_deleted_nodes():
    conv, call = example("M")
    call["x_dict"] = {t: x.expand(3, *x.shape) for t, x in call["x_dict"].items()}
    alive = {t: torch.rand(3, n) < 0.8 for t, n in SIZES.items()}
    with attention_maps(conv) as maps:
        conv(**call, mask_dict=alive)
    for found in maps:
        source, _, target = found.edge_type
        assert found.weights.shape == (3, found.edge_index.size(1), 2)
        living = alive[source][:, found.edge_index[0]] & alive[target][:, found.edge_index[1]]
        assert (found.weights[~living] == 0).all()
        total = torch.zeros(3, SIZES[target], 2).index_add(1, found.edge_index[1], found.weights)
        reached = (
            torch.zeros(3, SIZES[target]).index_add(1, found.edge_index[1], living.float()) > 0
        )
        torch.testing.assert_close(total, reached[..., None].expand_as(total).float())


def test_nsa_conv_alone_and_in_hetero_conv():
    theirs = TransformerConv(4, 3, heads=2)
    ours = NSAConv(4, 3, heads=2)
    ours.load_state_dict(theirs.state_dict())
    x, index = torch.randn(9, 4), torch.randint(9, (2, 25)).unique(dim=1)
    _, (_, expected) = theirs(x, index, return_attention_weights=True)
    with attention_maps(ours) as maps:
        ours(x, edge_index=index)
    (found,) = maps
    assert found.edge_type is None
    place = {tuple(e): n for n, e in enumerate(index.t().tolist())}
    order = [place[tuple(e)] for e in found.edge_index.t().tolist()]
    torch.testing.assert_close(found.weights, expected[order])
    model = nn.Sequential(HeteroConv({UU: ours, UV: SAGEConv((4, 4), 6)}))
    x_dict = {"u": x, "v": torch.randn(7, 4)}
    with attention_maps(model) as maps:
        model[0](x_dict, {UU: index, UV: torch.randint(7, (2, 9))})
    assert [(found.layer, found.edge_type) for found in maps] == [("0.convs.<u___near___u>", UU)]


def test_a_model_without_attention_is_refused():
    with (
        pytest.raises(ValueError, match="Linear has no layer with attention along edges"),
        attention_maps(nn.Linear(1, 1)),
    ):
        pass


def test_hooks_go_after_an_error():
    conv, call = example("M")
    with pytest.raises(KeyError), attention_maps(conv):
        raise KeyError
    assert not any(m._forward_pre_hooks for m in conv.modules())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_layers_that_are_called_again_in_the_backward_pass_are_kept_once(use_reentrant):
    conv, call = example("M")
    rows = {t: x.requires_grad_() for t, x in call["x_dict"].items()}

    def run(u, v):
        return conv(**{**call, "x_dict": {"u": u, "v": v}})["u"]

    with attention_maps(conv) as maps:
        checkpoint(run, rows["u"], rows["v"], use_reentrant=use_reentrant).sum().backward()
    assert sorted(found.edge_type for found in maps) == sorted(KINDS)

"""The heterogeneous stack: against a dense re-computation, under missing input, and in its initialisation."""

import copy
import hashlib
import io
import os
import subprocess
import sys

import pytest
import torch
from torch_geometric.nn import GCNConv, SAGEConv
from torch_geometric.nn.aggr import MeanAggregation, PowerMeanAggregation, SoftmaxAggregation

from pyg_nsa import HeteroNSA

DOUBLE = torch.float64
UV, VU, UU = ("u", "to", "v"), ("v", "back", "u"), ("u", "near", "u")
KINDS = {UV: "adjacency_mask", VU: "stoichiometry_bias", UU: "adjacency_mask"}
SIZES = {"u": 9, "v": 7}


def example(dtype=torch.float32, u=9, v=7, columns=None):
    columns = columns or {"u": 5, "v": 3}
    x = {
        "u": torch.randn(u, columns["u"], dtype=dtype),
        "v": torch.randn(v, columns["v"], dtype=dtype),
    }
    sizes = {"u": u, "v": v}

    def edges(src, dst, n):
        return torch.stack([torch.randint(sizes[src], (n,)), torch.randint(sizes[dst], (n,))])

    index = {UV: edges("u", "v", 20), VU: edges("v", "u", 25), UU: edges("u", "u", 30)}
    return {
        "x_dict": x,
        "edge_index_dict": index,
        "stoichiometry_dict": {VU: torch.randn(25, dtype=dtype)},
    }


def recompute(model, call, dense):
    """The stack in plain formulas, from the model's own weights."""
    index = call["edge_index_dict"]
    alive = {t: torch.ones(len(x), dtype=torch.bool) for t, x in call["x_dict"].items()}
    alive.update(call.get("mask_dict", {}))
    h = {}
    for t, x in call["x_dict"].items():
        entrance = model.inputs[t]
        h[t] = x @ entrance.lin.weight.t() + entrance.bias
        if entrance.embedding is not None:
            h[t] = h[t] + entrance.embedding.weight
    for letter, block in zip(model.pattern, model.blocks, strict=True):
        out = {}
        for t, x in h.items():
            if letter == "S":
                sab, own = block[t], alive[t]
                y = dense.norm(sab.norm, x)
                q, k, v = (y @ sab.lin_qkv.weight.t() + sab.lin_qkv.bias).chunk(3, dim=1)
                allowed = own[:, None] & own[None, :]
                message = dense.attend(q, k, v, sab.heads, allowed) @ sab.lin_out.weight.t()
                y = dense.feed_forward(sab.feed_forward, x + message)
            else:
                message = torch.zeros_like(x)
                for (src, rel, dst), relation in block.convs.items():
                    if dst != t:
                        continue
                    e = (src, rel, dst)
                    num = (len(h[src]), len(h[dst]))
                    allowed = dense.allowed(index[e], *num)
                    allowed = allowed & alive[dst][:, None] & alive[src][None, :]
                    bias = None
                    if e == VU:
                        weights = dense.summed(index[e], call["stoichiometry_dict"][e], *num)
                        bias = (weights @ relation.term.lin.weight.t()).permute(2, 0, 1)
                    ends = (dense.norm(block.norms[n], h[n]) for n in (src, dst))
                    sent = dense.message(relation.conv, *ends, allowed, bias)
                    message = message + sent @ relation.lin_out.weight.t()
                y = dense.feed_forward(block.feed_forwards[t], x + message)
            out[t] = torch.where(alive[t][:, None], y, x)
        h = out
    if model.outputs is not None:
        h = {t: x @ model.outputs[t].weight.t() + model.outputs[t].bias for t, x in h.items()}
    return h


def assert_same(out, expected, **tolerance):
    assert list(out) == list(expected)
    for t in expected:
        torch.testing.assert_close(out[t], expected[t], msg=lambda m, t=t: f"{t}: {m}", **tolerance)


@pytest.mark.parametrize("mlp_ratio", [2.0, 0])
@pytest.mark.parametrize("dead", [False, True])
def test_it_equals_a_dense_recomputation(dense, gradients, dead, mlp_ratio):
    options = dict(heads=2, out_channels=6, num_nodes={"u": 9}, mlp_ratio=mlp_ratio)
    model = HeteroNSA(-1, 8, KINDS, "MSM", **options).double()
    call = example(DOUBLE)
    if dead:
        call["mask_dict"] = {"u": torch.rand(9) < 0.7, "v": torch.rand(7) < 0.7}
    out = model(**call)
    assert {t: tuple(h.shape) for t, h in out.items()} == {"u": (9, 6), "v": (7, 6)}
    expected = recompute(model, call, dense)
    assert_same(out, expected)
    grads, wanted = gradients(model, out), gradients(model, expected)
    for name in wanted:
        torch.testing.assert_close(grads[name], wanted[name], msg=name)


def test_dead_rows_come_out_of_the_blocks_as_they_went_in():
    model = HeteroNSA(-1, 8, KINDS, "MSMS", heads=2)
    call = example()
    call["mask_dict"] = {"u": torch.rand(9) < 0.5, "v": torch.rand(7) < 0.5}
    out = model(**call)
    for t, alive in call["mask_dict"].items():
        entrance = model.inputs[t]
        h = call["x_dict"][t] @ entrance.lin.weight.t() + entrance.bias
        torch.testing.assert_close(out[t][~alive], h[~alive])
    # What a dead row holds changes nothing elsewhere.
    x = {t: h.masked_fill(~call["mask_dict"][t][:, None], 1e3) for t, h in call["x_dict"].items()}
    other = model(**{**call, "x_dict": x})
    for t, alive in call["mask_dict"].items():
        assert torch.equal(other[t][alive], out[t][alive])


@pytest.mark.parametrize("induced_points", [None, 3])
@pytest.mark.parametrize("aggr", ["mean", "max", SoftmaxAggregation(learn=True)])
def test_a_batch_equals_single_runs(aggr, induced_points, gradients):
    model = HeteroNSA(
        -1, 8, KINDS, "MSM", heads=2, aggr=aggr, induced_points=induced_points, num_nodes={"u": 9}
    )
    calls = [example(u=9, v=v) for v in (7, 4, 1)]
    singles = [model(**call) for call in calls]
    whole = {"x_dict": {}, "edge_index_dict": {}, "batch_dict": {}, "ptr_dict": {}}
    sizes = {t: torch.tensor([len(c["x_dict"][t]) for c in calls]) for t in SIZES}
    for t, count in sizes.items():
        whole["x_dict"][t] = torch.cat([c["x_dict"][t] for c in calls])
        whole["batch_dict"][t] = torch.repeat_interleave(torch.arange(3), count)
        whole["ptr_dict"][t] = torch.cat([count[:0], torch.tensor([0]), count.cumsum(0)])
    for e in KINDS:
        shift = torch.stack([whole["ptr_dict"][e[0]][:-1], whole["ptr_dict"][e[2]][:-1]])
        parts = [c["edge_index_dict"][e] + shift[:, i, None] for i, c in enumerate(calls)]
        whole["edge_index_dict"][e] = torch.cat(parts, dim=1)
    whole["stoichiometry_dict"] = {VU: torch.cat([c["stoichiometry_dict"][VU] for c in calls])}
    out = model(**whole)
    expected = {t: torch.cat([s[t] for s in singles]) for t in SIZES}
    assert_same(out, expected, rtol=1e-4, atol=1e-5)
    gradients(model, out)
    for given in ("batch_dict", "ptr_dict"):  # either one is enough
        assert_same(model(**{k: v for k, v in whole.items() if k != given}), out)


def test_copies_of_one_base_graph_equal_single_runs(gradients):
    model = HeteroNSA(-1, 8, KINDS, "MSMS", heads=2, num_nodes=SIZES, out_channels=5)
    call = example()
    x = {t: torch.randn(4, *h.shape) for t, h in call["x_dict"].items()}
    alive = {t: torch.rand(4, n) < 0.7 for t, n in SIZES.items()}
    alive["v"][3] = False
    out = model(**{**call, "x_dict": x, "mask_dict": alive})
    for b in range(4):
        one = {**call, "x_dict": {t: h[b] for t, h in x.items()}}
        keep = {
            e: alive[e[0]][b][i[0]] & alive[e[2]][b][i[1]]
            for e, i in call["edge_index_dict"].items()
        }
        one["edge_index_dict"] = {e: i[:, keep[e]] for e, i in call["edge_index_dict"].items()}
        one["stoichiometry_dict"] = {VU: call["stoichiometry_dict"][VU][keep[VU]]}
        one["mask_dict"] = {t: a[b] for t, a in alive.items()}
        assert_same({t: h[b] for t, h in out.items()}, model(**one), rtol=1e-4, atol=1e-5)
    gradients(model, out)
    # Features that are one tensor expanded over the copies, as pert_mask marks the deleted.
    shared = {t: h.expand(4, -1, -1) for t, h in call["x_dict"].items()}
    deleted = {t: ~a for t, a in alive.items()}
    same = model(**{**call, "x_dict": shared, "pert_mask_dict": deleted})
    full = {t: h.contiguous() for t, h in shared.items()}
    assert_same(same, model(**{**call, "x_dict": full, "mask_dict": alive}))


def test_pairs_prepared_once_serve_many_calls():
    from torch_geometric.data import HeteroData

    model = HeteroNSA(-1, 8, KINDS, "MS", heads=2)
    call = example()
    data = HeteroData()
    for t, x in call["x_dict"].items():
        data[t].x = x
    for e, index in call["edge_index_dict"].items():
        data[e].edge_index = index
    data[VU].stoichiometry = call["stoichiometry_dict"][VU]
    prepared = model.prepare(data)
    assert set(prepared["edge_set_dict"]) == set(KINDS)
    assert_same(model(**prepared), model(**call))
    alive = {"u": torch.rand(2, 9) < 0.6}
    x = {t: h.expand(2, -1, -1) for t, h in call["x_dict"].items()}
    changes = {"x_dict": x, "mask_dict": alive}
    assert_same(model(**{**prepared, **changes}), model(**{**call, **changes}))


def test_edges_are_directed_and_their_order_is_nothing():
    model = HeteroNSA(-1, 8, {UU: "stoichiometry_bias"}, "MM", heads=2)
    call = example()
    index, values = call["edge_index_dict"][UU], torch.randn(30)

    def run(index, values):
        x = {"u": call["x_dict"]["u"]}
        return model(x, {UU: index}, stoichiometry_dict={UU: values})["u"]

    out = run(index, values)
    shuffle = torch.randperm(30)
    torch.testing.assert_close(run(index[:, shuffle], values[shuffle]), out)
    assert not torch.allclose(run(index.flip(0), values), out)
    assert not torch.allclose(run(index, -values), out)


def without(call, *, relation=None, node_type=None):
    out = {}
    for name, values in call.items():
        out[name] = {k: v for k, v in values.items() if k not in (relation, node_type)}
    return out


def test_whatever_is_missing_leaves_zero_gradients(gradients):
    convs = {**KINDS, ("u", "conv", "u"): GCNConv(8, 8)}
    model = HeteroNSA(-1, 8, convs, "MS", heads=2, out_channels=4, num_nodes={"v": 7})
    call = example()
    call["edge_index_dict"]["u", "conv", "u"] = torch.randint(9, (2, 12))
    full = gradients(model, model(**call))
    assert all(g.abs().sum() > 0 for n, g in full.items() if not n.endswith("lin_key.bias"))
    empty = {e: i[:, :0] for e, i in call["edge_index_dict"].items()}
    no_u = {"u": call["x_dict"]["u"][:0], "v": call["x_dict"]["v"]}
    cases = {
        "no relation": {**call, "edge_index_dict": {}, "stoichiometry_dict": {}},
        "a relation missing": without(call, relation=UV),
        "a bias's relation missing": without(call, relation=VU),
        "empty relations": {
            **call,
            "edge_index_dict": empty,
            "stoichiometry_dict": {VU: torch.empty(0)},
        },
        "no nodes of a type": {
            "x_dict": no_u,
            "edge_index_dict": empty,
            "stoichiometry_dict": {VU: torch.empty(0)},
        },
        "node type missing": without({**call, "edge_index_dict": {}}, node_type="u"),
        "other node type missing": without(
            {**call, "edge_index_dict": {UU: call["edge_index_dict"][UU]}}, node_type="v"
        ),
        "node type missing, relations empty": without(
            {**call, "edge_index_dict": empty, "stoichiometry_dict": {VU: torch.empty(0)}},
            node_type="u",
        ),
    }
    for name, case in cases.items():
        out = model(**case)
        assert list(out) == [t for t in ("u", "v") if t in case["x_dict"]], name
        assert all(bool(h.isfinite().all()) for h in out.values()), name
        gradients(model, out)
    missing = model(**cases["a relation missing"])
    none = {**call["edge_index_dict"], UV: call["edge_index_dict"][UV][:, :0]}
    assert_same(missing, model(**{**call, "edge_index_dict": none}))  # as if it had no edges


def test_edges_of_nodes_that_are_not_there_are_refused():
    """Left out without a word, a misspelt node type would cost its relations."""
    model, call = HeteroNSA(-1, 8, KINDS, "MS", heads=2), example()
    with pytest.raises(
        ValueError, match=r"\('u', 'to', 'v'\) has edges, but x_dict has no rows of node type 'u'"
    ):
        model(**without(call, node_type="u"))


def test_no_graph_without_gradients():
    model = HeteroNSA(-1, 8, KINDS, "MS", heads=2)
    call = example()
    model(**call)
    with torch.no_grad():
        assert all(not h.requires_grad for h in model(**without(call, relation=UV)).values())


def test_edge_dropout():
    kinds = {e: {"kind": "adjacency_mask", "options": {"edge_dropout": 0.4}} for e in (UV, UU)}
    model = HeteroNSA({"u": 5, "v": 3}, 8, kinds, "MM", heads=2)
    call = example()

    def run(seed):
        torch.manual_seed(seed)
        return model(**call)["v"]

    first = run(1)
    assert torch.equal(run(1), first)
    assert not torch.equal(run(2), first)
    model.eval()
    assert torch.equal(run(1), run(2))
    plain = HeteroNSA(-1, 8, {UV: "adjacency_mask", UU: "adjacency_mask"}, "MM", heads=2).eval()
    plain(**call)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(**call)["v"], run(1))


def test_edge_dropout_drops_that_share_of_the_pairs(gradients):
    kind = {"kind": "adjacency_mask", "options": {"edge_dropout": 0.3}}
    model = HeteroNSA(-1, 8, {UU: kind}, "M", heads=2)
    conv = model.blocks[0].convs[UU]
    x = {"u": torch.randn(60, 5)}
    # Every query has one key: its message is there unless its pair was dropped.
    index = torch.stack([torch.arange(60), torch.randperm(60)])
    dropped = []
    conv.register_forward_hook(lambda module, args, out: dropped.append((out == 0).all(dim=-1)))
    for _ in range(40):
        out = model(x, {UU: index})
    assert 0.26 < float(torch.stack(dropped).float().mean()) < 0.34
    gradients(model, out)


def test_conv_modules_inside_a_stack(gradients):
    conv = SAGEConv((-1, -1), 8)
    model = HeteroNSA(-1, 8, {UV: conv, VU: "adjacency_mask"}, "MSM", heads=2)
    call = example()
    out = model(call["x_dict"], call["edge_index_dict"])
    first, last = (model.blocks[i].convs[UV] for i in (0, 2))
    assert first is conv
    assert last is not conv
    assert not torch.equal(first.lin_l.weight, last.lin_l.weight)
    gradients(model, out)
    with pytest.raises(ValueError, match="incorrect message passing"):
        HeteroNSA(-1, 8, {UV: GCNConv(8, 8, add_self_loops=True)}, "M", heads=2)
    wrong = HeteroNSA(-1, 8, {UV: SAGEConv((-1, -1), 7)}, "M", heads=2)
    with pytest.raises(ValueError, match=r"node type 'v' have shape \[7, 7\].*its rows \[7, 8\]"):
        wrong(call["x_dict"], call["edge_index_dict"])


@pytest.mark.parametrize("aggr", [MeanAggregation(), PowerMeanAggregation(learn=True)])
def test_aggregations_are_one_for_each_block(aggr, gradients):
    model = HeteroNSA(-1, 8, KINDS, "MM", heads=2, aggr=aggr)
    assert model.blocks[0].aggr is aggr
    assert model.blocks[1].aggr is not aggr
    mean = HeteroNSA(-1, 8, KINDS, "MM", heads=2, aggr="mean")
    call = example()
    out, expected = model(**call), mean(**call)
    if isinstance(aggr, MeanAggregation):
        mean.load_state_dict(model.state_dict())
        expected = mean(**call)
        assert_same(out, expected)
        gradients(model, out)


_INIT = """
import hashlib, torch
from pyg_nsa import HeteroNSA, HeteroNSAConv
torch.manual_seed(0)
kinds = {(a, r, b): "adjacency_mask" for a in ("ada", "bo", "cy") for r in "rs" for b in ("cy", "ada", "di")}
model = HeteroNSA(-1, 8, kinds, "MSM", heads=2, num_nodes={"di": 3, "bo": 4}, sab_types=["di", "ada"])
bare = HeteroNSAConv(kinds, hidden_channels=8, heads=2)
x = {t: torch.ones(3 + (t == "bo"), 2) for t in ("di", "cy", "bo", "ada")}
edges = {e: torch.tensor([[0], [1]]) for e in kinds}
model(x, edges), bare(x, edges)
digest = hashlib.sha256()
for module in (model, bare):
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
print(digest.hexdigest())
"""


def test_initialisation_depends_on_the_declared_order_only():
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _INIT],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    first, second = (run.communicate()[0].strip() for run in runs)
    assert len(first) == len(hashlib.sha256().hexdigest())
    assert first == second


def test_copies_files_and_resets():
    model = HeteroNSA(-1, 8, KINDS, "MS", heads=2, num_nodes={"u": 9}).eval()
    call = example()
    out = model(**call)
    assert_same(copy.deepcopy(model)(**call), out)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert_same(torch.load(file, weights_only=False)(**call), out)
    fresh = HeteroNSA(-1, 8, KINDS, "MS", heads=2, num_nodes={"u": 9}).eval()
    fresh.load_state_dict(model.state_dict())
    assert_same(fresh(**call), out)
    before = {n: p.clone() for n, p in model.named_parameters() if p.dim() > 1}
    model.reset_parameters()
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)
    assert repr(model) == ("HeteroNSA(hidden_channels=8, pattern='MS', heads=2, num_relations=3)")


def test_wrong_declarations_are_named():
    def build(convs=KINDS, pattern="MS", heads=2, **options):
        return HeteroNSA(-1, 8, convs, pattern, heads, **options)

    with pytest.raises(ValueError, match=r"hidden_channels=8 is not a multiple of heads=3; .*: 2"):
        build(heads=3)
    with pytest.raises(ValueError, match=r"such as 'MSMS'; got 'msms'"):
        build(pattern="msms")
    for aggr in ("cat", None):
        with pytest.raises(ValueError, match=f"aggr={aggr!r} changes the size of the rows"):
            build(aggr=aggr)
    with pytest.raises(ValueError, match="aggr must be one of sum, mean, min, max, cat, None"):
        build(aggr="median")
    with pytest.raises(ValueError, match="sab_types names node type 'w', .* node types: u, v"):
        build(sab_types=["w"])
    with pytest.raises(ValueError, match="num_nodes names node type 'w'"):
        build(num_nodes={"w": 3})
    with pytest.raises(ValueError, match="no relation was given"):
        build(convs={})
    with pytest.raises(TypeError, match=r"\('u', 'to', 'v'\): expected a conv module.*got int"):
        build(convs={UV: 3})
    with pytest.raises(ValueError, match=r"(?s)adjacncy_mask.*adjacency_mask") as caught:
        build(convs={UV: "adjacncy_mask"})
    for kind in ("adjacency_mask", "incidence_mask", "stoichiometry_bias"):
        assert kind in str(caught.value)
    with pytest.raises(ValueError, match="symmetrise"):
        build(convs={UU: {"kind": "adjacency_mask", "options": {"symmetrise": True}}})


def test_wrong_calls_are_named():
    model = HeteroNSA(-1, 8, KINDS, "MS", heads=2, num_nodes={"u": 8})
    call = example()
    with pytest.raises(ValueError, match=r"need to end with '_dict' \(got 'edge_attr'\)"):
        model(**call, edge_attr={})
    with pytest.raises(TypeError, match="'HeteroNSA' needs node features: pass x_dict first"):
        model(edge_index_dict=call["edge_index_dict"])
    with pytest.raises(ValueError, match="num_nodes says 8 nodes of type 'u'.*found node 8"):
        model(**call)
    model = HeteroNSA(-1, 8, KINDS, "MS", heads=2)
    with pytest.raises(ValueError, match=r"has no 'stoichiometry'; pass stoichiometry_dict="):
        model(call["x_dict"], call["edge_index_dict"])
    shared = {t: x.expand(2, -1, -1) for t, x in call["x_dict"].items()}
    ptr = {"u": torch.tensor([0, 9, 18])}
    with pytest.raises(ValueError, match="'ptr' of node type 'u' does not go with x of shape"):
        model(**{**call, "x_dict": shared, "ptr_dict": ptr})
    empty = {"u": call["x_dict"]["u"][:, :0], "v": call["x_dict"]["v"]}
    with pytest.raises(ValueError, match=r"'u' has no columns.*num_nodes=\{'u': <nodes"):
        model(**{**call, "x_dict": empty})

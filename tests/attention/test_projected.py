"""Projections and attention as one operator: against single steps in float64, and what is left to single steps."""

import pytest
import torch
from torch import nn

from pyg_nsa import EdgeSet, MaskedAttentionBlock, NSAConv
from pyg_nsa.attention import messages, projected
from pyg_nsa.attention.csr_calls import csr_tensors, paired_rows
from pyg_nsa.compiled import linear, memory, sequence
from pyg_nsa.nn import nsa_conv


@pytest.fixture
def calls(monkeypatch):
    """How often the operator was asked."""
    made = []
    original = projected.projected_attention

    def spy(*args, **options):
        made.append(1)
        return original(*args, **options)

    monkeypatch.setattr(nsa_conv, "projected_attention", spy)
    return made


def problem(
    bipartite=False,
    copies=None,
    alive=False,
    edges=900,
    heads=4,
    senders=120,
    both=False,
    **options,
):
    """A layer, its call, and what it has gradients for."""
    n_src, n_dst = (120, 90) if bipartite else (120, 120)
    channels = (16, 48) if bipartite else 32
    lead = () if copies is None else (copies,)
    index = torch.stack([torch.randint(senders, (edges,)), torch.randint(n_dst // 2, (edges,))])
    index = torch.cat([index, index.flip(0)], dim=1) if both else index
    pairs = EdgeSet.from_edge_index(index, n_src, n_dst)  # half of the targets have no source
    src = torch.randn(*lead, n_src, 16 if bipartite else 32, requires_grad=True)
    dst = torch.randn(*lead, n_dst, 48, requires_grad=True) if bipartite else src
    conv = NSAConv(channels, 32 // heads, heads, **options)
    bias = torch.randn(pairs.num_pairs, heads, requires_grad=True)
    masks = (None, None)
    if alive:
        masks = torch.rand(*lead, n_src) < 0.8, torch.rand(*lead, n_dst) < 0.8
    leaves = [src, *([dst] if bipartite else []), bias]
    return conv, pairs, leaves, masks


def run(conv, pairs, leaves, masks):
    *rows, bias = leaves
    x = tuple(rows) if len(rows) == 2 else rows[0]
    return conv(x, pairs, bias=bias, alive=masks)


CASES = {
    "one node type": dict(),
    "bipartite": dict(bipartite=True),
    "without the target's row": dict(root_weight=False),
    "bipartite, without the target's row": dict(bipartite=True, root_weight=False),
    "without additive terms": dict(bias=False),
    "copies": dict(copies=3),
    "copies, bipartite, deletions": dict(copies=3, bipartite=True, alive=True),
    "deletions": dict(alive=True),
    "mean of the heads": dict(concat=False, heads=2),
    "gate": dict(beta=True),
    "one head": dict(heads=1),
    "few sources": dict(senders=70),
    "few sources, bipartite, copies": dict(senders=30, bipartite=True, copies=3),
    "the same few": dict(senders=60, both=True),
    "the same few, copies, deletions": dict(senders=60, both=True, copies=3, alive=True),
    "no edge": dict(edges=0),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_single_steps_in_float64(name, calls):
    conv, pairs, leaves, masks = problem(**CASES[name])
    out = run(conv, pairs, leaves, masks)
    assert calls == [1]
    grad = torch.randn_like(out)
    grads = torch.autograd.grad(out, [*leaves, *conv.parameters()], grad)
    conv.double()
    wide = [t.detach().double().requires_grad_() for t in leaves]
    expected = run(conv, pairs, wide, masks)
    assert calls == [1]  # float64 goes step by step
    wanted = torch.autograd.grad(expected, [*wide, *conv.parameters()], grad.double())
    assert out.dtype == torch.float32
    largest = max(w.abs().max().item() for w in wanted if w.numel())
    for a, b in zip((out, *grads), (expected, *wanted), strict=True):
        assert a.shape == b.shape
        # The gradient of a key's additive term is 0 but for rounding, so the largest gradient sets the scale.
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-6 * max(1.0, largest))


@pytest.mark.parametrize("name", CASES)
def test_what_is_in_rows_without_pairs_does_not_matter(name, monkeypatch):
    conv, pairs, leaves, masks = problem(**CASES[name])

    def numbers():
        out = run(conv, pairs, leaves, masks)
        grads = torch.autograd.grad(out.square().sum(), [*leaves, *conv.parameters()])
        return [out.detach(), *grads]

    expected = numbers()
    for module in (linear, messages, sequence):
        monkeypatch.setattr(module, "empty", lambda *args: memory.empty(*args).fill_(float("nan")))
    for a, b in zip(numbers(), expected, strict=True):
        assert torch.equal(a, b)


def test_rows_without_pairs_are_not_projected(monkeypatch):
    asked = []
    forward = messages.linear_forward
    monkeypatch.setattr(
        messages,
        "linear_forward",
        lambda x, weight, *args, rows=None, **options: (
            asked.append((weight.size(0), None if rows is None else rows.numbers.numel()))
            or forward(x, weight, *args, rows=rows, **options)
        ),
    )

    def projections(**options):
        asked.clear()
        run(*problem(**options))
        return asked

    assert projections(edges=4000) == [(64, None), (32, 60)]  # half of the targets have no source
    assert projections(edges=4000, senders=50) == [(64, 50), (32, 60)]
    assert projections(edges=4000, senders=60, both=True) == [(96, 60)]  # the same rows: at once
    assert projections(edges=4000, both=True) == [(96, None)]
    assert projections(edges=0) == [(96, 0)]


def test_rows_that_have_pairs_are_found_once():
    index = torch.tensor([[0, 2, 2], [1, 4, 1]])
    pairs = EdgeSet.from_edge_index(index, 5, 6)
    paired = paired_rows(pairs)
    assert paired.keys.tolist() == [0, 2]
    assert paired.queries.tolist() == [1, 4]
    assert not paired.are_same
    assert paired_rows(pairs) is paired
    both = EdgeSet.from_edge_index(torch.cat([index, index.flip(0)], dim=1), 5, 5)
    assert paired_rows(both).are_same
    assert paired_rows(both).keys.tolist() == [0, 1, 2, 4]
    nearly_all = EdgeSet.from_edge_index(torch.arange(99).expand(2, 99), 100, 99)
    assert paired_rows(nearly_all) == (None, None)
    assert paired_rows(nearly_all).are_same
    assert [rows.tolist() for rows in paired_rows(EdgeSet.empty(3, 0))] == [[], []]


def test_dropout_acts_on_the_message_alone(calls):
    conv, pairs, leaves, masks = problem(dropout=1.0)
    out = run(conv, pairs, leaves, masks)
    assert calls == [1]
    torch.testing.assert_close(out, conv.lin_skip(leaves[0]))
    run(conv.eval(), pairs, leaves, masks)
    assert len(calls) == 2


def test_rows_without_gradient_get_none():
    conv, pairs, (src, dst, bias), masks = problem(bipartite=True)
    for keep in (0, 1):
        rows = [src, dst]
        rows[1 - keep] = rows[1 - keep].detach()
        out = conv(tuple(rows), pairs, bias=bias)
        leaves = [rows[keep], *conv.parameters()]
        assert all(g.abs().sum() > 0 for g in torch.autograd.grad(out.square().sum(), leaves))


def test_dead_rows_hold_anything():
    conv, pairs, (src, dst, bias), _ = problem(bipartite=True, alive=True)
    masks = torch.arange(120) > 3, torch.arange(90) > 5
    conv.lin_skip = None
    clean = conv((src, dst), pairs, bias=bias, alive=masks)
    dirty_src, dirty_dst = src.detach().clone(), dst.detach().clone()
    dirty_src[:4], dirty_dst[:6] = float("nan"), float("inf")
    assert torch.equal(clean, conv((dirty_src, dirty_dst), pairs, bias=bias, alive=masks))


def test_what_is_left_to_single_steps(calls):
    conv, pairs, leaves, masks = problem()
    x = leaves[0]
    assert isinstance(conv(x, pairs, return_attention_weights=True), tuple)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x, pairs).dtype == torch.bfloat16
    seen = []
    handle = conv.lin_value.register_forward_hook(lambda *args: seen.append(1))
    conv(x, pairs)
    assert seen == [1]
    handle.remove()
    odd = NSAConv(20, 5, 4)
    odd(torch.randn(120, 20), pairs)
    assert not calls
    conv(x, pairs)
    assert calls == [1]


def test_lazy_layers_take_their_sizes_from_the_first_call(calls):
    _, pairs, leaves, _ = problem()
    conv = NSAConv(-1, 8, 4)
    first = conv(leaves[0], pairs)
    assert not calls
    torch.testing.assert_close(conv(leaves[0], pairs), first, rtol=1e-5, atol=1e-5)
    assert calls == [1]


def test_wrong_arguments_are_named():
    conv, pairs, (x, bias), _ = problem()
    with pytest.raises(ValueError, match=r"edge set has 120 queries and 120 keys, but q has 100"):
        conv(x[:100], pairs)
    with pytest.raises(ValueError, match=r"bias must have shape \[pairs, heads\]"):
        conv(x, pairs, bias=bias[1:])
    with pytest.raises(TypeError, match="alive_keys"):
        conv(x, pairs, alive=(torch.ones(120), None))
    with pytest.raises(ValueError, match=r"alive_queries must have shape \[120\]"):
        conv(x, pairs, alive=(None, torch.ones(7, dtype=torch.bool)))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_whole_block_has_the_same_bits_for_any_number_of_threads(threads):
    block = MaskedAttentionBlock(64, 4)
    x = torch.randn(1500, 64, requires_grad=True)
    edges = EdgeSet.from_edge_index(torch.randint(1500, (2, 20_000)), 1500, 1500)
    grad = torch.randn_like(x)

    def gradients(n):
        threads(n)
        out = block(x, edges)
        grads = torch.autograd.grad(out, [x, *block.parameters()], grad)
        names = ["out", "x", *dict(block.named_parameters())]
        return {
            name: value
            for name, value in zip(names, (out, *grads), strict=True)
            if not name.startswith(
                "norm."
            )  # torch's layer norm sums its parameters' gradients by thread
        }

    expected = gradients(1)
    for n in (2, 3, 5, 2):
        assert all(torch.equal(value, expected[name]) for name, value in gradients(n).items())


@pytest.mark.parametrize("bipartite", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_the_operator_is_what_it_tells_the_compiler(bipartite, skip):
    x_src = torch.randn(2, 9, 16, requires_grad=True)
    x_dst = torch.randn(2, 7, 32, requires_grad=True) if bipartite else None
    n_dst, f_dst = (7, 32) if bipartite else (9, 16)
    pairs = EdgeSet.from_edge_index(
        torch.stack([torch.randint(9, (30,)), torch.randint(n_dst, (30,))]), 9, n_dst
    )

    def layer(rows, columns, wanted=True):
        if not wanted:
            return None, None
        weight = torch.randn(rows, columns, requires_grad=True)
        return weight, torch.randn(rows, requires_grad=True)

    arguments = (
        x_src,
        x_dst,
        *layer(32 if bipartite else 48, 16),
        *layer(16, 32, bipartite),
        *layer(16, f_dst, skip),
        torch.randn(pairs.num_pairs, 2, requires_grad=True),
        torch.rand(2, n_dst) < 0.8,
        torch.rand(2, 9) < 0.8,
        *csr_tensors(pairs),
        *paired_rows(pairs),
        2,
        0.3,
    )
    torch.library.opcheck(
        projected.OPERATOR,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_compiles_without_a_graph_break():
    block, x = MaskedAttentionBlock(16, 2), torch.randn(30, 16)
    edge_index = torch.randint(30, (2, 100))
    out = torch.compile(block, fullgraph=True, backend="aot_eager")(x, edge_index)
    expected = block(x, edge_index)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad(y.square().sum(), block.parameters()) for y in (out, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_subclass_of_a_layer_keeps_its_own_forward(calls):
    class Halved(nn.Linear):
        def forward(self, x):
            return super().forward(x) / 2

    conv, pairs, (x, bias), _ = problem(root_weight=False)
    halved = Halved(32, 32)
    halved.load_state_dict(conv.lin_value.state_dict())
    expected = conv(x, pairs, bias=bias) / 2
    assert calls == [1]
    conv.lin_value = halved
    torch.testing.assert_close(conv(x, pairs, bias=bias), expected, rtol=1e-5, atol=1e-5)
    assert calls == [1]

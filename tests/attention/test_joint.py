"""Relations in one pass: against single steps in float64, what gets a gradient, and what is left to single passes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_nsa import EdgeSet, HeteroNSAConv, edge_attention
from pyg_nsa.attention import joint, messages
from pyg_nsa.attention.joint import RelationCall, summed_messages
from pyg_nsa.compiled import linear, memory, sequence
from pyg_nsa.nn import relation_sums

SIZES = {"a": (120, 32), "b": (90, 48), "c": (70, 16)}
WIDTH, HEADS = 32, 4

#: Sources, targets, number of edges, whether there is a bias, how many sources have edges: one type to itself twice, two ways into b,
#: one from b to itself.
RELATIONS = [
    ("a", "a", 900, False, 120),
    ("a", "b", 500, False, 40),
    ("a", "a", 300, True, 60),
    ("c", "b", 400, True, 70),
    ("b", "b", 0, False, 90),
]


def leaf(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def weight(width, depth):
    return (torch.randn(width, depth) / depth**0.5).requires_grad_()


def problem(copies=None, alive=False, starts=("a",), additive=(True, True, True)):
    """Rows, what sums start with, and relations."""
    lead = () if copies is None else (copies,)
    rows = {t: leaf(*lead, n, f) for t, (n, f) in SIZES.items()}
    begin = {t: leaf(*lead, SIZES[t][0], WIDTH) for t in starts}
    masks = {t: torch.rand(*lead, n) < 0.8 if alive else None for t, (n, _) in SIZES.items()}
    calls = []
    for src, dst, edges, has_bias, senders in RELATIONS:
        n_src, f_src = SIZES[src]
        n_dst, f_dst = SIZES[dst]
        index = torch.stack([torch.randint(senders, (edges,)), torch.randint(n_dst // 2, (edges,))])
        pairs = EdgeSet.from_edge_index(index, n_src, n_dst)  # half of the targets have no source
        layers = [
            (weight(WIDTH, f), leaf(WIDTH) if wanted else None)
            for f, wanted in zip((f_src, f_src, f_dst), additive, strict=True)
        ]
        bias = leaf(pairs.num_pairs, HEADS) if has_bias else None
        calls.append(
            RelationCall(
                src, dst, *layers, weight(WIDTH, WIDTH), pairs, HEADS, bias, masks[src], masks[dst]
            )
        )
    return rows, begin, calls


def leaves_of(rows, starts, calls):
    layers = [t for c in calls for layer in (c.key, c.value, c.query) for t in layer]
    others = [t for c in calls for t in (c.out, c.bias)]
    return [t for t in (*rows.values(), *starts.values(), *layers, *others) if t is not None]


def in_float64(rows, starts, calls):
    """The same leaves in float64."""

    def wide(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.detach().double().requires_grad_()
        if type(value) is tuple:
            return tuple(wide(v) for v in value)
        return value

    return (
        {t: wide(x) for t, x in rows.items()},
        {t: wide(x) for t, x in starts.items()},
        [RelationCall(*(wide(value) for value in call)) for call in calls],
    )


def step_by_step(rows, starts, calls):
    """What the joint pass should give, from single operations."""
    sums = dict(starts)
    for call in calls:
        x_src, x_dst = rows[call.src], rows[call.dst]
        query, key, value = (
            F.linear(x, *layer).unflatten(-1, (HEADS, -1))
            for x, layer in ((x_dst, call.query), (x_src, call.key), (x_src, call.value))
        )
        message = edge_attention(
            query,
            key,
            value,
            call.edges,
            call.bias,
            alive_keys=call.alive_keys,
            alive_queries=call.alive_queries,
        )
        message = F.linear(message.flatten(-2), call.out)
        sums[call.dst] = sums[call.dst] + message if call.dst in sums else message
    return sums


CASES = {
    "one graph": dict(),
    "no start": dict(starts=()),
    "two starts": dict(starts=("a", "b")),
    "deletions": dict(alive=True),
    "copies": dict(copies=3),
    "copies with deletions": dict(copies=3, alive=True, starts=("b",)),
    "without additive terms": dict(additive=(False, False, False)),
    "some additive terms": dict(additive=(False, True, False)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_single_steps_in_float64(name):
    given = problem(**CASES[name])
    leaves = leaves_of(*given)
    out = summed_messages(*given)
    assert list(out) == ["a", "b"]
    grads_out = {t: torch.randn_like(x) for t, x in out.items()}
    grads = torch.autograd.grad(list(out.values()), leaves, list(grads_out.values()))
    wide = in_float64(*given)
    expected = step_by_step(*wide)
    wanted = torch.autograd.grad(
        [expected[t] for t in out], leaves_of(*wide), [grads_out[t].double() for t in out]
    )
    largest = max(w.abs().max().item() for w in wanted if w.numel())
    for a, b in zip((*out.values(), *grads), (*(expected[t] for t in out), *wanted), strict=True):
        assert a.dtype == torch.float32
        assert a.shape == b.shape
        # The gradient of a key's additive term is 0 but for rounding, so the largest gradient sets the scale.
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-6 * max(1.0, largest))
    # All but those of the relation without edges, and of additive terms of keys.
    assert sum(w.abs().max() > 1e-3 for w in wanted if w.numel()) >= 20


@pytest.mark.parametrize("name", CASES)
def test_what_is_in_rows_without_pairs_does_not_matter(name, monkeypatch):
    given = problem(**CASES[name])

    def numbers():
        out = summed_messages(*given)
        loss = sum(x.square().sum() for x in out.values())
        return [*(x.detach() for x in out.values()), *torch.autograd.grad(loss, leaves_of(*given))]

    expected = numbers()
    for module in (joint, linear, messages, sequence):
        monkeypatch.setattr(module, "empty", lambda *args: memory.empty(*args).fill_(float("nan")))
    for a, b in zip(numbers(), expected, strict=True):
        assert torch.equal(a, b)


def test_copies_of_a_graph_equal_single_graphs():
    rows, starts, calls = problem(copies=3, alive=True)
    out = summed_messages(rows, starts, calls)
    for b in range(3):
        singles = [
            c._replace(alive_keys=c.alive_keys[b], alive_queries=c.alive_queries[b]) for c in calls
        ]
        one = summed_messages(
            {t: x[b] for t, x in rows.items()}, {t: x[b] for t, x in starts.items()}, singles
        )
        for t in out:
            torch.testing.assert_close(out[t][b], one[t], rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for_gets_a_gradient():
    rows, starts, calls = problem(starts=("a", "b"))
    frozen = rows["a"].detach()
    out = summed_messages({**rows, "a": frozen}, starts, calls)
    out["a"].sum().backward()
    assert frozen.grad is None
    assert rows["b"].grad is None  # nothing leads from b or c to a
    assert starts["b"].grad is None
    torch.testing.assert_close(starts["a"].grad, torch.ones_like(starts["a"]))
    for call in calls:
        leads = call.dst == "a"
        assert (call.out.grad is not None) == leads
        assert (call.value[0].grad is not None) == leads
    calls[1].key[0].requires_grad_(False)
    summed_messages(rows, starts, calls)["b"].sum().backward()
    assert rows["a"].grad is not None
    assert calls[1].key[0].grad is None
    assert calls[1].value[0].grad is not None


def test_without_a_backward_pass_projected_rows_share_memory(monkeypatch):
    given = problem(copies=8)  # enough rows that what threads keep for themselves is little
    made = []
    original = memory.empty
    for module in (linear, sequence):
        monkeypatch.setattr(module, "empty", lambda *args: made.append(original(*args)) or made[-1])

    def numbers():
        made.clear()
        out = summed_messages(*given)
        return out, sum(t.numel() for t in made)

    expected, kept = numbers()
    with torch.no_grad():
        out, lent = numbers()
    assert all(torch.equal(out[t], expected[t]) for t in out)
    assert lent < 0.6 * kept


def test_what_a_start_holds_is_not_written_to():
    rows, starts, calls = problem()
    before = starts["a"].detach().clone()
    summed_messages(rows, starts, calls)
    assert torch.equal(starts["a"], before)


def test_a_changed_input_and_a_second_derivative_are_errors():
    rows, starts, calls = problem()
    out = summed_messages(rows, starts, calls)
    with torch.no_grad():
        rows["b"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out["b"].sum().backward()
    rows, starts, calls = problem()
    out = summed_messages(rows, starts, calls)["a"]
    (grad,) = torch.autograd.grad(out.square().sum(), rows["a"], create_graph=True)
    with pytest.raises(RuntimeError, match="no gradients of gradients"):
        grad.sum().backward()


def test_wrong_arguments_are_named():
    rows, starts, (first, second, *_) = problem()
    with pytest.raises(ValueError, match=r"edge set has 120 queries and 120 keys, but q has 100"):
        summed_messages({**rows, "a": rows["a"][:100]}, {}, [first])
    with pytest.raises(TypeError, match="alive_keys"):
        summed_messages(rows, starts, [first, second._replace(alive_keys=torch.ones(120))])
    with pytest.raises(ValueError, match=r"alive_queries must have shape \[90\]"):
        summed_messages(rows, {}, [second._replace(alive_queries=torch.ones(9, dtype=torch.bool))])


# ---- in layers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """How many relations each joint pass got."""
    made = []
    original = joint.summed_messages

    def spy(rows, starts, relations):
        made.append(len(relations))
        return original(rows, starts, relations)

    monkeypatch.setattr(relation_sums, "summed_messages", spy)
    return made


KINDS = {
    ("gene", "physical", "gene"): "adjacency_mask",
    ("gene", "regulatory", "gene"): "adjacency_mask",
    ("gene", "gpr", "reaction"): "incidence_mask",
    ("reaction", "rmr", "metabolite"): "stoichiometry_bias",
}
NODES = {"gene": 60, "reaction": 50, "metabolite": 30}


def layer(**options):
    torch.manual_seed(0)
    conv = HeteroNSAConv(KINDS, hidden_channels=32, in_channels=16, heads=4, **options)
    x = {t: torch.randn(n, 16, requires_grad=True) for t, n in NODES.items()}
    index = {
        (src, name, dst): torch.stack(
            [torch.randint(NODES[src], (200,)), torch.randint(NODES[dst], (200,))]
        )
        for src, name, dst in KINDS
    }
    signed = {("reaction", "rmr", "metabolite"): torch.randn(200)}
    return conv, dict(x_dict=x, edge_index_dict=index, stoichiometry_dict=signed)


def results(conv, arguments):
    out = conv(**arguments)
    leaves = [*arguments["x_dict"].values(), *conv.parameters()]
    total = sum(x.square().sum() for x in out.values())
    # Rows that reach nothing have no gradient.
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    return out, [
        torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)
    ]


@pytest.mark.parametrize("pattern", [None, "MM"])
def test_a_layer_gives_what_single_passes_give(pattern, calls, monkeypatch):
    conv, arguments = layer(pattern=pattern)
    out, grads = results(conv, arguments)
    assert calls == [4] * (1 if pattern is None else 2)
    monkeypatch.setattr("pyg_nsa.nn.relation_attention.fits_joint", lambda *_: False)
    expected, wanted = results(conv, arguments)
    assert list(out) == list(expected)
    for t in out:
        torch.testing.assert_close(out[t], expected[t], rtol=1e-5, atol=1e-5)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("pattern", [None, "M"])
def test_dropout_drops_the_same_for_the_same_seed(pattern, calls, monkeypatch):
    conv, arguments = layer(dropout=0.3, pattern=pattern, mlp_ratio=0)

    def drawn():
        torch.manual_seed(5)
        return results(conv, arguments)

    conv(**arguments)
    out, grads = drawn()
    assert calls == [4, 4]
    plain = conv.eval()(**arguments)
    assert not torch.allclose(plain["gene"], out["gene"], atol=1e-2)
    conv.train()
    monkeypatch.setattr("pyg_nsa.nn.relation_attention.fits_joint", lambda *_: False)
    expected, wanted = drawn()
    for t in out:
        torch.testing.assert_close(out[t], expected[t], rtol=1e-5, atol=1e-5)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1.0, b.abs().max().item()))


def test_what_is_left_to_single_passes(calls):
    conv, arguments = layer(dropout=1.0)
    conv(**arguments)
    assert calls == []  # nothing is left to multiply
    conv.eval()
    conv(**arguments)
    assert calls == [4]
    with torch.autocast("cpu", torch.bfloat16):
        conv(**arguments)
    assert calls == [4]
    seen = []
    physical = conv.convs[("gene", "physical", "gene")]
    handles = [
        physical.register_forward_hook(lambda *_: seen.append("relation")),
        physical.lin_out.register_forward_hook(lambda *_: seen.append("output")),
    ]
    conv(**arguments)
    assert calls == [4, 3]
    assert seen == ["output", "relation"]
    for handle in handles:
        handle.remove()
    mean, _ = layer(aggr="mean")
    mean(**arguments)
    assert calls == [4, 3]
    conv.double()
    conv(**{**arguments, "x_dict": {t: x.double() for t, x in arguments["x_dict"].items()}})
    assert calls == [4, 3]


def test_a_conv_module_among_kinds_adds_its_message(calls):
    conv, arguments = layer()
    out = conv(**arguments)

    class Ones(nn.Module):
        def forward(self, x, edge_index):
            return torch.ones(x[1].size(0), 32)

    mixed, _ = layer()
    mixed.convs[("gene", "extra", "reaction")] = Ones()
    mixed.relations[("gene", "extra", "reaction")] = Ones()
    arguments["edge_index_dict"][("gene", "extra", "reaction")] = torch.zeros(
        2, 1, dtype=torch.long
    )
    mixed_out = mixed(**arguments)
    assert calls == [4, 4]
    assert list(mixed_out) == list(out)
    torch.testing.assert_close(mixed_out["reaction"], out["reaction"] + 1)
    torch.testing.assert_close(mixed_out["gene"], out["gene"])


def test_the_same_bits_for_any_number_of_threads():
    before = torch.get_num_threads()
    conv, arguments = layer(pattern="M")
    try:
        torch.set_num_threads(1)
        out, grads = results(conv, arguments)
        for count in (2, 5, 3):
            torch.set_num_threads(count)
            again, again_grads = results(conv, arguments)
            assert all(torch.equal(again[t], out[t]) for t in out)
            names = [*NODES, *dict(conv.named_parameters())]
            differing = [
                name
                for name, a, b in zip(names, again_grads, grads, strict=True)
                if not torch.equal(a, b)
            ]
            # torch's own products of matrices are not ours to promise.
            assert all("norm" in n or "lin.weight" in n or "inputs" in n for n in differing), (
                differing
            )
    finally:
        torch.set_num_threads(before)


def test_a_copied_layer_is_its_own():
    conv, arguments = layer()
    conv(**arguments)  # the stoichiometry's projection takes its size from the first call
    twin = copy.deepcopy(conv)
    for a, b in zip(results(conv, arguments)[1], results(twin, arguments)[1], strict=True):
        assert torch.equal(a, b)

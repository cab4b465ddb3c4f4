"""The CPU kernel against the dense float64 reference: values and gradients of everything."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pyg_nsa import EdgeSet, edge_attention
from pyg_nsa.attention import attention_weights, csr_kernels, reference, sparse
from pyg_nsa.attention.csr_calls import CSR, csr_tensors
from pyg_nsa.compiled import threads as kernel_threads

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}

CASES = {
    "directed": dict(n_q=40, n_k=40, edges=200),
    "undirected": dict(n_q=30, n_k=30, edges=100, symmetrize=True),
    "bipartite, few queries": dict(n_q=7, n_k=50, edges=120),
    "bipartite, few keys": dict(n_q=50, n_k=7, edges=120),
    "empty rows": dict(n_q=60, n_k=20, edges=15),
    "empty relation": dict(n_q=6, n_k=5, edges=0),
    "duplicates": dict(n_q=4, n_k=4, edges=200),
    "one node": dict(n_q=1, n_k=1, edges=1),
    "one node, no edge": dict(n_q=1, n_k=1, edges=0),
    "no key": dict(n_q=5, n_k=0, edges=0),
    "no query": dict(n_q=0, n_k=5, edges=0),
    "head_dim 1": dict(n_q=20, n_k=20, edges=90, dim=1),
    "head_dim 3, one head": dict(n_q=20, n_k=20, edges=90, dim=3, heads=1),
    "head_dim 128": dict(n_q=20, n_k=20, edges=90, dim=128, heads=1),
    "head_dim 12, filled up to 16": dict(n_q=20, n_k=20, edges=90, dim=12, heads=4),
    "head_dim 5, three heads": dict(n_q=20, n_k=20, edges=90, dim=5, heads=3, batch=2, alive=True),
    "heads in two groups": dict(n_q=20, n_k=20, edges=90, dim=16, heads=8, batch=2, alive=True),
    "heads in three groups": dict(n_q=20, n_k=20, edges=90, dim=24, heads=6, alive=True),
    "a head larger than a group": dict(n_q=20, n_k=20, edges=90, dim=150, heads=2, alive=True),
    "shared graph": dict(n_q=20, n_k=12, edges=70, batch=3),
    "shared graph, deletions": dict(n_q=20, n_k=12, edges=70, batch=3, alive=True),
    "deletions": dict(n_q=20, n_k=12, edges=70, alive=True),
}


def make(dtype, n_q, n_k, edges, heads=2, dim=8, batch=None, alive=False, symmetrize=False):
    edge_index = torch.stack(
        [torch.randint(max(n_k, 1), (edges,)), torch.randint(max(n_q, 1), (edges,))]
    )
    pairs = EdgeSet.from_edge_index(edge_index, n_k, n_q, symmetrize=symmetrize)
    lead = () if batch is None else (batch,)

    def leaf(n):
        return torch.randn(*lead, n, heads, dim, dtype=dtype, requires_grad=True)

    q, k, v = leaf(n_q), leaf(n_k), leaf(n_k)
    bias = torch.randn(pairs.num_pairs, heads, dtype=dtype, requires_grad=True)
    options = {}
    if alive:
        options = {
            "alive_queries": torch.rand(*lead, n_q) < 0.8,
            "alive_keys": torch.rand(*lead, n_k) < 0.7,
        }
    return pairs, (q, k, v, bias), options


def assert_close(actual, expected, tolerance):
    assert not actual.isnan().any()
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance * scale
    )


def check_against_reference(edges, leaves, options, tolerance):
    q, k, v, bias = leaves
    out = edge_attention(q, k, v, edges, bias, **options)
    grad = torch.randn_like(out)
    grads = torch.autograd.grad(out, leaves, grad)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    expected = reference.edge_attention(*wide[:3], edges, wide[3], **options)
    expected_grads = torch.autograd.grad(expected, wide, grad.double())
    assert out.dtype == q.dtype
    assert_close(out, expected, tolerance)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        assert_close(actual, wanted, tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_the_reference(name, dtype):
    edges, leaves, options = make(dtype, **CASES[name])
    check_against_reference(edges, leaves, options, TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("heads", "size", "at_once"),
    [(4, 16, 4), (8, 16, 4), (6, 24, 2), (4, 12, 4), (7, 16, 1), (2, 150, 1)],
)
def test_as_many_heads_at_once_as_fit_into_registers(heads, size, at_once):
    assert csr_kernels.heads_at_once(heads, size, np.float32) == at_once
    assert csr_kernels.heads_at_once(heads, size, np.float64) in (at_once, at_once // 2)


def test_the_reference_equals_a_double_loop():
    edges, leaves, _ = make(torch.float64, n_q=6, n_k=5, edges=9)
    q, k, v, bias = (t.detach() for t in leaves)
    expected = torch.zeros_like(q)
    lookup = {
        (i, j): p
        for p, (i, j) in enumerate(zip(edges.row.tolist(), edges.col.tolist(), strict=True))
    }
    for h in range(q.size(1)):
        for i in range(6):
            keys = [j for j in range(5) if (i, j) in lookup]
            logits = [
                (float(q[i, h] @ k[j, h]) / math.sqrt(q.size(2))) + float(bias[lookup[i, j], h])
                for j in keys
            ]
            total = sum(math.exp(x) for x in logits)
            for j, x in zip(keys, logits, strict=True):
                expected[i, h] += math.exp(x) / total * v[j, h]
    torch.testing.assert_close(reference.edge_attention(q, k, v, edges, bias), expected)


def test_a_row_without_a_key_gets_zero_and_zero_gradients():
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [0, 0]]), 3, 2)
    q, k, v = (torch.randn(n, 1, 4, requires_grad=True) for n in (2, 3, 3))
    out = edge_attention(q, k, v, edges)
    out.sum().backward()
    assert out[1].abs().max() == 0
    assert q.grad[1].abs().max() == 0
    assert k.grad[2].abs().max() == 0
    assert v.grad[2].abs().max() == 0
    assert v.grad[:2].abs().min() > 0


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_huge_logits(size):
    edges, leaves, options = make(torch.float64, n_q=20, n_k=20, edges=90)
    leaves = tuple((t.detach() * size).requires_grad_() for t in leaves)
    q, k, v, bias = leaves
    out = edge_attention(q, k, v, edges, bias)
    expected = reference.edge_attention(q, k, v, edges, bias)
    assert out.isfinite().all()
    assert_close(out, expected, 1e-9)


def test_a_bias_of_minus_infinity_drops_the_pair():
    edges, (q, k, v, bias), _ = make(torch.float64, n_q=10, n_k=10, edges=40)
    dropped = torch.rand(edges.num_pairs) < 0.5
    dropped[edges.rowptr[3] : edges.rowptr[4]] = True  # a whole row
    out = edge_attention(q, k, v, edges, bias.masked_fill(dropped[:, None], -math.inf))
    kept = EdgeSet.from_edge_index(edges.edge_index()[:, ~dropped], 10, 10)
    expected = edge_attention(q, k, v, kept, bias[~dropped])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v, bias))
    expected_grads = torch.autograd.grad(expected.square().sum(), (q, k, v, bias))
    for actual, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alive", [False, True])
@pytest.mark.parametrize("batch", [None, 2])
def test_gradcheck(batch, alive):
    edges, leaves, options = make(
        torch.float64, n_q=5, n_k=4, edges=12, dim=3, batch=batch, alive=alive
    )
    if alive:
        for mask in options.values():
            mask.view(-1)[:2] = torch.tensor([True, False])
    assert torch.autograd.gradcheck(
        lambda *t: edge_attention(*t[:3], edges, t[3], **options), leaves
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32_and_returns_the_input_dtype(dtype):
    edges, leaves, _ = make(torch.float32, n_q=20, n_k=20, edges=90)
    half = [t.detach().to(dtype).requires_grad_() for t in leaves]
    wide = [t.detach().float().requires_grad_() for t in half]
    out = edge_attention(*half[:3], edges, half[3])
    expected = edge_attention(*wide[:3], edges, wide[3])
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
    out.float().sum().backward()
    expected.sum().backward()
    for a, b in zip(half, wide, strict=True):
        assert a.grad.dtype == dtype
        torch.testing.assert_close(a.grad.float(), b.grad, rtol=2e-2, atol=2e-2)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.float32, {}),
        (torch.bfloat16, dict(heads=8, dim=16)),  # heads in two groups
        (torch.float64, dict(heads=6, dim=24)),  # in six
    ],
)
@pytest.mark.parametrize("pool", ["torch's threads", "Python's threads"])
def test_same_inputs_same_bits_for_any_number_of_threads(pool, dtype, shape, threads, monkeypatch):
    if pool == "Python's threads":
        monkeypatch.setattr(kernel_threads, "_gomp_parallel", lambda: None)
    # Large enough for threads, with a hub, deletions, and copies that add to the same gradient of the bias.
    options = dict(n_q=700, n_k=600, edges=9000, batch=3, alive=True)
    edges, leaves, options = make(dtype, **options, **shape)
    q, k, v, bias = leaves
    grad = torch.randn_like(q)

    def run(num_threads):
        threads(num_threads)
        out = edge_attention(q, k, v, edges, bias, **options)
        return (out, *torch.autograd.grad(out, leaves, grad))

    expected = run(1)
    for num_threads in (1, 2, 3, 5, 2):
        for a, b in zip(run(num_threads), expected, strict=True):
            assert torch.equal(a, b)


def test_several_threads_call_at_once(threads):
    threads(2)
    problems = [make(torch.float32, n_q=500, n_k=500, edges=9000) for _ in range(4)]

    def run(problem):
        edges, leaves, _ = problem
        out = edge_attention(*leaves[:3], edges, leaves[3])
        return (out, *torch.autograd.grad(out.square().sum(), leaves))

    expected = [run(p) for p in problems]
    with ThreadPoolExecutor(4) as executor:
        for _ in range(5):
            for a, b in zip(executor.map(run, problems), expected, strict=True):
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_rows_may_be_slices_of_one_tensor():
    edges = EdgeSet.from_edge_index(torch.randint(30, (2, 100)), 30, 30)
    packed = torch.randn(30, 3 * 16, dtype=torch.float64, requires_grad=True)
    slices = [t.unflatten(-1, (2, 8)) for t in packed.split(16, -1)]
    apart = [t.contiguous() for t in slices]
    grad = torch.randn(30, 2, 8, dtype=torch.float64)
    for gradient in (
        grad,
        grad.transpose(0, 2).contiguous().transpose(0, 2),
        grad[:1].expand(30, 2, 8),
    ):
        outs = [edge_attention(*rows, edges) for rows in (slices, apart)]
        assert torch.equal(*outs)
        a, b = (torch.autograd.grad(out, packed, gradient, retain_graph=True)[0] for out in outs)
        assert torch.equal(a, b)


def test_what_dead_rows_hold_does_not_matter():
    edges, leaves, options = make(torch.float64, n_q=40, n_k=30, edges=300, batch=2, alive=True)
    q, k, v, bias = (t.detach().clone() for t in leaves)
    clean = [t.requires_grad_() for t in (q, k, v, bias)]
    q2, k2, v2 = q.detach().clone(), k.detach().clone(), v.detach().clone()
    q2[~options["alive_queries"]] = math.nan
    k2[~options["alive_keys"]] = math.nan
    v2[~options["alive_keys"]] = math.inf
    dirty = [t.requires_grad_() for t in (q2, k2, v2, bias.detach().clone())]
    grad = torch.randn_like(q)
    results = []
    for tensors in (clean, dirty):
        out = edge_attention(*tensors[:3], edges, tensors[3], **options)
        results.append((out, *torch.autograd.grad(out, tensors, grad)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["q", "k", "v", "bias"])
def test_nan_is_not_hidden(which, dtype):
    edges, leaves, _ = make(dtype, n_q=20, n_k=20, edges=90)
    tensors = [t.detach().clone() for t in leaves]
    tensors[which].view(-1)[:] = math.nan
    out = edge_attention(*tensors[:3], edges, tensors[3])
    has_key = edges.rowptr.diff() > 0
    assert out[has_key].isnan().all()
    assert torch.equal(out[~has_key], torch.zeros_like(out[~has_key]))


def test_a_hub_and_more_pairs_than_one_task():
    hub = torch.stack([torch.arange(3000), torch.zeros(3000, dtype=torch.long)])
    edge_index = torch.cat([hub, torch.randint(3000, (2, 500)), hub.flip(0)], dim=1)
    edges = EdgeSet.from_edge_index(edge_index, 3000, 3000)
    leaves = [torch.randn(3000, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = torch.randn(edges.num_pairs, 2, dtype=torch.float64, requires_grad=True)
    check_against_reference(edges, (*leaves, bias), {}, 1e-10)


def test_wide_indices_give_the_same(monkeypatch):
    edges, leaves, _ = make(torch.float32, n_q=40, n_k=30, edges=300)
    expected = edge_attention(*leaves[:3], edges, leaves[3])
    edges.derived["csr"] = CSR(*(t.long() for t in edges.derived["csr"]))
    out = edge_attention(*leaves[:3], edges, leaves[3])
    assert torch.equal(out, expected)
    for a, b in zip(*(torch.autograd.grad(o.sum(), leaves) for o in (out, expected)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_is_what_it_tells_the_compiler(dtype):
    """Shapes, dtypes and strides of the fake implementation, which torch.compile believes."""
    edges, leaves, options = make(dtype, n_q=9, n_k=7, edges=30, batch=2, alive=True)
    arguments = (
        *leaves,
        options["alive_queries"],
        options["alive_keys"],
        *csr_tensors(edges),
        0.3,
    )
    torch.library.opcheck(
        sparse.OPERATOR,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_compiles_without_a_graph_break():
    edge_index = torch.randint(30, (2, 100))
    leaves = [torch.randn(30, 2, 8, requires_grad=True) for _ in range(3)]

    def layer(q, k, v, edge_index):
        return edge_attention(q, k, v, EdgeSet.from_edge_index(edge_index, 30, 30))

    expected = layer(*leaves, edge_index)
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(*leaves, edge_index)
    torch.testing.assert_close(out, expected)
    expected_grads = torch.autograd.grad(expected.square().sum(), leaves)
    for a, b in zip(torch.autograd.grad(out.square().sum(), leaves), expected_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_attention_weights_reproduce_the_output_and_sum_to_one():
    edges, (q, k, v, bias), _ = make(torch.float64, n_q=12, n_k=9, edges=40)
    weights = attention_weights(q, k, edges, bias)
    out = torch.zeros_like(q).index_add(0, edges.row, weights[..., None] * v[edges.col])
    torch.testing.assert_close(out, edge_attention(q, k, v, edges, bias))
    total = torch.zeros(12, 2, dtype=torch.float64).index_add(0, edges.row, weights)
    has_key = edges.rowptr.diff() > 0
    torch.testing.assert_close(total[has_key], torch.ones_like(total[has_key]))

"""Both attention paths against the dense float64 reference, over random problems."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from hypothesis import HealthCheck, example, given, note, settings

from pyg_nsa import EdgeSet
from pyg_nsa.attention import flex, reference, sparse

EPS = {torch.float32: 2**-23, torch.float64: 2**-52}


@st.composite
def problems(draw, dims=(1, 3, 8, 16), max_rows=40):
    """A pair set with duplicates and gaps, tensors, and what masks them."""
    seed = draw(st.integers(0, 2**31))
    num_queries, num_keys = draw(st.integers(0, max_rows)), draw(st.integers(0, max_rows))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0, 3.0]))  # above 1 there are duplicates
    return dict(
        seed=seed,
        num_queries=num_queries,
        num_keys=num_keys,
        num_edges=round(density * num_queries * num_keys),
        heads=draw(st.integers(1, 3)),
        dim=draw(st.sampled_from(dims)),
        batch=draw(st.sampled_from([None, 1, 3])),
        size=draw(st.sampled_from([1.0, 100.0, 1e4])),
        bias=draw(st.sampled_from(["none", "finite", "some -inf", "all -inf"])),
        alive=draw(st.sampled_from(["all", "most", "none"])),
    )


def build(p, dtype):
    g = torch.Generator().manual_seed(p["seed"])
    shape = (p["num_keys"], p["num_queries"])
    edge_index = torch.stack(
        [torch.randint(max(n, 1), (p["num_edges"],), generator=g) for n in shape]
    )
    edges = EdgeSet.from_edge_index(edge_index, *shape)
    lead = () if p["batch"] is None else (p["batch"],)

    def rand(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64).to(dtype)

    q, k, v = (rand(*lead, n, p["heads"], p["dim"]) for n in (shape[1], shape[0], shape[0]))
    q = q * p["size"]
    bias = None
    if p["bias"] != "none":
        bias = rand(edges.num_pairs, p["heads"]) * p["size"]
        share = {"finite": 0.0, "some -inf": 0.4, "all -inf": 1.0}[p["bias"]]
        bias[torch.rand(edges.num_pairs, generator=g) < share] = -math.inf
    share = {"all": 1.0, "most": 0.7, "none": 0.0}[p["alive"]]
    options = {}
    if p["alive"] != "all":
        for name, n in (("alive_queries", shape[1]), ("alive_keys", shape[0])):
            options[name] = torch.rand(*lead, n, generator=g) < share
    leaves = [t.requires_grad_() for t in (q, k, v, bias) if t is not None]
    return edges, leaves, options


def check(attention, p, dtype):
    edges, leaves, options = build(p, dtype)
    out = attention(*leaves[:3], edges, *leaves[3:], **options)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    grads = torch.autograd.grad(out, leaves, grad)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    expected = reference.edge_attention(*wide[:3], edges, *wide[3:], **options)
    expected_grads = torch.autograd.grad(expected, wide, grad.double())
    # A logit of size s is known to s * eps, and a probability to the same relative error: nothing computed in this
    # dtype can be sure to be closer.
    q, k = (t.detach().double().abs().amax() if t.numel() else 0.0 for t in leaves[:2])
    logit = float(q * k) * math.sqrt(p["dim"]) + p["size"] * 4
    tolerance = EPS[dtype] * (8 + logit)
    sizes = {"out": 1.0, "q": float(k), "k": float(q), "v": 1.0, "bias": p["batch"] or 1}
    results = zip(sizes, (out, *grads), (expected, *expected_grads), strict=False)
    for name, actual, wanted in results:
        assert actual.dtype == dtype
        error = float((actual - wanted).detach().abs().max()) if actual.numel() else 0.0
        limit = tolerance * max(1.0, sizes[name])
        note(f"{name}: error {error:.2e}, limit {limit:.2e}")
        assert math.isfinite(error)
        assert error <= limit
    no_key = edges.rowptr.diff() == 0
    assert not out[..., no_key, :, :].any()


HUB = dict(
    seed=1,
    num_queries=1,
    num_keys=40,
    num_edges=120,
    heads=2,
    dim=8,
    batch=3,
    size=1e4,
    bias="some -inf",
    alive="most",
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=150, deadline=None)
@given(p=problems())
@example(p=HUB)
def test_the_cpu_path_equals_the_reference(dtype, p):
    check(sparse.edge_attention, p, dtype)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(p=problems(dims=(8, 16), max_rows=200))
@example(p=HUB)
def test_the_gpu_path_equals_the_reference(monkeypatch, p):
    """FlexAttention uncompiled, on the CPU: what is computed, if not the kernels."""
    monkeypatch.setattr(flex, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    torch._dynamo.reset()
    check(flex.edge_attention, p, torch.float32)

"""All attention paths against the dense float64 reference, over random problems.

Queries, keys and biases are whole numbers times powers of two, so that every logit, to beyond +-1e4, is exact in float32
whatever the order of summation. What is left is the rounding of probabilities and of sums over them, and that has a limit
for each number: the same sums over absolute values, times a few units of rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from hypothesis import HealthCheck, example, given, settings
from torch import Tensor

from pyg_nsa import EdgeSet, Segments
from pyg_nsa.attention import flex, reference, sdpa, sparse

EPS = {torch.float32: 2**-23, torch.float64: 2**-52}
#: Largest whole number in q and k; sums of 16 products and a bias stay below 2 ** 24.
WHOLE = 32


@dataclass
class Problem:
    """Tensors, the pairs that may attend, and the options of a call."""

    edges: EdgeSet
    leaves: list[Tensor]
    masks: dict[str, Tensor]
    scale: float


# ---- limits --------------------------------------------------------------------------------------------------------------


@dataclass
class Exact:
    """What a path should give, and how far each number may be from it.

    Attributes:
        values: The output, then the gradients of the leaves.
        limits: Likewise.
        lonely: ``[(B,) N_q]`` bool, queries for which no pair is left.
    """

    values: list[Tensor]
    limits: list[Tensor]
    lonely: Tensor


def exact(problem: Problem, grad: Tensor, units: float) -> Exact:
    """The reference in float64, and limits: ``units`` roundings of each probability, product and sum.

    The gradients' probabilities come from a product plus a bias minus the log-sum-exp, which is kept in the dtype of the
    problem: the parts and their sums, in whatever order and base, are known to two roundings of their own size.
    """
    dtype = grad.dtype
    wide = [t.detach().double().requires_grad_() for t in problem.leaves]
    options: dict[str, Any] = {**problem.masks, "scale": problem.scale}
    out = reference.edge_attention(*wide[:3], problem.edges, *wide[3:], **options)
    values = [out.detach(), *torch.autograd.grad(out, wide, grad.double())]

    q, k, v, *bias = (t.detach() for t in wide)
    single = q.dim() == 3
    masks = problem.masks
    g, o = grad.double(), values[0]
    if single:
        q, k, v, g, o = (t[None] for t in (q, k, v, g, o))
        masks = {name: mask[None] for name, mask in masks.items()}
    row, col = problem.edges.row, problem.edges.col
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * problem.scale
    pairs = torch.full(logits.shape[1:], -math.inf, dtype=torch.float64)
    pairs[:, row, col] = bias[0].t() if bias else 0.0
    logits = logits + pairs
    if "alive_queries" in masks:
        logits = logits.masked_fill(~masks["alive_queries"][:, None, :, None], -math.inf)
    if "alive_keys" in masks:
        logits = logits.masked_fill(~masks["alive_keys"][:, None, None, :], -math.inf)
    some = (logits > -math.inf).any(-1)
    probability = logits.softmax(-1).nan_to_num(0.0)
    lse = logits.logsumexp(-1).masked_fill(~some, 0.0)

    once = units * EPS[dtype]
    lse = lse[..., None]
    rounded = lse.abs() + (logits - lse).abs() + pairs.abs()
    rounded = rounded.masked_fill(logits == -math.inf, 0.0)
    again = (once + 2 * EPS[dtype] * rounded) * probability
    size = torch.einsum("bqhd,bkhd->bhqk", g.abs(), v.abs())
    size = again * (size + torch.einsum("bqhd,bqhd->bhq", g.abs(), o.abs())[..., None])
    limits = [
        once * torch.einsum("bhqk,bkhd->bqhd", probability, v.abs()),
        problem.scale * torch.einsum("bhqk,bkhd->bqhd", size, k.abs()),
        problem.scale * torch.einsum("bhqk,bqhd->bkhd", size, q.abs()),
        torch.einsum("bhqk,bqhd->bkhd", again, g.abs()),
    ]
    lonely = ~some.any(1)
    if single:
        limits, lonely = [limit[0] for limit in limits], lonely[0]
    if bias:
        limits.append(size.sum(0)[:, row, col].t())
    # Probabilities that are too small for the dtype are zero.
    return Exact(values, [x + 1e4 * torch.finfo(dtype).tiny for x in limits], lonely)


def check(attend: Any, problem: Problem, units: float) -> float:
    """Fails where a number is out of its limit; the largest share of a limit that was used."""
    options: dict[str, Any] = {**problem.masks, "scale": problem.scale}
    out = attend(*problem.leaves[:3], *problem.leaves[3:], **options)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    grads = torch.autograd.grad(out, problem.leaves, grad)
    wanted = exact(problem, grad, units)
    used = 0.0
    names = ("out", "q", "k", "v", "bias")
    for name, actual, value, limit in zip(
        names, (out, *grads), wanted.values, wanted.limits, strict=False
    ):
        assert actual.dtype == problem.leaves[0].dtype
        assert actual.isfinite().all()
        error = (actual.detach().double() - value).abs()
        share = float((error / limit).amax()) if error.numel() else 0.0
        assert share <= 1, f"{name}: {share:.2f} of the limit"
        used = max(used, share)
    assert not out[wanted.lonely].any()
    assert not grads[0][wanted.lonely].any()
    return used


# ---- problems ------------------------------------------------------------------------------------------------------------


def whole(g: torch.Generator, *shape: int, dtype: torch.dtype, largest: int = WHOLE) -> Tensor:
    return torch.randint(-largest, largest + 1, shape, generator=g).to(dtype)


def power_of_two(size: float, dim: int) -> float:
    """The scale with which logits have about this size, a few times more at most."""
    return 2.0 ** round(math.log2(size / (WHOLE**2 / 3 * math.sqrt(dim))))


SIZES = st.sampled_from([1.0, 100.0, 1e4])
DEAD = st.sampled_from(["all", "most", "none"])


def alive_masks(
    share: str, g: torch.Generator, *lead: int, queries: int, keys: int
) -> dict[str, Tensor]:
    if share == "all":
        return {}
    sizes = {"alive_queries": queries, "alive_keys": keys}
    limit = {"most": 0.7, "none": 0.0}[share]
    return {name: torch.rand(*lead, n, generator=g) < limit for name, n in sizes.items()}


@st.composite
def edge_problems(draw, dims=(1, 3, 8, 16), max_rows=40):
    """A pair set with duplicates and gaps, tensors, and what masks them."""
    num_queries, num_keys = draw(st.integers(0, max_rows)), draw(st.integers(0, max_rows))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0, 3.0]))  # above 1 there are duplicates
    return dict(
        seed=draw(st.integers(0, 2**31)),
        num_queries=num_queries,
        num_keys=num_keys,
        num_edges=round(density * num_queries * num_keys),
        heads=draw(st.integers(1, 3)),
        dim=draw(st.sampled_from(dims)),
        batch=draw(st.sampled_from([None, 1, 3])),
        size=draw(SIZES),
        bias=draw(st.sampled_from(["none", "finite", "some -inf", "all -inf"])),
        alive=draw(DEAD),
    )


def edge_problem(p: dict[str, Any], dtype: torch.dtype) -> Problem:
    g = torch.Generator().manual_seed(p["seed"])
    shape = (p["num_keys"], p["num_queries"])
    edge_index = torch.stack(
        [torch.randint(max(n, 1), (p["num_edges"],), generator=g) for n in shape]
    )
    edges = EdgeSet.from_edge_index(edge_index, *shape)
    lead = () if p["batch"] is None else (p["batch"],)
    scale = power_of_two(p["size"], p["dim"])
    leaves = [whole(g, *lead, n, p["heads"], p["dim"], dtype=dtype) for n in (shape[1], shape[0])]
    leaves.append(torch.randn(leaves[1].shape, generator=g).to(dtype))
    if p["bias"] != "none":
        bias = scale * whole(g, edges.num_pairs, p["heads"], dtype=dtype, largest=WHOLE**2)
        share = {"finite": 0.0, "some -inf": 0.4, "all -inf": 1.0}[p["bias"]]
        bias[torch.rand(edges.num_pairs, generator=g) < share] = -math.inf
        leaves.append(bias)
    masks = alive_masks(p["alive"], g, *lead, queries=shape[1], keys=shape[0])
    return Problem(edges, [t.requires_grad_() for t in leaves], masks, scale)


@st.composite
def full_problems(draw, max_rows=40):
    """Graphs of a union in any order, some empty, or copies with deletions."""
    return dict(
        seed=draw(st.integers(0, 2**31)),
        layout=draw(st.sampled_from(["union", "copies"])),
        num_queries=draw(st.integers(0, max_rows)),
        num_keys=draw(st.one_of(st.none(), st.integers(0, max_rows))),  # none: self-attention
        graphs=draw(st.sampled_from([1, 2, 7])),
        ordered=draw(st.booleans()),
        heads=draw(st.integers(1, 3)),
        dim=draw(st.sampled_from([8, 16])),
        size=draw(SIZES),
        alive=draw(DEAD),
    )


def full_problem(p: dict[str, Any]) -> tuple[Problem, list[Segments | None]]:
    """The problem as one of pairs, and the segments, if any, that say the same."""
    g = torch.Generator().manual_seed(p["seed"])
    queries = p["num_queries"]
    keys = queries if p["num_keys"] is None else p["num_keys"]
    lead = (p["graphs"],) if p["layout"] == "copies" else ()
    masks = alive_masks(p["alive"], g, *lead, queries=queries, keys=keys)
    if p["num_keys"] is None and masks:
        masks["alive_keys"] = masks["alive_queries"]
    segments: list[Segments | None] = []
    pairs = torch.ones(keys, queries, dtype=torch.bool)
    if p["layout"] == "union":
        graph = [torch.randint(p["graphs"], (n,), generator=g) for n in (queries, keys)]
        graph = [x.sort().values for x in graph] if p["ordered"] else graph
        if p["num_keys"] is None:
            graph[1] = graph[0]
        pairs = graph[1][:, None] == graph[0]
        segments = [
            Segments.from_batch(x, x.numel(), masks.get(f"alive_{name}"), num_graphs=p["graphs"])
            for name, x in zip(("queries", "keys"), graph, strict=True)
        ]
        if p["num_keys"] is None:
            segments = segments[:1]
    leaves = [
        whole(g, *lead, n, p["heads"], p["dim"], dtype=torch.float32) for n in (queries, keys)
    ]
    leaves.append(torch.randn(leaves[1].shape, generator=g))
    scale = power_of_two(p["size"], p["dim"])
    leaves = [t.requires_grad_() for t in leaves]
    return Problem(EdgeSet.from_dense(pairs), leaves, masks, scale), segments


# ---- paths ---------------------------------------------------------------------------------------------------------------

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
UNION = dict(
    seed=2,
    layout="union",
    num_queries=40,
    num_keys=None,
    graphs=7,
    ordered=False,
    heads=2,
    dim=16,
    size=1e4,
    alive="most",
)
COPIES = {**UNION, "layout": "copies", "graphs": 3, "num_keys": 30}

#: Roundings: a few in an exponential, and some of the terms of a sum.
UNITS = 16

flex_on_the_cpu = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def eager_flex(monkeypatch):
    """FlexAttention uncompiled, on the CPU: what is computed, if not the kernels."""
    monkeypatch.setattr(flex, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=150, deadline=None)
@given(p=edge_problems())
@example(p=HUB)
def test_the_cpu_path_equals_the_reference(dtype, p):
    problem = edge_problem(p, dtype)

    def attend(q, k, v, *bias, **options):
        return sparse.edge_attention(q, k, v, problem.edges, *bias, **options)

    check(attend, problem, UNITS)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@flex_on_the_cpu
@given(p=edge_problems(dims=(8, 16), max_rows=200))
@example(p=HUB)
def test_the_gpu_path_equals_the_reference(eager_flex, p):
    problem = edge_problem(p, torch.float32)

    def attend(q, k, v, *bias, **options):
        return flex.edge_attention(q, k, v, problem.edges, *bias, **options)

    torch._dynamo.reset()
    check(attend, problem, UNITS)


def check_full(module, p):
    problem, segments = full_problem(p)

    def attend(q, k, v, *, scale, **masks):
        # In a union what is dead is in no segment.
        options = {} if segments else masks
        return module.full_attention(q, k, v, *segments, scale=scale, **options)

    check(attend, problem, UNITS)


@settings(max_examples=150, deadline=None)
@given(p=full_problems())
@example(p=UNION)
@example(p=COPIES)
def test_full_attention_on_the_cpu_equals_the_reference(p):
    check_full(sdpa, p)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@flex_on_the_cpu
@given(p=full_problems(max_rows=200))
@example(p=UNION)
@example(p=COPIES)
def test_full_attention_of_the_gpu_path_equals_the_reference(eager_flex, p):
    torch._dynamo.reset()
    check_full(flex, p)


# ---- the limits themselves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [HUB, {**HUB, "num_queries": 40, "num_edges": 900, "bias": "finite"}])
def test_logits_are_exact_and_huge(p):
    single, double = (edge_problem(p, dtype) for dtype in (torch.float32, torch.float64))
    logits = [
        torch.einsum("bqhd,bkhd->bhqk", *(t.detach() for t in x.leaves[:2])) * x.scale
        for x in (single, double)
    ]
    assert torch.equal(logits[0].double(), logits[1])
    assert logits[1].abs().max() > 1e4
    bias = [x.leaves[3].detach() for x in (single, double)]
    sums = [a.amax() + b for a, b in zip(logits, bias, strict=True)]
    assert torch.equal(sums[0].double(), sums[1])


def test_a_small_error_is_out_of_the_limits():
    """A logit that is a thousandth too large, and a number of the output that is off by a hundred thousandth."""
    p = {**HUB, "num_queries": 40, "num_edges": 900, "bias": "none", "alive": "all"}

    def check_with(size, wrong_scale=1.0, wrong_output=0.0):
        problem = edge_problem({**p, "size": size}, torch.float32)

        def attend(q, k, v, scale):
            out = sparse.edge_attention(q, k, v, problem.edges, scale=scale * wrong_scale)
            first = torch.arange(out.size(1))[:, None, None] == 0
            return out + wrong_output * first * out.detach()

        return check(attend, problem, UNITS)

    for size in (1.0, 100.0, 1e4):
        assert check_with(size) < 0.9
        with pytest.raises(AssertionError, match="out: .* of the limit"):
            check_with(size, wrong_output=1e-5)
    for size in (1.0, 100.0):  # beyond, softmax knows the largest logit only
        with pytest.raises(AssertionError, match="of the limit"):
            check_with(size, wrong_scale=1.001)

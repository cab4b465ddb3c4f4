"""The GPU path on a real device, against the dense reference. ``tests/gpu/README.md`` says how to run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_cases import NAMES, assert_close, check_case, load_case
from torch import Tensor, nn
from torch._inductor.exc import InductorError
from torch.utils._pytree import tree_map

from pyg_nsa import (
    EdgeSet,
    HeteroNSA,
    HeteroNSAConv,
    MaskedAttentionBlock,
    Segments,
    SelfAttentionBlock,
    edge_attention,
    self_attention,
)
from pyg_nsa.attention import flex, full_attention, reference, sdpa, sparse
from pyg_nsa.attention.tiles import edge_tiles, segment_tiles

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device (torch.cuda.is_available() is False)", allow_module_level=True)

HEADS = 2


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def to_cuda(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().cuda().requires_grad_(x.requires_grad)
    return x


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case(name, monkeypatch)
    args = tree_map(to_cuda, case["args"])
    check_case(case, args, torch.compile(case["fn"], fullgraph=True, dynamic=False)(*args))


# ---- through the public functions --------------------------------------------------------------------------------------


def rand(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g).to(dtype).requires_grad_()


def random_edge_index(num_queries: int, num_keys: int, num_edges: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    key = torch.randint(num_keys, (num_edges,), generator=g)
    query = torch.randint(num_queries, (num_edges,), generator=g)
    return torch.stack([key, query])


def alive_rows(batch: int, num_rows: int) -> Tensor:
    return torch.rand(batch, num_rows, generator=torch.Generator().manual_seed(5)) < 0.8


def check_gradients(
    out: Tensor, expected: Tensor, got: list[Tensor], wanted: list[Tensor], rtol: float
) -> None:
    assert_close(out, expected, rtol)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    grads = torch.autograd.grad((out.float() * weight.cuda()).sum(), got)
    references = torch.autograd.grad((expected.float() * weight).sum(), wanted)
    for a, b in zip(grads, references, strict=True):
        assert_close(a, b, rtol)


@pytest.mark.parametrize(
    ("dtype", "bias_dtype", "rtol"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.float16, torch.float32, 5e-3),
        (torch.float16, torch.float16, 5e-3),
        (torch.bfloat16, torch.float32, 3e-2),
        (torch.bfloat16, torch.bfloat16, 3e-2),
    ],
)
@pytest.mark.parametrize("dim", [8, 16, 24, 64, 128])
def test_edge_attention(dim: int, dtype: torch.dtype, bias_dtype: torch.dtype, rtol: float) -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(700, 900, 6000), 900, 700)
    leaves = [
        rand(700, HEADS, dim, seed=1, dtype=dtype),
        rand(900, HEADS, dim, seed=2, dtype=dtype),
        rand(900, HEADS, dim, seed=3, dtype=dtype),
        rand(edges.num_pairs, HEADS, seed=4, dtype=bias_dtype),
    ]
    on_device = [to_cuda(x) for x in leaves]
    q, k, v, bias = on_device
    out = edge_attention(q, k, v, edges.to("cuda"), bias)
    assert out.dtype == dtype
    expected = reference.edge_attention(*(x.float() for x in leaves[:3]), edges, leaves[3])
    check_gradients(out, expected, on_device, leaves, rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 5e-3), (torch.bfloat16, 3e-2)])
def test_autocast(dtype: torch.dtype, rtol: float) -> None:
    """q, k and v come from linear layers in half precision, the bias from one in float32 or half precision."""
    edges = EdgeSet.from_edge_index(random_edge_index(300, 300, 2000), 300, 300)
    x, w, attr = rand(300, 32, seed=1), rand(96, 32, seed=2), rand(edges.num_pairs, HEADS, seed=3)

    def run(x: Tensor, w: Tensor, attr: Tensor, edges: EdgeSet, attention: Any) -> Tensor:
        q, k, v = nn.functional.linear(x, w / 6).unflatten(-1, (3, HEADS, 16)).unbind(-3)
        out: Tensor = attention(q, k, v, edges, attr)
        return out

    on_device = [to_cuda(t) for t in (x, w, attr)]
    with torch.autocast("cuda", dtype):
        out = run(*on_device, edges.to("cuda"), edge_attention)
    assert out.dtype == dtype
    expected = run(x, w, attr, edges, reference.edge_attention)
    check_gradients(out, expected, on_device, [x, w, attr], 2 * rtol)


def test_the_same_inputs_give_the_same_gradients() -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(900, 900, 20_000), 900, 900).to("cuda")
    leaves = [to_cuda(rand(4, 900, HEADS, 16, seed=s)) for s in (1, 2, 3)]
    leaves.append(to_cuda(rand(edges.num_pairs, HEADS, seed=4)))
    alive = alive_rows(4, 900).cuda()

    def gradients() -> tuple[Tensor, ...]:
        q, k, v, bias = leaves
        out = edge_attention(q, k, v, edges, bias, alive_queries=alive, alive_keys=alive)
        return torch.autograd.grad(out.square().sum(), leaves)

    first = gradients()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, gradients(), strict=True))


def test_tiles_built_on_the_device_are_those_built_on_the_cpu() -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(700, 900, 6000), 900, 700)
    on_cpu, on_device = edge_tiles(edges), edge_tiles(edges.to("cuda"))
    for name in ("table", "bits", "rank", "query", "key"):
        assert torch.equal(getattr(on_device, name).cpu(), getattr(on_cpu, name))
    for a, b in zip(on_device.blocks, on_cpu.blocks, strict=True):
        assert torch.equal(a.cpu(), b)


def test_segment_tiles_are_built_once_on_the_device() -> None:
    segments = Segments(torch.tensor([0, 300, 500]), 500)  # the pointers may be on the CPU
    x = rand(500, HEADS, 16, seed=1).detach().cuda()
    first = self_attention(x, x, x, segments)
    tiles = segments.derived["tiles"]
    assert tiles.query_graph.is_cuda
    assert torch.equal(self_attention(x, x, x, segments), first)
    assert segment_tiles(segments, segments, x.device) is tiles


def test_shared_graph_with_deletions() -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(500, 500, 4000), 500, 500)
    leaves = [rand(4, 500, HEADS, 16, seed=s) for s in (1, 2, 3)]
    leaves.append(rand(edges.num_pairs, HEADS, seed=4))
    on_device = [to_cuda(x) for x in leaves]
    alive = alive_rows(4, 500)
    masks = {"alive_queries": alive, "alive_keys": alive}
    q, k, v, bias = on_device
    out = edge_attention(q, k, v, edges.to("cuda"), bias, **{n: m.cuda() for n, m in masks.items()})
    expected = reference.edge_attention(*leaves[:3], edges, leaves[3], **masks)
    check_gradients(out, expected, on_device, leaves, 1e-5)


def test_self_attention_by_segments() -> None:
    batch = torch.randint(5, (600,), generator=torch.Generator().manual_seed(0))
    mask = alive_rows(1, 600)[0]
    leaves = [rand(600, HEADS, 16, seed=s) for s in (1, 2, 3)]
    on_device = [to_cuda(x) for x in leaves]
    out = self_attention(*on_device, Segments.from_batch(batch.cuda(), 600, mask.cuda()))
    expected = reference.full_attention(*leaves, Segments.from_batch(batch, 600, mask))
    check_gradients(out, expected, on_device, leaves, 1e-5)
    assert not out[~mask.cuda()].any()


def test_self_attention_by_alive() -> None:
    leaves = [rand(3, 300, HEADS, 16, seed=s) for s in (1, 2, 3)]
    on_device = [to_cuda(x) for x in leaves]
    alive = alive_rows(3, 300)
    out = self_attention(*on_device, alive=alive.cuda())
    everything = EdgeSet.from_dense(torch.ones(300, 300, dtype=torch.bool))
    expected = reference.edge_attention(*leaves, everything, alive_queries=alive, alive_keys=alive)
    check_gradients(out, expected, on_device, leaves, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 128])
def test_self_attention_with_large_heads(dim: int, dtype: torch.dtype) -> None:
    """Whose kernels take the most shared memory."""
    leaves = [
        rand(3, 300, HEADS, dim, seed=s).detach().to(dtype).requires_grad_() for s in (1, 2, 3)
    ]
    on_device = [to_cuda(x) for x in leaves]
    alive = alive_rows(3, 300)
    out = self_attention(*on_device, alive=alive.cuda())
    wide = [x.detach().float().requires_grad_() for x in leaves]
    everything = EdgeSet.from_dense(torch.ones(300, 300, dtype=torch.bool))
    expected = reference.edge_attention(*wide, everything, alive_queries=alive, alive_keys=alive)
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    check_gradients(out, expected, on_device, wide, tolerance)


def test_a_graph_that_is_kept_for_a_second_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting that docs/swap.md names."""
    monkeypatch.setattr(torch._functorch.config, "donated_buffer", False)
    torch._dynamo.reset()
    leaves = [rand(3, 260, HEADS, 16, seed=s) for s in (1, 2, 3)]
    on_device = [to_cuda(x) for x in leaves]
    self_attention(*on_device).sum().backward()
    loss = self_attention(*on_device).square().sum()
    first = torch.autograd.grad(loss, on_device, retain_graph=True)
    again = torch.autograd.grad(loss, on_device)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("sizes", [(5, 7), (0, 7), (5, 0), (0, 0)])
def test_empty_relation(sizes: tuple[int, int]) -> None:
    num_queries, num_keys = sizes
    edges = EdgeSet.empty(num_keys, num_queries).to("cuda")
    q = to_cuda(rand(num_queries, HEADS, 16, seed=1))
    k, v = (to_cuda(rand(num_keys, HEADS, 16, seed=s)) for s in (2, 3))
    bias = to_cuda(rand(0, HEADS, seed=4))
    out = edge_attention(q, k, v, edges, bias)
    assert out.shape == q.shape
    assert not out.any()
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), (q, k, v, bias)))


@pytest.mark.parametrize("dead", ["copy", "queries", "keys", "all"])
@pytest.mark.parametrize("route", ["relation", "self-attention"])
def test_dead_copies_and_keys(route: str, dead: str) -> None:
    """Exact zeros where nothing may be attended to, and gradients that are finite, and zero where all is dead."""
    edges = EdgeSet.from_edge_index(random_edge_index(300, 300, 3000), 300, 300)
    masks = {"alive_queries": alive_rows(3, 300), "alive_keys": alive_rows(3, 300)}
    for name, mask in masks.items():
        if dead in ("all", name.removeprefix("alive_")):
            mask[:] = False
        elif dead == "copy":
            mask[1] = False
    leaves = [rand(3, 300, HEADS, 16, seed=s) for s in (1, 2, 3)]
    on_device = [to_cuda(x) for x in leaves]
    on_gpu = {n: m.cuda() for n, m in masks.items()}
    if route == "relation":
        leaves.append(rand(edges.num_pairs, HEADS, seed=4))
        on_device.append(to_cuda(leaves[3]))
        q, k, v, bias = on_device
        out = edge_attention(q, k, v, edges.to("cuda"), bias, **on_gpu)
        expected = reference.edge_attention(*leaves[:3], edges, leaves[3], **masks)
    else:
        out = full_attention(*on_device, **on_gpu)
        everything = EdgeSet.from_dense(torch.ones(300, 300, dtype=torch.bool))
        expected = reference.edge_attention(*leaves, everything, **masks)
    assert not out[1 if dead == "copy" else slice(None)].any()
    check_gradients(out, expected, on_device, leaves, 1e-5)


# ---- compilations --------------------------------------------------------------------------------------------------------


def compilations(step: Callable[[int, torch.Generator], Tensor]) -> list[int]:
    """Graphs compiled after each of 20 batches, forward and backward."""
    g = torch.Generator().manual_seed(0)
    found = []
    for number in range(20):
        step(number, g).sum().backward()
        found.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return found


def test_unions_do_not_recompile() -> None:
    """Batches of 2 to 12 random graphs, MAB with a bias and SAB with ``ptr``: nothing is compiled after the first."""

    def step(number: int, g: torch.Generator) -> Tensor:
        count = int(torch.randint(2, 13, (), generator=g))
        sizes = torch.randint(520 // count, 1000 // count, (count,), generator=g).tolist()
        starts = torch.tensor([0, *sizes]).cumsum(0)
        parts = [
            random_edge_index(n, n, 8 * n, seed=100 * number + i) + start
            for i, (n, start) in enumerate(zip(sizes, starts.tolist(), strict=False))
        ]
        total = int(starts[-1])
        edges = EdgeSet.from_edge_index(torch.cat(parts, 1).cuda(), total, total)
        q, k, v = (to_cuda(rand(total, HEADS, 16, seed=s)) for s in (1, 2, 3))
        bias = to_cuda(rand(edges.num_pairs, HEADS, seed=4))
        out = edge_attention(q, k, v, edges, bias)
        return self_attention(out, k, v, Segments(starts.cuda(), total))

    assert compilations(step) == [2] * 20


def test_deletions_do_not_recompile() -> None:
    """Copies of one graph: other deletions each time, none at all, everything; MAB with a bias and SAB."""
    edges = EdgeSet.from_edge_index(random_edge_index(500, 500, 4000), 500, 500).to("cuda")
    q, k, v = (to_cuda(rand(4, 500, HEADS, 16, seed=s)) for s in (1, 2, 3))
    bias = to_cuda(rand(edges.num_pairs, HEADS, seed=4))
    shares = [0.9, 1.0, 0.5, 0.0, 0.99]

    def step(number: int, g: torch.Generator) -> Tensor:
        alive = (torch.rand(4, 500, generator=g) < shares[number % 5]).cuda()
        out = edge_attention(q, k, v, edges, bias, alive_queries=alive, alive_keys=alive)
        return self_attention(out, k, v, alive=alive)

    assert compilations(step) == [2] * 20


def test_no_mask_and_a_mask_are_two_variants() -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(500, 500, 4000), 500, 500).to("cuda")
    q, k, v = (to_cuda(rand(4, 500, HEADS, 16, seed=s)) for s in (1, 2, 3))

    def step(number: int, g: torch.Generator) -> Tensor:
        alive = (torch.rand(4, 500, generator=g) < 0.9).cuda() if number % 2 else None
        return edge_attention(q, k, v, edges, alive_queries=alive, alive_keys=alive)

    assert compilations(step) == [1] + [2] * 19


# ---- memory --------------------------------------------------------------------------------------------------------------


def test_memory_is_far_from_that_of_a_dense_mask() -> None:
    n = 20_000
    index = torch.arange(n).cuda()
    edges = EdgeSet.from_edge_index(torch.stack([index, (index + 1) % n]), n, n)
    q, k, v = (to_cuda(rand(n, HEADS, 16, seed=s)) for s in (1, 2, 3))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    edge_attention(q, k, v, edges).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < n * n / 4  # a boolean mask has n * n bytes


def largest_allocation(run: Callable[[], object]) -> int:
    """Bytes of the largest piece of device memory that is taken, after a first run that compiles."""
    run()
    torch.cuda.synchronize()
    torch.cuda.memory._record_memory_history(max_entries=1_000_000)
    try:
        run()
        torch.cuda.synchronize()
        traces = torch.cuda.memory._snapshot()["device_traces"]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    return max(e["size"] for trace in traces for e in trace if e["action"] == "alloc")


@pytest.mark.parametrize("layout", ["copies", "union"])
@pytest.mark.parametrize("route", ["relation", "self-attention"])
def test_nothing_of_the_size_of_a_dense_mask_is_allocated(route: str, layout: str) -> None:
    """6,607 genes with 144,211 pairs: 64 copies, or one graph (64 graphs for self-attention) with 64 heads.

    tests/attention/test_no_dense_matrix.py says why below n * n bytes.
    """
    n, batch, pairs = 6607, 64, 144_211
    g = torch.Generator().manual_seed(0)
    drawn = torch.randint(n * n, (pairs + 3000,), generator=g).unique()
    drawn = drawn[torch.randperm(drawn.numel(), generator=g)[:pairs]].cuda()
    edge_index = torch.stack([drawn % n, drawn // n])
    graph = torch.arange(n).cuda() % batch
    shape, heads = ((batch, n, 1, 16), 1) if layout == "copies" else ((n, batch, 16), batch)
    q, k, v = (to_cuda(rand(*shape, seed=s)) for s in (1, 2, 3))
    # With 64 heads a bias would itself be as large as a mask.
    bias = to_cuda(rand(pairs, heads, seed=4)) if layout == "copies" else None
    alive = alive_rows(batch, n).cuda()

    def run() -> None:
        if route == "relation":
            edges = EdgeSet.from_edge_index(edge_index.clone(), n, n)
            masks = {"alive_queries": alive, "alive_keys": alive} if layout == "copies" else {}
            out = edge_attention(q, k, v, edges, bias, **masks)
        elif layout == "copies":
            out = self_attention(q, k, v, alive=alive)
        else:
            out = self_attention(q, k, v, Segments.from_batch(graph, n))
        leaves = [q, k, v, *([bias] if bias is not None and route == "relation" else [])]
        torch.autograd.grad(out.sum(), leaves)

    assert q.numel() * 4 <= largest_allocation(run) < n * n


# ---- failures ------------------------------------------------------------------------------------------------------------


class KernelError(Exception):
    """No error of Python's own, so that nothing else could have made it."""


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of other implementations that are called."""
    called: list[str] = []

    def spy(module: Any, name: str) -> None:
        def record(*_: object, **__: object) -> None:
            called.append(f"{module.__name__}.{name}")
            raise AssertionError(called)

        monkeypatch.setattr(module, name, record)

    for module in (sparse, reference):
        spy(module, "edge_attention")
    for module in (sdpa, reference):
        spy(module, "full_attention")
    spy(torch.nn.functional, "scaled_dot_product_attention")
    return called


KINDS = {("u", "near", "u"): "adjacency_mask", ("u", "to", "v"): "incidence_mask"}


def qkv(rows: int = 20, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.ones(rows, HEADS, 16, device="cuda").to(dtype)] * 3


def small_edges() -> EdgeSet:
    return EdgeSet.from_edge_index(random_edge_index(20, 20, 40).cuda(), 20, 20)


def hetero() -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    x = {"u": torch.randn(20, 6, device="cuda"), "v": torch.randn(20, 6, device="cuda")}
    return x, {edge_type: random_edge_index(20, 20, 40).cuda() for edge_type in KINDS}


WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "edge_attention": (lambda: edge_attention(*qkv(), small_edges()), "edge_attention"),
    "full_attention": (lambda: full_attention(*qkv()), "full_attention"),
    "self_attention": (lambda: self_attention(*qkv()), "full_attention"),
    "MaskedAttentionBlock": (
        lambda: MaskedAttentionBlock(32, 2).cuda()(
            torch.randn(20, 32, device="cuda"), random_edge_index(20, 20, 40).cuda()
        ),
        "edge_attention",
    ),
    "SelfAttentionBlock": (
        lambda: SelfAttentionBlock(32, 2).cuda()(torch.randn(20, 32, device="cuda")),
        "full_attention",
    ),
    "HeteroNSA, M": (lambda: HeteroNSA(6, 32, KINDS, "M").cuda()(*hetero()), "edge_attention"),
    "HeteroNSA, S": (lambda: HeteroNSA(6, 32, KINDS, "S").cuda()(*hetero()), "full_attention"),
    "HeteroNSAConv": (
        lambda: HeteroNSAConv(KINDS, hidden_channels=32, in_channels=6).cuda()(*hetero()),
        "edge_attention",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_modules_and_functions_run_on_the_device(way: str) -> None:
    out = WAYS[way][0]()
    for x in out.values() if isinstance(out, dict) else [out]:
        assert x.is_cuda
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_reaches_the_caller_with_a_note(
    way: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(*_: object) -> Tensor:
        calls.append("flex")
        raise KernelError("no such kernel")

    monkeypatch.setattr(flex, "_compiled", lambda kernel: broken)
    run, function = WAYS[way]
    with pytest.raises(KernelError) as error:
        run()
    assert error.value.args == ("no such kernel",)
    (note,) = error.value.__notes__
    assert "\n" not in note
    assert f"FlexAttention failed in {function} with q [" in note
    assert calls == ["flex"]
    assert others == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32], ids=str)
@pytest.mark.parametrize("attention", [edge_attention, full_attention])
def test_an_unsupported_dtype_reaches_the_caller(
    attention: Callable[..., Tensor], dtype: torch.dtype, others: list[str]
) -> None:
    """The error is Triton's, while it compiles FlexAttention's template."""
    arguments: list[Any] = [*qkv(dtype=dtype)]
    if attention is edge_attention:
        arguments.append(small_edges())
    from triton.compiler.errors import CompilationError

    with pytest.raises((InductorError, CompilationError)) as error:
        attention(*arguments)
    (note,) = error.value.__notes__
    assert f"FlexAttention failed in {attention.__name__}" in note
    assert str(dtype) in note
    assert others == []

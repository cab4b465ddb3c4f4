"""The FlexAttention path on a CPU, against the dense reference.

Two halves, since FlexAttention on a CPU can do either but not both:

* compiled by Inductor's C++ backend, forward only and under ``no_grad`` (gathers from captured tensors, the bias's
  included, work; log-sum-exp and so the backward pass do not exist there);
* eager, forward and backward, with the check that forbids gradients on a CPU taken out for the test.

What only a GPU runs, the generated Triton kernels, is in ``tests/gpu``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from pyg_nsa.attention import flex, reference
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments
from pyg_nsa.attention.tiles import EdgeTiles, all_blocks, edge_tiles

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
HEADS = 2


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the kernels uncompiled, and lets them have gradients on a CPU."""
    monkeypatch.setattr(flex, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)


def rand(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g).to(dtype).requires_grad_()


def random_edges(num_queries: int, num_keys: int, num_edges: int, seed: int = 0) -> EdgeSet:
    g = torch.Generator().manual_seed(seed)
    key = torch.randint(num_keys, (num_edges,), generator=g)
    query = torch.randint(num_queries, (num_edges,), generator=g)
    return EdgeSet.from_edge_index(torch.stack([key, query]), num_keys, num_queries)


def union(sizes: list[int], seed: int = 0, degree: int = 5) -> EdgeSet:
    """Random graphs of these sizes as one block-diagonal edge set."""
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    parts = [
        random_edges(n, n, degree * n, seed + i).edge_index() + start
        for i, (n, start) in enumerate(zip(sizes, starts, strict=False))
    ]
    return EdgeSet.from_edge_index(torch.cat(parts, 1), starts[-1], starts[-1])


def inputs(
    edges: EdgeSet, dim: int = 16, batch: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    lead = () if batch is None else (batch,)
    q = rand(*lead, edges.num_queries, HEADS, dim, dtype=dtype, seed=1)
    k, v = (rand(*lead, edges.num_keys, HEADS, dim, dtype=dtype, seed=s) for s in (2, 3))
    return q, k, v


def random_bias(
    edges: EdgeSet,
    drop: Tensor | list[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    values = rand(edges.num_pairs, HEADS, seed=4, dtype=dtype).detach()
    values[[] if drop is None else drop] = -math.inf
    return values.requires_grad_()


def alive(batch: int, num_rows: int, seed: int = 5) -> Tensor:
    return torch.rand(batch, num_rows, generator=torch.Generator().manual_seed(seed)) < 0.8


def dense_edges(num_queries: int, num_keys: int) -> EdgeSet:
    return EdgeSet.from_dense(torch.ones(num_keys, num_queries, dtype=torch.bool))


def assert_equal_with_gradients(
    out: Tensor, expected: Tensor, leaves: list[Tensor], rtol: float = 1e-5
) -> list[Tensor]:
    """Compares values and the gradients of a random projection; returns the gradients."""
    assert out.dtype == leaves[0].dtype
    assert out.shape == expected.shape
    weight = rand(*expected.shape, seed=9).detach()
    got = torch.autograd.grad((out * weight).sum(), leaves)
    wanted = torch.autograd.grad((expected * weight).sum(), leaves)
    for a, b in zip((out, *got), (expected, *wanted), strict=True):
        assert torch.isfinite(a).all()
        assert (a - b).norm() <= rtol * b.norm().clamp(min=1e-6)
    return list(got)


# ---- compiled, forward -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_compiled_edges_with_bias() -> None:
    """Directed, bipartite, rows without a key, head_dim below 16; then a batch of graphs, by the same compiled kernel."""
    edges = random_edges(200, 230, 300)
    assert (edges.rowptr.diff() == 0).any()
    q, k, v = inputs(edges, dim=8)
    bias = random_bias(edges, drop=[0, 5])
    out = flex.edge_attention(q, k, v, edges, bias)
    torch.testing.assert_close(out, reference.edge_attention(q, k, v, edges, bias))
    variants = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert variants > 0

    edges = union([40, 120, 3, 60])
    q, k, v = inputs(edges, dim=8)
    bias = random_bias(edges)
    out = flex.edge_attention(q, k, v, edges, bias)
    torch.testing.assert_close(out, reference.edge_attention(q, k, v, edges, bias))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == variants


@torch.no_grad()
def test_compiled_shared_graph_with_deletions() -> None:
    edges = random_edges(150, 150, 900)
    q, k, v = inputs(edges, batch=3)
    bias, living = random_bias(edges), alive(3, 150)
    masks = {"alive_queries": living, "alive_keys": living}
    out = flex.edge_attention(q, k, v, edges, bias, **masks)
    torch.testing.assert_close(out, reference.edge_attention(q, k, v, edges, bias, **masks))


@torch.no_grad()
def test_compiled_full_attention() -> None:
    q, k, v = (rand(250, HEADS, 16, seed=s) for s in (1, 2, 3))
    segments = Segments(torch.tensor([0, 100, 100, 130, 250]), 250)
    out = flex.full_attention(q, k, v, segments)
    torch.testing.assert_close(out, reference.full_attention(q, k, v, segments))

    q, k, v = (x.view(2, 125, HEADS, 16) for x in (q, k, v))
    masks = {"alive_queries": alive(2, 125), "alive_keys": alive(2, 125)}
    out = flex.full_attention(q, k, v, **masks)
    expected = reference.edge_attention(q, k, v, dense_edges(125, 125), **masks)
    torch.testing.assert_close(out, expected)


@torch.no_grad()
def test_an_unsupported_dtype_is_flex_attentions_error() -> None:
    edges = random_edges(50, 50, 90)
    q, k, v = inputs(edges, dtype=torch.float64)
    with pytest.raises(Exception, match=r"supported in FlexAttention.*float64"):
        flex.edge_attention(q, k, v, edges)


# ---- eager, forward and backward ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
class TestEdges:
    @pytest.mark.parametrize("dim", [1, 8, 24, 128])
    def test_directed_bipartite_with_bias(self, dim: int) -> None:
        edges = random_edges(140, 270, 900)
        q, k, v = inputs(edges, dim=dim)
        bias = random_bias(edges, drop=[0, 7, 8])
        out = flex.edge_attention(q, k, v, edges, bias)
        expected = reference.edge_attention(q, k, v, edges, bias)
        grads = assert_equal_with_gradients(out, expected, [q, k, v, bias])
        assert not grads[3][[0, 7, 8]].any()

    def test_without_bias_and_with_a_scale(self) -> None:
        edges = random_edges(60, 60, 200)
        q, k, v = inputs(edges)
        out = flex.edge_attention(q, k, v, edges, scale=0.7)
        expected = reference.edge_attention(q, k, v, edges, scale=0.7)
        assert_equal_with_gradients(out, expected, [q, k, v])

    def test_shared_graph_with_deletions(self) -> None:
        edges = random_edges(150, 130, 900)
        q, k, v = inputs(edges, batch=3)
        bias = random_bias(edges)
        masks = {"alive_queries": alive(3, 150), "alive_keys": alive(3, 130)}
        out = flex.edge_attention(q, k, v, edges, bias, **masks)
        expected = reference.edge_attention(q, k, v, edges, bias, **masks)
        assert_equal_with_gradients(out, expected, [q, k, v, bias])

    def test_bias_gradient_where_nothing_is_left(self) -> None:
        """A copy without living keys, one without living queries, and in the others pairs that the bias drops."""
        edges = random_edges(60, 50, 300)
        q, k, v = inputs(edges, batch=4)
        row = slice(int(edges.rowptr[7]), int(edges.rowptr[8]))
        bias = random_bias(edges, drop=torch.arange(row.start, row.stop))
        masks = {"alive_queries": alive(4, 60), "alive_keys": alive(4, 50)}
        masks["alive_keys"][1] = masks["alive_queries"][2] = False
        out = flex.edge_attention(q, k, v, edges, bias, **masks)
        expected = reference.edge_attention(q, k, v, edges, bias, **masks)
        grads = assert_equal_with_gradients(out, expected, [q, k, v, bias])
        assert row.stop > row.start
        assert not grads[3][row].any()
        assert not any(g[1:3].any() for g in grads[:3])

    def test_bias_alone_may_need_a_gradient(self) -> None:
        edges = random_edges(60, 50, 300)
        q, k, v = (x.detach() for x in inputs(edges))
        bias = random_bias(edges)
        out = flex.edge_attention(q, k, v, edges, bias)
        expected = reference.edge_attention(q, k, v, edges, bias)
        assert_equal_with_gradients(out, expected, [bias])

    def test_flex_attention_differentiates_by_no_captured_tensor(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such a gradient would be summed atomically, masked pairs included."""
        captured = []
        build = flex.edge_score_mod

        def spy(tiles: EdgeTiles, bias: Tensor) -> Callable[..., Tensor]:
            captured.append(bias.requires_grad)
            return build(tiles, bias)

        monkeypatch.setattr(flex, "edge_score_mod", spy)
        edges = random_edges(60, 50, 300)
        assert flex.edge_attention(*inputs(edges), edges, random_bias(edges)).requires_grad
        assert captured == [False]

    def test_log_sum_exp_is_asked_for_only_with_a_gradient_of_the_bias(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        run = flex.flex_attention

        def spy(*args: Any, **options: Any) -> Any:
            asked.append(options["return_aux"].lse)
            return run(*args, **options)

        monkeypatch.setattr(flex, "flex_attention", spy)
        edges = random_edges(60, 50, 300)
        q, k, v = inputs(edges)
        bias = random_bias(edges)
        flex.edge_attention(q, k, v, edges)
        flex.edge_attention(q, k, v, edges, bias.detach())
        with torch.no_grad():
            flex.edge_attention(q, k, v, edges, bias)
        assert asked == [False] * 3
        flex.edge_attention(q, k, v, edges, bias)
        assert asked[3:] == [True]

    def test_deletions_on_one_side(self) -> None:
        edges = random_edges(60, 60, 400)
        q, k, v = inputs(edges)
        living = alive(1, 60)[0]
        for name in ("alive_queries", "alive_keys"):
            out = flex.edge_attention(q, k, v, edges, **{name: living})
            expected = reference.edge_attention(q, k, v, edges, **{name: living})
            assert_equal_with_gradients(out, expected, [q, k, v])

    def test_disjoint_union_is_what_each_graph_gives_alone(self) -> None:
        sizes = [40, 170, 5, 130]
        edges = union(sizes)
        q, k, v = inputs(edges)
        bias = random_bias(edges)
        out = flex.edge_attention(q, k, v, edges, bias)
        parts, start = [], 0
        for i, n in enumerate(sizes):
            alone, rows = random_edges(n, n, 5 * n, i), slice(start, start + n)
            pairs = slice(int(edges.rowptr[start]), int(edges.rowptr[start + n]))
            parts.append(reference.edge_attention(q[rows], k[rows], v[rows], alone, bias[pairs]))
            start += n
        assert_equal_with_gradients(out, torch.cat(parts), [q, k, v, bias])

    def test_rows_without_a_key_are_zero(self) -> None:
        edges = random_edges(300, 280, 200)
        row = int(edges.row[40])
        dropped = torch.arange(int(edges.rowptr[row]), int(edges.rowptr[row + 1]))
        q, k, v = inputs(edges)
        bias = random_bias(edges, drop=dropped)
        out = flex.edge_attention(q, k, v, edges, bias)
        expected = reference.edge_attention(q, k, v, edges, bias)
        grads = assert_equal_with_gradients(out, expected, [q, k, v, bias])
        without = edges.rowptr.diff() == 0
        without[row] = True
        assert without.sum() > 100
        assert not out[without].any()
        assert not grads[0][without].any()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        edges = random_edges(60, 60, 300)
        q, k, v = inputs(edges, dtype=dtype)
        bias = random_bias(edges, dtype=dtype)
        out = flex.edge_attention(q, k, v, edges, bias)
        expected = reference.edge_attention(q.float(), k.float(), v.float(), edges, bias)
        rtol = 2e-3 if dtype == torch.float16 else 2e-2
        assert_equal_with_gradients(out, expected, [q, k, v, bias], rtol)

    @pytest.mark.parametrize("batch", [None, 2])
    @pytest.mark.parametrize("sizes", [(5, 7), (0, 7), (5, 0), (0, 0)])
    def test_nothing_to_attend_to_gives_connected_zeros(
        self, sizes: tuple[int, int], batch: int | None
    ) -> None:
        edges = EdgeSet.empty(num_keys=sizes[1], num_queries=sizes[0])
        q, k, v = inputs(edges, batch=batch)
        bias = random_bias(edges)
        with torch.no_grad():
            k.fill_(math.inf)  # zeros that are made by multiplication would be NaN
        out = flex.edge_attention(q, k, v, edges, bias)
        assert out.shape == q.shape
        assert not out.any()
        for x, grad in zip(
            (q, k, v, bias), torch.autograd.grad(out.sum(), (q, k, v, bias)), strict=True
        ):
            assert grad.shape == x.shape
            assert not grad.any()


@pytest.mark.usefixtures("eager")
class TestFull:
    def test_segments_with_padding_out_of_order(self) -> None:
        batch = torch.randint(4, (260,), generator=torch.Generator().manual_seed(0))
        mask = alive(1, 260)[0]
        segments = Segments.from_batch(batch, 260, mask, num_graphs=6)
        q, k, v = (rand(260, HEADS, 16, seed=s) for s in (1, 2, 3))
        out = flex.full_attention(q, k, v, segments)
        expected = reference.full_attention(q, k, v, segments)
        grads = assert_equal_with_gradients(out, expected, [q, k, v])
        assert not out[~mask].any()
        assert not any(g[~mask].any() for g in grads)

    def test_segments_between_different_rows(self) -> None:
        qs = Segments(torch.tensor([0, 20, 20, 40]), 40)
        ks = Segments(torch.tensor([0, 0, 150, 300]), 300)
        q, k, v = (
            rand(40, HEADS, 8, seed=1),
            rand(300, HEADS, 8, seed=2),
            rand(300, HEADS, 8, seed=3),
        )
        out = flex.full_attention(q, k, v, qs, ks)
        expected = reference.full_attention(q, k, v, qs, ks)
        assert_equal_with_gradients(out, expected, [q, k, v])
        assert not out[:20].any()  # their graph has no key

    @pytest.mark.parametrize("num_keys", [50, 140])
    def test_no_segments_is_one_graph(self, num_keys: int) -> None:
        q, k, v = (rand(n, HEADS, 16, seed=n + i) for i, n in enumerate((50, num_keys, num_keys)))
        out = flex.full_attention(q, k, v)
        expected = reference.edge_attention(q, k, v, dense_edges(50, num_keys))
        assert_equal_with_gradients(out, expected, [q, k, v])

    @pytest.mark.parametrize("which", ["both", "queries", "keys", "none"])
    def test_deletions(self, which: str) -> None:
        q, k, v = (rand(2, n, HEADS, 16, seed=n + i) for i, n in enumerate((30, 140, 140)))
        masks = {
            "alive_queries": alive(2, 30) if which in ("both", "queries") else None,
            "alive_keys": alive(2, 140) if which in ("both", "keys") else None,
        }
        out = flex.full_attention(q, k, v, **masks)
        expected = reference.edge_attention(q, k, v, dense_edges(30, 140), **masks)
        assert_equal_with_gradients(out, expected, [q, k, v])

    def test_all_keys_dead(self) -> None:
        q, k, v = (rand(2, 30, HEADS, 16, seed=s) for s in (1, 2, 3))
        dead = torch.zeros(2, 30, dtype=torch.bool)
        out = flex.full_attention(q, k, v, alive_keys=dead)
        assert not out.any()
        assert not any(g.any() for g in torch.autograd.grad(out.sum(), (q, k, v)))

    @pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
    def test_no_rows_give_connected_zeros(self, shape: tuple[int, int]) -> None:
        for lead in ((), (2,)):
            q = rand(*lead, shape[0], HEADS, 8)
            k, v = (rand(*lead, shape[1], HEADS, 8, seed=s) for s in (1, 2))
            out = flex.full_attention(q, k, v)
            assert out.shape == q.shape
            assert not any(g.any() for g in torch.autograd.grad(out.sum(), (q, k, v)))

    def test_only_padding_gives_zeros(self) -> None:
        q = rand(5, HEADS, 8)
        segments = Segments.from_batch(None, 5, torch.zeros(5, dtype=torch.bool))
        out = flex.full_attention(q, q, q, segments)
        assert not out.any()
        assert not torch.autograd.grad(out.sum(), q)[0].any()


# ---- compilation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("smallest", "largest", "variants"), [(60, 100, 1), (80, 160, 2)])
def test_batches_of_different_composition_have_the_same_shapes(
    monkeypatch: pytest.MonkeyPatch, smallest: int, largest: int, variants: int
) -> None:
    """Shapes decide what is compiled: 20 random batches need one variant of each kernel, or two."""
    signatures: dict[Callable, set] = {}

    def record(kernel: Callable, *args: object) -> Tensor:
        leaves = [tuple(x.shape) if isinstance(x, Tensor) else x for x in tree_leaves(args)]
        signatures.setdefault(kernel, set()).add(tuple(leaves))
        return args[0] * 1.0  # type: ignore[operator]

    monkeypatch.setattr(flex, "_run", record)
    g = torch.Generator().manual_seed(0)
    for step in range(20):
        sizes = torch.randint(smallest, largest, (8,), generator=g).tolist()
        edges = union(sizes, seed=step, degree=8)
        q, k, v = inputs(edges)
        flex.edge_attention(q, k, v, edges, random_bias(edges))
        flex.full_attention(q, k, v, Segments(torch.tensor([0, *sizes]).cumsum(0), sum(sizes)))
    assert {kernel.__name__ for kernel in signatures} == {
        "flex_edge_attention_kernel",
        "flex_full_attention_kernel",
    }
    assert all(len(found) <= variants for found in signatures.values())


@torch.no_grad()
def test_a_kernel_may_have_more_variants_than_torchs_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model has many relations and sizes; torch gives up on a function after 8 variants."""
    variants = torch._dynamo.config.recompile_limit + 3
    edges = random_edges(60, 70, 300)
    q, k, v = inputs(edges)

    def compiled(kernel: Callable) -> Callable:
        return torch.compile(kernel, backend="eager", fullgraph=True, dynamic=False)

    monkeypatch.setattr(flex, "_compiled", compiled)
    for i in range(variants):
        out = flex.edge_attention(q, k, v, edges, scale=1.0 + i)
        torch.testing.assert_close(out, reference.edge_attention(q, k, v, edges, scale=1.0 + i))
    assert torch._dynamo.config.recompile_limit == variants - 3


@torch.no_grad()
def test_a_callers_graph_takes_it_in_whole() -> None:
    edges = random_edges(60, 70, 300)
    q, k, v = (x.detach() for x in inputs(edges))
    segments = Segments(torch.tensor([0, 20, 60]), 60)
    edge_tiles(edges)  # the number of tiles depends on the data, so this cannot be in the graph

    @torch.compile(fullgraph=True, backend="eager")
    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = flex.edge_attention(q, k, v, edges)
        return flex.full_attention(out, out, out, segments)

    out = reference.edge_attention(q, k, v, edges)
    expected = reference.full_attention(out, out, out, segments)
    torch.testing.assert_close(model(q, k, v), expected)


def test_a_callers_graph_takes_in_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    edges = random_edges(60, 70, 300)
    leaves = [*inputs(edges, batch=2), random_bias(edges, drop=[3])]
    edge_tiles(edges)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def model(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return flex.edge_attention(q, k, v, edges, 2 * bias).sin()

    q, k, v, bias = leaves
    expected = reference.edge_attention(q, k, v, edges, 2 * bias).sin()
    assert_equal_with_gradients(model(*leaves), expected, leaves)


@pytest.mark.usefixtures("eager")
def test_a_failure_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(flex, "flex_attention", broken)
    edges = random_edges(20, 20, 40)
    with pytest.raises(RuntimeError, match="no such kernel"):
        flex.edge_attention(*inputs(edges), edges)
    with pytest.raises(RuntimeError, match="no such kernel"):
        flex.full_attention(*inputs(edges))


def test_float32_precision_follows_torchs_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flex._float32_precision() == "ieee"
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert flex._float32_precision() == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_precision_of_another_backend_is_none_of_its_business() -> None:
    """torch refuses to say then by its older setting what products on CUDA are."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    try:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert flex._float32_precision() == "ieee"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("attention", ["edges", "all"])
def test_on_a_gpu_it_is_compiled_or_refused(attention: str) -> None:
    """``TORCHDYNAMO_DISABLE`` and ``set_stance("force_eager")`` call what is behind ``torch.compile``."""
    tiles = edge_tiles(random_edges(20, 20, 40))
    blocks = all_blocks(20, 20, torch.device("cpu"))
    kernels = {
        "edges": lambda q: flex.flex_edge_attention_kernel(q, q, q, tiles, None, None, None, 1.0),
        "all": lambda q: flex.flex_full_attention_kernel(
            q, q, q, blocks, torch.ones(1, 128).bool(), None, 1.0
        ),
    }
    with FakeTensorMode(allow_non_fake_inputs=True):
        q = torch.empty(1, HEADS, 128, 16, device="cuda")
        with pytest.raises(RuntimeError, match="torch.compile is switched off"):
            kernels[attention](q)


@pytest.mark.parametrize(("dim", "own"), [(64, False), (128, True)])
def test_large_heads_in_float32_take_smaller_kernels(
    monkeypatch: pytest.MonkeyPatch, dim: int, own: bool
) -> None:
    """Shared memory of FlexAttention's own sizes is more than many cards have."""
    seen = []

    def spy(q: Tensor, *_: object, kernel_options: dict[str, object], **__: object) -> object:
        seen.append("fwd_BLOCK_M" in kernel_options)
        raise RuntimeError("seen")

    monkeypatch.setattr(flex, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(flex, "flex_attention", spy)
    for dtype in (torch.float32, torch.float16):
        q = rand(20, HEADS, dim, dtype=dtype)
        with pytest.raises(RuntimeError, match="seen"):
            flex.full_attention(q, q, q)
    assert seen == [own, False]

"""The GPU path on a real device, against the dense reference. ``tests/gpu/README.md`` says how to run it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pyg_nsa.attention import EdgeSet, Segments, edge_attention, flex, reference, self_attention
from pyg_nsa.attention.tiles import edge_tiles

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device (torch.cuda.is_available() is False)", allow_module_level=True)

CASES = Path(__file__).with_name("cases")
NAMES = sorted(path.stem for path in CASES.glob("*.py") if not path.stem.startswith("_"))
HEADS = 2


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()


def load_case(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(CASES))
    spec = importlib.util.spec_from_file_location(f"case_{name}", CASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.case()


def to_cuda(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().cuda().requires_grad_(x.requires_grad)
    return x


def assert_close(got: Tensor, expected: Tensor, rtol: float) -> None:
    got, expected = got.detach().cpu().float(), expected.detach().float()
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    assert (got - expected).norm() <= rtol * expected.norm().clamp(min=1e-30)


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case(name, monkeypatch)
    args, rtol = case["args"], case["rtol"]
    device_args = tree_map(to_cuda, args)
    out = torch.compile(case["fn"], fullgraph=True, dynamic=False)(*device_args)
    expected = case["reference"](*args)
    assert_close(out, expected, rtol)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    weight = weight.to(expected.dtype)
    index = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    got = torch.autograd.grad(out, [device_args[i] for i in index], weight.cuda())
    wanted = torch.autograd.grad(expected, [args[i] for i in index], weight)
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b, rtol)


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
    ("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
@pytest.mark.parametrize("dim", [8, 16, 24, 64, 128])
def test_edge_attention(dim: int, dtype: torch.dtype, rtol: float) -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(700, 900, 6000), 900, 700)
    leaves = [
        rand(700, HEADS, dim, seed=1, dtype=dtype),
        rand(900, HEADS, dim, seed=2, dtype=dtype),
        rand(900, HEADS, dim, seed=3, dtype=dtype),
        rand(edges.num_pairs, HEADS, seed=4),
    ]
    on_device = [to_cuda(x) for x in leaves]
    q, k, v, bias = on_device
    out = edge_attention(q, k, v, edges.to("cuda"), bias)
    assert out.dtype == dtype
    expected = reference.edge_attention(*(x.float() for x in leaves[:3]), edges, leaves[3])
    check_gradients(out, expected, on_device, leaves, rtol)


def test_tiles_built_on_the_device_are_those_built_on_the_cpu() -> None:
    edges = EdgeSet.from_edge_index(random_edge_index(700, 900, 6000), 900, 700)
    on_cpu, on_device = edge_tiles(edges), edge_tiles(edges.to("cuda"))
    for name in ("table", "bits", "rank"):
        assert torch.equal(getattr(on_device, name).cpu(), getattr(on_cpu, name))
    for a, b in zip(on_device.blocks, on_cpu.blocks, strict=True):
        assert torch.equal(a.cpu(), b)


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


def test_batches_of_different_composition_do_not_recompile() -> None:
    """20 batches of 8 random graphs, forward and backward; nothing is compiled after the second."""
    g = torch.Generator().manual_seed(0)
    counted = []
    for step in range(20):
        sizes = torch.randint(60, 100, (8,), generator=g).tolist()
        starts = torch.tensor([0, *sizes]).cumsum(0)
        parts = [
            random_edge_index(n, n, 8 * n, seed=100 * step + i) + start
            for i, (n, start) in enumerate(zip(sizes, starts.tolist(), strict=False))
        ]
        total = int(starts[-1])
        edges = EdgeSet.from_edge_index(torch.cat(parts, 1).cuda(), total, total)
        q, k, v = (to_cuda(rand(total, HEADS, 16, seed=s)) for s in (1, 2, 3))
        bias = to_cuda(rand(edges.num_pairs, HEADS, seed=4))
        out = edge_attention(q, k, v, edges, bias)
        out = self_attention(out, k, v, Segments(starts.cuda(), total))
        out.sum().backward()
        counted.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counted[0] >= 2
    assert counted[1:] == counted[1:2] * 19


def test_memory_is_far_from_that_of_a_dense_mask() -> None:
    n = 20_000
    index = torch.arange(n).cuda()
    edges = EdgeSet.from_edge_index(torch.stack([index, (index + 1) % n]), n, n)
    q, k, v = (to_cuda(rand(n, HEADS, 16, seed=s)) for s in (1, 2, 3))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    edge_attention(q, k, v, edges).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < n * n / 4  # a boolean mask has n * n bytes


def test_a_failure_reaches_the_caller_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(flex, "_run", broken)
    edges = EdgeSet.from_edge_index(random_edge_index(20, 20, 40), 20, 20).to("cuda")
    q = rand(20, HEADS, 16, seed=1).cuda()
    with pytest.raises(RuntimeError, match="no such kernel") as error:
        edge_attention(q, q, q, edges)
    assert any("FlexAttention failed in edge_attention" in n for n in error.value.__notes__)

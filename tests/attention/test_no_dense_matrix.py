"""Nothing of the size of the attention matrix is allocated: 6,607 genes, 144,211 pairs, 64 copies, on every route.

The smallest thing that is forbidden is a boolean mask, ``N_q * N_k`` bytes (43.7 MB here); a float matrix has four times
that. With one head of 16 channels, what a batch of 64 copies may well need stays below: q, k, v, the output and their
gradients have 29 MB each, padded, and one number for each pair and copy makes 42 MB.

* Building edge sets, tiles and block lists is the same code on every device, and every operation's result is looked at.
* The GPU kernels are traced, forward and backward, and every tensor of the graphs is looked at; FlexAttention is one
  operation in them. The operations between are fused, so one intermediate of the bias's gradient is exempted, and a
  second test compiles that gradient to see that it is never allocated.
* The CPU route is run, and every allocation looked at. Self-attention of 64 copies has one channel there, since its time
  goes with the square of the nodes.

A union has no copies: there the 6,607 rows have 64 heads where it is traced, and are 64 graphs where it is run.

``tests/gpu`` measures the peak on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyg_nsa import EdgeSet, Segments, edge_attention, self_attention
from pyg_nsa.attention import flex
from pyg_nsa.attention.bias_gradient import bias_gradient
from pyg_nsa.attention.tiles import all_blocks, edge_tiles, padded_pairs, padded_rows, segment_tiles

GENES, REACTIONS, PAIRS, BATCH, DIM = 6607, 7122, 144_211, 64, 16


def random_pairs(num_queries: int, num_keys: int, count: int = PAIRS) -> Tensor:
    """As many pairs, none twice, spread over the whole matrix: no order of the nodes leaves a tile empty."""
    g = torch.Generator().manual_seed(0)
    drawn = torch.randint(num_queries * num_keys, (count + count // 50,), generator=g).unique()
    drawn = drawn[torch.randperm(drawn.numel(), generator=g)[:count]]
    return torch.stack([drawn % num_keys, drawn // num_keys])


@pytest.fixture(scope="module")
def genes() -> EdgeSet:
    edges = EdgeSet.from_edge_index(random_pairs(GENES, GENES), GENES, GENES)
    assert edges.num_pairs == PAIRS
    return edges


def num_bytes(shape: torch.Size, dtype: torch.dtype) -> int:
    return shape.numel() * dtype.itemsize


# ---- building ------------------------------------------------------------------------------------------------------------


class LargestResult(TorchDispatchMode):
    """Size of the largest storage that any operation returns."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.found = max(self.found, leaf.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("num_keys", [GENES, REACTIONS])
def test_edge_sets_and_their_tiles(num_keys: int) -> None:
    pairs = random_pairs(GENES, num_keys)
    with LargestResult() as largest:
        edges = EdgeSet.from_edge_index(pairs, num_keys, GENES)
        edges.transpose()
        edges.coalesce(torch.ones(PAIRS, 1))
        tiles = edge_tiles(edges)
    assert bool(tiles.blocks.kv_num_blocks.sum() > 2700)  # the case that needs the most memory
    # Eight bytes a pair for indices; or a bit and its pair's number for each entry, were every tile occupied.
    assert largest.found >= 8 * PAIRS
    assert largest.found < GENES * num_keys / 5


def test_segment_tiles_and_block_lists() -> None:
    sizes = torch.full((64,), GENES // 64)
    sizes[0] += GENES - sizes.sum()
    batch = torch.arange(64).repeat_interleave(sizes)
    with LargestResult() as largest:
        segments = Segments.from_batch(batch, GENES)
        segment_tiles(segments, segments, torch.device("cpu"))
        all_blocks(GENES, GENES, torch.device("cpu"))
    assert 0 < largest.found < GENES * GENES / 100


# ---- the GPU route, traced -----------------------------------------------------------------------------------------------


class Tracer:
    """A compiler that keeps the graphs, forward and backward, and runs nothing: results are zeros."""

    def __init__(self) -> None:
        self.forward: list[torch.fx.GraphModule] = []
        self.backward: list[torch.fx.GraphModule] = []
        self.backend = aot_autograd(
            fw_compiler=lambda graph, _: self.keep(self.forward, graph),
            bw_compiler=lambda graph, _: self.keep(self.backward, graph),
        )

    def keep(self, graphs: list[torch.fx.GraphModule], graph: torch.fx.GraphModule) -> Any:
        graphs.append(graph)
        (output,) = graph.graph.find_nodes(op="output")
        values = [None if x is None else x.meta["val"] for x in output.args[0]]
        return make_boxed_func(
            lambda *_: [
                torch.empty_strided(x.size(), x.stride(), dtype=x.dtype).zero_()
                if isinstance(x, Tensor)
                else x
                for x in values
            ]
        )

    def __call__(self, kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """In place of ``flex._compiled``."""
        return torch.compile(kernel, fullgraph=True, dynamic=False, backend=self.backend)

    def tensors(self) -> list[tuple[str, torch.Size, torch.dtype]]:
        """Every tensor of the graphs: arguments, results, and all between; what the mods compute included."""
        found = []
        for graph in (*self.forward, *self.backward):
            for module in graph.modules():
                for node in getattr(module, "graph", torch.fx.Graph()).nodes:
                    for value in tree_leaves(node.meta.get("val")):
                        if isinstance(value, Tensor):
                            found.append((node.name, value.shape, value.dtype))
        return found


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    torch._dynamo.reset()
    tracer = Tracer()
    monkeypatch.setattr(flex, "_compiled", tracer)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    yield tracer
    torch._dynamo.reset()


def leaf(*shape: int) -> Tensor:
    return torch.zeros(*shape).requires_grad_()


def check(tracer: Tracer, limit: int, *fused: tuple[int, ...]) -> None:
    assert len(tracer.forward) == len(tracer.backward) == 1
    assert "flex_attention" in str(tracer.forward[0].graph)
    assert "flex_attention_backward" in str(tracer.backward[0].graph)
    tensors = tracer.tensors()
    largest = max((t for t in tensors if t[1] not in fused), key=lambda t: num_bytes(*t[1:]))
    assert (
        num_bytes(*largest[1:]) >= BATCH * padded_rows(GENES) * DIM * 4
    )  # the batch itself was seen
    assert num_bytes(*largest[1:]) < limit, largest


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("num_keys", [GENES, REACTIONS])
def test_traced_edge_attention(tracer: Tracer, num_keys: int, with_bias: bool) -> None:
    edges = EdgeSet.from_edge_index(random_pairs(GENES, num_keys), num_keys, GENES)
    q = leaf(BATCH, GENES, 1, DIM)
    k, v = leaf(BATCH, num_keys, 1, DIM), leaf(BATCH, num_keys, 1, DIM)
    bias = leaf(PAIRS, 1) if with_bias else None
    masks = {
        "alive_queries": torch.ones(BATCH, GENES, dtype=torch.bool),
        "alive_keys": torch.ones(BATCH, num_keys, dtype=torch.bool),
    }
    flex.edge_attention(q, k, v, edges, bias, **masks).sum().backward()
    check(tracer, GENES * num_keys, (BATCH, padded_pairs(PAIRS), 1, DIM))


def test_traced_self_attention_of_copies(tracer: Tracer) -> None:
    alive = torch.ones(BATCH, GENES, dtype=torch.bool)
    q, k, v = (leaf(BATCH, GENES, 1, DIM) for _ in range(3))
    flex.full_attention(q, k, v, alive_queries=alive, alive_keys=alive).sum().backward()
    check(tracer, GENES * GENES)


@pytest.mark.parametrize("route", ["edges", "segments"])
def test_traced_unions(tracer: Tracer, genes: EdgeSet, route: str) -> None:
    """6,607 rows in all, with as many heads as make a batch of the same size."""
    q, k, v = (leaf(GENES, BATCH, DIM) for _ in range(3))
    if route == "edges":
        out = flex.edge_attention(q, k, v, genes)
    else:
        batch = torch.arange(GENES) % 64
        out = flex.full_attention(q, k, v, Segments.from_batch(batch, GENES))
    out.sum().backward()
    check(tracer, GENES * GENES)


# ---- what is allocated ---------------------------------------------------------------------------------------------------


def largest_allocation(run: Callable[[], object]) -> int:
    """Bytes of the largest piece of CPU memory that torch takes, in whichever thread and by whatever kernel."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    return max(e.nbytes() for e in events if e.name() == "[memory]")


def test_compiled_gradient_of_the_bias_gathers_nothing_into_memory() -> None:
    """What the traced graphs were allowed: q, k, v and gradients of each pair, ``[B, pairs, H, D]``."""
    batch, heads, dim = 3, 2, 64
    edges = EdgeSet.from_edge_index(random_pairs(300, 300, 2000), 300, 300)
    tiles = edge_tiles(edges)
    rows, pairs = padded_rows(300), padded_pairs(2000)
    out, q, k, v, grad = torch.randn(5, batch, heads, rows, dim).unbind()
    bias, lse = torch.randn(pairs, heads), torch.randn(batch, heads, rows)
    alive = torch.ones(batch, rows, dtype=torch.bool)
    args = (grad, out, bias, q, k, v, lse, tiles.query, tiles.key, alive, 0.125)
    compiled = torch.compile(bias_gradient, fullgraph=True, dynamic=False)
    expected = bias_gradient(*args)
    assert (compiled(*args) - expected).norm() <= 1e-5 * expected.norm()
    per_pair = batch * pairs * heads * 4
    assert largest_allocation(lambda: bias_gradient(*args)) >= per_pair * dim
    assert largest_allocation(lambda: compiled(*args)) <= per_pair


@pytest.mark.parametrize("num_keys", [GENES, REACTIONS])
def test_cpu_edge_attention(num_keys: int) -> None:
    pairs = random_pairs(GENES, num_keys)
    q = torch.randn(BATCH, GENES, 1, DIM, requires_grad=True)
    k, v = (torch.randn(BATCH, num_keys, 1, DIM, requires_grad=True) for _ in range(2))
    bias = torch.randn(PAIRS, 1, requires_grad=True)
    alive = torch.rand(BATCH, GENES) < 0.95

    def run() -> None:
        edges = EdgeSet.from_edge_index(pairs.clone(), num_keys, GENES)
        edge_attention(q, k, v, edges, bias, alive_queries=alive).sum().backward()

    assert BATCH * GENES * DIM * 4 <= largest_allocation(run) < GENES * num_keys


@pytest.mark.parametrize("layout", ["copies", "union"])
def test_cpu_self_attention(layout: str) -> None:
    """64 copies in the shared layout; a union of 64 graphs, then one of a large and a small graph."""
    shape = (BATCH, GENES, 1, 1) if layout == "copies" else (GENES, 1, DIM)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    alive = torch.rand(BATCH, GENES) < 0.95
    graphs = [torch.arange(GENES) % BATCH, (torch.arange(GENES) >= 100).long()]

    def run() -> None:
        if layout == "copies":
            self_attention(q, k, v, alive=alive).sum().backward()
        else:
            for graph in graphs:
                self_attention(q, k, v, Segments.from_batch(graph, GENES)).sum().backward()

    assert q.numel() * 4 <= largest_allocation(run) < GENES * GENES


def test_the_measure_sees_a_dense_matrix() -> None:
    x = torch.randn(2000, 4)
    assert largest_allocation(lambda: (x @ x.t()).softmax(-1)) >= 2000 * 2000 * 4
    with LargestResult() as largest:
        torch.zeros(2000, 2000, dtype=torch.bool)
    assert largest.found == 2000 * 2000

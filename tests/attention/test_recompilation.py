"""Batches of different composition run what the first ones compiled.

A device is not needed to count: what decides is the shapes, strides, dtypes and constants that the compiler guards on.
So the kernels are compiled by a backend that counts its calls and runs the traced graph as it is. ``tests/gpu`` counts
on a device, with Inductor.
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

from pyg_nsa.attention import flex, reference
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments

HEADS, DIM, BATCHES = 2, 8, 20


class Compiler:
    """Counts the graphs that it is given, forward and backward, and runs them as they are."""

    def __init__(self) -> None:
        self.forward = self.backward = 0
        self.kernels: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}
        self.backend = aot_autograd(fw_compiler=self._forward, bw_compiler=self._backward)

    def _forward(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        self.forward += 1
        return make_boxed_func(graph.forward)

    def _backward(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        self.backward += 1
        return make_boxed_func(graph.forward)

    def __call__(self, kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """In place of ``flex._compiled``, with its options."""
        if kernel not in self.kernels:
            self.kernels[kernel] = torch.compile(
                kernel, fullgraph=True, dynamic=False, backend=self.backend
            )
        return self.kernels[kernel]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    torch._dynamo.utils.counters.clear()
    compiler = Compiler()
    monkeypatch.setattr(flex, "_compiled", compiler)
    # On a CPU FlexAttention refuses tensors with gradients, although its graph can be differentiated.
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    yield compiler
    torch._dynamo.reset()


Step = Callable[[torch.Generator], Tensor]


def counts(compiler: Compiler, step: Step, batches: int = BATCHES) -> list[tuple[int, int]]:
    """Forward and backward graphs that had been compiled after each batch."""
    found = []
    g = torch.Generator().manual_seed(0)
    for _ in range(batches):
        step(g).sum().backward()
        found.append((compiler.forward, compiler.backward))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiler.forward
    return found


def integers(low: int, high: int, count: int, g: torch.Generator) -> list[int]:
    values: list[int] = torch.randint(low, high, (count,), generator=g).tolist()
    return values


def leaf(*shape: int, g: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=g).requires_grad_()


def pairs(num_queries: int, num_keys: int, num_edges: int, g: torch.Generator) -> Tensor:
    key = torch.randint(num_keys, (num_edges,), generator=g)
    query = torch.randint(num_queries, (num_edges,), generator=g)
    return torch.stack([key, query])


def union(queries: list[int], keys: list[int], g: torch.Generator) -> EdgeSet:
    """Random bipartite graphs of these sizes, of random density, as one block-diagonal edge set."""
    parts, query, key = [], 0, 0
    for n, m in zip(queries, keys, strict=True):
        degree = int(torch.randint(1, 9, (), generator=g))
        parts.append(pairs(n, m, degree * n, g) + torch.tensor([[key], [query]]))
        query, key = query + n, key + m
    return EdgeSet.from_edge_index(torch.cat(parts, 1), key, query)


def segments(sizes: list[int]) -> Segments:
    return Segments(torch.tensor([0, *sizes]).cumsum(0), sum(sizes))


def test_unions_of_graphs_compile_once(compiler: Compiler) -> None:
    """2 to 12 graphs, 300 to 500 queries and 100 to 250 keys in all."""

    def step(g: torch.Generator) -> Tensor:
        (graphs,) = integers(2, 13, 1, g)
        queries = integers(300 // graphs, 500 // graphs, graphs, g)
        keys = integers(130 // graphs, 250 // graphs, graphs, g)
        edges = union(queries, keys, g)
        q = leaf(edges.num_queries, HEADS, DIM, g=g)
        k, v = (leaf(edges.num_keys, HEADS, DIM, g=g) for _ in range(2))
        bias = leaf(edges.num_pairs, HEADS, g=g)
        out = flex.edge_attention(q, k, v, edges, bias)
        torch.testing.assert_close(out, reference.edge_attention(q, k, v, edges, bias))
        return out

    assert counts(compiler, step) == [(1, 1)] * BATCHES


def test_deletions_in_a_shared_graph_compile_once(compiler: Compiler) -> None:
    """Some rows deleted, none, or all; a mask is given each time."""
    g = torch.Generator().manual_seed(1)
    edges = EdgeSet.from_edge_index(pairs(150, 150, 900, g), 150, 150)
    q, k, v = (leaf(3, 150, HEADS, DIM, g=g) for _ in range(3))
    bias = leaf(edges.num_pairs, HEADS, g=g)
    shares = iter([0.9, 1.0, 0.5, 0.0, 0.99] * 4)

    def step(g: torch.Generator) -> Tensor:
        alive = torch.rand(3, 150, generator=g) < next(shares)
        return flex.edge_attention(q, k, v, edges, bias, alive_queries=alive, alive_keys=alive)

    assert counts(compiler, step) == [(1, 1)] * BATCHES


def test_batches_with_and_without_a_mask_are_two_variants(compiler: Compiler) -> None:
    """``alive=None`` is not the same program as a mask, but each of the two is compiled once."""
    g = torch.Generator().manual_seed(1)
    edges = EdgeSet.from_edge_index(pairs(150, 150, 900, g), 150, 150)
    q, k, v = (leaf(3, 150, HEADS, DIM, g=g) for _ in range(3))
    bias = leaf(edges.num_pairs, HEADS, g=g)
    number = iter(range(BATCHES))

    def step(g: torch.Generator) -> Tensor:
        alive = torch.rand(3, 150, generator=g) < 0.9 if next(number) % 2 else None
        return flex.edge_attention(q, k, v, edges, bias, alive_queries=alive, alive_keys=alive)

    assert counts(compiler, step) == [(1, 1)] + [(2, 2)] * (BATCHES - 1)


def test_self_attention_of_unions_compiles_once(compiler: Compiler) -> None:
    """SAB with ``ptr``: 2 to 12 graphs; every third batch has padding, and its rows out of order."""
    number = iter(range(BATCHES))

    def step(g: torch.Generator) -> Tensor:
        (graphs,) = integers(2, 13, 1, g)
        sizes = integers(300 // graphs, 500 // graphs, graphs, g)
        groups = segments(sizes)
        if next(number) % 3 == 0:
            batch = torch.arange(graphs).repeat_interleave(torch.tensor(sizes))
            batch = batch[torch.randperm(sum(sizes), generator=g)]
            mask = torch.rand(sum(sizes), generator=g) < 0.95
            groups = Segments.from_batch(batch, sum(sizes), mask, graphs)
        q, k, v = (leaf(sum(sizes), HEADS, DIM, g=g) for _ in range(3))
        out = flex.full_attention(q, k, v, groups)
        torch.testing.assert_close(out, reference.full_attention(q, k, v, groups))
        return out

    assert counts(compiler, step) == [(1, 1)] * BATCHES


def test_induced_points_compile_once(compiler: Compiler) -> None:
    """Full attention between nodes and a few points of each graph, in both directions."""

    def step(g: torch.Generator) -> Tensor:
        (graphs,) = integers(2, 13, 1, g)
        nodes = segments(integers(300 // graphs, 500 // graphs, graphs, g))
        points = segments([8] * graphs)
        x, p = (leaf(n.num_rows, HEADS, DIM, g=g) for n in (nodes, points))
        return flex.full_attention(
            x, *[flex.full_attention(p, x, x, points, nodes)] * 2, nodes, points
        )

    assert counts(compiler, step) == [(2, 2)] * BATCHES


def test_self_attention_with_deletions_compiles_once(compiler: Compiler) -> None:
    """SAB in copies of one graph; the first batch comes without a mask of keys, which changes nothing."""
    g = torch.Generator().manual_seed(1)
    q, k, v = (leaf(3, 150, HEADS, DIM, g=g) for _ in range(3))
    shares = iter([0.9, 1.0, 0.5, 0.0, 0.99] * 4)

    def step(g: torch.Generator) -> Tensor:
        alive = torch.rand(3, 150, generator=g) < next(shares)
        return flex.full_attention(q, k, v, alive_queries=alive, alive_keys=alive)

    assert counts(compiler, step) == [(1, 1)] * BATCHES


def test_growing_batches_compile_in_proportion_to_the_logarithm(compiler: Compiler) -> None:
    """Unions of 2 to 64 graphs of 15 to 25 rows: 40 to 1,280 rows, without any two batches alike."""

    def step(g: torch.Generator) -> Tensor:
        sizes = integers(15, 26, next(graphs), g)
        edges = union(sizes, sizes, g)
        q = leaf(edges.num_queries, HEADS, DIM, g=g)
        return flex.edge_attention(q, q, q, edges)

    graphs = iter([2, 64, 5, 40, 3, 16, 25, 60, 8, 32, 48, 12])
    # Padded to 128, 256, 512, 1,024 or 1,280 rows.
    assert counts(compiler, step, 12)[-1] <= (5, 5)


@torch.no_grad()
def test_inference_after_training_is_one_more_variant(compiler: Compiler) -> None:
    g = torch.Generator().manual_seed(1)

    def run() -> int:
        edges = union(integers(50, 80, 6, g), integers(25, 40, 6, g), g)
        q = leaf(edges.num_queries, HEADS, DIM, g=g)
        k = leaf(edges.num_keys, HEADS, DIM, g=g)
        flex.edge_attention(q, k, k, edges, leaf(edges.num_pairs, HEADS, g=g))
        return compiler.forward

    with torch.enable_grad():
        assert [run() for _ in range(3)] == [1] * 3
    assert [run() for _ in range(3)] == [2] * 3
    with torch.enable_grad():
        assert [run() for _ in range(3)] == [2] * 3

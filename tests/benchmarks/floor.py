"""Where the time of our layer goes, and the least it could take on this machine.

The floor is the time of the layer's products at the measured speed of a large matrix product, plus that of its bytes at
the measured bandwidths: rows gathered from cache by index, and values that are written and read in sequence. It assumes that every
number is moved as seldom as a backward pass allows, that nothing overlaps, and that values come from memory; small ones do not, so it
is an estimate and no strict bound.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyg_nsa import EdgeSet, MaskedAttentionBlock, edge_attention
from pyg_nsa.nn.projection import apply, normed, project

from .contenders import Setting, leaf
from .timing import interleave, timed
from .workloads import only_relation


def floor(nodes: int, edges: int, channels: int, heads: int, speed: dict[str, float]) -> dict:
    """Work of one MaskedAttentionBlock, forward and backward, and its least time."""
    # q, k, v, output (C x C) and MLP (C x 2C, 2C x C); the backward pass costs twice the forward.
    projections = 3 * 2 * nodes * channels**2 * (4 + 4)
    # Forward q.k and p v; backward g.v, and the gradients of q, k and v. (Probabilities are computed again; that is left out.)
    products = 2 * edges * channels * 6
    # A pair reads k and v forward; q and g (by key) and k (by query) backward.
    gathered = 5 * edges * channels * 4
    # Gradients of the logits: written and read. int32 indices: one pattern forward, two backward.
    values = 2 * edges * heads * 4 + 3 * edges * 4
    # In rows of C numbers, each tensor written once and read once by the next step. Forward: x, norm, q, k, v, message, sum,
    # result. Backward: what was kept (x twice, norm, q, k, v, message, sum) and gradients of all that.
    activations = nodes * channels * 4 * (2 * 8 + 8 + 2 * 8)
    milliseconds = {
        "matmul": (projections + products) / speed["matmul_gflop_s"] / 1e6,
        "gather": gathered / speed["gather_gb_s"] / 1e6,
        "stream": (values + activations) / speed["triad_gb_s"] / 1e6,
    }
    return {
        "projection_gflop": projections / 1e9,
        "attention_gflop": products / 1e9,
        "gathered_mb": gathered / 1e6,
        "streamed_mb": (values + activations) / 1e6,
        "ms": milliseconds,
        "floor_ms": sum(milliseconds.values()),
    }


def profile(setting: Setting, *, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Time of each part of the block by itself, forward and backward apart, and of the whole.

    Returns:
        ``{part: {"forward": …, "backward": …}}``, and the same for ``"whole"``.
    """
    nodes, index = only_relation(setting.workload.graph())
    edges = EdgeSet.from_edge_index(index, nodes, nodes)
    block = MaskedAttentionBlock(setting.channels, setting.heads)
    conv, c, h = block.conv, setting.channels, setting.heads
    x = leaf(nodes, c)
    q, k, v = (leaf(nodes, h, c // h, seed=s) for s in (1, 2, 3))

    parts: dict[str, tuple[Callable[[], Tensor | tuple[Tensor, ...]], list[Tensor]]] = {
        "norm": (lambda: normed(block.norm, x)[0], [x]),
        "q, k, v projections": (
            lambda: project(x, conv.lin_key, conv.lin_value, conv.lin_query),
            [x],
        ),
        "attention": (lambda: edge_attention(q, k, v, edges), [q, k, v]),
        "output projection, residual": (lambda: apply(block.lin_out, x, x), [x]),
        "norm, MLP, residual": (lambda: block.feed_forward(x), [x]),
        "whole": (lambda: block(x, edges), [x]),
    }
    seconds_of: dict[tuple[str, str], list[float]] = {}

    def run(name: str) -> None:
        kept: list[Any] = []
        call = parts[name][0]
        forward = timed(lambda: kept.append(call()))
        backward = timed(lambda: _backward(kept[0]))
        seconds_of.setdefault((name, "forward"), []).append(forward)
        seconds_of.setdefault((name, "backward"), []).append(backward)

    def clear(name: str) -> None:
        block.zero_grad(set_to_none=True)
        for rows in parts[name][1]:
            rows.grad = None

    functions = {name: functools.partial(run, name) for name in parts}
    totals = interleave(functions, rounds=rounds, seconds=seconds, after=clear)

    def median(name: str, what: str) -> float:
        counted = seconds_of[name, what][-int(totals[name]["runs"]) :]  # without the warm-up
        return 1e3 * statistics.median(counted)

    return {name: {what: median(name, what) for what in ("forward", "backward")} for name in parts}


def _backward(out: Any) -> None:
    outputs = list(out) if isinstance(out, tuple) else [out]
    torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])

"""Inputs and references that the case files share. See ``tests/gpu/README.md`` for what a case file is."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor

from pyg_nsa.attention import flex, reference
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments
from pyg_nsa.attention.tiles import edge_tiles

if not torch.cuda.is_available():
    # The pass computes constants on the device while compiling, so without it no device is needed to compile a case.
    torch._inductor.config.joint_graph_constant_folding = False
if os.environ.get("TRITON_INTERPRET") == "1":
    # Triton's interpreter has no libdevice, where exact exponentials come from.
    torch._inductor.config.use_fast_math = True

HEADS = 2
Case = dict[str, Any]


def random_edges(num_queries: int, num_keys: int, num_edges: int, seed: int = 0) -> EdgeSet:
    g = torch.Generator().manual_seed(seed)
    key = torch.randint(num_keys, (num_edges,), generator=g)
    query = torch.randint(num_queries, (num_edges,), generator=g)
    return EdgeSet.from_edge_index(torch.stack([key, query]), num_keys, num_queries)


def leaf(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g).to(dtype).requires_grad_()


def living(x: Tensor, alive: Tensor | None) -> Tensor:
    """What of some rows may matter."""
    return x if alive is None else torch.where(alive[..., None, None], x, 0.0)


def fill_dead(x: Tensor, alive: Tensor | None, value: float | None) -> None:
    """Writes a value to the rows of a leaf that must not matter."""
    if alive is not None and value is not None:
        x.data.masked_fill_(~alive[..., None, None], value)


def dense(out: Tensor) -> Tensor:
    """A contiguous copy: the gradient of a view would be computed outside of the compiled graph."""
    return out.clone(memory_format=torch.contiguous_format)


def edge_case(
    edges: EdgeSet,
    *,
    batch: int | None = None,
    dim: int = 16,
    dtype: torch.dtype = torch.float32,
    bias_dtype: torch.dtype | None = torch.float32,
    drop: list[int] | None = None,
    shift: Tensor | None = None,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
    dead: float | None = None,
    rtol: float = 1e-5,
) -> Case:
    """A case of ``edge_attention``: the whole GPU path, padding and cropping included, as one graph.

    Without a ``bias_dtype`` there is no bias. ``drop`` lists pairs whose bias is ``-inf``; ``shift`` is added to the
    bias of all pairs of a query. ``dead`` is what rows hold that are not alive.
    """
    lead = () if batch is None else (batch,)
    q = leaf(*lead, edges.num_queries, HEADS, dim, dtype=dtype, seed=1)
    k = leaf(*lead, edges.num_keys, HEADS, dim, dtype=dtype, seed=2)
    v = leaf(*lead, edges.num_keys, HEADS, dim, dtype=dtype, seed=3)
    for x, alive in ((q, alive_queries), (k, alive_keys), (v, alive_keys)):
        fill_dead(x, alive, dead)
    bias = None
    if bias_dtype is not None:
        values = leaf(edges.num_pairs, HEADS, dtype=bias_dtype, seed=4).detach()
        if shift is not None:
            values += shift[edges.row, None]
        values[drop or []] = -math.inf
        bias = values.requires_grad_()

    def fn(q, k, v, bias, alive_queries, alive_keys, indices, tiles):
        # The tensors of the edge set must be arguments, and its tiles built before the graph.
        same = EdgeSet(*indices, edges.num_queries, edges.num_keys)
        same.derived["tiles"] = tiles
        out = flex.edge_attention(
            q, k, v, same, bias, alive_queries=alive_queries, alive_keys=alive_keys
        )
        return dense(out)

    def expected(q, k, v, bias, alive_queries, alive_keys, indices, tiles):
        out = reference.edge_attention(
            living(q.float(), alive_queries),
            living(k.float(), alive_keys),
            living(v.float(), alive_keys),
            edges,
            bias,
            alive_queries=alive_queries,
            alive_keys=alive_keys,
        )
        return dense(out.to(q.dtype))

    indices = (edges.row, edges.col, edges.rowptr)
    args = (q, k, v, bias, alive_queries, alive_keys, indices, edge_tiles(edges))
    return {"fn": fn, "args": args, "reference": expected, "rtol": rtol}


def full_case(
    query_segments: Segments,
    key_segments: Segments | None = None,
    *,
    dim: int = 16,
    dtype: torch.dtype = torch.float32,
    rtol: float = 1e-5,
) -> Case:
    """A case of ``full_attention`` in the layout ``[N, H, D]``."""
    keys = query_segments if key_segments is None else key_segments
    q = leaf(query_segments.num_rows, HEADS, dim, dtype=dtype, seed=1)
    k = leaf(keys.num_rows, HEADS, dim, dtype=dtype, seed=2)
    v = leaf(keys.num_rows, HEADS, dim, dtype=dtype, seed=3)

    def fn(q, k, v, query_ptr, query_index, key_ptr, key_index):
        qs = Segments(query_ptr, query_segments.num_rows, query_index)
        ks = Segments(key_ptr, keys.num_rows, key_index)
        return dense(flex.full_attention(q, k, v, qs, ks))

    def expected(q, k, v, *_):
        out = reference.full_attention(q.float(), k.float(), v.float(), query_segments, keys)
        return dense(out.to(q.dtype))

    args = (q, k, v, query_segments.ptr, query_segments.index, keys.ptr, keys.index)
    return {"fn": fn, "args": args, "reference": expected, "rtol": rtol}


def alive_case(
    batch: int,
    num_queries: int,
    num_keys: int,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    *,
    dim: int = 16,
    dead: float | None = None,
    rtol: float = 1e-5,
) -> Case:
    """A case of ``full_attention`` in the layout ``[B, N, H, D]``; ``dead`` is what rows hold that are not alive."""
    q = leaf(batch, num_queries, HEADS, dim, seed=1)
    k = leaf(batch, num_keys, HEADS, dim, seed=2)
    v = leaf(batch, num_keys, HEADS, dim, seed=3)
    for x, alive in ((q, alive_queries), (k, alive_keys), (v, alive_keys)):
        fill_dead(x, alive, dead)

    def fn(q, k, v, alive_queries, alive_keys):
        out = flex.full_attention(q, k, v, alive_queries=alive_queries, alive_keys=alive_keys)
        return dense(out)

    def expected(q, k, v, alive_queries, alive_keys):
        everything = EdgeSet.from_dense(torch.ones(num_keys, num_queries, dtype=torch.bool))
        out = reference.edge_attention(
            living(q, alive_queries),
            living(k, alive_keys),
            living(v, alive_keys),
            everything,
            alive_queries=alive_queries,
            alive_keys=alive_keys,
        )
        return dense(out)

    args = (q, k, v, alive_queries, alive_keys)
    return {"fn": fn, "args": args, "reference": expected, "rtol": rtol}


def alive_rows(batch: int, num_rows: int, share: float = 0.8, seed: int = 5) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(batch, num_rows, generator=g) < share

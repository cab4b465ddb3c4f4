"""Masked attention on a GPU: FlexAttention over block bitmaps.

FlexAttention (Dong et al. 2024, arXiv:2412.05496) compiles two small functions into its kernels: ``mask_mod`` says which
pairs attend, ``score_mod`` changes their logits, and a ``BlockMask`` lists the tiles that are worth visiting. Here the
three come from the bitmaps of :mod:`pyg_nsa.attention.tiles`, so that no tensor of size ``N_q * N_k`` exists, forward or
backward, whatever the number of heads and of graphs that share the edges.

:func:`flex_edge_attention_kernel` and :func:`flex_full_attention_kernel` are pure functions of tensors, padded to static
sizes; :func:`edge_attention` and :func:`full_attention` pad, run them compiled, and crop. Nothing is compiled before the
first call, and nothing takes over if a call fails.

What FlexAttention (torch 2.11 to 2.13) forces, and where it is met:

* Lengths that are no multiple of 128 have had NaN gradients (pytorch#153799), and new shapes recompile: rows are padded
  to coarse static sizes.
* ``head_dim`` must be at least 16, and the kernels compute with the next power of two: padded with zeros, scale unchanged.
* Kernels with too much in shared memory fail when they are launched: those of edge sets get their own sizes.
* The gradient of a tensor that ``score_mod`` reads is a float32 atomic addition for every entry of every visited tile,
  masked entries included: the bias is read detached, and its gradient is computed on the pairs (:mod:`pyg_nsa.attention.bias_gradient`).

No kernel here sums by atomics, so the gradients are the same from run to run, bit by bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from torch.nn.functional import pad

from pyg_nsa.attention.bias_gradient import BiasGradient
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.pair_functions import (
    MaskMod,
    ScoreMod,
    alive_mask_mods,
    all_of,
    edge_mask_mod,
    edge_score_mod,
    graph_mask_mod,
)
from pyg_nsa.attention.segments import Segments
from pyg_nsa.attention.tiles import (
    TILE,
    BlockLists,
    EdgeTiles,
    SegmentTiles,
    all_blocks,
    edge_tiles,
    padded_pairs,
    segment_tiles,
)

__all__ = [
    "edge_attention",
    "flex_edge_attention_kernel",
    "flex_full_attention_kernel",
    "full_attention",
]

#: Compiled variants that one kernel may have. Each relation, dtype and padded size is one, in training and in inference;
#: torch's own limit of 8 is meant for functions that are called with few shapes, and it ends in an error.
_MAX_VARIANTS = 128


# ---- pure kernels ------------------------------------------------------------------------------------------------------


def flex_edge_attention_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: EdgeTiles,
    bias: Tensor | None,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    scale: float,
    precision: str = "ieee",
) -> Tensor:
    """Attention over the pairs of an edge set, on padded tensors; made to be compiled as one graph.

    Args:
        q: ``[B, H, query rows, D]``, D a power of two, at least 16.
        k: ``[B, H, key rows, D]``.
        v: Like ``k``.
        tiles: The edge set's bitmaps.
        bias: ``[padded pairs, H]`` or ``None``.
        alive_queries: ``[B, query rows]`` bool or ``None``.
        alive_keys: ``[B, key rows]`` bool or ``None``.
        scale: Factor of the logits.
        precision: Of float32 products: ``"ieee"`` or ``"tf32"``.

    Returns:
        Like ``q``; rows without a key are zero.
    """
    mask_mod = all_of(edge_mask_mod(tiles), *alive_mask_mods(alive_queries, alive_keys))
    score_mod = None if bias is None else edge_score_mod(tiles, bias.detach())
    learned = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    out, lse = _flex(
        q,
        k,
        v,
        tiles.blocks,
        mask_mod,
        score_mod,
        scale,
        precision,
        lse=learned,
        options=_edge_kernel_options(q.dtype, q.size(-1)),
    )
    if not learned:
        return out
    assert lse is not None
    return BiasGradient.apply(
        out,
        bias,
        q.detach(),
        k.detach(),
        v.detach(),
        lse.detach(),
        tiles.query,
        tiles.key,
        alive_keys,
        scale,
    )


def flex_full_attention_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: SegmentTiles | BlockLists,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    scale: float,
    precision: str = "ieee",
) -> Tensor:
    """Full attention on padded tensors; made to be compiled as one graph.

    Args:
        q: ``[B, H, query rows, D]``, D a power of two, at least 16.
        k: ``[B, H, key rows, D]``.
        v: Like ``k``.
        segments: The graphs of the rows, or block lists alone if each entry of the batch is a graph.
        alive_queries: ``[B, query rows]`` bool or ``None``.
        alive_keys: ``[B, key rows]`` bool, ``False`` for padding; may be ``None`` if segments say what is padding.
        scale: Factor of the logits.
        precision: Of float32 products: ``"ieee"`` or ``"tf32"``.

    Returns:
        Like ``q``; rows without a key are zero.
    """
    mods = alive_mask_mods(alive_queries, alive_keys)
    if isinstance(segments, SegmentTiles):
        mods.append(graph_mask_mod(segments.query_graph, segments.key_graph))
        blocks = segments.blocks
    else:
        blocks = segments
    options = _full_kernel_options(q.dtype, q.size(-1))
    return _flex(q, k, v, blocks, all_of(*mods), None, scale, precision, options=options)[0]


def _flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockLists,
    mask_mod: MaskMod,
    score_mod: ScoreMod | None,
    scale: float,
    precision: str,
    *,
    lse: bool = False,
    options: dict[str, Any] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The output and, if asked for, the log-sum-exp of the logits of each row, ``[B, H, query rows]`` float32."""
    if q.is_cuda and not torch.compiler.is_compiling():
        # Uncompiled, FlexAttention makes all scores, and says so in a warning.
        raise RuntimeError(
            "torch.compile is switched off (TORCHDYNAMO_DISABLE, or torch.compiler.set_stance), and without it FlexAttention would "
            "hold every score of every query and key; switch it on"
        )
    # The constructor, not from_kv_blocks: that one derives the transposed lists by a dense scatter.
    block_mask = BlockMask(
        seq_lengths=(q.size(-2), k.size(-2)),
        kv_num_blocks=blocks.kv_num_blocks,
        kv_indices=blocks.kv_indices,
        full_kv_num_blocks=None,
        full_kv_indices=None,
        q_num_blocks=blocks.q_num_blocks,
        q_indices=blocks.q_indices,
        full_q_num_blocks=None,
        full_q_indices=None,
        BLOCK_SIZE=(TILE, TILE),
        mask_mod=mask_mod,
    )
    # The option's value is pasted into the kernel's source, hence the inner quotes. Without it some
    # releases compute float32 products in TF32 by default.
    kernel_options: Any = {"FLOAT32_PRECISION": f"'{precision}'", **(options or {})}
    out, aux = flex_attention(
        q,
        k,
        v,
        score_mod=score_mod,
        block_mask=block_mask,
        scale=scale,
        kernel_options=kernel_options,
        return_aux=AuxRequest(lse=lse),
    )
    return out, aux.lse


def _edge_kernel_options(dtype: torch.dtype, dim: int) -> dict[str, int]:
    """Sizes of the kernels of edge sets, where a thread holds words and biases beside its logits.

    FlexAttention's own sizes, compiled for an H100: a pipeline stages words of several tiles in shared memory, in half
    precision with 64 channels 400 KB of the 227 KB that there are, so that the kernel can't be launched; and 128 rows at
    a time spill 5 KB of registers a thread, in float32 8 KB. With these it is at most 128 KB, and little or nothing spills.
    """
    options = {"num_stages": 1}
    if dtype == torch.float32 and dim >= 64:
        options |= {"fwd_BLOCK_M": 32, "fwd_BLOCK_N": 32}
    elif dtype != torch.float32 and dim == 64:
        options |= {"fwd_BLOCK_M": 64, "fwd_BLOCK_N": 64}
    return options


def _full_kernel_options(dtype: torch.dtype, dim: int) -> dict[str, int]:
    """Sizes of the kernels of full attention, where FlexAttention's own need more shared memory than many cards have.

    Float32 with 128 channels takes 145 KB with its own sizes and 56 KB with these, compiled for capability 8.9, where there are 99.
    """
    if dtype == torch.float32 and dim >= 128:
        return {"fwd_BLOCK_M": 64, "fwd_BLOCK_N": 32, "fwd_num_stages": 1}
    return {}


# ---- padding and calling -----------------------------------------------------------------------------------------------


@functools.cache
def _compiled(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(kernel, fullgraph=True, dynamic=False)


def _run(kernel: Callable[..., Tensor], *args: Any) -> Tensor:
    if torch.compiler.is_compiling():  # part of the caller's graph, which compiles it
        return kernel(*args)
    with torch._dynamo.config.patch(recompile_limit=_MAX_VARIANTS):
        return _compiled(kernel)(*args)


# Reading the setting cannot be traced; a caller's graph keeps the value that it was compiled with.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _float32_precision() -> str:
    """What the user set for float32 matrix products on CUDA; torch's default is exact (``ieee``)."""
    setting = torch.backends.cuda.matmul.fp32_precision
    if setting == "none":
        try:
            setting = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        except RuntimeError:
            # Some other backend's precision was set, by torch's newer settings; CUDA's was not.
            setting = "ieee"
    return setting


def _pad_rows(x: Tensor, rows: int, alive: Tensor | None = None) -> Tensor:
    """``[B, N, H, D]`` to ``[B, H, rows, D']``, ``D'`` a power of two, at least 16.

    Rows that are not alive (``[B, rows]``) become zeros: the kernels multiply by the zero probability that they have, and what they hold may
    be NaN.
    """
    dim = x.size(-1)
    padded_dim = max(16, 1 << (dim - 1).bit_length())
    x = pad(x, (0, padded_dim - dim, 0, 0, 0, rows - x.size(1)))
    if alive is not None:
        x.masked_fill_(~alive[..., None, None], 0.0)  # pad has made a copy
    return x.transpose(1, 2)


def _pad_mask(alive: Tensor | None, rows: int) -> Tensor | None:
    return None if alive is None else pad(alive, (0, rows - alive.size(-1)))


def _crop(out: Tensor, like: Tensor) -> Tensor:
    return out.transpose(1, 2)[:, : like.size(1), :, : like.size(3)]


def _zeros(q: Tensor, *others: Tensor | None) -> Tensor:
    """Zeros like ``q`` that depend on all arguments, so that they get zero gradients and not none."""
    # Sums of nothing: a product with zero would turn an infinite value into NaN.
    nothing = sum(x[:0].sum() for x in (q, *others) if x is not None)
    return torch.zeros_like(q) + nothing


def edge_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edges: EdgeSet,
    bias: Tensor | None = None,
    *,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """GPU implementation of :func:`pyg_nsa.attention.edge_attention`, same arguments and result.

    Memory is linear in the rows, the pairs, and the tiles that hold a pair. The first call with a new combination of
    padded sizes compiles. The same inputs give the same gradients, bit by bit.
    """
    if q.numel() == 0 or k.numel() == 0 or edges.num_pairs == 0:
        return _zeros(q, k, v, bias)
    single = q.dim() == 3
    if single:
        q, k, v = q[None], k[None], v[None]
        alive_queries = None if alive_queries is None else alive_queries[None]
        alive_keys = None if alive_keys is None else alive_keys[None]
    tiles = edge_tiles(edges)
    query_rows, key_rows = tiles.blocks.query_rows, tiles.blocks.key_rows
    if bias is not None:
        # float32 also for half precision: the gradient is a long sum.
        bias = pad(bias.float(), (0, 0, 0, padded_pairs(edges.num_pairs) - bias.size(0)))
    alive_queries = _pad_mask(alive_queries, query_rows)
    alive_keys = _pad_mask(alive_keys, key_rows)
    out = _run(
        flex_edge_attention_kernel,
        _pad_rows(q, query_rows, alive_queries),
        _pad_rows(k, key_rows, alive_keys),
        _pad_rows(v, key_rows, alive_keys),
        tiles,
        bias,
        alive_queries,
        alive_keys,
        1 / math.sqrt(q.size(-1)) if scale is None else scale,
        _float32_precision(),
    )
    out = _crop(out, q)
    return out[0] if single else out


def full_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_segments: Segments | None = None,
    key_segments: Segments | None = None,
    *,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """GPU implementation of :func:`pyg_nsa.attention.full_attention`, same arguments and result."""
    if q.numel() == 0 or k.numel() == 0:
        return _zeros(q, k, v)
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    if q.dim() == 3:
        return _segmented(q, k, v, query_segments, key_segments, scale)
    blocks = all_blocks(q.size(1), k.size(1), q.device)
    living_queries = _pad_mask(alive_queries, blocks.query_rows)
    living_keys = _pad_mask(alive_keys, blocks.key_rows)
    padding = living_keys
    if padding is None:
        padding = _pad_mask(k.new_ones(k.shape[:2], dtype=torch.bool), blocks.key_rows)
    out = _run(
        flex_full_attention_kernel,
        _pad_rows(q, blocks.query_rows, living_queries),
        _pad_rows(k, blocks.key_rows, living_keys),
        _pad_rows(v, blocks.key_rows, living_keys),
        blocks,
        living_queries,
        padding,
        scale,
        _float32_precision(),
    )
    return _crop(out, q)


def _segmented(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_segments: Segments | None,
    key_segments: Segments | None,
    scale: float,
) -> Tensor:
    qs = query_segments or Segments.single(q.size(0), q.device)
    ks = key_segments or (qs if k.size(0) == q.size(0) else Segments.single(k.size(0), k.device))
    tiles = segment_tiles(qs, ks, q.device)
    query_rows, key_rows = tiles.blocks.query_rows, tiles.blocks.key_rows
    # In segment order each graph's rows follow each other, which keeps its tiles together.
    ordered = qs.gather(q)[None]
    out = _run(
        flex_full_attention_kernel,
        _pad_rows(ordered, query_rows),
        _pad_rows(ks.gather(k)[None], key_rows),
        _pad_rows(ks.gather(v)[None], key_rows),
        tiles,
        None,
        None,
        scale,
        _float32_precision(),
    )
    return qs.scatter(_crop(out, ordered)[0])

"""Projections and masked attention of one relation as one operator on the CPU.

Computed one by one, the projections' results are cut into queries, keys and values, and autograd copies the three gradients into
one again before it multiplies. Here the attention kernels write their gradients where the projections' kernels read them.

The result is that of the single steps to float tolerance. :func:`fits` says which calls may come here; all others take the
single steps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.attention.checks import check_alive, check_pairs
from pyg_nsa.attention.csr_calls import CSR, Masks, Paired, csr_tensors, paired_rows
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.messages import (
    Attention,
    Kept,
    RowGradient,
    Weights,
    as_rows,
    message_backward,
    message_forward,
)
from pyg_nsa.compiled import linear
from pyg_nsa.compiled.linear import linear_forward, stacked
from pyg_nsa.compiled.operators import differentiable, operator
from pyg_nsa.compiled.sequence import in_one_go
from pyg_nsa.compiled.unaliased import unaliased

__all__ = ["OPERATOR", "Layer", "fits", "projected_attention"]

#: Weight and bias of a linear layer.
Layer = tuple[Tensor, Tensor | None]


def fits(
    x_src: Tensor, x_dst: Tensor, key: Layer, value: Layer, query: Layer, skip: Layer | None = None
) -> bool:
    """Whether the operator computes this: float32 rows and weights on a CPU, widths that are multiples of 16.

    Args:
        x_src: ``[*, N_k, F_src]``.
        x_dst: ``[*, N_q, F_dst]``.
        key: Weight ``[C, F_src]`` and bias ``[C]``, if any.
        value: The same.
        query: ``[C, F_dst]`` and ``[C]``.
        skip: ``[C, F_dst]`` and ``[C]``, or nothing.
    """
    on_targets = [query] if skip is None else [query, skip]
    return (
        x_src.dim() in (2, 3)
        and x_src.dim() == x_dst.dim()
        and x_src.shape[:-2] == x_dst.shape[:-2]
        and all(linear.fits_layer(x_src, *layer) for layer in (key, value))
        and all(linear.fits_layer(x_dst, *layer) for layer in on_targets)
        and key[0].size(0) == value[0].size(0) == query[0].size(0)
    )


def _forward(
    x_src: Tensor,
    x_dst: Tensor | None,
    w_src: Tensor,
    b_src: Tensor | None,
    w_dst: Tensor | None,
    b_dst: Tensor | None,
    w_skip: Tensor | None,
    b_skip: Tensor | None,
    bias: Tensor | None,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    row_t: Tensor,
    perm: Tensor,
    sizes: Tensor,
    queries: Tensor | None,
    keys: Tensor | None,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns ``[B, N_q, C]``, the same without the skip connection (empty if there is none), the projections, and the log-sum-exp.

    ``x_dst`` is missing if it is ``x_src``. ``w_src`` holds the rows of key and value, and those of query if ``w_dst`` is missing.
    """
    copies = x_src.size(0)
    rows_src = as_rows(x_src)
    rows_dst = rows_src if x_dst is None else as_rows(x_dst)
    attention = Attention(
        Weights(w_src, b_src, w_dst, b_dst),
        bias,
        Masks(alive_queries, alive_keys),
        CSR(rowptr, col, rowptr_t, row_t, perm, sizes),
        Paired(queries, keys),
        heads,
        scale,
    )
    with in_one_go():
        kept = message_forward(
            rows_src,
            rows_dst,
            attention,
            copies,
        )
        message = unaliased(kept.message, (copies, -1, kept.message.size(-1)))
        if w_skip is None:
            return message, x_src.new_empty(0), *kept[1:]
        out = linear_forward(rows_dst, w_skip, b_skip, kept.message)
    return unaliased(out, message.shape), message, *kept[1:]


def _backward(
    grad: Tensor,
    x_src: Tensor,
    x_dst: Tensor | None,
    w_src: Tensor,
    b_src: Tensor | None,
    w_dst: Tensor | None,
    b_dst: Tensor | None,
    w_skip: Tensor | None,
    b_skip: Tensor | None,
    bias: Tensor | None,
    alive_queries: Tensor | None,
    alive_keys: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    row_t: Tensor,
    perm: Tensor,
    sizes: Tensor,
    queries: Tensor | None,
    keys: Tensor | None,
    message: Tensor,
    y_src: Tensor,
    y_dst: Tensor,
    lse: Tensor,
    heads: int,
    scale: float,
    has_src: bool,
    has_dst: bool,
) -> list[Tensor]:
    """Gradients of the first nine inputs; empty where there is nothing to tell."""
    grad = grad.reshape(-1, grad.size(-1)).contiguous()
    rows_src = as_rows(x_src)
    rows_dst = rows_src if x_dst is None else as_rows(x_dst)
    of_src = RowGradient(rows_src, has_src)
    of_dst = of_src if x_dst is None else RowGradient(rows_dst, has_dst)
    of_skip: tuple[Tensor | None, Tensor | None] = None, None
    attention = Attention(
        Weights(w_src, b_src, w_dst, b_dst),
        bias,
        Masks(alive_queries, alive_keys),
        CSR(rowptr, col, rowptr_t, row_t, perm, sizes),
        Paired(queries, keys),
        heads,
        scale,
    )
    with in_one_go():
        of_weights, of_bias = message_backward(
            grad,
            rows_src,
            rows_dst,
            attention,
            Kept(message.view(grad.shape), y_src, y_dst, lse),
            of_src,
            of_dst,
        )
        if w_skip is not None:
            of_skip = of_dst.through(grad, rows_dst, w_skip, b_skip is not None)
    of_rows = [
        None if x is None or to.gradient is None else to.gradient.view(x.shape)
        for x, to in ((x_src, of_src), (x_dst, of_dst))
    ]
    results = [*of_rows, *of_weights, *of_skip, of_bias]
    # What an operator returns may not share memory, as the gradients of a layer's weight and bias do.
    return [grad.new_empty(0) if r is None else r.clone() if r.dim() == 1 else r for r in results]


def _fake(x_src, x_dst, w_src, b_src, w_dst, b_dst, w_skip, *rest):  # type: ignore[no-untyped-def]
    heads = rest[-2]
    copies, keys = x_src.shape[:2]
    queries = keys if x_dst is None else x_dst.size(1)
    width = w_src.size(0) // (3 if w_dst is None else 2)
    out = x_src.new_empty(copies, queries, width)
    return (
        out,
        x_src.new_empty(0) if w_skip is None else torch.empty_like(out),
        x_src.new_empty(copies * keys, w_src.size(0)),
        x_src.new_empty(0) if w_dst is None else x_src.new_empty(copies * queries, width),
        x_src.new_empty(copies, queries, heads),
    )


def _fake_backward(grad, *rest):  # type: ignore[no-untyped-def]
    *inputs, _, _, _, lse, heads, _, has_src, has_dst = rest

    def like(x: Tensor | None, asked: bool = True) -> Tensor:
        return grad.new_empty(0) if x is None or not asked else grad.new_empty(x.shape)

    x_src, x_dst, *parameters, bias = inputs[:9]
    pairs = 0 if bias is None else bias.size(0)
    of_bias = lse.new_empty(pairs, heads)
    return [like(x_src, has_src), like(x_dst, has_dst), *map(like, parameters), of_bias]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.heads, ctx.scale = inputs
    out, message, *kept = output
    # Without a skip connection the result is the message.
    ctx.save_for_backward(*tensors, message if message.numel() else out, *kept)
    ctx.mark_non_differentiable(message, *kept)
    ctx.set_materialize_grads(False)  # of what is kept: zeros of its size in every step


def _gradients(backward: Any, ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:  # nothing depends on the output
        return (None,) * len(ctx.needs_input_grad)
    has_src, has_dst = ctx.needs_input_grad[:2]
    tensors = ctx.saved_tensors
    grads = backward(grad, *tensors, ctx.heads, ctx.scale, has_src, has_dst)
    asked = zip(grads, tensors, ctx.needs_input_grad, strict=False)
    given = [g if needed and t is not None else None for g, t, needed in asked]
    return *given, *[None] * (len(ctx.needs_input_grad) - len(given))


OPERATOR = operator("pyg_nsa::projected_attention_v2", _forward, _fake)
_BACKWARD = operator("pyg_nsa::projected_attention_backward_v2", _backward, _fake_backward)
_call = differentiable((OPERATOR, _forward), (_BACKWARD, _backward), _setup_context, _gradients)


def projected_attention(
    x_src: Tensor,
    x_dst: Tensor,
    key: Layer,
    value: Layer,
    query: Layer,
    skip: Layer | None,
    edges: EdgeSet,
    heads: int,
    bias: Tensor | None = None,
    *,
    alive_queries: Tensor | None = None,
    alive_keys: Tensor | None = None,
) -> Tensor:
    r"""Attention over ``edges`` of projected rows, and a projection of the target's row besides.

    .. math::
        \mathbf{W}_s \mathbf{x}_i + \sum_{j \in \mathcal{N}(i)} \mathrm{softmax}_j \left( s\,(\mathbf{W}_q
        \mathbf{x}_i)^{\top} \mathbf{W}_k \mathbf{x}_j + b_{ij} \right) \mathbf{W}_v \mathbf{x}_j

    Args:
        x_src: ``[N_k, F_src]`` or ``[B, N_k, F_src]``.
        x_dst: ``[N_q, F_dst]`` or ``[B, N_q, F_dst]``; the very tensor ``x_src`` saves a pass over it.
        key: Weight ``[C, F_src]`` and bias ``[C]``, if any.
        value: The same.
        query: ``[C, F_dst]`` and ``[C]``.
        skip: ``[C, F_dst]`` and ``[C]``, or nothing.
        edges: The pairs.
        heads: Number of heads; divides C.
        bias: ``[P, heads]`` added to the logits.
        alive_queries: bool ``[N_q]`` or ``[B, N_q]``.
        alive_keys: bool ``[N_k]`` or ``[B, N_k]``.

    Returns:
        ``[N_q, C]`` or ``[B, N_q, C]``.

    Raises:
        ValueError: Pairs, bias or masks that do not fit the rows.
        TypeError: A mask that is not boolean.
    """
    check_pairs(edges, x_dst.size(-2), x_src.size(-2), heads, bias, x_dst.device)
    check_alive("alive_queries", alive_queries, x_dst.shape[:-1])
    check_alive("alive_keys", alive_keys, x_src.shape[:-1])
    single = x_src.dim() == 2
    same = x_src is x_dst

    def lead(x: Tensor | None) -> Tensor | None:
        return x[None] if single and x is not None else x

    paired = paired_rows(edges)
    at_once = same and paired.are_same
    w_src, b_src = stacked(key, value, query) if at_once else stacked(key, value)
    w_dst, b_dst = (None, None) if at_once else query
    w_skip, b_skip = (None, None) if skip is None else skip
    out: Tensor = _call(
        lead(x_src),
        None if same else lead(x_dst),
        w_src,
        b_src,
        w_dst,
        b_dst,
        w_skip,
        b_skip,
        None if bias is None else bias.to(x_src.dtype).contiguous(),
        lead(alive_queries),
        lead(alive_keys),
        *csr_tensors(edges),
        *paired,
        heads,
        1 / math.sqrt(key[0].size(0) // heads),
    )[0]
    return out.squeeze(0) if single else out

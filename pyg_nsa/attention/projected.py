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
from pyg_nsa.attention.csr_calls import CSR, Masks, attend, attend_backward, csr_tensors
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.compiled import linear
from pyg_nsa.compiled.linear import linear_backward, linear_forward
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.operators import differentiable, operator

__all__ = ["OPERATOR", "fits", "projected_attention"]


def fits(x_src: Tensor, x_dst: Tensor, *weights: Tensor | None) -> bool:
    """Whether the operator computes this: float32 rows and weights on a CPU, widths that are multiples of 16.

    Args:
        x_src: ``[*, N_k, F]``.
        x_dst: ``[*, N_q, F]``.
        *weights: Weights and biases of all projections.
    """
    return (
        x_src.dim() in (2, 3)
        and x_src.dim() == x_dst.dim()
        and x_src.shape[:-2] == x_dst.shape[:-2]
        and all(linear.fits(x, *weights) for x in (x_src, x_dst))
    )


def _rows(x: Tensor) -> Tensor:
    """``[B, N, F]`` to ``[B N, F]``, each row in one piece."""
    return x.reshape(-1, x.size(-1)).contiguous()


def _heads(y: Tensor, copies: int, first: int, heads: int, width: int) -> Tensor:
    """Columns ``first`` to ``first + width`` of ``[B N, *]`` as ``[B, N, H, D]``."""
    columns = y.view(copies, -1, y.size(-1))[..., first : first + width]
    return columns.unflatten(-1, (heads, -1))


def _split(
    y_src: Tensor, y_dst: Tensor, copies: int, heads: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value. Without rows of their own queries stand behind the values."""
    q = _heads(y_dst, copies, 0, heads, width) if y_dst.numel() else None
    k, v = (_heads(y_src, copies, at, heads, width) for at in (0, width))
    return _heads(y_src, copies, 2 * width, heads, width) if q is None else q, k, v


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
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns ``[B, N_q, C]``, the same without the skip connection (empty if there is none), the projections, and the log-sum-exp.

    ``w_src`` holds the rows of key, value and, if ``x_dst`` is missing since it is ``x_src``, query.
    """
    copies = x_src.size(0)
    width = w_src.size(0) // (3 if x_dst is None else 2)
    rows_src = _rows(x_src)
    rows_dst = rows_src if x_dst is None else _rows(x_dst)
    y_src = linear_forward(rows_src, w_src, b_src)
    y_dst = x_src.new_empty(0) if w_dst is None else linear_forward(rows_dst, w_dst, b_dst)
    q, k, v = _split(y_src, y_dst, copies, heads, width)
    masks = Masks(alive_queries, alive_keys).as_bytes()
    csr = CSR(rowptr, col, rowptr_t, row_t, perm, sizes)
    message, lse = attend(q, k, v, bias, masks, csr, scale)
    message = message.view(copies, -1, width)
    if w_skip is None:
        return message, x_src.new_empty(0), y_src, y_dst, lse
    out = linear_forward(rows_dst, w_skip, b_skip, message.view(-1, width))
    return out.view(message.shape), message, y_src, y_dst, lse


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
    copies, width = x_src.size(0), grad.size(-1)
    grad = grad.contiguous()
    q, k, v = _split(y_src, y_dst, copies, heads, width)
    grad_src, grad_dst = empty(y_src, *y_src.shape), empty(y_dst, *y_dst.shape)
    masks = Masks(alive_queries, alive_keys).as_bytes()
    csr = CSR(rowptr, col, rowptr_t, row_t, perm, sizes)
    rows_grad = grad.view(-1, width)
    of_bias = attend_backward(
        _heads(rows_grad, copies, 0, heads, width),
        q,
        k,
        v,
        bias,
        masks,
        message.view(q.shape),
        lse,
        csr,
        scale,
        _split(grad_src, grad_dst, copies, heads, width),
    )
    rows_src = _rows(x_src)
    of_src = empty(rows_src, *rows_src.shape) if has_src else None
    of_w_src, of_b_src = linear_backward(
        grad_src, rows_src, w_src, of_src, has_bias=b_src is not None
    )
    rows_dst, of_dst, of_w_dst, of_b_dst = rows_src, of_src, None, None
    if x_dst is not None and w_dst is not None:
        rows_dst = _rows(x_dst)
        of_dst = empty(rows_dst, *rows_dst.shape) if has_dst else None
        of_w_dst, of_b_dst = linear_backward(
            grad_dst, rows_dst, w_dst, of_dst, has_bias=b_dst is not None
        )
    of_w_skip, of_b_skip = None, None
    if w_skip is not None:
        of_w_skip, of_b_skip = linear_backward(
            rows_grad, rows_dst, w_skip, of_dst, adds=True, has_bias=b_skip is not None
        )
    results = [
        None if of_src is None else of_src.view(x_src.shape),
        None if x_dst is None or of_dst is None else of_dst.view(x_dst.shape),
        of_w_src,
        of_b_src,
        of_w_dst,
        of_b_dst,
        of_w_skip,
        of_b_skip,
        of_bias,
    ]
    return [grad.new_empty(0) if r is None else r for r in results]


def _fake(x_src, x_dst, w_src, b_src, w_dst, b_dst, w_skip, *rest):  # type: ignore[no-untyped-def]
    heads = rest[-2]
    copies, keys = x_src.shape[:2]
    queries = keys if x_dst is None else x_dst.size(1)
    width = w_src.size(0) // (3 if x_dst is None else 2)
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


OPERATOR = operator("pyg_nsa::projected_attention", _forward, _fake)
_BACKWARD = operator("pyg_nsa::projected_attention_backward", _backward, _fake_backward)
_call = differentiable((OPERATOR, _forward), (_BACKWARD, _backward), _setup_context, _gradients)


def projected_attention(
    x_src: Tensor,
    x_dst: Tensor,
    key: tuple[Tensor, Tensor | None],
    value: tuple[Tensor, Tensor | None],
    query: tuple[Tensor, Tensor | None],
    skip: tuple[Tensor, Tensor | None] | None,
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

    w_src, b_src = _stacked(key, value, query) if same else _stacked(key, value)
    w_dst, b_dst = (None, None) if same else query
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
        heads,
        1 / math.sqrt(key[0].size(0) // heads),
    )[0]
    return out.squeeze(0) if single else out


def _stacked(*layers: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of several linear layers as those of one."""
    weights = [weight for weight, _ in layers]
    if all(bias is None for _, bias in layers):
        return torch.cat(weights), None
    biases = [w.new_zeros(w.size(0)) if b is None else b for w, b in layers]
    return torch.cat(weights), torch.cat(biases)

"""The gradient of the bias, on the pairs alone.

FlexAttention's own is a float32 atomic addition for every entry of every visited tile, masked entries included.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyg_nsa.compiled.first_order import first_order

__all__ = ["BiasGradient", "bias_gradient"]


class BiasGradient(torch.autograd.Function):
    """Passes ``out`` through, and gives the bias its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        out: Tensor,
        bias: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lse: Tensor,
        query: Tensor,
        key: Tensor,
        alive_keys: Tensor | None,
        scale: float,
    ) -> Tensor:
        """``out``; the other arguments are those of :func:`bias_gradient`."""
        ctx.scale = scale
        ctx.save_for_backward(out, bias, q, k, v, lse, query, key, alive_keys)
        return out.view_as(out)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of ``out`` and of the bias."""
        out, bias, q, k, v, lse, query, key, alive_keys = ctx.saved_tensors
        d_bias = bias_gradient(grad, out, bias, q, k, v, lse, query, key, alive_keys, ctx.scale)
        return grad, d_bias, *[None] * 8


def bias_gradient(
    grad: Tensor,
    out: Tensor,
    bias: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    query: Tensor,
    key: Tensor,
    alive_keys: Tensor | None,
    scale: float,
) -> Tensor:
    r"""Gradient of the bias, pair by pair.

    With the probability :math:`P_{ij} = \exp(s \, q_i \cdot k_j + b_{ij} - \mathrm{lse}_i)` and the gradient :math:`g_i` of
    the output :math:`o_i` it is :math:`P_{ij} (g_i \cdot v_j - g_i \cdot o_i)`, summed over the entries of the batch. Only
    gathers are needed, so nothing is added atomically, and Inductor fuses them with the products: the largest
    intermediates are ``[B, padded pairs, H]``.

    Args:
        grad: Gradient of the output, ``[B, H, query rows, D]``.
        out: Output, likewise.
        bias: ``[padded pairs, H]`` float32.
        q: ``[B, H, query rows, D]``.
        k: ``[B, H, key rows, D]``.
        v: Like ``k``.
        lse: ``[B, H, query rows]`` float32, log-sum-exp of each row's logits, ``-inf`` for a row without a key.
        query: ``[padded pairs]`` int32, the query of each pair, -1 for padding.
        key: ``[padded pairs]`` int32, the key of each pair, -1 for padding.
        alive_keys: ``[B, key rows]`` bool or ``None``.
        scale: Factor of the logits.

    Returns:
        Like ``bias``; zero for padding, for pairs of dead rows, and where the bias is ``-inf``.
    """

    def products(a: Tensor, rows: Tensor, b: Tensor, others: Tensor) -> Tensor:
        """Scalar products of ``a[rows]`` and ``b[others]``, ``[B, padded pairs, H]`` float32."""
        # Not einsum, which would materialise what is gathered and multiply by cuBLAS.
        a, b = a.transpose(1, 2)[:, rows].float(), b.transpose(1, 2)[:, others].float()
        return (a * b).sum(-1)

    row_lse = lse.transpose(1, 2)[:, query]
    # Padding (-1) reads the last row. Rows without a key, those of dead queries among them, have no probabilities.
    allowed = (query >= 0)[:, None] & (row_lse > -math.inf)
    if alive_keys is not None:
        allowed = allowed & alive_keys[:, key, None]
    probability = (products(q, query, k, key) * scale + bias - row_lse).exp()
    mean = (grad.float() * out.float()).sum(-1).transpose(1, 2)[:, query]
    gradient = probability * (products(grad, query, v, key) - mean)
    return torch.where(allowed, gradient, 0.0).sum(0)

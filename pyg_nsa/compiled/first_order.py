"""Gradients that have no gradient themselves, and say so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_order"]


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For the ``backward`` of an autograd function whose own gradient is not known: asking for that raises an error.

    torch's ``once_differentiable`` refuses only where an incoming gradient needs one. But a gradient also depends on what was kept for it,
    and of ``out.sum()`` the incoming one is a constant: a penalty on it would have got a wrong gradient without a word.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        out = list(found) if isinstance(found, tuple) else [found]
        at = [i for i, one in enumerate(out) if isinstance(one, Tensor)]
        anchor = torch.empty(
            0, requires_grad=True
        )  # without an input that needs one, outputs need no gradient
        for i, one in zip(at, _Refuse.apply(anchor, *(out[i] for i in at)), strict=True):
            out[i] = one
        return tuple(out) if isinstance(found, tuple) else out[0]

    return wrapped


class _Refuse(torch.autograd.Function):
    """Passes gradients on."""

    @staticmethod
    def forward(ctx: Any, _anchor: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.detach() for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "pyg_nsa gives gradients, but no gradients of gradients: these were asked for after create_graph=True, as by a gradient "
            "penalty, or by forces in a loss. Use a convolution of PyG there, such as TransformerConv; HeteroNSAConv takes it, too."
        )

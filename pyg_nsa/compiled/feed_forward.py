"""A residual MLP on the CPU: torch's operator around the kernels of :mod:`pyg_nsa.compiled.feed_forward_kernels`.

Both passes are registered with torch (:mod:`pyg_nsa.compiled.operators`), so that ``torch.compile`` sees one node each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_nsa.compiled.calls import KernelCall, threads_for
from pyg_nsa.compiled.linear import parts_of
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.operators import differentiable, operator

__all__ = ["OPERATOR", "feed_forward"]


def _call(x: Tensor, parameters: tuple[Tensor, ...], eps: float) -> KernelCall:
    from pyg_nsa.compiled.feed_forward_kernels import Words

    names = ("NORM_WEIGHT", "NORM_BIAS", "WEIGHT_1", "BIAS_1", "WEIGHT_2", "BIAS_2")
    call = KernelCall(Words)
    call.put(X=x, **dict(zip(names, (p.contiguous() for p in parameters), strict=True)))
    call.put_number(EPS=eps)
    hidden, channels = parameters[2].shape
    call.set(NUM_ROWS=x.numel() // channels, CHANNELS=channels, HIDDEN=hidden)
    return call


def _run(call: KernelCall, name: str, x: Tensor, hidden: int) -> None:
    from pyg_nsa.compiled import feed_forward_kernels as kernels

    channels = x.size(-1)
    size = kernels.scratch_size(channels, hidden, is_backward=name == "backward")
    threads = threads_for(2 * x.numel() * hidden)
    call.set(SCRATCH_SIZE=size)
    call.run(getattr(kernels, name)(), threads, x.new_empty(threads * size))


def _forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
    eps: float,
) -> Tensor:
    x = x.contiguous()
    y = empty(x, *x.shape)
    call = _call(x, (norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2), eps)
    call.put(Y=y)
    _run(call, "forward", x, weight_1.size(0))
    return y


def _backward(
    grad: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of all parameters one after the other, in the order of the kernel."""
    x, grad = x.contiguous(), grad.contiguous()
    hidden, channels = weight_1.shape
    parts, part_rows = parts_of(x.numel() // channels)
    grad_x = empty(x, *x.shape)
    grads = x.new_empty(2 * hidden * channels + hidden + 3 * channels)
    call = _call(x, (norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2), eps)
    call.put(GRAD=grad, GRAD_X=grad_x, GRADS=grads)
    call.put(PART_SUMS=x.new_empty(parts, grads.numel()))
    call.set(ROWS_PER_PART=part_rows)
    _run(call, "backward", x, hidden)
    return grad_x, grads


def _fake(x, *_):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_backward(grad, x, norm_weight, norm_bias, weight_1, *_):  # type: ignore[no-untyped-def]
    hidden, channels = weight_1.shape
    like = torch.empty_like(x, memory_format=torch.contiguous_format)
    return like, x.new_empty(2 * hidden * channels + hidden + 3 * channels)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _gradients(backward: Any, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # Asked for once: activation checkpointing computes them again, and refuses a second time.
    saved = ctx.saved_tensors
    of_x, of_all = backward(grad, *saved, ctx.eps)
    _, _, _, weight_1, bias_1, weight_2, bias_2 = saved
    sizes = [weight_1.numel(), weight_2.numel(), bias_1.numel(), *[bias_2.numel()] * 3]
    of_1, of_2, of_bias_1, of_bias_2, of_norm, of_norm_bias = of_all.split(sizes)
    weights = of_1.view(weight_1.shape), of_2.view(weight_2.shape)
    return of_x, of_norm, of_norm_bias, weights[0], of_bias_1, weights[1], of_bias_2, None


OPERATOR = operator("pyg_nsa::feed_forward", _forward, _fake)
_BACKWARD = operator("pyg_nsa::feed_forward_backward", _backward, _fake_backward)
_differentiable = differentiable(
    (OPERATOR, _forward), (_BACKWARD, _backward), _setup_context, _gradients
)


def feed_forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
    eps: float,
) -> Tensor:
    """``x + lin2(gelu(lin1(norm(x))))``.

    Args:
        x: ``[*, C]``, float32 on a CPU, as :func:`pyg_nsa.compiled.linear.fits` asks for.
        norm_weight: ``[C]``, of the layer norm.
        norm_bias: ``[C]``.
        weight_1: ``[hidden, C]``.
        bias_1: ``[hidden]``.
        weight_2: ``[C, hidden]``.
        bias_2: ``[C]``.
        eps: Of the layer norm.

    Returns:
        Like ``x``.
    """
    parameters = norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2
    y: Tensor = _differentiable(x, *parameters, eps)
    return y

"""Layer norm on the CPU: torch's operator around the kernels of :mod:`pyg_nsa.compiled.layer_norm`.

Both passes are registered with torch (:mod:`pyg_nsa.compiled.operators`), so that ``torch.compile`` sees one node each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_nsa.compiled.calls import KernelCall, threads_for
from pyg_nsa.compiled.first_order import first_order
from pyg_nsa.compiled.linear import parts_of
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.operators import differentiable, operator

__all__ = ["OPERATOR", "layer_norm", "layer_norm_and_rows"]


def _call(x: Tensor, weight: Tensor, eps: float) -> KernelCall:
    from pyg_nsa.compiled.layer_norm import Words

    call = KernelCall(Words)
    call.put(X=x, WEIGHT=weight.contiguous())
    call.put_number(EPS=eps)
    call.set(NUM_ROWS=x.numel() // x.size(-1), CHANNELS=x.size(-1))
    return call


def _forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    from pyg_nsa.compiled import layer_norm as kernels

    x = x.contiguous()
    y = empty(x, *x.shape)
    call = _call(x, weight, eps)
    call.put(BIAS=bias.contiguous(), Y=y)
    call.run(kernels.forward(), threads_for(x.numel()))
    return y


def _backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    return _gradients_of(grad, None, x, weight, eps)


def _gradients_of(
    grad: Tensor, passed: Tensor | None, x: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, of rows that are also passed on as they are."""
    from pyg_nsa.compiled import layer_norm as kernels

    x, grad = x.contiguous(), grad.contiguous()
    channels = x.size(-1)
    parts, part_rows = parts_of(x.numel() // channels)
    grad_x = empty(x, *x.shape)
    grads = x.new_empty(2, channels)
    call = _call(x, weight, eps)
    call.put(GRAD=grad, GRAD_X=grad_x, GRADS=grads, PART_SUMS=x.new_empty(parts, 2 * channels))
    call.put(PASSED=None if passed is None else passed.contiguous())
    call.set(ROWS_PER_PART=part_rows)
    threads = threads_for(x.numel())
    call.run(kernels.backward(), threads, x.new_empty(threads * (kernels.TILE * channels + 16)))
    # What an operator returns may not share memory.
    return grad_x, grads[0].clone(), grads[1].clone()


def _fake(x, *_):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_backward(grad, x, weight, eps):  # type: ignore[no-untyped-def]
    like = torch.empty_like(x, memory_format=torch.contiguous_format)
    return like, torch.empty_like(weight), torch.empty_like(weight)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _gradients(backward: Any, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *backward(grad, *ctx.saved_tensors, ctx.eps), None


OPERATOR = operator("pyg_nsa::layer_norm", _forward, _fake)
_BACKWARD = operator("pyg_nsa::layer_norm_backward", _backward, _fake_backward)
_differentiable = differentiable(
    (OPERATOR, _forward), (_BACKWARD, _backward), _setup_context, _gradients
)


class _Branches(torch.autograd.Function):
    """Normed rows, and the rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        _setup_context(ctx, (x, weight, bias, eps), x)
        ctx.set_materialize_grads(False)
        return _forward(x, weight, bias, eps), x

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor | None, passed: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return passed, None, None, None
        x, weight = ctx.saved_tensors
        return *_gradients_of(grad, passed, x, weight, ctx.eps), None


def layer_norm_and_rows(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Layer norm of rows, and the rows themselves, for a residual branch: their two gradients are one tensor then, which the norm's kernel
    writes. With ``x`` itself autograd adds them up. Arguments as of :func:`layer_norm`."""
    if torch.compiler.is_compiling() or not x.requires_grad:
        return layer_norm(x, weight, bias, eps), x
    y, same = _Branches.apply(x, weight, bias, eps)
    return y, same


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm of rows.

    Args:
        x: ``[*, C]``, float32 on a CPU, as :func:`pyg_nsa.compiled.linear.fits` asks for.
        weight: ``[C]``.
        bias: ``[C]``.
        eps: Added to the variance.

    Returns:
        Like ``x``.
    """
    y: Tensor = _differentiable(x, weight, bias, eps)
    return y

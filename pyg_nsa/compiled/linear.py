"""A linear layer on the CPU: torch's operator around the kernels of :mod:`pyg_nsa.compiled.linear_kernels`.

Both passes are registered with torch (:mod:`pyg_nsa.compiled.operators`), so that ``torch.compile`` sees one node each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from pyg_nsa.compiled.calls import KernelCall, threads_for
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.operators import differentiable, operator
from pyg_nsa.compiled.sequence import borrowed
from pyg_nsa.compiled.unaliased import unaliased

__all__ = [
    "OPERATOR",
    "Listed",
    "fits",
    "fits_layer",
    "linear",
    "linear_backward",
    "linear_forward",
    "stacked",
]

#: Numbers of the largest weight: it should stay in a core's L2 cache, with a tile of rows.
_LARGEST = 1 << 16

_WIDTHS = 16  # matmul.COLUMNS, without importing Numba

#: Others (fake tensors, tensor classes of users) have operators of their own.
_PLAIN = (Tensor, Parameter)

_ONE = torch.ones(1)

#: Rows of a part whose gradients are summed on their own, at least; and parts at most.
_PART_ROWS = 256
_PARTS = 16


class Listed(NamedTuple):
    """Some rows of each copy of a tensor ``[copies * size, *]``."""

    numbers: Tensor  # int64 [n], on the CPU, each once
    size: int

    def count(self, x: Tensor) -> int:
        """How many rows of ``x`` they are."""
        return x.size(0) // self.size * self.numbers.numel() if self.size else 0


def fits(x: Tensor, *weights: Tensor | None) -> bool:
    """Whether the kernels compute this: float32 on a CPU, no autocast, widths that are multiples of 16, and not too large.

    Args:
        x: ``[*, F_in]``.
        *weights: ``[F_out, F_in]``, or vectors, or nothing.
    """
    device = x.device
    if device.type != "cpu" or x.numel() == 0 or torch.is_autocast_enabled("cpu"):
        return False
    for t in (x, *weights):
        if t is None:
            continue
        if t.dtype != torch.float32 or t.device != device or type(t) not in _PLAIN:
            return False
        if t is not x and (t.numel() > _LARGEST or any(n % _WIDTHS or n == 0 for n in t.shape)):
            return False
    return True


def fits_layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether the kernels compute this layer of these rows; of rows with other columns torch says what is wrong.

    Args:
        x: ``[*, F_in]``.
        weight: ``[F_out, F_in]``, or ``[F_in]`` of a norm.
        bias: ``[F_out]``, or nothing.
    """
    return fits(x, weight, bias) and x.size(-1) == weight.size(-1)


def parts_of(num_rows: int) -> tuple[int, int]:
    """Number of parts of the rows, and rows of each; threads do not matter."""
    rows = max(_PART_ROWS, -(-num_rows // _PARTS))
    return -(-num_rows // rows), rows


def stacked(*layers: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of several linear layers as those of one."""
    weights = [weight for weight, _ in layers]
    if all(bias is None for _, bias in layers):
        return torch.cat(weights), None
    biases = [w.new_zeros(w.size(0)) if b is None else b for w, b in layers]
    return torch.cat(weights), torch.cat(biases)


def linear_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    start: Tensor | None = None,
    out: Tensor | None = None,
    rows: Listed | None = None,
) -> Tensor:
    """``start + x @ weight.T + bias``, without autograd.

    Args:
        x: ``[N, F_in]``.
        weight: ``[F_out, F_in]``.
        bias: ``[F_out]``.
        start: ``[N, F_out]``.
        out: ``[N, F_out]`` to write to; may be ``start``.
        rows: Those that are read and written, all by default; what the others hold is left as it is.

    Returns:
        ``[N, F_out]``.
    """
    from pyg_nsa.compiled import linear_kernels

    width, depth = weight.shape
    y = empty(x, x.size(0), width) if out is None else out
    call = KernelCall(linear_kernels.Words)
    flat_bias = None if bias is None else bias.contiguous()
    call.put(X=x, WEIGHT=weight.contiguous(), BIAS=flat_bias, Y=y, START=start)
    call.set(DEPTH=depth, WIDTH=width, X_ROW=x.stride(0), Y_ROW=y.stride(0))
    call.set(START_ROW=0 if start is None else start.stride(0))
    _run(call, "forward", x, weight, rows)
    return y


def _run(call: KernelCall, name: str, x: Tensor, weight: Tensor, rows: Listed | None) -> None:
    from pyg_nsa.compiled import linear_kernels

    width, depth = weight.shape
    num_rows, scratch_size = x.size(0), width * depth
    if rows is not None:
        num_rows = rows.count(x)
        scratch_size += linear_kernels.TILE * (2 * depth + width)
        call.put(ROWS=rows.numbers)
        call.set(LISTED=rows.numbers.numel(), COPY=rows.size)
    if num_rows == 0:
        return
    call.set(NUM_ROWS=num_rows, SCRATCH_SIZE=scratch_size)
    threads = threads_for(num_rows * width * depth)
    kernel = getattr(linear_kernels, name)()
    call.run(kernel, threads, borrowed("threads", x, threads * scratch_size))


def linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    grad_x: Tensor | None,
    *,
    adds: bool = False,
    has_bias: bool = True,
    rows: Listed | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of weight and bias, in one piece of memory; that of ``x`` is written where it is to go.

    Args:
        grad: ``[N, F_out]``, of the result.
        x: ``[N, F_in]``.
        weight: ``[F_out, F_in]``.
        grad_x: ``[N, F_in]`` to write to.
        adds: To what ``grad_x`` holds.
        has_bias: Whether the bias's is asked for.
        rows: Those in which ``grad`` is not 0, as far as it matters, all by default; other rows are not read, nor written.
    """
    from pyg_nsa.compiled import linear_kernels

    width, depth = weight.shape
    parts, part_rows = parts_of(x.size(0) if rows is None else rows.count(x))
    size = width * (depth + has_bias)
    grads = x.new_empty(size) if parts else x.new_zeros(size)
    call = KernelCall(linear_kernels.Words)
    call.put(X=x, WEIGHT=weight.contiguous(), GRAD=grad, GRAD_X=grad_x)
    call.put(PART_SUMS=borrowed("parts", x, parts * size), GRADS=grads, ONE=_ONE)
    call.set(DEPTH=depth, WIDTH=width, X_ROW=x.stride(0))
    call.set(
        HAS_BIAS=int(has_bias), GRAD_ROW=grad.stride(0), ROWS_PER_PART=part_rows, ADDS=int(adds)
    )
    call.set(GRAD_X_ROW=0 if grad_x is None else grad_x.stride(0))
    _run(call, "backward", x, weight, rows)
    of_weight = grads[: width * depth].view(width, depth)
    return of_weight, grads[width * depth :] if has_bias else None


def _separate(rows: Tensor) -> Tensor:
    """Rows that follow each other in memory, as the kernels read them; one row that is expanded to all is copied."""
    width, step = rows.size(1), rows.stride(0)
    return rows if rows.stride(1) == 1 and step >= width else rows.contiguous()


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None) -> Tensor:
    rows = _separate(x.reshape(-1, x.size(-1)))
    begin = None if start is None else start.reshape(-1, start.size(-1)).contiguous()
    out = linear_forward(rows, weight, bias, begin)
    return unaliased(out, (*x.shape[:-1], weight.size(0)))


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool, has_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where they are not asked for."""
    rows = _separate(x.reshape(-1, x.size(-1)))
    grads = grad.reshape(-1, grad.size(-1)).contiguous()
    grad_x = empty(x, *(rows.shape if has_x else (0,)))
    of_weight, of_bias = linear_backward(
        grads, rows, weight, grad_x if has_x else None, has_bias=has_bias
    )
    shape = x.shape if has_x else (0,)
    # What an operator returns may not share memory.
    return (
        grad_x.view(shape),
        of_weight,
        weight.new_empty(0) if of_bias is None else of_bias.clone(),
    )


def _fake(x, weight, bias, start):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], weight.size(0))


def _fake_backward(grad, x, weight, has_bias, has_x):  # type: ignore[no-untyped-def]
    return (
        x.new_empty(x.shape if has_x else (0,)),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.size(0) if has_bias else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, start = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias, ctx.has_start = bias is not None, start is not None


def _gradients(backward: Any, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    has_x = ctx.needs_input_grad[0]
    of_x, of_weight, of_bias = backward(grad, x, weight, ctx.has_bias, has_x)
    given = of_x if has_x else None, of_weight, of_bias if ctx.has_bias else None
    return *given, grad if ctx.has_start else None


OPERATOR = operator("pyg_nsa::linear", _forward, _fake)
_BACKWARD = operator("pyg_nsa::linear_backward", _backward, _fake_backward)
_call = differentiable((OPERATOR, _forward), (_BACKWARD, _backward), _setup_context, _gradients)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None = None) -> Tensor:
    """``start + x @ weight.T + bias``.

    Args:
        x: ``[*, F_in]``, float32 on a CPU, as :func:`fits` asks for.
        weight: ``[F_out, F_in]``.
        bias: ``[F_out]``.
        start: ``[*, F_out]``.

    Returns:
        ``[*, F_out]``.
    """
    y: Tensor = _call(x, weight, bias, start)
    return y

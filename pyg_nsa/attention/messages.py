"""The message of one relation from rows and weights, and its gradients, on plain tensors; operators are made of it.

The attention kernels read queries, keys and values where the projections' kernel wrote them, and write their gradients where it
reads them, so nothing is cut or copied in between.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from pyg_nsa.attention.csr_calls import CSR, Masks, Paired, attend, attend_backward
from pyg_nsa.compiled.linear import Listed, linear_backward, linear_forward
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.sequence import borrowed

__all__ = [
    "Attention",
    "Kept",
    "RowGradient",
    "Weights",
    "as_rows",
    "message_backward",
    "message_forward",
]


class Weights(NamedTuple):
    """Projections of a relation; ``dst`` is missing if queries are projected together with keys and values, of the same rows."""

    src: Tensor  # [2 C, F_src] of key and value, or [3 C, F_src], of query too
    src_bias: Tensor | None
    dst: Tensor | None  # [C, F_dst] of query
    dst_bias: Tensor | None


class Attention(NamedTuple):
    """All that both passes of one relation read besides its rows."""

    weights: Weights
    bias: Tensor | None  # [P, H], added to the logits
    masks: Masks  # [B, N] bool of living rows
    csr: CSR
    paired: Paired
    heads: int
    scale: float  # factor of the logits

    def queries(self) -> Listed | None:
        """Rows that have pairs."""
        return self._listed(self.paired.queries, self.csr.rowptr)

    def keys(self) -> Listed | None:
        """Rows that have pairs."""
        return self._listed(self.paired.keys, self.csr.rowptr_t)

    @staticmethod
    def _listed(index: Tensor | None, rowptr: Tensor) -> Listed | None:
        return None if index is None else Listed(index, rowptr.numel() - 1)


class Kept(NamedTuple):
    """What the backward pass needs besides the inputs."""

    message: Tensor  # [B N_q, C]
    y_src: Tensor  # [B N_k, 2 C or 3 C], the projected rows
    y_dst: Tensor  # [B N_q, C], or empty
    lse: Tensor  # [B, N_q, H], log-sum-exp


class RowGradient:
    """Where the gradient of some rows goes, which several relations add to.

    Args:
        rows: ``[N, F]``.
        wanted: Whether anybody asks for it.
    """

    def __init__(self, rows: Tensor, wanted: bool) -> None:
        self.gradient = empty(rows, *rows.shape) if wanted else None
        self.is_written = False

    def through(
        self,
        grad: Tensor,
        rows: Tensor,
        weight: Tensor,
        has_bias: bool,
        listed: Listed | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Adds what comes through a linear layer ``rows @ weight.T`` of the listed rows; gradients of its weight and bias."""
        if listed is not None and self.gradient is not None and not self.is_written:
            self.gradient.zero_()  # of its own, and no kernel has written to it
            self.is_written = True
        adds, self.is_written = self.is_written, True
        return linear_backward(
            grad, rows, weight, self.gradient, adds=adds, has_bias=has_bias, rows=listed
        )


def as_rows(x: Any) -> Any:
    """``[B, N, F]`` to ``[B N, F]``, each row in one piece; nothing stays nothing."""
    return None if x is None else x.reshape(-1, x.size(-1)).contiguous()


def message_forward(
    rows_src: Tensor, rows_dst: Tensor, attention: Attention, copies: int, *, lent: bool = False
) -> Kept:
    """Attention of projected rows.

    Args:
        rows_src: ``[B N_k, F_src]``, each in one piece.
        rows_dst: ``[B N_q, F_dst]``, which may be ``rows_src``; not read if ``weights.dst`` is missing.
        attention: The relation.
        copies: B.
        lent: Whether the projected rows may be :func:`~pyg_nsa.compiled.sequence.borrowed`, since no backward pass needs them.
    """
    weights, bias, masks, csr, _, heads, scale = attention

    def projected(
        name: str, rows: Tensor, weight: Tensor, additive: Tensor | None, listed: Listed | None
    ) -> Tensor:
        to = borrowed(name, rows, rows.size(0), weight.size(0)) if lent else None
        return linear_forward(rows, weight, additive, out=to, rows=listed)

    y_src = projected("y_src", rows_src, weights.src, weights.src_bias, attention.keys())
    if weights.dst is None:
        y_dst = rows_src.new_empty(0)
    else:
        y_dst = projected("y_dst", rows_dst, weights.dst, weights.dst_bias, attention.queries())
    q, k, v = _split(y_src, y_dst, weights.dst is not None, copies, heads)
    message, lse = attend(q, k, v, bias, masks.as_bytes(), csr, scale)
    return Kept(message.view(-1, heads * q.size(-1)), y_src, y_dst, lse)


def message_backward(
    grad: Tensor,
    rows_src: Tensor,
    rows_dst: Tensor,
    attention: Attention,
    kept: Kept,
    of_src: RowGradient,
    of_dst: RowGradient,
) -> tuple[Weights, Tensor]:
    """Gradients of weights and bias (``[0, H]`` without one); those of the rows are added to ``of_src`` and ``of_dst``.

    Args:
        grad: ``[B N_q, C]``, of the message; rows without pairs are not read.
        rows_src: As in the forward pass.
        rows_dst: The same.
        attention: The same.
        kept: What it returned.
        of_src: Of the sources' rows.
        of_dst: Of the targets', the same if those are the sources; not touched if ``weights.dst`` is missing.
    """
    weights, bias, masks, csr, _, heads, scale = attention
    copies = kept.lse.size(0)
    # Without pairs they are zeros from now on, and no kernel's: nothing that is lent to others in between.
    new = borrowed if int(csr.sizes[0]) else _new
    grad_src = new("grad of y_src", kept.y_src, *kept.y_src.shape)
    grad_dst = new("grad of y_dst", kept.y_dst, *kept.y_dst.shape)
    has_own = weights.dst is not None
    q, k, v = _split(kept.y_src, kept.y_dst, has_own, copies, heads)
    of_bias = attend_backward(
        _heads(grad, copies, 0, heads, grad.size(-1)),
        q,
        k,
        v,
        bias,
        masks.as_bytes(),
        kept.message.view(q.shape),
        kept.lse,
        csr,
        scale,
        _split(grad_src, grad_dst, has_own, copies, heads),
    )
    has_bias = weights.src_bias is not None
    src = of_src.through(grad_src, rows_src, weights.src, has_bias, attention.keys())
    dst: tuple[Any, Any] = None, None
    if weights.dst is not None:
        has_bias = weights.dst_bias is not None
        dst = of_dst.through(grad_dst, rows_dst, weights.dst, has_bias, attention.queries())
    return Weights(*src, *dst), of_bias


def _new(name: str, like: Tensor, *shape: int) -> Tensor:
    return empty(like, *shape)


def _heads(y: Tensor, copies: int, first: int, heads: int, width: int) -> Tensor:
    """Columns ``first`` to ``first + width`` of ``[B N, *]`` as ``[B, N, H, D]``."""
    rows, size, row = y.size(0) // copies, width // heads, y.stride(0)
    return y.as_strided(
        (copies, rows, heads, size), (rows * row, row, size, 1), y.storage_offset() + first
    )


def _split(
    y_src: Tensor, y_dst: Tensor, has_own: bool, copies: int, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value. Queries that have no rows of their own stand behind the values."""
    width = y_src.size(-1) // (2 if has_own else 3)
    queries = (y_dst, 0) if has_own else (y_src, 2 * width)
    places = queries, (y_src, 0), (y_src, width)
    q, k, v = (_heads(y, copies, first, heads, width) for y, first in places)
    return q, k, v

"""Messages of several relations, summed by target, as one autograd function on the CPU.

Rows that several relations read get their gradient in one tensor, which each relation's kernel adds to; from single functions
autograd would get a tensor each, and add them up. So it is with the sums of messages. On graphs of some thousand nodes the calls
themselves count too.

Only for eager calls: a compiled graph sees the single operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
from pyg_nsa.attention.projected import Layer, fits
from pyg_nsa.compiled import linear
from pyg_nsa.compiled.dropping import STEPS, draw, drop
from pyg_nsa.compiled.first_order import first_order
from pyg_nsa.compiled.linear import linear_backward, linear_forward, stacked
from pyg_nsa.compiled.memory import empty
from pyg_nsa.compiled.sequence import borrowed, in_one_go
from pyg_nsa.compiled.unaliased import unaliased

__all__ = ["RelationCall", "fits_joint", "summed_messages"]


class RelationCall(NamedTuple):
    r"""One relation: :math:`\mathbf{W}_o \sum_j \mathrm{softmax}_j(s\,\mathbf{q}_i \cdot \mathbf{k}_j + b_{ij}) \mathbf{v}_j`."""

    src: str  # name of the rows of the sources
    dst: str
    key: Layer  # weight [C, F_src] and bias [C], if any
    value: Layer
    query: Layer
    out: Tensor  # [F_out, C]
    edges: EdgeSet
    heads: int
    bias: Tensor | None  # [P, heads], added to the logits
    alive_keys: Tensor | None  # bool [N_k] or [B, N_k]
    alive_queries: Tensor | None
    dropped: int = 0  # what dropout takes of the sums before W_o, of dropping.STEPS


class _Relation(NamedTuple):
    """What of a relation is no tensor with a gradient, or is the same in every step."""

    src: int
    dst: int
    csr: CSR
    paired: Paired
    heads: int
    scale: float
    dropped: int

    @property
    def rescale(self) -> float:
        """What dropout multiplies by what is left; goes to the output's weight, since it commutes."""
        return STEPS / (STEPS - self.dropped)


class _Tensors(NamedTuple):
    """The tensors of a relation as autograd sees them, or their gradients."""

    w_key: Any
    b_key: Any
    w_value: Any
    b_value: Any
    w_query: Any
    b_query: Any
    w_out: Any
    bias: Any  # of the logits
    alive_queries: Any
    alive_keys: Any
    draws: Any  # of dropout

    def attention(self, relation: _Relation) -> Attention:
        """The relation as the kernels take it."""
        key, value = (self.w_key, self.b_key), (self.w_value, self.b_value)
        query = self.w_query, self.b_query
        if relation.src == relation.dst and relation.paired.are_same:
            weights = Weights(*stacked(key, value, query), None, None)
        else:
            weights = Weights(*stacked(key, value), *query)
        masks = Masks(self.alive_queries, self.alive_keys)
        return Attention(
            weights,
            self.bias,
            masks,
            relation.csr,
            relation.paired,
            relation.heads,
            relation.scale,
        )

    def gradients(self, of: Weights, of_out: Tensor, of_bias: Tensor) -> _Tensors:
        """Those of the kernels as those of each tensor."""
        width = self.w_key.size(0)

        def part(weight: Tensor, bias: Any, number: int, has_bias: bool) -> tuple[Tensor, Any]:
            rows = slice(number * width, (number + 1) * width)
            return weight[rows], bias[rows] if has_bias else None

        query = (of.src, of.src_bias, 2) if of.dst is None else (of.dst, of.dst_bias, 0)
        return _Tensors(
            *part(of.src, of.src_bias, 0, self.b_key is not None),
            *part(of.src, of.src_bias, 1, self.b_value is not None),
            *part(*query, self.b_query is not None),
            of_out,
            None if self.bias is None else of_bias,
            None,
            None,
            None,
        )


def fits_joint(
    x: tuple[Tensor, Tensor], layers: tuple[Layer, Layer, Layer, Layer], start: Tensor | None
) -> bool:
    """Whether :func:`summed_messages` computes a relation: what the kernels can, outside of a compiled graph.

    Args:
        x: Rows of sources and targets, ``[*, N, F]``.
        layers: Of key, value, query and output; the output's has no bias.
        start: ``[*, N_q, F_out]``, what the sum starts with.
    """
    *projections, (out, out_bias) = layers
    x_dst = x[1]
    return (
        not torch.compiler.is_compiling()
        and out_bias is None
        and fits(*x, *projections)
        and linear.fits(x_dst, out)
        and out.size(1) == layers[1][0].size(0)
        and (
            start is None
            or (start.shape == (*x_dst.shape[:-1], out.size(0)) and linear.fits(start, out))
        )
    )


class _SummedMessages(torch.autograd.Function):
    """``apply(relations, targets, num_rows, has_backward, *tensors)``: rows, what each target's sum starts with, each relation's."""

    @staticmethod
    def forward(
        ctx: Any,
        relations: Sequence[_Relation],
        targets: Sequence[int],
        num_rows: int,
        has_backward: bool,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        x, starts, given = _sorted(num_rows, len(targets), tensors)
        rows = [as_rows(t) for t in x]
        sums: dict[int, Any] = dict(zip(targets, map(as_rows, starts), strict=True))
        written: set[int] = set()
        kept_tensors: list[Tensor] = []
        with in_one_go():
            for relation, own in zip(relations, given, strict=True):
                at = relation.dst
                attention = own.attention(relation)
                kept = message_forward(
                    rows[relation.src],
                    rows[at],
                    attention,
                    x[at].size(0),
                    lent=not has_backward,
                )
                w_out = own.w_out
                if relation.dropped:
                    drop(kept.message, own.draws, relation.dropped)
                    w_out = w_out * relation.rescale
                # The first message makes new rows, the others are added to them. Rows without pairs get no message.
                start, listed = sums[at], attention.queries()
                to = start if at in written else None
                if to is None and listed is not None:
                    to = start = _begun(start, kept.message.size(0), w_out)
                sums[at] = linear_forward(kept.message, w_out, None, start, to, rows=listed)
                written.add(at)
                if has_backward:
                    kept_tensors += kept
        ctx.relations, ctx.targets, ctx.num_rows = relations, targets, num_rows
        ctx.save_for_backward(*tensors, *kept_tensors)
        ctx.set_materialize_grads(False)
        return tuple(unaliased(sums[t], (*x[t].shape[:-1], -1)) for t in targets)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        relations, targets, num_rows = ctx.relations, ctx.targets, ctx.num_rows
        end = num_rows + len(targets) + len(_Tensors._fields) * len(relations)
        saved = ctx.saved_tensors
        x, _, given = _sorted(num_rows, len(targets), saved[:end])
        kept = [Kept(*saved[at : at + 4]) for at in range(end, len(saved), 4)]
        needed = ctx.needs_input_grad[4:]
        rows = [as_rows(t) for t in x]
        of_rows = [RowGradient(r, wanted) for r, wanted in zip(rows, needed, strict=False)]
        of_sums = dict(zip(targets, map(as_rows, grads), strict=True))
        of_relations: list[Any] = []
        rescaled: list[tuple[Tensor, float]] = []
        with in_one_go():
            for relation, own, held in zip(relations, given, kept, strict=True):
                grad = of_sums[relation.dst]
                if grad is None:  # nothing depends on this sum
                    of_relations += [None] * len(own)
                    continue
                of_message = borrowed("grad of message", grad, *held.message.shape)
                w_out = own.w_out * relation.rescale if relation.dropped else own.w_out
                attention = own.attention(relation)
                of_out, _ = linear_backward(
                    grad,
                    held.message,
                    w_out,
                    of_message,
                    has_bias=False,
                    rows=attention.queries(),
                )
                if relation.dropped:
                    drop(of_message, own.draws, relation.dropped)
                    rescaled.append((of_out, relation.rescale))
                of_weights, of_bias = message_backward(
                    of_message,
                    rows[relation.src],
                    rows[relation.dst],
                    attention,
                    held,
                    of_rows[relation.src],
                    of_rows[relation.dst],
                )
                of_relations += own.gradients(of_weights, of_out, of_bias)
        for of_out, factor in rescaled:
            of_out *= factor
        of_x = [
            r.gradient.view(t.shape) if r.gradient is not None and r.is_written else None
            for r, t in zip(of_rows, x, strict=True)
        ]
        results = [*of_x, *grads, *of_relations]
        asked = zip(results, needed, strict=True)
        return None, None, None, None, *(g if wanted else None for g, wanted in asked)


def _begun(start: Tensor | None, rows: int, weight: Tensor) -> Tensor:
    """A sum ``[rows, F_out]`` before its first message."""
    width = weight.size(0)
    if start is None:
        return weight.new_zeros(rows, width)
    return empty(start, rows, width).copy_(start)


def _sorted(
    num_rows: int, num_targets: int, tensors: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any], list[_Tensors]]:
    """Rows, starts, and the tensors of each relation."""
    first, size = num_rows + num_targets, len(_Tensors._fields)
    places = range(first, len(tensors), size)
    relations = [_Tensors(*tensors[at : at + size]) for at in places]
    return tensors[:num_rows], tensors[num_rows:first], relations


def summed_messages(
    rows: Mapping[str, Tensor],
    starts: Mapping[str, Tensor | None],
    relations: Sequence[RelationCall],
) -> dict[str, Tensor]:
    r"""For each target :math:`\mathbf{s}_t + \sum_r \mathbf{m}^r`, over the relations ``r`` that lead to it.

    Args:
        rows: ``[N, F]`` or ``[B, N, F]`` by name; a relation from and to one name projects it once.
        starts: ``[*, N, F_out]``, what a target's sum starts with; default: zeros.
        relations: All as :func:`fits_joint` asks for.

    Returns:
        ``[*, N, F_out]`` by the names of the targets.

    Raises:
        ValueError: Pairs, bias or masks that do not fit the rows.
        TypeError: A mask that is not boolean.
    """
    names = list(dict.fromkeys(name for r in relations for name in (r.src, r.dst)))
    targets = list(dict.fromkeys(r.dst for r in relations))

    def lead(name: str, t: Tensor | None) -> Tensor | None:
        return t[None] if t is not None and rows[name].dim() == 2 else t

    plans: list[_Relation] = []
    tensors: list[Tensor | None] = []
    for r in relations:
        x_src, x_dst = rows[r.src], rows[r.dst]
        check_pairs(r.edges, x_dst.size(-2), x_src.size(-2), r.heads, r.bias, x_dst.device)
        check_alive("alive_queries", r.alive_queries, x_dst.shape[:-1])
        check_alive("alive_keys", r.alive_keys, x_src.shape[:-1])
        scale = 1 / math.sqrt(r.key[0].size(0) // r.heads)
        places = names.index(r.src), names.index(r.dst)
        csr, paired = csr_tensors(r.edges), paired_rows(r.edges)
        plans.append(_Relation(*places, csr, paired, r.heads, scale, r.dropped))
        bias = None if r.bias is None else r.bias.to(x_src.dtype).contiguous()
        masks = lead(r.dst, r.alive_queries), lead(r.src, r.alive_keys)
        size = x_dst[..., 0].numel() * r.out.size(1)
        draws = draw(size) if r.dropped else None
        tensors += [*r.key, *r.value, *r.query, r.out, bias, *masks, draws]
    outs = _SummedMessages.apply(
        plans,
        [names.index(t) for t in targets],
        len(names),
        torch.is_grad_enabled(),
        *(lead(name, rows[name]) for name in names),
        *(lead(t, starts.get(t)) for t in targets),
        *tensors,
    )
    pairs = zip(targets, outs, strict=True)
    return {t: out.squeeze(0) if rows[t].dim() == 2 else out for t, out in pairs}

"""Which implementation runs: the device of the tensors decides, and nothing else.

CUDA tensors run FlexAttention, compiled. If it fails, the program fails, with the original error: a silent switch to
another implementation would hide that masks, memory and speed are not what the user was promised. CPU tensors run the
sparse kernel and ``scaled_dot_product_attention``. There is no option that chooses.
"""

from __future__ import annotations

from torch import Tensor

from pyg_nsa.attention import sdpa, sparse
from pyg_nsa.attention.checks import check_alive, check_graph_counts, check_pairs
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments

__all__ = ["edge_attention", "full_attention", "self_attention"]


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
    r"""Attention over the pairs of ``edges``: each query attends to the keys that it is paired with.

    .. math::
        \mathbf{o}_i^h = \sum_{j : (i, j) \in \mathcal{P}} \mathrm{softmax}_j \left(
        s \, \mathbf{q}_i^h \cdot \mathbf{k}_j^h + b_{ij}^h \right) \mathbf{v}_j^h

    A query without an allowed key gets a zero message and zero gradients. A bias of ``-inf`` drops its pair.

    Args:
        q: ``[N_q, H, D]``, or ``[B, N_q, H, D]`` for B copies of one graph that share ``edges`` and ``bias``.
        k: ``[N_k, H, D]`` or ``[B, N_k, H, D]``.
        v: Like ``k``.
        edges: The pairs, ``N_q`` queries and ``N_k`` keys, on the same device.
        bias: ``[P, H]`` added to the logits, in the order of ``edges``; differentiable.
        alive_queries: bool, ``[N_q]`` or ``[B, N_q]``; dead rows (deleted nodes, padding) receive nothing.
        alive_keys: bool, ``[N_k]`` or ``[B, N_k]``; dead rows send nothing.
        scale: Factor ``s`` of the logits (default ``1 / sqrt(D)``).

    Returns:
        Like ``q``, in its dtype.

    Raises:
        ValueError: Shapes that do not fit each other.
        TypeError: A mask that is not boolean.
        RuntimeError: Tensors on a device other than the CPU and CUDA, or a failure of FlexAttention.
    """
    _check_layout(q, k, v, alive_queries, alive_keys)
    check_pairs(edges, q.size(-3), k.size(-3), q.size(-2), bias, q.device)
    options = dict(alive_queries=alive_queries, alive_keys=alive_keys, scale=scale)
    if _is_cuda(q):
        from pyg_nsa.attention import flex

        try:
            return flex.edge_attention(q, k, v, edges, bias, **options)  # type: ignore[arg-type]
        except Exception as error:
            error.add_note(_note("edge_attention", q, k, f", {edges.num_pairs} pairs"))
            raise
    return sparse.edge_attention(q, k, v, edges, bias, **options)  # type: ignore[arg-type]


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
    """Every query attends to every key of its graph.

    Args:
        q: ``[N_q, H, D]`` (a PyG batch; ``query_segments`` says which rows form a graph), or ``[B, N_q, H, D]``
            (one graph per entry of the batch axis).
        k: ``[N_k, H, D]`` or ``[B, N_k, H, D]``.
        v: Like ``k``.
        query_segments: Graphs of the queries in the layout ``[N, H, D]`` (default: one graph).
        key_segments: Graphs of the keys (default: those of the queries).
        alive_queries: ``[B, N_q]`` bool in the layout ``[B, N, H, D]``; dead rows get zero.
        alive_keys: ``[B, N_k]`` bool; dead rows are not attended to.
        scale: Factor of the logits (default ``1 / sqrt(D)``).

    Returns:
        Like ``q``. Rows outside of every segment, dead rows, and rows whose graph has no key are zero.

    Raises:
        ValueError: Shapes that do not fit each other.
        TypeError: A mask that is not boolean.
        RuntimeError: Tensors on a device other than the CPU and CUDA, or a failure of FlexAttention.
    """
    _check_layout(q, k, v, alive_queries, alive_keys)
    if q.dim() == 4 and (query_segments is not None or key_segments is not None):
        raise ValueError(
            "segments belong to the layout [N, H, D]; with [B, N, H, D] each entry of the batch is a "
            "graph, so pass alive_queries and alive_keys instead"
        )
    if q.dim() == 3 and (alive_queries is not None or alive_keys is not None):
        raise ValueError(
            "in the layout [N, H, D] dead rows are left out of the segments: "
            "Segments.from_batch(batch, num_rows, mask=alive)"
        )
    check_graph_counts(query_segments, key_segments)
    options = dict(alive_queries=alive_queries, alive_keys=alive_keys, scale=scale)
    if _is_cuda(q):
        from pyg_nsa.attention import flex

        try:
            return flex.full_attention(q, k, v, query_segments, key_segments, **options)  # type: ignore[arg-type]
        except Exception as error:
            error.add_note(_note("full_attention", q, k, ""))
            raise
    return sdpa.full_attention(q, k, v, query_segments, key_segments, **options)  # type: ignore[arg-type]


def self_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Segments | None = None,
    *,
    alive: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Full attention inside each graph: :func:`full_attention` with the same rows as queries and keys.

    Args:
        q: ``[N, H, D]`` or ``[B, N, H, D]``.
        k: Like ``q``.
        v: Like ``q``.
        segments: Graphs of the rows in the layout ``[N, H, D]`` (default: one graph).
        alive: ``[B, N]`` bool in the layout ``[B, N, H, D]``.
        scale: Factor of the logits (default ``1 / sqrt(D)``).
    """
    return full_attention(
        q, k, v, segments, segments, alive_queries=alive, alive_keys=alive, scale=scale
    )


def _is_cuda(q: Tensor) -> bool:
    if q.device.type not in ("cpu", "cuda"):
        raise RuntimeError(
            f"pyg_nsa attention runs on CUDA (FlexAttention) and on the CPU, not on '{q.device.type}'; "
            "move the model and the data to one of them"
        )
    return q.is_cuda


def _note(name: str, q: Tensor, k: Tensor, more: str) -> str:
    return (
        f"pyg_nsa: FlexAttention failed in {name} with q {list(q.shape)}, k {list(k.shape)}, {q.dtype}"
        f"{more}; on a GPU there is no other implementation to fall back to"
    )


def _check_layout(
    q: Tensor, k: Tensor, v: Tensor, alive_queries: Tensor | None, alive_keys: Tensor | None
) -> None:
    if q.dim() not in (3, 4) or k.dim() != q.dim() or v.shape != k.shape:
        raise ValueError(
            "q, k, v must be [N, heads, head_dim] or [batch, N, heads, head_dim], k and v of one shape; "
            f"got q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if q.shape[-2:] != k.shape[-2:] or q.shape[:-3] != k.shape[:-3]:
        raise ValueError(
            f"q and k must agree in heads, head_dim and batch, got q {list(q.shape)}, k {list(k.shape)}"
        )
    check_alive("alive_queries", alive_queries, q.shape[:-2])
    check_alive("alive_keys", alive_keys, k.shape[:-2])

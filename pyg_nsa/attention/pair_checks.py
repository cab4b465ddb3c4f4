"""Whether tensors that somebody else made are a pair set: kernels follow them blindly, out of memory if need be."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_merged", "check_pairs_in_csr"]

_MEND = "; EdgeSet.from_edge_index(index, num_keys, num_queries) makes a set of pairs in any order"


def check_pairs_in_csr(
    row: Tensor, col: Tensor, rowptr: Tensor, num_queries: int, num_keys: int
) -> None:
    """Whether ``row``, ``col`` and ``rowptr`` of an :class:`~pyg_nsa.EdgeSet` are what its docstring says. Reads values.

    Raises:
        TypeError: One is no int64 vector.
        ValueError: They are of different devices or lengths, hold numbers that are no rows, or pairs that are not unique and sorted.
    """
    for name, value in (("row", row), ("col", col), ("rowptr", rowptr)):
        _check_vector(name, value, row)
    if row.numel() != col.numel() or rowptr.numel() != num_queries + 1:
        raise ValueError(
            f"EdgeSet: row, col and rowptr must have shapes [P], [P] and [num_queries + 1] = [{num_queries + 1}], got "
            f"{list(row.shape)}, {list(col.shape)} and {list(rowptr.shape)}{_MEND}"
        )
    used = int(rowptr[-1])
    if not 0 <= used <= row.numel():
        raise ValueError(
            f"EdgeSet: rowptr ends with {used}, but there are {row.numel()} pairs{_MEND}"
        )
    query, key = row[:used], col[:used]
    for name, index, size in (("row", query, num_queries), ("col", key, num_keys)):
        if bool(((index < 0) | (index >= size)).any()):
            raise ValueError(
                f"EdgeSet: {name} holds {int(index.min())} to {int(index.max())}, but must hold 0 to {size - 1}{_MEND}"
            )
    code = query * num_keys + key
    if bool((code[1:] <= code[:-1]).any()):
        raise ValueError(f"EdgeSet: the pairs are not unique and sorted by (query, key){_MEND}")
    starts = torch.searchsorted(
        query.contiguous(), torch.arange(num_queries + 1, device=row.device)
    )
    if not torch.equal(rowptr, starts):
        raise ValueError(
            f"EdgeSet: the pairs of query i must be rowptr[i]:rowptr[i + 1], but row says otherwise{_MEND}"
        )
    if bool((row[used:] != num_queries).any() | (col[used:] != num_keys).any()):
        raise ValueError(
            f"EdgeSet: rowptr ends with {used}, but there are {row.numel()} pairs; slots that no pair uses must hold num_queries and "
            f"num_keys{_MEND}"
        )


def check_merged(
    edge_of: Tensor | None, pair_of: Tensor | None, row: Tensor, num_edges: int
) -> None:
    """Whether ``edge_of`` and ``pair_of`` of an :class:`~pyg_nsa.EdgeSet` lead from its edges to its pairs. Reads values.

    Raises:
        TypeError: One is no int64 vector.
        ValueError: Only one is given, or they are of different devices or lengths, or hold numbers that are no edges or pairs.
    """
    if edge_of is None and pair_of is None:
        return
    if edge_of is None or pair_of is None or edge_of.shape != pair_of.shape:
        raise ValueError("EdgeSet: edge_of and pair_of go together, [M] int64 each, or both None")
    for name, value, size in (
        ("edge_of", edge_of, num_edges),
        ("pair_of", pair_of, row.numel()),
    ):
        _check_vector(name, value, row)
        if bool(((value < 0) | (value >= size)).any()):
            raise ValueError(
                f"EdgeSet: {name} holds {int(value.min())} to {int(value.max())}, but must hold 0 to {size - 1}"
            )


def _check_vector(name: str, value: Tensor, row: Tensor) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.dim() != 1:
        got = (
            f"{value.dtype} of shape {list(value.shape)}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise TypeError(f"EdgeSet: {name} must be an int64 vector, got {got}{_MEND}")
    if value.device != row.device:
        raise ValueError(f"EdgeSet: {name} is on {value.device}, row on {row.device}")

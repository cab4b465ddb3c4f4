"""What FlexAttention's kernels compute for each pair of a query and a key: whether it attends, and what is added to its logit.

Shifts and masks only, since ``//`` and ``%`` cost a dozen instructions each. ``b``, ``h``, ``query`` and ``key`` are the entry of the batch,
the head, and the rows: int32 scalars, as FlexAttention asks for.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyg_nsa.attention.tiles import EdgeTiles

__all__ = [
    "MaskMod",
    "ScoreMod",
    "alive_mask_mods",
    "all_of",
    "edge_mask_mod",
    "edge_score_mod",
    "graph_mask_mod",
]

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_LARGEST = 2**31 - 1


def _word(tiles: EdgeTiles, query: Tensor, key: Tensor) -> Tensor:
    """Number of the 32-bit word that holds the pair."""
    tile = _wide(tiles.table[query >> 7, key >> 7], tiles.bits)
    return (tile << 9) + ((query & 127) << 2) + ((key & 127) >> 5)


def _wide(number: Tensor, read: Tensor) -> Tensor:
    """int64 where 32 bits can't count the entries of the tensor that is read: kernels compute an address in the type of its parts."""
    return number.long() if read.numel() > _LARGEST else number


def edge_mask_mod(tiles: EdgeTiles) -> MaskMod:
    """True for the pairs of the edge set."""
    bits = tiles.bits

    def mask_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ((bits[_word(tiles, query, key)] >> (key & 31)) & 1) == 1

    return mask_mod


def edge_score_mod(tiles: EdgeTiles, bias: Tensor) -> ScoreMod:
    """Adds the bias of a pair; for what is no pair it adds that of some other, which the mask hides.

    Args:
        tiles: The bitmaps.
        bias: ``[padded pairs, H]``.
    """
    bits, rank = tiles.bits, tiles.rank

    def score_mod(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        word = _word(tiles, query, key)
        # The bits below the pair's own; without bit 31, so that right shifts bring in no sign.
        x = bits[word] & ((1 << (key & 31)) - 1)
        # Number of set bits, in parallel in pairs, nibbles, bytes (Warren, Hacker's Delight, chapter 5).
        x = x - ((x >> 1) & 0x55555555)
        x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
        x = (x + (x >> 4)) & 0x0F0F0F0F
        below = ((x * 0x01010101) >> 24) & 0xFF
        return score + bias[_wide(rank[word], bias) + below, h]

    return score_mod


def alive_mask_mods(alive_queries: Tensor | None, alive_keys: Tensor | None) -> list[MaskMod]:
    """True for living queries and for living keys; the masks are ``[B, rows]`` bool, ``None`` if all rows live."""

    def query_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert alive_queries is not None
        return alive_queries[b, query]

    def key_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert alive_keys is not None
        return alive_keys[b, key]

    mods: list[MaskMod] = []
    if alive_queries is not None:
        mods.append(query_mod)
    if alive_keys is not None:
        mods.append(key_mod)
    return mods


def graph_mask_mod(query_graph: Tensor, key_graph: Tensor) -> MaskMod:
    """True where query and key are of one graph."""

    def mask_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query_graph[query] == key_graph[key]

    return mask_mod


def all_of(first: MaskMod, *others: MaskMod) -> MaskMod:
    """True where all masks are."""

    def mask_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = first(b, h, query, key)
        for other in others:
            allowed = allowed & other(b, h, query, key)
        return allowed

    return mask_mod

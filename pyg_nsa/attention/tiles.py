"""Which tiles of the attention matrix hold a pair, and which pairs: the data that the GPU kernels read.

The attention matrix (queries down, keys across) is cut into tiles of 128 x 128. Only tiles that hold a pair are stored,
as bitmaps: 2 KB of bits and 2 KB of pair numbers each. Nothing of size ``N_q * N_k`` exists at any time; the largest
tensors are the tile table and the block lists, one int32 for each 16,384 entries of the matrix.

Everything here is built by vectorised operations on the device of the indices and knows nothing about attention.

A compiled kernel is specialised to its shapes, and a new one takes most of a minute, so sizes that vary from batch to
batch are rounded up in geometric steps. The step is as coarse as what the padding costs allows:

* rows (:func:`padded_rows`): q, k, v and the output grow with them; powers of two up to 1,024, then four sizes for each
  doubling;
* pairs (:func:`padded_pairs`): the bias and its gradient grow with them; powers of two, at least 16,384 and up to
  65,536, then four sizes for each doubling;
* tiles (:func:`padded_tiles`): 4 KB each that no kernel reads; powers of four, at least 256, up to 4,096.

A batch of B random graphs whose sizes have a relative spread of s has a total with a spread of ``s / sqrt(B)``: 5 % for
64 graphs with s = 40 %. So most data sets stay in one step of each, or on the two sides of a border. Deletions in copies
of a shared graph change no size at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyg_nsa.attention.checks import check_graph_counts
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.segments import Segments

__all__ = [
    "TILE",
    "BlockLists",
    "EdgeTiles",
    "SegmentTiles",
    "all_blocks",
    "edge_tiles",
    "padded_pairs",
    "padded_rows",
    "padded_tiles",
    "segment_tiles",
]

#: Rows and columns of a tile: FlexAttention's block size, and the unit that row counts are padded to.
TILE = 128
_SHIFT = 7  # log2(TILE)
_WORDS = TILE * TILE // 32  # 32-bit words of a tile
_MIN_TILES = 256
_MIN_PAIRS = 16384


class BlockLists(NamedTuple):
    """The index tensors of a ``BlockMask`` for one graph (batch and head dimension 1), in both directions.

    Attributes:
        kv_num_blocks: ``[1, 1, R]`` int32, tiles in each of the R rows of tiles.
        kv_indices: ``[1, 1, R, C]`` int32, their columns first, ascending; the rest is zero.
        q_num_blocks: ``[1, 1, C]`` int32, tiles in each of the C columns of tiles.
        q_indices: ``[1, 1, C, R]`` int32, their rows first, ascending; the rest is zero.
    """

    kv_num_blocks: Tensor
    kv_indices: Tensor
    q_num_blocks: Tensor
    q_indices: Tensor

    @property
    def query_rows(self) -> int:
        """Padded number of queries."""
        return self.kv_num_blocks.size(-1) * TILE

    @property
    def key_rows(self) -> int:
        """Padded number of keys."""
        return self.q_num_blocks.size(-1) * TILE


class EdgeTiles(NamedTuple):
    """Bitmaps of an :class:`~pyg_nsa.attention.edges.EdgeSet`.

    With ``tile = table[q >> 7, k >> 7]`` and ``word = (tile << 9) + ((q & 127) << 2) + ((k & 127) >> 5)``, the pair
    ``(q, k)`` exists where bit ``k & 31`` of ``bits[word]`` is set, and its number in the edge set's order is
    ``rank[word]`` plus the number of lower bits set in that word.

    Attributes:
        table: ``[R, C]`` int32, number of each tile; 0 is the empty tile that all tiles without a pair share.
        bits: ``[T * 512]`` int32, bitmaps of T tiles (padded); bit 31 is the sign bit.
        rank: ``[T * 512]`` int32, number of the first pair of each word, 0 for a word without a pair.
        query: ``[padded pairs]`` int32, the query of each pair, -1 for padding.
        key: ``[padded pairs]`` int32, its key, likewise.
        blocks: The block lists.
    """

    table: Tensor
    bits: Tensor
    rank: Tensor
    query: Tensor
    key: Tensor
    blocks: BlockLists


class SegmentTiles(NamedTuple):
    """Graph of each row in segment order, and the tiles that hold rows of one graph on both sides.

    Attributes:
        query_graph: ``[query_rows]`` int32, -1 for padding.
        key_graph: ``[key_rows]`` int32, -2 for padding, so that padding equals nothing.
        blocks: The block lists.
    """

    query_graph: Tensor
    key_graph: Tensor
    blocks: BlockLists


def padded_rows(num_rows: int) -> int:
    """Rounds a row count up to tiles: to a power of two up to 8 tiles, beyond to four sizes for each doubling.

    Rows of padding cost memory of q, k and v (at most a quarter beyond 1,024 rows) but hardly any computation.
    """
    return _rounded_up(max(1, -(-num_rows // TILE)), 8) * TILE


def padded_pairs(num_pairs: int) -> int:
    """Rows of a padded bias: at least one after the last pair, for lookups of what is no pair."""
    return _rounded_up(max(_MIN_PAIRS, num_pairs + 1), 65536)


def _rounded_up(count: int, fine: int) -> int:
    """The next power of two up to ``fine``, beyond it the next of four sizes for each doubling."""
    power = _power_of_two(count)
    step = power if power <= fine else power // 8
    return -(-count // step) * step


def padded_tiles(num_tiles: int, num_places: int) -> int:
    """Stored tiles, the shared empty one included; never more than an attention matrix of ``num_places`` tiles needs.

    Args:
        num_tiles: Tiles that hold a pair.
        num_places: Tiles of the matrix; up to 255 they decide alone, so that the number of tiles adds no variant.
    """
    size = _power_of_two(num_tiles + 1)
    if size <= 4096 and size.bit_length() % 2 == 0:  # 2 ** odd
        size *= 2
    return min(max(_MIN_TILES, size), num_places + 1)


def _power_of_two(count: int) -> int:
    """The next power of two."""
    return 1 << max(count - 1, 0).bit_length()


def edge_tiles(edges: EdgeSet) -> EdgeTiles:
    """The bitmaps of an edge set, built at first use and kept in ``edges.derived["tiles"]``.

    Building waits for the device (the number of tiles decides the shapes).
    """
    if "tiles" not in edges.derived:
        edges.derived["tiles"] = _build_edge_tiles(edges)
    tiles: EdgeTiles = edges.derived["tiles"]
    return tiles


# Traced into a caller's graph, the data-dependent shapes would be an error or dozens of breaks instead of one.
@torch.compiler.disable  # type: ignore[untyped-decorator]
# Validation in inference mode may come first, and training can't use tensors that were made in it.
@torch.inference_mode(False)
def _build_edge_tiles(edges: EdgeSet) -> EdgeTiles:
    device = edges.device
    num_rows = padded_rows(edges.num_queries) >> _SHIFT
    num_cols = padded_rows(edges.num_keys) >> _SHIFT
    # An edge set that was built inside a compiled graph has unused slots at the end.
    used = int(edges.rowptr[-1])
    row, col = edges.row[:used], edges.col[:used]

    place = (row >> _SHIFT) * num_cols + (col >> _SHIFT)
    occupied, tile = torch.unique(place, return_inverse=True)
    num_tiles = padded_tiles(occupied.numel(), num_rows * num_cols)
    table = torch.zeros(num_rows * num_cols, dtype=torch.int32, device=device)
    table[occupied] = torch.arange(1, occupied.numel() + 1, dtype=torch.int32, device=device)

    word = (tile + 1) * _WORDS + ((row & (TILE - 1)) << 2) + ((col & (TILE - 1)) >> 5)
    bit = torch.ones_like(col, dtype=torch.int32) << (col & 31).to(torch.int32)
    bits = torch.zeros(num_tiles * _WORDS, dtype=torch.int32, device=device)
    bits.index_add_(0, word, bit)  # pairs are unique, so adding is setting, the sign bit included

    rank = torch.zeros_like(bits)
    first = torch.ones_like(word, dtype=torch.bool)
    first[1:] = word[1:] != word[:-1]  # pairs of a word follow each other in the order (query, key)
    start = first.nonzero().view(-1)
    rank[word[start]] = start.to(torch.int32)

    padding = (0, padded_pairs(edges.num_pairs) - used)
    return EdgeTiles(
        table.view(num_rows, num_cols),
        bits,
        rank,
        pad(row.to(torch.int32), padding, value=-1),
        pad(col.to(torch.int32), padding, value=-1),
        _listed_blocks(occupied, num_rows, num_cols),
    )


def _listed_blocks(occupied: Tensor, num_rows: int, num_cols: int) -> BlockLists:
    """Block lists of tiles given by ``row * num_cols + col``, ascending."""
    row = torch.div(occupied, num_cols, rounding_mode="floor")
    col = occupied - row * num_cols
    order = torch.sort(col, stable=True).indices
    return BlockLists(
        *_lists(row, col, num_rows, num_cols), *_lists(col[order], row[order], num_cols, num_rows)
    )


def _lists(major: Tensor, minor: Tensor, num_major: int, num_minor: int) -> tuple[Tensor, Tensor]:
    """Counts ``[1, 1, num_major]`` and indices ``[1, 1, num_major, num_minor]`` of tiles sorted by (major, minor)."""
    count = torch.bincount(major, minlength=num_major)
    position = torch.arange(major.numel(), device=major.device) - (count.cumsum(0) - count)[major]
    # Full width: FlexAttention takes the number of keys from it (pytorch#153344).
    indices = torch.zeros(num_major, num_minor, dtype=torch.int32, device=major.device)
    indices[major, position] = minor.to(torch.int32)
    return count.to(torch.int32)[None, None], indices[None, None]


def all_blocks(num_queries: int, num_keys: int, device: torch.device) -> BlockLists:
    """Block lists in which every tile is present."""
    num_rows, num_cols = padded_rows(num_queries) >> _SHIFT, padded_rows(num_keys) >> _SHIFT
    rows = torch.arange(num_rows, dtype=torch.int32, device=device)
    cols = torch.arange(num_cols, dtype=torch.int32, device=device)
    return BlockLists(
        torch.full_like(rows, num_cols)[None, None],
        cols.repeat(num_rows, 1)[None, None],
        torch.full_like(cols, num_rows)[None, None],
        rows.repeat(num_cols, 1)[None, None],
    )


def segment_tiles(
    query_segments: Segments, key_segments: Segments, device: torch.device
) -> SegmentTiles:
    """Tiles of full attention inside each graph, for rows in segment order; built without waiting for the device.

    Those of self-attention, where queries and keys are the same segments, are kept in ``segments.derived["tiles"]``.

    Raises:
        ValueError: Queries and keys have different numbers of graphs.
    """
    check_graph_counts(query_segments, key_segments)
    known: SegmentTiles | None = None
    if query_segments is key_segments:
        known = query_segments.derived.get("tiles")
    if known is not None and known.query_graph.device == device:
        return known
    if torch.compiler.is_compiling():  # what is kept by a graph would be missing from its guards
        return _build_segment_tiles(query_segments, key_segments, device)
    with torch.inference_mode(False):  # as for edge tiles
        tiles = _build_segment_tiles(query_segments, key_segments, device)
    if query_segments is key_segments:
        query_segments.derived["tiles"] = tiles
    return tiles


def _build_segment_tiles(
    query_segments: Segments, key_segments: Segments, device: torch.device
) -> SegmentTiles:
    query_ptr, key_ptr = query_segments.ptr.to(device), key_segments.ptr.to(device)
    query_graph = _graph_of_rows(query_ptr, _num_positions(query_segments), -1)
    key_graph = _graph_of_rows(key_ptr, _num_positions(key_segments), -2)
    return SegmentTiles(
        query_graph,
        key_graph,
        BlockLists(
            *_ranges(query_graph, key_ptr, key_graph.numel()),
            *_ranges(key_graph, query_ptr, query_graph.numel()),
        ),
    )


def _num_positions(segments: Segments) -> int:
    return segments.num_rows if segments.index is None else segments.index.numel()


def _graph_of_rows(ptr: Tensor, num_positions: int, padding: int) -> Tensor:
    position = torch.arange(padded_rows(num_positions), device=ptr.device)
    graph = torch.searchsorted(ptr, position, right=True) - 1
    return torch.where(position < ptr[-1], graph, padding).to(torch.int32)


def _ranges(graph: Tensor, other_ptr: Tensor, other_rows: int) -> tuple[Tensor, Tensor]:
    """Tiles of each row of tiles: its graphs follow each other, so their rows on the other side do too."""
    by_tile = graph.view(-1, TILE).long()
    first, last = by_tile[:, 0], by_tile.amax(1)
    real = last >= 0
    start = other_ptr[first.clamp(min=0)]
    end = torch.where(real, other_ptr[last.clamp(min=0) + 1], start)
    count = torch.where(end > start, ((end - 1) >> _SHIFT) - (start >> _SHIFT) + 1, 0)
    num_other = other_rows >> _SHIFT
    offset = torch.arange(num_other, device=graph.device)
    indices = torch.where(offset < count[:, None], (start >> _SHIFT)[:, None] + offset, 0)
    return count.to(torch.int32)[None, None], indices.to(torch.int32)[None, None]

"""The tile bitmaps against a Python loop over the pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.pair_functions import edge_mask_mod, edge_score_mod
from pyg_nsa.attention.segments import Segments
from pyg_nsa.attention.tiles import (
    TILE,
    BlockLists,
    all_blocks,
    edge_tiles,
    padded_pairs,
    padded_rows,
    padded_tiles,
    segment_tiles,
)


def random_edges(num_queries: int, num_keys: int, num_edges: int) -> EdgeSet:
    g = torch.Generator().manual_seed(num_queries + num_keys)
    key = torch.randint(num_keys, (num_edges,), generator=g)
    query = torch.randint(num_queries, (num_edges,), generator=g)
    return EdgeSet.from_edge_index(torch.stack([key, query]), num_keys, num_queries)


def full_tile() -> EdgeSet:
    mask = torch.zeros(300, 200, dtype=torch.bool)
    mask[128:256, :128] = True
    return EdgeSet.from_dense(mask)


def last_bits() -> EdgeSet:
    """Pairs at bits 0, 30 and 31 of words, alone and together."""
    key = torch.tensor([31, 0, 31, 30, 31, 63, 127, 128, 159])
    query = torch.tensor([0, 1, 1, 2, 2, 3, 127, 128, 128])
    return EdgeSet.from_edge_index(torch.stack([key, query]), 160, 129)


EDGE_SETS = {
    "random": lambda: random_edges(200, 200, 2000),
    "bipartite": lambda: random_edges(70, 450, 800),
    "sparse": lambda: random_edges(1500, 1100, 60),
    "exact": lambda: random_edges(256, 128, 900),
    "directed": lambda: EdgeSet.from_edge_index(torch.tensor([[0, 1, 130], [2, 2, 1]]), 200, 200),
    "empty": lambda: EdgeSet.empty(200, 300),
    "full_tile": full_tile,
    "last_bits": last_bits,
}


@pytest.fixture(params=EDGE_SETS, ids=str)
def edges(request) -> EdgeSet:
    return EDGE_SETS[request.param]()


def listed(count: Tensor, indices: Tensor) -> list[list[int]]:
    """The block lists as lists, after checking their form."""
    assert count.dtype == indices.dtype == torch.int32
    assert indices.shape[:3] == count.shape
    return [row[:n] for n, row in zip(count[0, 0].tolist(), indices[0, 0].tolist(), strict=True)]


def test_bits_and_pair_numbers_match_a_loop(edges: EdgeSet) -> None:
    tiles = edge_tiles(edges)
    table, bits, rank = tiles.table.tolist(), tiles.bits.tolist(), tiles.rank.tolist()
    seen: dict[int, int] = {}
    for number, (q, k) in enumerate(zip(edges.row.tolist(), edges.col.tolist(), strict=True)):
        tile = table[q // 128][k // 128]
        assert tile > 0
        word = (tile * 128 + q % 128) * 4 + k % 128 // 32
        value = bits[word] % 2**32
        assert value >> (k % 32) & 1
        assert rank[word] + (value & ((1 << k % 32) - 1)).bit_count() == number
        seen[word] = seen.get(word, 0) | 1 << k % 32
    assert {w: b % 2**32 for w, b in enumerate(bits) if b} == seen
    assert not any(r for w, r in enumerate(rank) if w not in seen)


def test_pairs_are_padded(edges: EdgeSet) -> None:
    tiles, used = edge_tiles(edges), edges.num_pairs
    for padded, values in ((tiles.query, edges.row), (tiles.key, edges.col)):
        assert padded.dtype == torch.int32
        assert padded.shape == (padded_pairs(used),)
        assert torch.equal(padded[:used].long(), values)
        assert bool((padded[used:] == -1).all())


def test_lookups_of_what_is_no_pair_stay_inside_the_padded_bias(edges: EdgeSet) -> None:
    tiles = edge_tiles(edges)
    pairs_of_word = [(b % 2**32).bit_count() for b in tiles.bits.tolist()]
    highest = max(r + n for r, n in zip(tiles.rank.tolist(), pairs_of_word, strict=True))
    assert min(tiles.rank.tolist()) >= 0
    assert edges.num_pairs < padded_pairs(edges.num_pairs)
    assert highest < padded_pairs(edges.num_pairs)


def test_mods_match_a_loop(edges: EdgeSet) -> None:
    """What the kernels compute, without attention: ``mask_mod`` and ``score_mod`` at every position."""
    tiles = edge_tiles(edges)
    bias = torch.arange(padded_pairs(edges.num_pairs)).float()[:, None] + torch.tensor([1.0, 0.5])
    query = torch.arange(tiles.blocks.query_rows, dtype=torch.int32)[:, None]
    key = torch.arange(tiles.blocks.key_rows, dtype=torch.int32)[None]
    zero = torch.tensor(0)
    expected = torch.zeros(query.numel(), key.numel(), dtype=torch.bool)
    expected[edges.row, edges.col] = True
    assert torch.equal(edge_mask_mod(tiles)(zero, zero, query, key), expected)
    for head in (0, 1):
        score = edge_score_mod(tiles, bias)(torch.tensor(2.0), zero, torch.tensor(head), query, key)
        added = score[edges.row, edges.col] - 2.0
        assert torch.equal(added, bias[: edges.num_pairs, head])


@pytest.mark.parametrize(("tiles", "wide"), [(1 << 22, True), ((1 << 22) - 1, False)])
def test_more_words_than_32_bits_count(tiles: int, wide: bool) -> None:
    """Tile 2 ** 22 begins at word 2 ** 31; without memory behind them, the bitmaps of as many tiles."""
    few, words = EdgeSet.from_edge_index(torch.randint(60, (2, 90)), 60, 60), tiles * 512
    seen: list[torch.dtype] = []

    class Bits:
        def numel(self) -> int:
            return words

        def __getitem__(self, word: Tensor) -> Tensor:
            seen.append(word.dtype)
            assert int(word) == (tiles - 1) * 512 + 4 * 5 + 2
            return torch.tensor(1 << 7, dtype=torch.int32)

    table = torch.full((1, 1), tiles - 1, dtype=torch.int32)
    large = edge_tiles(few)._replace(table=table, bits=Bits())  # type: ignore[arg-type]
    query, key = torch.tensor(5, dtype=torch.int32), torch.tensor(64 + 7, dtype=torch.int32)
    assert bool(edge_mask_mod(large)(query * 0, query * 0, query, key))
    assert seen == [torch.int64 if wide else torch.int32]


def test_more_biases_than_32_bits_count() -> None:
    """Behind the first 2 ** 31 numbers of ``[pairs, heads]``."""
    few = EdgeSet.from_edge_index(torch.randint(60, (2, 90)), 60, 60)
    tiles = edge_tiles(few)
    seen: list[torch.dtype] = []

    class Bias:
        def numel(self) -> int:
            return 1 << 31

        def __getitem__(self, place: tuple[Tensor, Tensor]) -> Tensor:
            seen.append(place[0].dtype)
            return torch.tensor(1.0)

    query, key = few.row[3].int(), few.col[3].int()
    zero = torch.tensor(0, dtype=torch.int32)
    score = edge_score_mod(tiles, Bias())(torch.tensor(2.0), zero, zero, query, key)  # type: ignore[arg-type]
    assert (score.item(), seen) == (3.0, [torch.int64])


def test_block_lists_match_a_loop(edges: EdgeSet) -> None:
    blocks = edge_tiles(edges).blocks
    present = {
        (q // 128, k // 128) for q, k in zip(edges.row.tolist(), edges.col.tolist(), strict=True)
    }
    rows, cols = blocks.query_rows // 128, blocks.key_rows // 128
    assert blocks.kv_indices.shape == (1, 1, rows, cols)
    assert blocks.q_indices.shape == (1, 1, cols, rows)
    assert listed(blocks.kv_num_blocks, blocks.kv_indices) == [
        [c for c in range(cols) if (r, c) in present] for r in range(rows)
    ]
    assert listed(blocks.q_num_blocks, blocks.q_indices) == [
        [r for r in range(rows) if (r, c) in present] for c in range(cols)
    ]


def test_tiles_are_built_once() -> None:
    edges = random_edges(200, 200, 500)
    assert edge_tiles(edges) is edge_tiles(edges)
    assert edges.derived["tiles"] is edge_tiles(edges)


def test_unused_slots_of_a_compiled_edge_set_are_no_pairs() -> None:
    edges = random_edges(100, 120, 300)
    used = edges.num_pairs
    padded = EdgeSet(
        torch.cat([edges.row, torch.full((5,), 100)]),
        torch.cat([edges.col, torch.full((5,), 120)]),
        edges.rowptr,
        100,
        120,
    )
    got, expected = edge_tiles(padded), edge_tiles(edges)
    assert padded.num_pairs == used + 5
    for name in ("table", "bits", "rank", "query", "key"):
        assert torch.equal(getattr(got, name), getattr(expected, name))


SEGMENTS = {
    "graphs": ([100, 30, 200, 126, 128, 5], [100, 30, 200, 126, 128, 5]),
    "cross": ([10, 10, 10, 10], [300, 100, 5, 129]),
    "empty_graphs": ([0, 100, 0, 0, 200, 0], [50, 100, 70, 0, 0, 300]),
    "no_keys": ([100, 50], [0, 0]),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segment_tiles_cover_the_pairs(name: str) -> None:
    lengths_q, lengths_k = SEGMENTS[name]
    qs, ks = (
        Segments(torch.tensor([0, *lengths]).cumsum(0), sum(lengths))
        for lengths in (lengths_q, lengths_k)
    )
    tiles = segment_tiles(qs, ks, torch.device("cpu"))
    graph_q = [g for g, n in enumerate(lengths_q) for _ in range(n)]
    graph_k = [g for g, n in enumerate(lengths_k) for _ in range(n)]
    assert tiles.query_graph.tolist()[: len(graph_q)] == graph_q
    assert tiles.key_graph.tolist()[: len(graph_k)] == graph_k
    assert set(tiles.query_graph.tolist()[len(graph_q) :]) <= {-1}
    assert set(tiles.key_graph.tolist()[len(graph_k) :]) <= {-2}
    needed = {
        (i // 128, j // 128) for i, a in enumerate(graph_q) for j, b in enumerate(graph_k) if a == b
    }
    blocks = tiles.blocks
    by_row = listed(blocks.kv_num_blocks, blocks.kv_indices)
    by_col = listed(blocks.q_num_blocks, blocks.q_indices)
    forward = {(r, c) for r, cols in enumerate(by_row) for c in cols}
    backward = {(r, c) for c, rows in enumerate(by_col) for r in rows}
    assert needed <= forward
    assert needed <= backward
    assert all(c < blocks.key_rows // 128 for _, c in forward)
    if (
        0 not in lengths_q + lengths_k
    ):  # a graph without rows on one side may cost a tile on the other
        assert forward == backward == needed


def test_segment_tiles_are_built_once() -> None:
    device = torch.device("cpu")
    segments, others = (Segments(torch.tensor([0, 4, 9]), 9) for _ in range(2))
    tiles = segment_tiles(segments, segments, device)
    assert segment_tiles(segments, segments, device) is tiles
    assert segments.derived["tiles"] is tiles
    # Between different segments nothing is kept, nor mixed up with it.
    assert segment_tiles(segments, others, device) is not tiles
    assert segments.derived == {"tiles": tiles}
    assert others.derived == {}


def test_tiles_of_another_device_are_not_taken() -> None:
    segments = Segments(torch.tensor([0, 4, 9]), 9)
    on_meta = segment_tiles(segments, segments, torch.device("meta"))
    assert on_meta.query_graph.is_meta
    assert not segment_tiles(segments, segments, torch.device("cpu")).query_graph.is_meta


def test_tiles_built_in_inference_mode_can_be_saved_for_a_backward_pass() -> None:
    edges, segments = random_edges(100, 120, 300), Segments(torch.tensor([0, 4, 9]), 9)
    with torch.inference_mode():
        built = edge_tiles(edges), segment_tiles(segments, segments, torch.device("cpu"))
    assert not any(x.is_inference() for x in tree_leaves(built))


def test_segments_must_have_the_same_graphs() -> None:
    one, two = Segments(torch.tensor([0, 9]), 9), Segments(torch.tensor([0, 4, 9]), 9)
    with pytest.raises(ValueError, match="got 1 graphs of queries and 2 graphs of keys"):
        segment_tiles(one, two, torch.device("cpu"))


def test_all_blocks() -> None:
    blocks = all_blocks(130, 300, torch.device("cpu"))
    assert listed(blocks.kv_num_blocks, blocks.kv_indices) == [[0, 1, 2, 3]] * 2
    assert listed(blocks.q_num_blocks, blocks.q_indices) == [[0, 1]] * 4


def test_padded_sizes_are_few_and_close() -> None:
    sizes = {padded_rows(n) for n in range(1025, 8193)}
    assert len(sizes) <= 16  # compilations, were every size met
    for n in [0, 1, 127, 128, 129, 1000, 1025, 6607, 7122, 2806, 100_000]:
        rows = padded_rows(n)
        assert rows >= max(n, TILE)
        assert rows % TILE == 0
        assert n <= 1024 or rows <= 1.25 * n + TILE
    assert [padded_pairs(n) for n in (0, 16383, 16384, 65535)] == [16384, 16384, 32768, 65536]
    assert [padded_pairs(n) for n in (65536, 144_211)] == [81920, 163840]
    many = 10**6
    assert [padded_tiles(n, many) for n in (0, 255, 256, 1023, 1024)] == [
        256,
        256,
        1024,
        1024,
        4096,
    ]
    assert [padded_tiles(n, many) for n in (4095, 4096, 8191, 8192)] == [4096, 8192, 8192, 16384]
    # At most all tiles of the matrix, and the empty one; small matrices store all in any case.
    assert [padded_tiles(n, 9) for n in (0, 5, 9)] == [10, 10, 10]
    assert [padded_tiles(n, 2704) for n in (900, 1052, 2704)] == [1024, 2705, 2705]


class LargestTensor(TorchDispatchMode):
    """Records the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.numel())
        return out


def test_no_tensor_of_the_size_of_the_attention_matrix() -> None:
    n = 4000
    index = torch.arange(n)
    ring = torch.stack([torch.cat([index, index]), torch.cat([(index + 1) % n, (index + 7) % n])])
    edges = EdgeSet.from_edge_index(ring, n, n)
    segments = Segments(torch.arange(0, n + 1, 100), n)
    with LargestTensor() as spy:
        tiles = edge_tiles(edges)
        segment_tiles(segments, segments, torch.device("cpu"))
        all_blocks(n, n, torch.device("cpu"))
    assert tiles.bits.numel() <= spy.numel
    assert spy.numel <= 256 * 512  # the words of 256 tiles, of 1,024
    assert spy.numel * 100 < n * n


def test_block_lists_know_their_rows() -> None:
    blocks = edge_tiles(random_edges(140, 300, 50)).blocks
    assert isinstance(blocks, BlockLists)
    assert (
        (blocks.query_rows, blocks.key_rows) == (padded_rows(140), padded_rows(300)) == (256, 512)
    )

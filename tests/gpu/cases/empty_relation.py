"""No tile at all: the kernels themselves, which the public function does not call for an empty relation."""

from _common import HEADS, leaf

from pyg_nsa.attention import flex
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.tiles import edge_tiles, padded_pairs


def case():
    tiles = edge_tiles(EdgeSet.empty(100, 200))
    q = leaf(1, HEADS, tiles.blocks.query_rows, 16)
    k, v = (leaf(1, HEADS, tiles.blocks.key_rows, 16, seed=s) for s in (2, 3))
    bias = leaf(padded_pairs(0), HEADS)

    def fn(q, k, v, bias, tiles):
        return flex.flex_edge_attention_kernel(q, k, v, tiles, bias, None, None, 0.25)

    def expected(q, k, v, bias, tiles):
        return (q + k.sum() + v.sum() + bias.sum()) * 0

    return {"fn": fn, "args": (q, k, v, bias, tiles), "reference": expected, "rtol": 0.0}

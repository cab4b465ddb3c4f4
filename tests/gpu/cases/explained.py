"""Parts of pairs, as explainers ask for them: each pair is split in two, and the gradient of the parts goes through the bias."""

import torch
from _common import HEADS, dense, leaf, random_edges

from pyg_nsa.attention import flex
from pyg_nsa.attention.edges import EdgeSet
from pyg_nsa.attention.partial import in_halves
from pyg_nsa.attention.tiles import edge_tiles


def case():
    edges = random_edges(150, 120, 800)
    q = leaf(150, HEADS, 16, seed=1)
    k, v = (leaf(120, HEADS, 16, seed=n) for n in (2, 3))
    bias = leaf(edges.num_pairs, HEADS, seed=4)
    parts = torch.rand(edges.num_pairs, generator=torch.Generator().manual_seed(5)).requires_grad_()
    halves = in_halves(k.detach(), v.detach(), edges, parts.detach())[2]
    index = (halves.row, halves.col, halves.rowptr)
    of_edges = (halves.edge_of, halves.pair_of)

    def fn(q, k, v, bias, parts, pairs, index, of_edges, tiles):
        # The tensors of the edge sets must be arguments, and their tiles built before the graph.
        same = EdgeSet(*pairs, edges.num_queries, edges.num_keys)
        split = EdgeSet(*index, halves.num_queries, halves.num_keys, *of_edges, halves.num_edges)
        split.derived["tiles"] = tiles
        same.derived["halves"] = split
        keys, values, split, logits = in_halves(k, v, same, parts, bias)
        return dense(flex.edge_attention(q, keys, values, split, logits))

    def expected(q, k, v, bias, parts, *_):
        shape = edges.num_queries, edges.num_keys
        allowed = torch.zeros(shape, dtype=torch.bool)
        allowed[edges.row, edges.col] = True
        logits = torch.einsum("qhd,khd->hqk", q, k) / q.size(-1) ** 0.5
        logits = logits.index_put(
            (torch.arange(HEADS)[:, None], edges.row[None], edges.col[None]),
            bias.t(),
            accumulate=True,
        ).masked_fill(~allowed, float("-inf"))
        weights = logits.softmax(-1).nan_to_num(0.0)
        scaled = torch.zeros(shape).index_put((edges.row, edges.col), parts)
        return dense(torch.einsum("hqk,khd->qhd", weights * scaled, v))

    args = (
        q,
        k,
        v,
        bias,
        parts,
        (edges.row, edges.col, edges.rowptr),
        index,
        of_edges,
        edge_tiles(halves),
    )
    return {"fn": fn, "args": args, "reference": expected, "rtol": 1e-5}

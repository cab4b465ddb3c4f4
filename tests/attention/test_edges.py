"""EdgeSet against a naive Python loop over edges."""

import gc

import pytest
import torch

from pyg_nsa import EdgeSet, edge_attention


def naive_pairs(edge_index, symmetrize=False, self_loops=False, num_nodes=0):
    pairs = set()
    for src, dst in edge_index.t().tolist():
        pairs.add((dst, src))
        if symmetrize:
            pairs.add((src, dst))
    if self_loops:
        pairs |= {(i, i) for i in range(num_nodes)}
    return sorted(pairs)


@pytest.mark.parametrize(
    ("num_keys", "num_queries", "num_edges"),
    [(7, 7, 30), (4, 9, 25), (9, 4, 25), (1, 1, 1), (1, 1, 5), (5, 6, 0), (3, 1000, 4)],
)
def test_pairs_equal_a_python_loop(num_keys, num_queries, num_edges):
    torch.manual_seed(num_keys)
    edge_index = torch.stack(
        [torch.randint(num_keys, (num_edges,)), torch.randint(num_queries, (num_edges,))]
    )
    edges = EdgeSet.from_edge_index(edge_index, num_keys, num_queries)
    expected = naive_pairs(edge_index)
    assert list(zip(edges.row.tolist(), edges.col.tolist(), strict=True)) == expected
    for query in range(num_queries):
        start, end = edges.rowptr[query : query + 2].tolist()
        assert edges.col[start:end].tolist() == [k for q, k in expected if q == query]
    rowptr_t, row_t, perm = edges.transpose()
    transposed = sorted((k, q) for q, k in expected)
    assert row_t.tolist() == [q for _, q in transposed]
    assert torch.equal(edges.row[perm], row_t)
    for key in range(num_keys):
        start, end = rowptr_t[key : key + 2].tolist()
        assert row_t[start:end].tolist() == [q for k, q in transposed if k == key]


@pytest.mark.parametrize("symmetrize", [False, True])
@pytest.mark.parametrize("self_loops", [False, True])
def test_symmetrize_and_self_loops(symmetrize, self_loops):
    edge_index = torch.tensor([[0, 1, 1, 3, 3], [1, 0, 2, 3, 0]])
    edges = EdgeSet.from_edge_index(edge_index, 5, 5, symmetrize=symmetrize, self_loops=self_loops)
    expected = naive_pairs(edge_index, symmetrize, self_loops, 5)
    assert list(zip(edges.row.tolist(), edges.col.tolist(), strict=True)) == expected


def test_coalesce_sums_the_attributes_of_merged_edges_with_gradients():
    edge_index = torch.tensor([[2, 0, 2, 2], [1, 1, 1, 0]])  # 2 -> 1 occurs twice
    attr = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]], requires_grad=True)
    edges = EdgeSet.from_edge_index(edge_index, 3, 2)
    out = edges.coalesce(attr)
    assert edges.edge_index().t().tolist() == [[2, 0], [0, 1], [2, 1]]
    assert out.tolist() == [[8.0, 80.0], [2.0, 20.0], [5.0, 50.0]]
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    (out * weight).sum().backward()
    assert attr.grad.tolist() == [[5.0, 6.0], [3.0, 4.0], [5.0, 6.0], [1.0, 2.0]]


def test_coalesce_gives_the_reversed_pair_the_same_attribute_and_the_diagonal_zero():
    edges = EdgeSet.from_edge_index(
        torch.tensor([[0], [1]]), 2, 2, symmetrize=True, self_loops=True
    )
    out = edges.coalesce(torch.tensor([7.0]))
    values = dict(
        zip(map(tuple, edges.edge_index().t().tolist()), out.view(-1).tolist(), strict=True)
    )
    assert values == {(0, 0): 0.0, (0, 1): 7.0, (1, 0): 7.0, (1, 1): 0.0}


@pytest.mark.parametrize(
    ("edge_index", "options"),
    [
        pytest.param([[0, 1, 2], [0, 1, 2]], {}, id="in the order of the pairs"),
        pytest.param([[2, 0, 1, 0], [2, 1, 0, 0]], {}, id="in another order"),
        pytest.param([[2, 2, 1], [1, 1, 0]], {}, id="merged"),
        pytest.param([[2, 0], [1, 2]], {"symmetrize": True}, id="each twice"),
        pytest.param([[2, 1], [1, 2]], {"symmetrize": True}, id="each twice, merged"),
        # As many pairs as edges, but the diagonal has none.
        pytest.param([[0, 0, 0], [0, 0, 0]], {"self_loops": True}, id="diagonal"),
        pytest.param([[], []], {}, id="none"),
    ],
)
def test_coalesce_is_the_sum_over_each_pairs_edges(edge_index, options):
    edge_index = torch.tensor(edge_index, dtype=torch.long)
    edges = EdgeSet.from_edge_index(edge_index, 3, 3, **options)
    attr = torch.randn(edge_index.size(1), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(edges.num_pairs, 2, dtype=torch.float64)
    sums = attr.sum() * torch.zeros(3, 3, 2, dtype=torch.float64)  # [source, target]
    for (src, dst), row in zip(edge_index.t().tolist(), attr, strict=True):
        ends = {(src, dst), (dst, src)} if options.get("symmetrize") else {(src, dst)}
        for end in ends:
            sums = sums.index_put(
                (torch.tensor(end[0]), torch.tensor(end[1])), row, accumulate=True
            )
    expected = sums[edges.col, edges.row]
    out = edges.coalesce(attr)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad((o * weight).sum(), attr)[0] for o in (out, expected)]
    torch.testing.assert_close(*grads)


def test_who_writes_to_coalesced_attributes_writes_to_nobodys():
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [0, 1]]), 2, 2)
    attr = torch.tensor([[1.0], [2.0]])
    edges.coalesce(attr).mul_(2)
    assert attr.tolist() == [[1.0], [2.0]]


def test_coalesce_where_a_pair_has_no_edge_and_another_two():
    edges = EdgeSet(
        torch.tensor([0, 1]),
        torch.tensor([1, 0]),
        torch.tensor([0, 1, 2]),
        2,
        2,
        edge_of=torch.tensor([0, 1]),
        pair_of=torch.tensor([1, 1]),
    )
    for _ in range(2):
        assert edges.coalesce(torch.tensor([3.0, 4.0])).tolist() == [[0.0], [7.0]]


def test_dense_mask_and_edges_give_the_same_pairs():
    torch.manual_seed(0)
    mask = torch.rand(6, 9) < 0.3
    edges = EdgeSet.from_dense(mask)
    sparse = EdgeSet.from_edge_index(mask.nonzero().t(), 6, 9)
    assert (edges.num_queries, edges.num_keys) == (9, 6)
    assert torch.equal(edges.edge_index(), sparse.edge_index())
    for query, key in zip(edges.row.tolist(), edges.col.tolist(), strict=True):
        assert mask[key, query]


@pytest.mark.parametrize(
    ("edge_index", "match"),
    [
        (
            [[0, 5], [0, 1]],
            r"edge index out of range: source index 5, but there are 5 source nodes",
        ),
        ([[0, 1], [0, -1]], r"edge index out of range: target index -1"),
        ([[0, 1], [0, 4]], r"target index 4, but there are 4 target nodes \(valid: 0 to 3\)"),
    ],
)
def test_index_out_of_range(edge_index, match):
    with pytest.raises(ValueError, match=match):
        EdgeSet.from_edge_index(torch.tensor(edge_index), 5, 4)


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"must have shape \[2, E\].*got \[3, 2\]"):
        EdgeSet.from_edge_index(torch.zeros(3, 2, dtype=torch.long), 5, 5)
    with pytest.raises(TypeError, match=r"must hold integers .* got torch.float32"):
        EdgeSet.from_edge_index(torch.zeros(2, 2), 5, 5)
    with pytest.raises(ValueError, match="symmetrize needs source and target nodes of one type"):
        EdgeSet.from_edge_index(torch.zeros(2, 1, dtype=torch.long), 5, 4, symmetrize=True)
    with pytest.raises(TypeError, match=r"must be a boolean tensor, got torch.float32.*\.bool\(\)"):
        EdgeSet.from_dense(torch.zeros(3, 3))
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [0, 1]]), 2, 2)
    with pytest.raises(ValueError, match="expected 2 rows, got shape"):
        edges.coalesce(torch.zeros(3, 1))


SOUND = {
    "row": torch.tensor([0, 0, 2]),
    "col": torch.tensor([1, 3, 0]),
    "rowptr": torch.tensor([0, 2, 2, 3]),
    "num_queries": 3,
    "num_keys": 4,
}


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (
            {"col": torch.tensor([1, 900_000, 0])},
            ValueError,
            "col holds 0 to 900000, but must hold 0 to 3",
        ),
        ({"col": torch.tensor([1, -5, 0])}, ValueError, "col holds -5 to 1"),
        ({"row": torch.tensor([0, 0, 3])}, ValueError, "row holds 0 to 3, but must hold 0 to 2"),
        (
            {"rowptr": torch.tensor([0, 2, 2, 200])},
            ValueError,
            "rowptr ends with 200, but there are 3 pairs",
        ),
        ({"rowptr": torch.tensor([0, 2, 2, 2])}, ValueError, "slots that no pair uses must hold"),
        ({"rowptr": torch.tensor([0, 3])}, ValueError, r"\[num_queries \+ 1\] = \[4\], got"),
        (
            {"rowptr": torch.tensor([0, 1, 2, 3])},
            ValueError,
            r"must be rowptr\[i\]:rowptr\[i \+ 1\]",
        ),
        ({"row": torch.tensor([2, 0, 0])}, ValueError, r"not unique and sorted by \(query, key\)"),
        ({"col": torch.tensor([1, 1, 0])}, ValueError, "not unique and sorted"),
        ({"row": torch.tensor([0, 0])}, ValueError, "row, col and rowptr must have shapes"),
        (
            {"row": torch.tensor([0, 0, 2]).int()},
            TypeError,
            "row must be an int64 vector, got torch.int32",
        ),
        ({"col": [1, 3, 0]}, TypeError, "col must be an int64 vector, got list"),
        ({"col": torch.tensor([1, 3, 0], device="meta")}, ValueError, "col is on meta, row on cpu"),
        ({"edge_of": torch.tensor([0])}, ValueError, "edge_of and pair_of go together"),
        (
            {"edge_of": torch.tensor([0]), "pair_of": torch.tensor([3])},
            ValueError,
            "pair_of holds 3 to 3, but must hold 0 to 2",
        ),
    ],
)
def test_tensors_that_are_no_pair_set_are_refused(changes, error, match):
    with pytest.raises(error, match=match):
        EdgeSet(**{**SOUND, **changes})


def test_tensors_that_are_a_pair_set_are_checked_once(monkeypatch):
    edges = EdgeSet(**SOUND)
    assert edges.edge_index().tolist() == [[1, 3, 0], [0, 0, 2]]
    # Slots at the end that no pair uses, as a compiled graph leaves them.
    padded = {k: torch.cat([SOUND[k], torch.tensor([n])]) for k, n in (("row", 3), ("col", 4))}
    assert EdgeSet(**{**SOUND, **padded}).num_pairs == 4

    def refuse(*_):
        raise AssertionError("checked")

    monkeypatch.setattr("pyg_nsa.attention.edges.check_pairs_in_csr", refuse)
    edges.transpose()
    edges.coalesce(torch.ones(3))
    EdgeSet.from_edge_index(torch.tensor([[0], [1]]), 2, 2)  # what is made here needs no check


def test_a_compiled_graph_has_static_sizes_and_the_same_pairs():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 0, 1]])

    def build(edge_index):
        edges = EdgeSet.from_edge_index(edge_index, 3, 2)
        return edges.row, edges.col, edges.rowptr

    row, col, rowptr = torch.compile(build, fullgraph=True, backend="eager")(edge_index)
    eager_row, eager_col, eager_rowptr = build(edge_index)
    used = int(rowptr[-1])
    assert used == 3
    assert row.numel() == 4
    assert torch.equal(row[:used], eager_row)
    assert torch.equal(col[:used], eager_col)
    assert torch.equal(rowptr, eager_rowptr)


def test_the_same_tensor_is_sorted_once():
    edge_index = torch.randint(9, (2, 40))
    edges = EdgeSet.from_edge_index(edge_index, 9, 9)
    assert EdgeSet.from_edge_index(edge_index, 9, 9) is edges
    assert EdgeSet.from_edge_index(edge_index, 9, 9, symmetrize=True) is not edges
    assert EdgeSet.from_edge_index(edge_index, 9, 10) is not edges
    assert EdgeSet.from_edge_index(edge_index.clone(), 9, 9) is not edges


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.fill_(3),
        lambda t: t[0].copy_(torch.full_like(t[0], 3)),  # through a view
        lambda t: t.resize_(2, 2).fill_(3),
        lambda t: t.set_(torch.full((2, 5), 3)),
        lambda t: setattr(t, "data", torch.full((2, 40), 3)),
    ],
    ids=["in place", "view", "resize", "set", "data"],
)
def test_a_tensor_that_was_written_to_is_sorted_again(write):
    edge_index = torch.randint(9, (2, 40))
    EdgeSet.from_edge_index(edge_index, 9, 9)
    write(edge_index)
    fresh = EdgeSet.from_edge_index(edge_index.clone(), 9, 9)
    assert torch.equal(EdgeSet.from_edge_index(edge_index, 9, 9).edge_index(), fresh.edge_index())


def test_nothing_is_kept_of_a_tensor_that_is_gone():
    from pyg_nsa.attention import edges as module

    gc.collect()  # earlier tests leave cycles that hold tensors; they would go in the middle of the count
    before = len(module._BUILT)
    edge_index = torch.randint(9, (2, 40))
    EdgeSet.from_edge_index(edge_index, 9, 9)
    assert len(module._BUILT) == before + 1
    del edge_index
    gc.collect()
    assert len(module._BUILT) == before


def test_inference_mode_builds_too():
    with torch.inference_mode():
        edge_index = torch.tensor([[0, 1], [1, 0]])
        assert EdgeSet.from_edge_index(edge_index, 2, 2).num_pairs == 2


def test_training_may_follow_inference_on_the_same_tensor():
    edge_index = torch.randint(9, (2, 40))
    q, k, v = (torch.randn(9, 2, 4, requires_grad=True) for _ in range(3))
    weight = torch.randn(1, 2, requires_grad=True)

    def layer():
        edges = EdgeSet.from_edge_index(edge_index, 9, 9, symmetrize=True)
        return edge_attention(q, k, v, edges, edges.coalesce(torch.ones(40)) @ weight)

    with torch.inference_mode():
        layer()
    layer().sum().backward()
    assert q.grad is not None
    assert weight.grad is not None

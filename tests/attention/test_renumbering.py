"""Renumbered pair sets against dense matrices, and rows that go into another order and back."""

import pytest
import torch

from pyg_nsa.attention import EdgeSet
from pyg_nsa.attention.renumbering import permute_rows, renumbered


def inverse(order):
    out = torch.empty_like(order)
    out[order] = torch.arange(len(order))
    return out


def dense(edges, values):
    out = torch.zeros(edges.num_queries, edges.num_keys, values.size(1), dtype=values.dtype)
    out[edges.row, edges.col] = values
    return out


@pytest.mark.parametrize("which", ["both", "queries", "keys", "none"])
@pytest.mark.parametrize("options", [{}, {"symmetrize": True, "self_loops": True}])
def test_it_is_the_permuted_matrix(which, options):
    torch.manual_seed(0)
    num_queries, num_keys = (9, 9) if options else (9, 13)
    index = torch.stack([torch.randint(num_keys, (40,)), torch.randint(num_queries, (40,))])
    edges = EdgeSet.from_edge_index(index, num_keys, num_queries, **options)
    rows, columns = torch.randperm(num_queries), torch.randperm(num_keys)
    rows = rows if which in ("both", "queries") else None
    columns = columns if which in ("both", "keys") else None
    out = renumbered(
        edges,
        None if rows is None else inverse(rows),
        None if columns is None else inverse(columns),
    )
    attributes = torch.randn(40, 2, dtype=torch.float64)
    expected = dense(edges, edges.coalesce(attributes))
    expected = expected if rows is None else expected[rows]
    expected = expected if columns is None else expected[:, columns]
    torch.testing.assert_close(dense(out, out.coalesce(attributes)), expected)
    ones = torch.ones(edges.num_pairs, 1)
    pairs = dense(edges, ones)
    pairs = pairs if rows is None else pairs[rows]
    assert torch.equal(
        dense(out, ones), pairs if columns is None else pairs[:, columns]
    )  # also where the attributes of a pair add up to zero
    assert out.num_edges == edges.num_edges
    combined = out.row * num_keys + out.col
    assert bool((combined[1:] > combined[:-1]).all())
    assert torch.equal(out.rowptr.diff(), torch.bincount(out.row, minlength=num_queries))


def test_no_pairs_and_no_nodes():
    for num_queries, num_keys in ((5, 3), (0, 0)):
        edges = EdgeSet.empty(num_keys, num_queries)
        out = renumbered(edges, torch.randperm(num_queries), torch.randperm(num_keys))
        assert (out.num_pairs, out.num_queries, out.num_keys) == (0, num_queries, num_keys)


@pytest.mark.parametrize("shape", [(7, 3), (4, 7, 3), (1, 7, 3), (0, 7, 3)])
def test_rows_go_there_and_back_with_gradients(shape):
    torch.manual_seed(0)
    order = torch.randperm(7)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out = permute_rows(x, order, inverse(order))
    assert torch.equal(out, x[..., order, :])
    assert torch.equal(permute_rows(out, inverse(order), order), x)
    if x.numel():
        assert torch.autograd.gradcheck(permute_rows, (x, order, inverse(order)))
        assert torch.autograd.gradgradcheck(permute_rows, (x, order, inverse(order)))


def test_copies_of_one_tensor_are_permuted_once():
    order = torch.tensor([2, 0, 1])
    x = torch.randn(1, 3, 2)
    for copies in (1, 5):
        out = permute_rows(x.expand(copies, 3, 2), order, inverse(order))
        assert torch.equal(out, x[:, order].expand(copies, 3, 2))
        assert out.untyped_storage().size() == x.untyped_storage().size()

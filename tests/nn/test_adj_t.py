"""Edges as a sparse matrix, as `ToSparseTensor` leaves them in the data."""

import pytest
import torch
from torch_geometric.data import Batch, HeteroData
from torch_geometric.nn import GCNConv, GraphConv, HeteroConv, SAGEConv
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import to_torch_csr_tensor

from pyg_nsa import HeteroNSAConv, build_operator

NM, MM = ("n", "in", "m"), ("m", "to", "m")


def make_data():
    data = HeteroData()
    data["n"].x, data["m"].x = torch.randn(6, 8), torch.randn(5, 8)
    # Unsorted, so that the order of attributes matters.
    data[NM].edge_index = torch.tensor([[5, 0, 1, 2, 4, 3, 0], [4, 1, 2, 3, 0, 0, 4]])
    data[MM].edge_index = torch.tensor([[4, 1, 0, 2], [0, 2, 1, 3]])
    for edge_type, count in ((NM, 7), (MM, 4)):
        data[edge_type].edge_attr = torch.randn(count, 3)
        data[edge_type].stoichiometry = torch.randn(count)
        data[edge_type].edge_weight = torch.rand(count)
    return data


def as_matrix(data, attr="edge_weight", layout=torch.sparse_csr):
    return ToSparseTensor(attr, layout=layout)(data.clone())


def assert_close(out, expected):
    assert set(out) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(out[key], value)


KINDS = {
    "adjacency_mask": {"attr": None},
    "incidence_mask": {"attr": None},
    "distance_bias": {"attr": None},
    "edge_attr_bias": {"attr": None},  # that stays a field
    "edge_attr_bias in the matrix": {"attr": "edge_attr", "layout": torch.sparse_coo},
    "stoichiometry_bias in the matrix": {"attr": "stoichiometry"},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pattern", [None, "MS"])
def test_collect_reads_a_matrix(name, pattern):
    data, kind = make_data(), name.split()[0]
    kinds = {MM: kind} if kind == "distance_bias" else {NM: kind, MM: kind}
    conv = HeteroNSAConv(kinds, hidden_channels=8, pattern=pattern).eval()
    expected = conv(**conv.collect(data))
    matrix = as_matrix(data, **KINDS[name])
    assert "edge_index" not in matrix[MM]
    assert_close(conv(**conv.collect(matrix)), expected)
    batch = Batch.from_data_list([matrix, matrix])
    for key, rows in conv(**conv.collect(batch)).items():
        torch.testing.assert_close(rows, torch.cat([expected[key]] * 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [GCNConv, GraphConv, SAGEConv])
def test_convs_get_the_matrix(make):
    matrix, module = as_matrix(make_data()), make(8, 8)
    conv = HeteroNSAConv({MM: module})
    expected = HeteroConv({MM: module})(matrix.x_dict, {MM: matrix[MM].adj_t})
    assert_close(conv(**conv.collect(matrix)), expected)


def test_values_of_a_matrix_in_a_call_by_dictionaries():
    data = make_data()
    conv = HeteroNSAConv({NM: "edge_attr_bias"}, hidden_channels=8)
    weight = data[NM].edge_weight
    expected = conv(data.x_dict, {NM: data[NM].edge_index}, {NM: weight})
    matrix = to_torch_csr_tensor(data[NM].edge_index.flip(0), weight, size=(5, 6))
    assert_close(conv(data.x_dict, {NM: matrix}), expected)
    # A field of the attribute's name comes first.
    other = torch.randn(7)
    given = conv(data.x_dict, {NM: matrix}, {NM: other})["m"]
    assert not torch.allclose(given, expected["m"])


def test_their_gradients():
    data = make_data()
    conv = HeteroNSAConv({NM: "edge_attr_bias"}, hidden_channels=8)
    weight = data[NM].edge_weight.requires_grad_()
    conv(data.x_dict, {NM: data[NM].edge_index}, {NM: weight})["m"].sum().backward()
    expected, weight.grad = weight.grad, None
    matrix = to_torch_csr_tensor(data[NM].edge_index.flip(0), weight, size=(5, 6))
    conv(data.x_dict, {NM: matrix})["m"].sum().backward()
    torch.testing.assert_close(weight.grad, expected)


def test_a_matrix_without_weights_holds_no_attribute():
    """Its ones say that there is an edge; taken for attributes, they would hide that there are none."""
    matrix = as_matrix(make_data(), attr=None)
    del matrix[NM].edge_attr
    conv = HeteroNSAConv({NM: "edge_attr_bias"}, hidden_channels=8)
    with pytest.raises(ValueError, match="requires 'edge_attr', which .* does not have"):
        conv.collect(matrix)
    with pytest.raises(ValueError, match="has no 'edge_attr'"):
        conv(matrix.x_dict, {NM: matrix[NM].adj_t})


@pytest.mark.parametrize("pattern", [None, "M"])
def test_a_matrix_without_edges_needs_no_values(pattern):
    """A sampled part of a graph may have none of a relation's edges."""
    data = make_data()
    conv = HeteroNSAConv({NM: "edge_attr_bias"}, hidden_channels=8, pattern=pattern)
    del data[NM].edge_attr
    conv(**conv.collect(as_matrix(data)))
    for name in ("edge_index", "edge_weight"):
        data[NM][name] = data[NM][name][..., :0]
    empty = as_matrix(data)
    expected = conv(data.x_dict, {NM: data[NM].edge_index}, {NM: data[NM].edge_weight})
    assert_close(conv(**conv.collect(empty)), expected)
    assert_close(conv(empty.x_dict, {NM: empty[NM].adj_t}), expected)


def test_ones_in_several_columns_are_attributes():
    data = make_data()
    data[NM].edge_attr = torch.ones(7, 3)
    conv = HeteroNSAConv({NM: "edge_attr_bias"}, hidden_channels=8)
    expected = conv(**conv.collect(data))
    matrix = as_matrix(data, attr="edge_attr", layout=torch.sparse_coo)
    assert_close(conv(**conv.collect(matrix)), expected)


def test_an_operator_is_built_for_such_a_graph():
    data = make_data()
    edges = [
        {"edge_type": NM, "kind": "edge_attr_bias"},
        {"edge_type": MM, "kind": "adjacency_mask"},
    ]
    config = {"version": 1, "hidden_channels": 8, "pattern": "M", "edges": edges}
    matrix = as_matrix(data, attr="edge_attr", layout=torch.sparse_coo)
    conv = build_operator(config, matrix).eval()
    assert_close(conv(**conv.collect(matrix)), conv(**conv.collect(data)))
    unweighted = as_matrix(data, attr=None)
    del unweighted[NM].edge_attr
    with pytest.raises(ValueError, match="edge kind 'edge_attr_bias' needs 'edge_attr'"):
        build_operator(config, unweighted)

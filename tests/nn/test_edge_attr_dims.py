"""Columns of edge attributes that are known before the first call: all parameters are there at once."""

import pytest
import torch
from fake_kinds import fake_registry
from torch.nn.parameter import is_lazy
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToSparseTensor

from pyg_nsa import (
    EdgeKind,
    EdgeTerm,
    HeteroNSAConfig,
    HeteroNSAConv,
    Options,
    build_operator,
)
from pyg_nsa.edge_attr_dims import edge_attr_dims

AB, BB = ("a", "r", "b"), ("b", "s", "b")
SIZES = {"a": 8, "b": 8}


def make_data(columns=4):
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(5, 8), torch.randn(6, 8)
    data[AB].edge_index = torch.tensor([[0, 1, 4], [5, 2, 0]])
    data[AB].edge_attr = torch.randn(3, columns)
    data[BB].hyperedge_index = torch.tensor([[0, 1], [1, 2]])
    data[BB].stoichiometry = torch.randn(2)
    return data


def config(**changes):
    edges = [
        {"edge_type": AB, "kind": "edge_attr_bias"},
        {"edge_type": BB, "kind": "stoichiometry_bias"},
    ]
    return {"hidden_channels": 8, "in_channels": SIZES, "edges": edges, **changes}


def lazy(module):
    return [name for name, parameter in module.named_parameters() if is_lazy(parameter)]


def widths(module):
    return [p.size(1) for name, p in module.named_parameters() if "term.lin" in name]


@pytest.mark.parametrize("pattern", [None, "MSM"])
def test_an_operator_that_is_built_for_data_has_all_its_parameters(pattern):
    data = make_data()
    conv = build_operator(config(pattern=pattern), data)
    assert not lazy(conv) and sum(p.numel() for p in conv.parameters())
    assert widths(conv) == [4, 1] * (2 if pattern else 1)
    conv(**conv.collect(data))
    # Of metadata nobody knows the columns.
    assert len(lazy(build_operator(config(pattern=pattern), data.metadata()))) == len(widths(conv))


def test_columns_of_a_sparse_matrix():
    data = make_data()
    matrix = ToSparseTensor("edge_attr", layout=torch.sparse_coo)(data)
    conv = build_operator(config(), matrix)
    assert not lazy(conv) and widths(conv) == [4, 1]
    conv(**conv.collect(matrix))


def test_columns_in_python():
    kinds = {AB: "edge_attr_bias", BB: "stoichiometry_bias"}
    options = {"hidden_channels": 8, "in_channels": SIZES}
    for pattern in (None, "M"):
        conv = HeteroNSAConv(kinds, pattern=pattern, edge_attr_dims={AB: 4, BB: 1}, **options)
        assert not lazy(conv) and widths(conv) == [4, 1]
        conv(**conv.collect(make_data()))
        with pytest.raises(ValueError, match="has 3 columns, but the projection was made for 4"):
            conv(**conv.collect(make_data(3)))
        some = HeteroNSAConv(kinds, pattern=pattern, edge_attr_dims={AB: 4, BB: -1}, **options)
        assert len(lazy(some)) == 1


@pytest.mark.parametrize(
    ("dims", "error", "text"),
    [
        (
            {("a", "r", "c"): 4},
            ValueError,
            r"\('a', 'r', 'c'\), which is not declared; did you mean",
        ),
        ({"a": 4}, ValueError, r"'a', which is not declared; declared: \('a', 'r', 'b'\)"),
        ({AB: 0}, ValueError, "must be at least 1, or -1 to take it from the first call, got 0"),
        ({AB: 4.0}, TypeError, "must be a whole number of columns, got 4.0"),
        (4, TypeError, "edge_attr_dims is a dictionary by edge type"),
    ],
)
@pytest.mark.parametrize("pattern", [None, "M"])
def test_wrong_columns(dims, error, text, pattern):
    with pytest.raises(error, match=text):
        HeteroNSAConv(
            {AB: "edge_attr_bias"}, hidden_channels=8, pattern=pattern, edge_attr_dims=dims
        )


class SeveralOptions(Options):
    edge_attr: str = "first"
    "The attribute that is projected."


@pytest.mark.parametrize(
    ("fields", "options", "dim"),
    [
        (("edge_index",), Options, -1),
        (("edge_index", "first"), Options, 2),
        (("edge_index", "first", "second"), Options, -1),  # which of them?
        (("edge_index", "first", "second"), SeveralOptions, 2),
        (("edge_index", "empty"), Options, -1),
    ],
)
def test_which_attribute_a_kind_is_told_of(fields, options, dim):
    seen = []

    def build(context, options):
        seen.append(context.edge_attr_dim)
        return EdgeTerm()

    registry = fake_registry()
    registry.register(
        EdgeKind(name="seen", build=build, summary="Sees.", requires=fields, options=options)
    )
    data = make_data()
    data[AB].first, data[AB].second = torch.randn(3, 2), torch.randn(3)
    data[AB].empty = torch.randn(3, 0)
    edges = [{"edge_type": AB, "kind": "seen"}]
    raw = {"hidden_channels": 8, "edges": edges, "unmatched": "skip"}
    checked = HeteroNSAConfig.model_validate(raw, context={"registry": registry})
    dims = edge_attr_dims(checked, data, registry)
    HeteroNSAConv.from_config(checked, registry=registry, edge_attr_dims=dims)
    assert set(seen) == {dim}

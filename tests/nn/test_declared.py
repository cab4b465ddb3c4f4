"""What is told of edge types that are declared in Python: all problems, each with its edge type, as for a file."""

from __future__ import annotations

import pytest
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv

from pyg_nsa import ConfigError, EdgeSpec, HeteroNSA, HeteroNSAConv

AA, AB = ("a", "to", "a"), ("a", "to", "b")


def refused(convs, error=ConfigError, **options) -> str:
    with pytest.raises(error) as caught:
        HeteroNSAConv(convs, **{"hidden_channels": 8, **options})
    return str(caught.value)


def test_an_option_with_a_typo():
    text = refused({AA: {"kind": "adjacency_mask", "options": {"self_loop": True}}})
    assert text.startswith(
        "edge type ('a', 'to', 'a'): options.self_loop: unknown key 'self_loop'\n"
        "    did you mean 'self_loops'?\n"
        "    allowed: edge_dropout, self_loops, source, symmetrize\n"
        "    checked by: edge kind 'adjacency_mask' of pyg-nsa "
    )


def test_a_kind_with_a_typo():
    text = refused({AA: "adjacncy_mask"})
    assert text.startswith(
        "edge type ('a', 'to', 'a'): kind: unknown edge kind 'adjacncy_mask'\n"
        "    did you mean 'adjacency_mask'?\n    allowed: adjacency_mask, "
    )
    assert "hgt" not in text and "pydantic" not in text


def test_all_problems_at_once():
    text = refused(
        {
            AA: {"kind": "adjacency_mask", "opts": {}},
            AB: {"options": {}},
            "drug": "adjacency_mask",
        }
    )
    assert (
        "edge type ('a', 'to', 'a'): opts: unknown key 'opts'\n    did you mean 'options'?" in text
    )
    assert "edge type ('a', 'to', 'b'): kind: is required, but missing" in text
    assert text.endswith("such as ('gene', 'interacts', 'gene'); got 'drug'")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        (("a", "b"), "got ('a', 'b'), did you mean ('a', 'to', 'b')?"),
        ("a__to__b", "got 'a__to__b', did you mean ('a', 'to', 'b')?"),
        (("a", "to", "b", "c"), "got ('a', 'to', 'b', 'c')"),
        (3, "got 3"),
    ],
)
@pytest.mark.parametrize("value", ["adjacency_mask", SAGEConv(-1, 8)], ids=["kind", "conv"])
def test_keys_that_are_no_edge_types(key, meant, value):
    text = refused({key: value})
    assert text.startswith("an edge type is a tuple of three names, source node type, relation,")
    assert text.endswith(meant)


def test_a_mapping_that_names_another_edge_type():
    text = refused({AA: {"edge_type": AB, "kind": "adjacency_mask"}}, ValueError)
    assert text == f"the spec under key {AA} is for edge type {AB}"


@pytest.mark.parametrize("convs", [[AA, AB], "adjacency_mask", [{"kind": "adjacency_mask"}], 3])
def test_what_is_no_declaration(convs):
    text = refused(convs, TypeError)
    assert text.startswith("expected a mapping of edge types, such as {('gene', 'interacts'")
    assert "in the place of an EdgeSpec" in text


def test_a_kind_that_needs_one_node_type():
    text = refused({AB: "distance_bias"})
    assert text.startswith("edge type ('a', 'to', 'b'): kind: edge kind 'distance_bias' cannot be")
    HeteroNSAConv({AA: "distance_bias"}, hidden_channels=8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hidden_channels": "16"}, "hidden_channels must be a whole number, got '16'"),
        ({"heads": 2.0}, "heads must be a whole number, got 2.0"),
        ({"hidden_channels": "16", "pattern": "M"}, "hidden_channels must be a whole number"),
        ({"in_channels": "3"}, "in_channels must be a whole number, or one for each node type"),
    ],
)
def test_sizes_of_a_wrong_type(options, text):
    assert refused({AA: "adjacency_mask"}, TypeError, **options).startswith(text)


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_sizes_of_node_types_that_are_not_there():
    one = {AB: "adjacency_mask"}
    text = "in_channels names node type 'bb', which no edge type has, and does not name 'b'; did you mean 'b'?"
    for pattern in (None, "M"):
        assert refused(one, ValueError, in_channels={"a": 3, "bb": 4}, pattern=pattern) == text
    with pytest.raises(ValueError, match="names node type 'bb'"):
        HeteroNSA({"bb": 4, "a": 3}, 8, one)
    # Those of a whole data set may be given, and some may be left to the first call.
    HeteroNSAConv(one, hidden_channels=8, in_channels={"a": 3, "b": 4, "c": 5})
    HeteroNSAConv(one, hidden_channels=8, in_channels={"a": 3})


def test_a_class_in_place_of_a_conv():
    text = refused({AA: SAGEConv}, TypeError)
    assert text.endswith("got the class SAGEConv")


def test_a_spec_alone():
    spec = EdgeSpec(edge_type=AA, kind="adjacency_mask")
    assert list(HeteroNSAConv(spec, hidden_channels=8).relations) == [AA]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (Data(), r"got a Data, which has no node and edge types; .*data.to_heterogeneous"),
        ({"a": 1}, "expects a torch_geometric HeteroData or a batch of them, got a dict"),
    ],
)
def test_collect_wants_a_hetero_data(data, text):
    conv = HeteroNSAConv({AA: "adjacency_mask"}, hidden_channels=8)
    with pytest.raises(TypeError, match=text):
        conv.collect(data)

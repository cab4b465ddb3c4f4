"""Options and rows that do not fit a layer are refused by name, and not in the words of torch."""

import numpy as np
import pytest
import torch
from torch_geometric.nn import SAGEConv

from pyg_nsa import HeteroNSA, HeteroNSAConv, NSAConv, NSAEncoder

ET = ("a", "r", "b")
KINDS = {ET: "adjacency_mask"}
EDGES = {ET: torch.tensor([[0, 1], [1, 0]])}


def rows(a=4, b=3, dtype=torch.float32):
    return {"a": torch.ones(3, a, dtype=dtype), "b": torch.ones(2, b, dtype=dtype)}


WRONG = [
    (
        {"num_nodes": 20},
        TypeError,
        "num_nodes is the number of nodes .* by node type, such as .*; got 20",
    ),
    ({"num_nodes": 0}, TypeError, "num_nodes is the number of nodes .*; got 0"),
    ({"num_nodes": {"a": -3}}, ValueError, r"num_nodes\['a'\] must be at least 1, got -3"),
    ({"num_nodes": {"a": 2.5}}, TypeError, r"num_nodes\['a'\] must be a whole number, got 2.5"),
    ({"out_channels": 0}, ValueError, "out_channels must be at least 1, got 0"),
    ({"out_channels": -1}, ValueError, "out_channels must be at least 1, got -1"),
    ({"out_channels": "8"}, TypeError, "out_channels must be a whole number, got '8'"),
    (
        {"numbering": "compcat"},
        ValueError,
        "numbering must be one of auto, compact, wildtype; got 'compcat'; did you mean 'compact'?",
    ),
    ({"numbering": None}, ValueError, "numbering must be one of .*; got None$"),
    ({"dropout": "0.1"}, TypeError, "dropout must be a number, got '0.1'"),
    ({"dropout": float("nan")}, ValueError, "dropout is a probability, from 0 to 1, got nan"),
    ({"dropout": -0.5}, ValueError, "dropout is a probability, from 0 to 1, got -0.5"),
    ({"mlp_ratio": "2"}, TypeError, "mlp_ratio must be a number, got '2'"),
    ({"induced_points": "4"}, TypeError, "induced_points must be a whole number, got '4'"),
    (
        {"in_channels": {"a": "4", "b": 3}},
        TypeError,
        r"in_channels\['a'\] must be a whole number, got '4'",
    ),
    (
        {"in_channels": {"a": -4, "b": 3}},
        ValueError,
        r"in_channels\['a'\] must be at least 0, or -1 .*, got -4",
    ),
    ({"in_channels": -2}, ValueError, "in_channels must be at least 0, or -1 .*, got -2"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_wrong_options_of_a_stack(options, error, message):
    with pytest.raises(error, match=message):
        HeteroNSAConv(KINDS, pattern="SM", hidden_channels=8, **options)
    with pytest.raises(error, match=message):
        HeteroNSA(
            **{"in_channels": -1, "hidden_channels": 8, "edges": KINDS, "pattern": "SM", **options}
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [one for one in WRONG if {"numbering", "dropout", "in_channels", "out_channels"} & set(one[0])],
)
def test_wrong_options_of_a_bare_step(options, error, message):
    message = message.replace("out_channels must be at least 1", "out_channels and heads must be")
    message = message.replace(", got 0", ".*").replace(", got -1", ".*")
    with pytest.raises(error, match=message):
        HeteroNSAConv(KINDS, hidden_channels=8, **options)


def test_dropout_of_blocks_that_only_see_nodes():
    for pattern in ("S", "M"):
        with pytest.raises(TypeError, match="dropout must be a number"):
            NSAEncoder(8, pattern, dropout="0.1")
    with pytest.raises(TypeError, match="dropout must be a number"):
        NSAConv(4, 8, dropout=None)


def test_numbers_of_numpy_are_numbers():
    conv = HeteroNSAConv(
        KINDS,
        pattern="MS",
        hidden_channels=np.int64(8),
        dropout=np.float32(0.5),
        mlp_ratio=np.float64(1),
        num_nodes={"a": np.int64(3)},
        out_channels=np.int32(5),
    )
    assert conv(rows(), EDGES)["b"].shape == (2, 5)


@pytest.mark.parametrize("pattern", [None, "M"])
def test_integers_as_rows(pattern):
    conv = HeteroNSAConv(KINDS, pattern=pattern, hidden_channels=8)
    with pytest.raises(
        TypeError, match=r"x of node type 'a' must be of floating point, got torch.int64: x.float"
    ) as caught:
        conv(rows(dtype=torch.int64), EDGES)
    assert "layer.to" not in str(caught.value)
    conv(rows(), EDGES)
    with pytest.raises(TypeError, match=r"is torch.float64, but .* layer.to\(torch.float64\)"):
        conv(rows(dtype=torch.float64), EDGES)


@pytest.mark.parametrize("pattern", [None, "M"])
@pytest.mark.parametrize("aggr", ["sum", "mean"])  # sums of relations are one pass
@pytest.mark.parametrize(
    ("changed", "expected"),
    [({"a": 5}, "'a' has 5 columns, but .* for 4"), ({"b": 5}, "'b' has 5 columns, but .* for 3")],
)
def test_another_number_of_columns(changed, expected, aggr, pattern):
    conv = HeteroNSAConv(KINDS, aggr, pattern, hidden_channels=8)
    conv(rows(), EDGES)
    message = rf"x of node type {expected} \(in_channels, or its first call\)"
    with pytest.raises(ValueError, match=message):
        conv(rows(**changed), EDGES)
    made_for = HeteroNSAConv(KINDS, aggr, pattern, hidden_channels=8, in_channels={"a": 4, "b": 3})
    with pytest.raises(ValueError, match=message):
        made_for(rows(**changed), EDGES)
    made_for(rows(), EDGES)


def test_a_conv_module_in_a_bare_step_speaks_for_itself():
    conv = HeteroNSAConv({ET: SAGEConv((4, 3), 8)})
    assert conv(rows(), EDGES)["b"].shape == (2, 8)

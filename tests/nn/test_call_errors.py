"""What is wrong with a call is said by the names that the caller knows: argument, node type or edge type."""

import numpy as np
import pytest
import torch
from torch_geometric.nn import SAGEConv

from pyg_nsa import HeteroNSAConv

UU = ("u", "to", "u")
BARE = {"hidden_channels": 8, "heads": 2}
STACK = BARE | {"pattern": "MS"}


def call(**changed):
    out = {
        "x_dict": {"u": torch.randn(4, 3)},
        "edge_index_dict": {UU: torch.tensor([[0, 1], [1, 2]])},
    }
    return out | changed


def message(error, options, call, kind="adjacency_mask", args=()):
    with pytest.raises(error) as caught:
        HeteroNSAConv({UU: kind}, **options)(*args, **call)
    return str(caught.value)


@pytest.mark.parametrize("options", [BARE, STACK], ids=["bare", "stack"])
@pytest.mark.parametrize("name", ["mask", "pert_mask"])
def test_a_node_mask_of_another_dtype(options, name):
    for dtype in (torch.float32, torch.int64, torch.uint8):
        given = {f"{name}_dict": {"u": torch.ones(4, dtype=dtype)}}
        assert message(TypeError, options, call(**given)) == (
            f"'{name}' of node type 'u' must be a boolean tensor, got {dtype} where torch.bool is expected; convert it once: "
            f"{name}_dict['u'].bool() if it holds 1 and 0, {name}_dict['u'] > -1e9 if it holds 0 and -inf (an additive mask)"
        )
    given = {f"{name}_dict": {"u": np.ones(4, bool)}}
    assert message(TypeError, options, call(**given)) == (
        f"'{name}' of node type 'u' must be a boolean tensor, got ndarray; convert it once: "
        f"torch.as_tensor({name}_dict['u'], dtype=torch.bool)"
    )


@pytest.mark.parametrize("options", [BARE, STACK], ids=["bare", "stack"])
def test_a_dense_mask_of_another_dtype(options):
    given = call(adj_mask_dict={UU: torch.ones(4, 4)}, edge_index_dict={})
    assert message(TypeError, options, given) == (
        "'adj_mask' of edge type ('u', 'to', 'u') must be a boolean tensor, got torch.float32 where torch.bool is expected; "
        "convert it once: adj_mask_dict[('u', 'to', 'u')].bool() if it holds 1 and 0, "
        "adj_mask_dict[('u', 'to', 'u')] > -1e9 if it holds 0 and -inf (an additive mask)"
    )


def test_the_conversions_are_right():
    """What the message says to write gives the mask."""
    living = torch.tensor([True, False, True, True])
    mask_dict = {"u": living.float()}
    assert torch.equal(mask_dict["u"].bool(), living)
    mask_dict = {"u": torch.zeros(4).masked_fill(~living, float("-inf"))}
    assert torch.equal(mask_dict["u"] > -1e9, living)
    mask_dict = {"u": living.numpy()}
    assert torch.equal(torch.as_tensor(mask_dict["u"], dtype=torch.bool), living)


@pytest.mark.parametrize("kind", ["adjacency_mask", SAGEConv(3, 8)], ids=["kind", "conv"])
@pytest.mark.parametrize("name", ["edge_index", "edge_attr", "mask", "ptr", "order", "anything"])
def test_an_argument_that_is_none(kind, name):
    given = call() | {f"{name}_dict": None}
    assert message(TypeError, BARE, given, kind) == (
        f"'HeteroNSAConv' takes {name}_dict as a dictionary by edge type or node type, got NoneType; leave it out where there is "
        "nothing to pass"
    )


def test_an_argument_by_position_that_is_none_or_a_tensor():
    x_dict, edge_index_dict = call().values()
    for place, name in ((1, "edge_index_dict"), (2, "edge_attr_dict"), (3, "argument 4")):
        args = [x_dict, edge_index_dict, {}, {}]
        args[place] = None
        text = message(TypeError, STACK, {}, args=args)
        assert text.startswith(f"'HeteroNSAConv' takes {name} as a dictionary by edge type or node")
    assert message(TypeError, STACK, {}, args=(x_dict, edge_index_dict[UU])) == (
        "'HeteroNSAConv' takes edge_index_dict as a dictionary by edge type or node type, got Tensor; a tensor belongs under its "
        "edge type or node type"
    )


def test_a_value_that_is_none_is_absent():
    for options in (BARE, STACK):
        conv = HeteroNSAConv({UU: "adjacency_mask"}, **options)
        given = call()
        none = {
            f"{name}_dict": {"u": None} for name in ("mask", "pert_mask", "ptr", "order", "n_id")
        }
        assert torch.equal(conv(**given, **none)["u"], conv(**given)["u"])


@pytest.mark.parametrize("options", [BARE, STACK], ids=["bare", "stack"])
def test_rows_of_another_shape(options):
    expected = "x of node type 'u' must be a tensor of shape [N, F], N nodes with F features each"
    copies = " (or [B, N, F] for B copies of one base graph)"
    for x, got in (
        (torch.randn(4), "[4]; with one feature each: x.view(-1, 1)"),
        (torch.tensor(1.0), "[]"),
        (torch.randn(2, 2, 4, 3), "[2, 2, 4, 3]"),
    ):
        given = call(x_dict={"u": x})
        assert message(ValueError, options, given) == f"{expected}{copies}, got {got}"
    for x in (None, [1.0, 2.0]):
        given = call(x_dict={"u": x})
        assert message(TypeError, options, given) == f"{expected}, got {type(x).__name__}"


def test_convs_of_pyg_take_any_rows():
    class Looked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = torch.nn.Embedding(9, 8)

        def forward(self, x, edge_index):
            return self.rows(x)

    conv = HeteroNSAConv({UU: Looked()})
    assert conv(**call(x_dict={"u": torch.tensor([3, 4, 8, 0])}))["u"].shape == (4, 8)


@pytest.mark.parametrize("operator", ["hetero_conv", "hgt"])
def test_baselines_name_an_argument_that_is_none(operator):
    from torch_geometric.data import HeteroData

    from pyg_nsa import build_operator

    data = HeteroData()
    data["u"].x, data[UU].edge_index = (
        *call()["x_dict"].values(),
        *call()["edge_index_dict"].values(),
    )
    edges = [{"edge_type": list(UU), "kind": "adjacency_mask"}]
    config = {"operator": operator, "edges": edges, "hidden_channels": 8, "pattern": None}
    module = build_operator(config, data)
    module(**module.collect(data))
    with pytest.raises(
        TypeError, match=f"'{operator}' takes edge_attr_dict as a dictionary by.*None"
    ):
        module(**module.collect(data) | {"edge_attr_dict": None})

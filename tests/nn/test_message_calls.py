"""A mistake of a kind that makes its own messages says which kind made it, and no wrong shape is broadcast."""

import re

import pytest
import torch
from torch import nn
from torch_geometric.nn import SAGEConv

from pyg_nsa import EdgeKind, HeteroNSAConv
from pyg_nsa.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore:There exist node types")
RELATION, OTHER = ("u", "to", "v"), ("u", "also", "v")
WHOSE = "edge kind 'faulty' for edge type ('u', 'to', 'v')"
INDEX = torch.tensor([[0, 1, 3], [4, 1, 0]])


class Conv(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.make = forward

    def forward(self, x, edge_index):
        return self.make(x, edge_index)


def layer(forward, pattern=None, **options):
    """One relation of a faulty kind beside a sound one, whose messages a wrong shape could be added to."""
    registry = Registry(allow=["pyg-nsa"])
    registry.register(
        EdgeKind(
            name="faulty",
            summary="Mistaken.",
            produces={"message"},
            requires=("edge_index",),
            build=lambda context, _: forward if isinstance(forward, nn.Module) else Conv(forward),
        )
    )
    kinds = {RELATION: "faulty", OTHER: "adjacency_mask"}
    return HeteroNSAConv(
        kinds,
        pattern=pattern,
        hidden_channels=8,
        in_channels={"u": 3, "v": 3},
        heads=2,
        registry=registry,
        **options,
    )


def call(nodes=5):
    x = {"u": torch.ones(4, 3), "v": torch.ones(nodes, 3)}
    return {"x_dict": x, "edge_index_dict": dict.fromkeys((RELATION, OTHER), INDEX)}


WRONG = {
    "one row": (lambda x, _: torch.ones(1, 8), ValueError, "a tensor of shape [1, 8]"),
    "no rows": (lambda x, _: torch.ones(8), ValueError, "a tensor of shape [8]"),
    "one column": (lambda x, _: torch.ones(5, 1), ValueError, "a tensor of shape [5, 1]"),
    "too wide": (lambda x, _: torch.ones(5, 16), ValueError, "a tensor of shape [5, 16]"),
    "copies": (lambda x, _: torch.ones(2, 5, 8), ValueError, "a tensor of shape [2, 5, 8]"),
    "numbers": (
        lambda x, _: torch.ones(5, 8, dtype=torch.long),
        ValueError,
        "a tensor of shape [5, 8] and torch.int64",
    ),
    "tuple": (lambda x, _: (torch.ones(5, 8), None), TypeError, "tuple"),
    "None": (lambda x, _: None, TypeError, "None"),
}


@pytest.mark.parametrize("pattern", [None, "M"])
@pytest.mark.parametrize("case", WRONG)
def test_messages_that_do_not_fit(case, pattern):
    forward, error, got = WRONG[case]
    with pytest.raises(error) as caught:
        layer(forward, pattern)(**call())
    text = f"{WHOSE}: forward() must return a floating-point tensor of shape [targets, out_channels] = [5, 8], got {got}"
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith(
        "; build(context, options) gets the number of columns as context.out_channels"
    )


@pytest.mark.parametrize("pattern", [None, "M"])
def test_an_exception_keeps_its_type_and_gets_one_note(pattern):
    error = KeyError("scale")

    def forward(x, edge_index):
        raise error

    module = layer(forward, pattern)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            module(**call())
        assert caught.value is error
        assert error.__notes__ == [f"raised by forward() of {WHOSE}"]


def test_in_another_order_and_with_dead_rows_it_is_said_too():
    for more in (
        {"order_dict": {"u": torch.randperm(4), "v": torch.randperm(5)}},
        {"mask_dict": {"v": torch.tensor([True, True, False, True, True])}},
    ):
        with pytest.raises(TypeError, match=re.escape(WHOSE)):
            layer(lambda x, _: None, "M")(**call(), **more)


@pytest.mark.parametrize("pattern", [None, "MM"])
def test_what_fits_passes(pattern):
    columns = 3 if pattern is None else 8
    module = layer(SAGEConv((columns, columns), 8), pattern)
    assert module(**call())["v"].shape == (5, 8)
    # A conv of the user's own has promised nothing.
    own = HeteroNSAConv({RELATION: Conv(lambda x, _: torch.ones(1, 16))}, hidden_channels=8)
    assert own(call()["x_dict"], {RELATION: INDEX})["v"].shape == (1, 16)


def test_compiled_the_check_costs_no_graph_and_holds():
    module = layer(SAGEConv((3, 3), 8))
    compiled = torch.compile(module, dynamic=True, fullgraph=True, backend="aot_eager")
    for nodes in (5, 9):
        torch.testing.assert_close(compiled(**call(nodes))["v"], module(**call(nodes))["v"])
    faulty = torch.compile(layer(lambda x, _: x[1][:1].repeat(1, 3)[:, :8]), backend="aot_eager")
    with pytest.raises(ValueError, match=re.escape(WHOSE)):
        faulty(**call())

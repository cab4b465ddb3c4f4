"""Integer attributes of edges keep every unit when an edge kind reads them."""

import pytest
import torch

from pyg_nsa import HeteroNSAConv, RelationInputs

ROAD = ("city", "road", "city")


def read(value):
    return RelationInputs(ROAD, None, None, {"time": value}).edge_attr("time")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_times_in_seconds_keep_every_second(dtype):
    time = torch.tensor([1_700_000_000, 1_700_000_030, 1_700_000_060, 1_700_000_090], dtype=dtype)
    got = read(time)
    assert got.dtype == torch.float64
    assert (got - got[0]).tolist() == [0, 30, 60, 90]
    assert read(-time).tolist() == (-time).tolist()
    assert read(time[:, None]).shape == (4, 1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_small_integers_stay_in_float32(dtype):
    for value in (torch.tensor([3, 0, 2], dtype=dtype), torch.empty(0, dtype=dtype)):
        got = read(value)
        assert got.dtype == torch.float32
        assert got.tolist() == value.tolist()


def test_the_border_is_where_float32_leaves_integers_out():
    assert read(torch.tensor([2**24, -(2**24)])).dtype == torch.float32
    got = read(torch.tensor([2**24 + 1]))
    assert got.dtype == torch.float64
    assert got.tolist() == [2**24 + 1]


def test_integers_that_float64_leaves_out_are_refused():
    time = torch.tensor([1_700_000_000_000_000_001, 1_700_000_000_000_000_900])
    with pytest.raises(
        ValueError, match=r"beyond 2\*\*53 .* subtract what all have in common"
    ) as caught:
        read(time)
    assert str(caught.value).startswith(
        "'time' of edge type ('city', 'road', 'city') holds integers from 1700000000000000001 to 1700000000000000900"
    )
    assert "(time - 1700000000000000001), or take a larger unit" in str(caught.value)
    assert read(time - time.min()).tolist() == [0, 899]


def test_a_layer_takes_them_compiled_or_not():
    torch.manual_seed(0)
    layer = HeteroNSAConv(
        {ROAD: {"kind": "edge_attr_bias", "options": {"edge_attr": "time"}}},
        hidden_channels=8,
        in_channels=4,
        edge_attr_dims={ROAD: 1},
    ).eval()
    edges, x = torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), torch.randn(3, 4)
    for time in (torch.tensor([3, 1, 2, 0]), torch.tensor([3, 1, 2, 0]) + 20_000_000):
        call = {"x_dict": {"city": x}, "edge_index_dict": {ROAD: edges}, "time_dict": {ROAD: time}}
        out = layer(**call)["city"]
        assert out.dtype == torch.float32
        torch.testing.assert_close(
            layer(**{**call, "time_dict": {ROAD: time.double()}})["city"], out
        )
        torch.compiler.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(**call)["city"], out)

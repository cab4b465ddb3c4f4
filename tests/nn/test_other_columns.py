"""Rows with other columns than a layer was made for: torch's error, and no kernel that reads what lies behind them."""

import pytest
import torch
from torch import nn

from pyg_nsa import HeteroNSAConv, NSAConv
from pyg_nsa.nn.feed_forward import FeedForward
from pyg_nsa.nn.projection import apply, normed, project

REL = ("a", "to", "b")


@pytest.mark.parametrize("columns", [32, 128])
@pytest.mark.parametrize("root_weight", [True, False])
@pytest.mark.parametrize("end", ["source", "target", "both"])
def test_nsa_conv(columns, root_weight, end):
    conv = NSAConv((64, 64), 16, heads=4, root_weight=root_weight)
    index = torch.randint(9, (2, 30))
    source, target = torch.randn(9, 64), torch.randn(9, 64)
    other = torch.randn(9, columns)
    x = {"source": (other, target), "target": (source, other), "both": (other, other)}[end]
    conv((source, target), index)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        conv(x, index)


@pytest.mark.parametrize("columns", [32, 128])
def test_single_layers(columns):
    x = torch.randn(9, columns)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        apply(nn.Linear(64, 32), x)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        project(x, nn.Linear(64, 32), nn.Linear(64, 16))
    with pytest.raises(RuntimeError, match="normalized_shape"):
        normed(nn.LayerNorm(64), x)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        FeedForward(64)(x)


def test_a_sum_with_one_column_is_broadcast():
    layer, x, start = nn.Linear(64, 32), torch.randn(9, 64), torch.randn(9, 16)[:, :1]
    torch.testing.assert_close(apply(layer, x, start), start + layer(x))


@pytest.mark.parametrize("name", ["lin_key", "lin_query", "lin_value", "lin_out"])
@pytest.mark.parametrize("pattern", [None, "M"])
def test_layers_that_others_put_in(name, pattern):
    """A layer of torch has no ``in_channels`` by which its rows could be checked."""
    conv = HeteroNSAConv(
        {REL: "adjacency_mask"}, hidden_channels=64, in_channels=64, pattern=pattern
    )
    relation = next(m for m in conv.modules() if hasattr(m, "lin_out"))
    holder = relation if name == "lin_out" else relation.conv
    setattr(holder, name, nn.Linear(32, 64, bias=False))
    x = {"a": torch.randn(9, 64), "b": torch.randn(9, 64)}
    with pytest.raises(
        RuntimeError, match="shapes cannot be multiplied|Sizes of tensors must match"
    ):
        conv(x, {REL: torch.randint(9, (2, 30))})


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_hidden_layers_that_others_put_in(shape):
    layer = FeedForward(64)
    layer.lin1 = nn.Linear(*shape)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.randn(9, 64))

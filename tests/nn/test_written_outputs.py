"""Users write into what a layer returns, as they do with PyG's layers: values and gradients are those of a copy written to."""

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import SAGEConv

from pyg_nsa import HeteroNSAConv, NSAConv

EDGE = ("a", "to", "a")
KINDS = {EDGE: "adjacency_mask"}

WRITES = {
    "relu_": lambda out: out.relu_(),
    "dropout": lambda out: F.dropout(out, 0.5, training=True, inplace=True),
    "+=": lambda out: out.__iadd__(1.0),
    "[]=": lambda out: out.index_fill_(0, torch.tensor([0]), 0.0),
}

LAYERS = {
    "bare": lambda width: HeteroNSAConv(KINDS, hidden_channels=width),
    "bare mean": lambda width: HeteroNSAConv(KINDS, "mean", hidden_channels=width),
    "M": lambda width: HeteroNSAConv(KINDS, hidden_channels=width, pattern="M"),
    "no MLP": lambda width: HeteroNSAConv(KINDS, hidden_channels=width, pattern="M", mlp_ratio=0),
    "S": lambda width: HeteroNSAConv(KINDS, hidden_channels=width, pattern="S"),
    "out_channels": lambda width: HeteroNSAConv(
        KINDS, hidden_channels=width, pattern="M", out_channels=4
    ),
    "conv of PyG": lambda width: HeteroNSAConv({EDGE: SAGEConv((8, 8), width)}),
}
CONVS = {
    "root": {},
    "no root": {"root_weight": False},
    "mean of heads": {"root_weight": False, "concat": False},
    "beta": {"beta": True},
}


def same_as_a_copy(call, write, parameters):
    """Writes into the output and into a copy of it."""
    found = []
    for copied in (False, True):
        out = call()
        torch.manual_seed(1)
        written = write(out.clone() if copied else out)
        gradients = torch.autograd.grad((written**2).sum(), parameters, allow_unused=True)
        found.append((written.detach(), [g for g in gradients if g is not None]))
    torch.testing.assert_close(*found)
    assert found[0][1]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("width", [8, 16])  # the compiled kernels take multiples of 16
@pytest.mark.parametrize("shape", [(30, 8), (2, 30, 8)], ids=["rows", "copies"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_types(name, shape, width, write):
    layer = LAYERS[name](width)
    x, edges = {"a": torch.randn(shape)}, {EDGE: torch.randint(30, (2, 90))}
    layer(x, edges)
    same_as_a_copy(lambda: layer(x, edges)["a"], WRITES[write], [*layer.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", CONVS)
def test_nsa_conv(name, write, dtype):
    conv = NSAConv(16, 8, heads=2, **CONVS[name]).to(dtype)
    x, edges = torch.randn(30, 16, dtype=dtype), torch.randint(30, (2, 90))
    same_as_a_copy(lambda: conv(x, edges), WRITES[write], [*conv.parameters()])


def test_large_outputs():
    """Their memory is kept from step to step (`pyg_nsa.compiled.kept_pages`)."""
    layer = HeteroNSAConv(KINDS, hidden_channels=64)
    x, edges = {"a": torch.randn(20_000, 8)}, {EDGE: torch.randint(20_000, (2, 100))}
    layer(x, edges)
    same_as_a_copy(lambda: layer(x, edges)["a"], WRITES["relu_"], [*layer.parameters()])


@pytest.mark.parametrize(
    "options", [{"pattern": "S", "sab_types": ["a"]}, {"pattern": "M", "mlp_ratio": 0}], ids=str
)
@pytest.mark.parametrize("write", WRITES)
def test_copies_that_no_block_touches(options, write):
    """Copies of one graph's features are one memory (``expand``), which is projected once."""
    layer = HeteroNSAConv({("b", "to", "a"): "adjacency_mask"}, hidden_channels=16, **options)
    x = {t: torch.randn(1, 9, 8).expand(3, 9, 8) for t in "ab"}
    edges = {("b", "to", "a"): torch.randint(9, (2, 20))}
    layer(x, edges)
    same_as_a_copy(lambda: layer(x, edges)["b"], WRITES[write], [*layer.parameters()])

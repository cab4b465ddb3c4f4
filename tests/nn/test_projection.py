"""Several linear layers at once against each layer alone."""

import pytest
import torch
from torch import nn
from torch_geometric.nn.dense.linear import Linear

from pyg_nsa import HeteroNSAConv
from pyg_nsa.nn.projection import project


class Adapter(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def hooked():
    layer = nn.Linear(5, 4)
    layer.register_forward_hook(lambda module, args, out: out * 2)
    return layer


def parametrized():
    return nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))


LAYERS = {
    "plain": lambda: [Linear(5, 3), nn.Linear(5, 8), Linear(5, 2)],
    "no bias": lambda: [Linear(5, 3, bias=False), nn.Linear(5, 8, bias=False)],
    "some bias": lambda: [Linear(5, 3, bias=False), nn.Linear(5, 8), Linear(5, 2, bias=False)],
    "one": lambda: [nn.Linear(5, 3)],
    "lazy": lambda: [Linear(-1, 3), Linear(-1, 8)],
    "adapter": lambda: [nn.Linear(5, 3), Adapter(5, 4)],
    "hook": lambda: [nn.Linear(5, 3), hooked()],
    "parametrized": lambda: [nn.Linear(5, 3), parametrized()],
}


@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5), (0, 5)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_equal_each_layer_alone(name, shape):
    layers = nn.ModuleList(LAYERS[name]()).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    outs = project(x, *layers)  # first: lazy layers must wake up here
    expected = [layer(x) for layer in layers]
    weights = [torch.randn_like(y) for y in expected]
    leaves = [x, *layers.parameters()]

    def gradients(ys):
        return torch.autograd.grad(
            sum((y * w).sum() for y, w in zip(ys, weights, strict=True)), leaves
        )

    torch.testing.assert_close(outs, tuple(expected))
    torch.testing.assert_close(gradients(outs), gradients(expected))


class LowRank(nn.Module):
    """Around a layer, with none of its attributes, as adapters of other packages are."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        rows, columns = layer.weight.shape
        self.update = nn.Sequential(nn.Linear(columns, 2), nn.Linear(2, rows))

    def forward(self, x):
        return self.layer(x) + self.update(x)


@pytest.mark.parametrize("pattern", [None, "M", "S", "MS"])
def test_adapters_around_every_linear_layer(pattern):
    edge = ("a", "to", "a")
    layer = HeteroNSAConv({edge: "adjacency_mask"}, hidden_channels=8, pattern=pattern)
    x, edges = {"a": torch.randn(20, 6)}, {edge: torch.randint(20, (2, 60))}
    before = layer(x, edges)["a"]
    for module in list(layer.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear | Linear):
                setattr(module, name, LowRank(child))
    added = [m for m in layer.modules() if isinstance(m, LowRank)]
    assert added
    assert not torch.allclose(layer(x, edges)["a"], before)
    for adapter in added:
        for parameter in adapter.update[1].parameters():
            nn.init.zeros_(parameter)
    out = layer(x, edges)["a"]
    torch.testing.assert_close(out, before)
    out.square().sum().backward()
    assert all(adapter.update[1].weight.grad.any() for adapter in added)


LAYERS_WITHIN = {
    "conv": lambda layer: layer.stack.blocks[0].convs[EDGE].conv,
    "message": lambda layer: layer.stack.blocks[0].convs[EDGE].lin_out,
    "query": lambda layer: layer.stack.blocks[0].convs[EDGE].conv.lin_query,
    "value": lambda layer: layer.stack.blocks[0].convs[EDGE].conv.lin_value,
    "MLP": lambda layer: layer.stack.blocks[0].feed_forwards["a"].lin2,
    "norm": lambda layer: layer.stack.blocks[0].norms["a"],
    "S": lambda layer: layer.stack.blocks[1]["a"].lin_qkv,
}
EDGE = ("a", "to", "a")


@pytest.mark.parametrize("width", [12, 16])  # the compiled kernels take multiples of 16
@pytest.mark.parametrize("name", LAYERS_WITHIN)
def test_a_forward_that_was_put_on_a_layer_is_called(name, width):
    layer = HeteroNSAConv({EDGE: "adjacency_mask"}, hidden_channels=width, pattern="MS")
    x, edges = {"a": torch.randn(20, 6)}, {EDGE: torch.randint(20, (2, 60))}
    before = layer(x, edges)["a"]
    within = LAYERS_WITHIN[name](layer)
    was, calls = within.forward, []

    def forward(*args, **kwargs):
        calls.append(name)
        return was(*args, **kwargs)

    within.forward = forward
    torch.testing.assert_close(layer(x, edges)["a"], before)
    assert calls


def test_hooks_of_all_modules_see_each_layer():
    layer = HeteroNSAConv({EDGE: "adjacency_mask"}, hidden_channels=16, pattern="MS")
    x, edges = {"a": torch.randn(20, 6)}, {EDGE: torch.randint(20, (2, 60))}
    layer(x, edges)
    seen = set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        layer(x, edges)
    finally:
        handle.remove()
    linears = [m for m in layer.modules() if isinstance(m, nn.Linear | Linear | nn.LayerNorm)]
    assert [m for m in linears if m not in seen] == []

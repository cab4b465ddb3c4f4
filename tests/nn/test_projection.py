"""Several linear layers at once against each layer alone."""

import pytest
import torch
from torch import nn
from torch_geometric.nn.dense.linear import Linear

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

"""Layers under ``torch.utils.checkpoint``: recomputed in the backward pass, with the gradients that they have without."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pyg_nsa import HeteroNSAConv, MaskedAttentionBlock, NSAConv, SelfAttentionBlock

UV, VU, UU = ("u", "to", "v"), ("v", "back", "u"), ("u", "near", "u")
KINDS = {UV: "adjacency_mask", VU: "stoichiometry_bias", UU: "adjacency_mask"}
SIZES = {UV: (9, 7), VU: (7, 9), UU: (9, 9)}


def gradients(module, inputs, call):
    """Of all parameters and inputs, of one call with one seed."""
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    leaves = [t.clone().requires_grad_() for t in inputs]
    torch.manual_seed(1)
    call(*leaves).sin().sum().backward()
    return [t.grad.clone() for t in (*module.parameters(), *leaves)]


def assert_the_same_when_recomputed(module, inputs, forward, reentrant):
    forward(*inputs)  # some parameters get their sizes, and random values, in the first call
    expected = gradients(module, inputs, forward)
    found = gradients(module, inputs, lambda *t: checkpoint(forward, *t, use_reentrant=reentrant))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(t.abs().max() > 1e-3 for t in expected[-len(inputs) :])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("pattern", [None, "M", "S", "MSM"])
def test_a_heterogeneous_layer(pattern, dropout, reentrant):
    sizes = {"u": 5, "v": 3}
    conv = HeteroNSAConv(
        KINDS, pattern=pattern, hidden_channels=16, in_channels=sizes, dropout=dropout
    )
    index = {e: torch.stack([torch.randint(n, (30,)) for n in SIZES[e]]) for e in KINDS}
    amounts = torch.randn(30)

    def forward(u, v):
        out = conv({"u": u, "v": v}, index, stoichiometry_dict={VU: amounts})
        return torch.cat([rows.flatten() for rows in out.values()])

    inputs = [torch.randn(9, 5), torch.randn(7, 3)]
    assert_the_same_when_recomputed(conv, inputs, forward, reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # fused kernels; what they leave
def test_layers_alone(dtype, reentrant):
    index = torch.randint(9, (2, 40))
    x, amounts = torch.randn(9, 16, dtype=dtype), torch.randn(40, 4, dtype=dtype)
    conv = NSAConv(16, 4, heads=4, edge_dim=4).to(dtype)
    mab = MaskedAttentionBlock(16, heads=4).to(dtype)
    sab = SelfAttentionBlock(16, heads=4).to(dtype)
    assert_the_same_when_recomputed(conv, [x, amounts], lambda x, a: conv(x, index, a), reentrant)
    assert_the_same_when_recomputed(mab, [x], lambda x: mab(x, index), reentrant)
    assert_the_same_when_recomputed(sab, [x], sab, reentrant)

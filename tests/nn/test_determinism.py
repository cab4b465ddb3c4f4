"""Same seed, same bits on the CPU, training included."""

import pytest
import torch

from pyg_nsa import HeteroNSAConv, MaskedAttentionBlock, NSAEncoder

EDGES = {("a", "to", "a"): "adjacency_mask", ("a", "has", "b"): "stoichiometry_bias"}
SIZES = {"a": 400, "b": 300}


def hetero():
    model = HeteroNSAConv(
        EDGES, pattern="MSM", in_channels=16, hidden_channels=16, heads=2, dropout=0.3
    )
    arguments = dict(
        x_dict={t: torch.randn(n, 16) for t, n in SIZES.items()},
        edge_index_dict={("a", "to", "a"): torch.randint(400, (2, 3000))},
        hyperedge_index_dict={
            ("a", "has", "b"): torch.stack([torch.randint(400, (900,)), torch.randint(300, (900,))])
        },
        stoichiometry_dict={("a", "has", "b"): torch.randn(900)},
    )
    return model, lambda: list(model(**arguments).values())


def homogeneous(make):
    model = make()
    x, edge_index = torch.randn(400, 16), torch.randint(400, (2, 3000))
    return model, lambda: [model(x, edge_index)]


MODELS = {
    "block": lambda: homogeneous(lambda: MaskedAttentionBlock(16, 2, dropout=0.3)),
    "encoder": lambda: homogeneous(lambda: NSAEncoder(16, pattern="MS", heads=2, dropout=0.3)),
    "hetero": hetero,
}


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_same_bits(name):
    def train():
        torch.manual_seed(3)
        model, forward = MODELS[name]()
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            sum(out.square().sum() for out in forward()).backward()
            optimizer.step()
        return [*forward(), *model.parameters()]

    for a, b in zip(train(), train(), strict=True):
        assert torch.equal(a, b)

"""One relation's edge term, and layers around it that a dense re-computation can follow."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from pyg_nsa import BuildContext, HeteroNSAConv, RelationInputs, default_registry
from pyg_nsa.nn.node_layout import NodeLayout

UU, UV = ("u", "near", "u"), ("u", "in", "v")
SIZES = {"u": 6, "v": 4}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_term(kind, edge_type=UV, heads=2, **options):
    declared = default_registry().edge_kind(kind)
    return declared.build(
        BuildContext(edge_type=edge_type, heads=heads), declared.options(**options)
    )


def make_inputs(edge_type=UV, sizes=SIZES, layout=None, **fields):
    """``layout``: arguments of NodeLayout by node type."""
    ends = [
        NodeLayout(t, (sizes[t],), torch.device("cpu"), **(layout or {}).get(t, {}))
        for t in (edge_type[0], edge_type[2])
    ]
    return RelationInputs(edge_type, *ends, fields)


def pair_list(edges):
    return list(map(tuple, edges.edge_index().t().tolist()))


def dense_message(relation, x, bias):
    """The message of a RelationAttention, head by head; ``bias [N_dst, N_src, H]`` is -inf where nothing attends."""
    conv = relation.conv

    def project(lin, rows):
        out = rows @ lin.weight.t()
        return (out if lin.bias is None else out + lin.bias).unflatten(-1, (conv.heads, -1))

    q, k, v = (
        project(conv.lin_query, x[1]),
        project(conv.lin_key, x[0]),
        project(conv.lin_value, x[0]),
    )
    logits = torch.einsum("ihd,jhd->ijh", q, k) / math.sqrt(q.size(-1)) + bias
    weight = logits.softmax(dim=1).nan_to_num(0.0)
    return relation.lin_out(torch.einsum("ijh,jhd->ihd", weight, v).flatten(1))


def layer(kind, edge_type=UV, columns=3, heads=2, pattern=None, **options):
    torch.manual_seed(1)
    spec = {"kind": kind, "options": options}
    return HeteroNSAConv(
        {edge_type: spec}, pattern=pattern, hidden_channels=8, in_channels=columns, heads=heads
    )


def all_gradients(module, out):
    module.zero_grad()
    sum((t * torch.linspace(-1, 1, t.numel()).view_as(t)).sum() for t in out.values()).backward()
    grads = {n: p.grad for n, p in module.named_parameters()}
    assert [n for n, g in grads.items() if g is None] == []
    assert all(bool(g.isfinite().all()) for g in grads.values())
    return grads


@pytest.fixture
def one():
    return SimpleNamespace(
        UU=UU,
        UV=UV,
        sizes=SIZES,
        term=make_term,
        inputs=make_inputs,
        pairs=pair_list,
        message=dense_message,
        layer=layer,
        gradients=all_gradients,
    )

"""Synthetic perturbed cells with the fields, shapes and numberings of real ones, and a dense re-computation."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData
from torch_geometric.loader import DataLoader

PHYSICAL = ("gene", "physical_interaction", "gene")
REGULATORY = ("gene", "regulatory_interaction", "gene")
GPR = ("gene", "gpr", "reaction")
RMR = ("reaction", "rmr", "metabolite")
SIZES = {"gene": 23, "reaction": 31, "metabolite": 17}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The tensors here are small, and threads that wait for each other make a busy machine slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _base(columns):
    """The base graph: features and edges in wildtype numbering, the same at every call."""
    g = torch.Generator().manual_seed(7)

    def pairs(n_src, n_dst, n):
        rows = [torch.randint(n_src, (n,), generator=g), torch.randint(n_dst, (n,), generator=g)]
        return torch.stack(rows)

    physical = pairs(23, 23, 60)
    rmr = pairs(31, 17, 70)
    rmr = torch.cat([rmr, rmr[:, :6]], dim=1)  # metabolites on both sides of a reaction
    # Reactions 29 and 30 have no gene, gene 22 has no edge at all.
    edges = {
        PHYSICAL: physical % 22,
        REGULATORY: pairs(22, 22, 25),
        GPR: pairs(22, 29, 40),
        RMR: rmr,
    }
    attr = {
        "stoichiometry": torch.randint(1, 4, (76,), generator=g).float()
        * (torch.randint(2, (76,), generator=g) * 2 - 1),
        "edge_type": torch.randint(2, (76,), generator=g),
    }
    x = {t: torch.randn(n, columns, generator=g) for t, n in SIZES.items()}
    return x, edges, attr


def make_cell(deleted=(3, 11), numbering="compact", columns=0, dense=True):
    """One perturbed cell; deleted genes take their reactions with them."""
    x, edges, attr = _base(columns)
    genes = torch.tensor(deleted, dtype=torch.long)
    gone = {
        "gene": genes,
        "reaction": edges[GPR][1][torch.isin(edges[GPR][0], genes)].unique(),
        "metabolite": genes[:0],
    }
    data = HeteroData()
    new_id = {}
    for node_type, count in SIZES.items():
        pert_mask = torch.zeros(count, dtype=torch.bool)
        pert_mask[gone[node_type]] = True
        kept = (~pert_mask).nonzero().view(-1)
        new_id[node_type] = torch.full((count,), -1)
        store = data[node_type]
        if numbering == "compact":
            new_id[node_type][kept] = torch.arange(len(kept))
            store.num_nodes = len(kept)
            store.x = torch.cat([x[node_type][kept], torch.zeros(count - len(kept), columns)])
            store.mask = torch.arange(count) < len(kept)
        else:
            new_id[node_type] = torch.arange(count)
            store.num_nodes = count
            store.x = x[node_type]
            store.mask = ~pert_mask
        store.pert_mask = pert_mask
        store.x_pert = x[node_type][gone[node_type]]
        store.ids_pert = [f"{node_type}{i}" for i in gone[node_type].tolist()]
        store.cell_graph_idx_pert = gone[node_type]
    for edge_type, index in edges.items():
        src, _, dst = edge_type
        index = torch.stack([new_id[src][index[0]], new_id[dst][index[1]]])
        keep = (index >= 0).all(dim=0)
        index = index[:, keep]
        store = data[edge_type]
        hyper = edge_type in (GPR, RMR)
        store["hyperedge_index" if hyper else "edge_index"] = index
        if edge_type == RMR:
            for name, value in attr.items():
                store[name] = value[keep]
        if dense:
            mask = torch.zeros(SIZES[src], SIZES[dst], dtype=torch.bool)
            mask[index[0], index[1]] = True
            store["inc_mask" if hyper else "adj_mask"] = mask
    return data


def specs(route="sparse"):
    """Declared kinds of the four relations, from the sparse fields or from the dense masks."""
    if route == "sparse":
        adjacency, incidence = "edge_index", "hyperedge_index"
    else:
        adjacency, incidence = "adj_mask", "inc_mask"
    return {
        PHYSICAL: {"kind": "adjacency_mask", "options": {"source": adjacency}},
        REGULATORY: {"kind": "adjacency_mask", "options": {"source": adjacency}},
        GPR: {"kind": "incidence_mask", "options": {"source": incidence}},
        RMR: {"kind": "incidence_mask", "options": {"source": incidence}},
    }


def stoichiometric():
    """The relations with learned bias from the coefficients."""
    return {**specs(), RMR: "stoichiometry_bias"}


def batch_of(cells, follow=True):
    loader = DataLoader(cells, batch_size=len(cells), follow_batch=["x"] if follow else None)
    return next(iter(loader))


@pytest.fixture
def cell():
    return SimpleNamespace(
        make=make_cell,
        specs=specs,
        stoichiometric=stoichiometric,
        batch=batch_of,
        sizes=SIZES,
        PHYSICAL=PHYSICAL,
        REGULATORY=REGULATORY,
        GPR=GPR,
        RMR=RMR,
    )


# ---- a dense re-computation ----------------------------------------------------------------------------------------------


def attend(q, k, v, heads, allowed, bias=None):
    """``q [N_q, C]``, ``k, v [N_k, C]``, ``allowed [N_q, N_k]`` bool, ``bias [H, N_q, N_k]``: masked softmax, head by head."""
    out = torch.zeros_like(q)
    dim = q.size(1) // heads
    for h in range(heads):
        part = slice(h * dim, (h + 1) * dim)
        logits = q[:, part] @ k[:, part].t() / math.sqrt(dim)
        if bias is not None:
            logits = logits + bias[h]
        weight = logits.exp() * allowed
        total = weight.sum(1, keepdim=True)
        out[:, part] = weight @ v[:, part] / torch.where(total > 0, total, 1.0)
    return out


def allowed_from(edge_index, num_src, num_dst):
    """``[N_dst, N_src]`` bool by a loop over the edges: the target is the query."""
    allowed = torch.zeros(num_dst, num_src, dtype=torch.bool)
    for src, dst in edge_index.t().tolist():
        allowed[dst, src] = True
    return allowed


def summed(edge_index, edge_attr, num_src, num_dst):
    """``[N_dst, N_src, F]``: the attributes of each pair, summed over its edges."""
    edge_attr = edge_attr[:, None] if edge_attr.dim() == 1 else edge_attr
    out = edge_attr.new_zeros(num_dst, num_src, edge_attr.size(1))
    return out.index_put((edge_index[1], edge_index[0]), edge_attr, accumulate=True)


def norm(module, x):
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias)


def feed_forward(module, x):
    if not list(module.children()):  # mlp_ratio=0
        return x
    h = norm(module.norm, x) @ module.lin1.weight.t() + module.lin1.bias
    return x + F.gelu(h) @ module.lin2.weight.t() + module.lin2.bias


def conv_message(conv, x_src, x_dst, allowed, bias=None):
    def project(lin, x):
        out = x @ lin.weight.t()
        return out if lin.bias is None else out + lin.bias

    q, k = project(conv.lin_query, x_dst), project(conv.lin_key, x_src)
    return attend(q, k, project(conv.lin_value, x_src), conv.heads, allowed, bias)


@pytest.fixture
def dense():
    return SimpleNamespace(
        attend=attend,
        allowed=allowed_from,
        summed=summed,
        norm=norm,
        feed_forward=feed_forward,
        message=conv_message,
    )


def _gradients(module, out):
    module.zero_grad()
    tensors = out.values() if isinstance(out, dict) else [out]
    sum((t * torch.linspace(-1, 1, t.numel()).view_as(t)).sum() for t in tensors).backward()
    return {n: p.grad for n, p in module.named_parameters()}


@pytest.fixture
def gradients():
    """Runs backward from a fixed weighting of the outputs; fails where a gradient is missing or not finite."""

    def run(module, out):
        grads = _gradients(module, out)
        missing = [n for n, g in grads.items() if g is None]
        assert not missing
        assert all(bool(g.isfinite().all()) for g in grads.values())
        return grads

    return run

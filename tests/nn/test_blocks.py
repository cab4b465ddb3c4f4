"""MAB, SAB and their stack over one node type, against dense re-computations in float64."""

import pytest
import torch

from pyg_nsa import MaskedAttentionBlock, NSAEncoder, Segments, SelfAttentionBlock

DOUBLE = torch.float64


def masked_block(block, x, allowed, dense, bias=None, alive=None):
    if alive is not None:
        allowed = allowed & alive[:, None] & alive[None, :]
    h = dense.norm(block.norm, x)
    message = dense.message(block.conv, h, h, allowed, bias) @ block.lin_out.weight.t()
    out = dense.feed_forward(block.feed_forward, x + message)
    return out if alive is None else torch.where(alive[:, None], out, x)


def self_block(block, x, dense, graph=None, alive=None):
    """All nodes of one graph see each other; with induced points, through them."""
    n = x.size(0)
    graph = torch.zeros(n, dtype=torch.long) if graph is None else graph
    alive = torch.ones(n, dtype=torch.bool) if alive is None else alive
    out = x.clone()
    for g in graph.unique():
        own = alive & (graph == g)
        if not own.any():
            continue
        h = dense.norm(block.norm, x[own])
        q, k, v = (h @ block.lin_qkv.weight.t() + block.lin_qkv.bias).chunk(3, dim=1)
        if block.induced is not None:
            points = block.induced.points
            everything = torch.ones(points.size(0), h.size(0), dtype=torch.bool)
            summary = points + dense.attend(points, k, v, block.heads, everything)
            lin = block.induced.lin_kv
            pairs = dense.norm(block.induced.norm, summary) @ lin.weight.t() + lin.bias
            k, v = pairs.chunk(2, dim=1)
        everything = torch.ones(h.size(0), k.size(0), dtype=torch.bool)
        message = dense.attend(q, k, v, block.heads, everything) @ block.lin_out.weight.t()
        out[own] = dense.feed_forward(block.feed_forward, x[own] + message)
    return out


def same_gradients(module, out, expected, gradients):
    grads, wanted = gradients(module, out), gradients(module, expected)
    for name in wanted:
        torch.testing.assert_close(grads[name], wanted[name], msg=name)


@pytest.mark.parametrize("mlp_ratio", [2.0, 0])
@pytest.mark.parametrize("dead", [False, True])
def test_mab_equals_a_dense_recomputation(dense, gradients, dead, mlp_ratio):
    block = MaskedAttentionBlock(8, heads=2, edge_dim=2, mlp_ratio=mlp_ratio).double()
    x = torch.randn(11, 8, dtype=DOUBLE)
    edge_index, edge_attr = torch.randint(10, (2, 40)), torch.randn(40, 2, dtype=DOUBLE)
    alive = torch.rand(11) < 0.7 if dead else None
    pair_attr = dense.summed(edge_index, edge_attr, 11, 11)

    def reference(edge_index):
        bias = (pair_attr @ block.conv.lin_edge.weight.t()).permute(2, 0, 1)
        return masked_block(block, x, dense.allowed(edge_index, 11, 11), dense, bias, alive)

    out = block(x, edge_index, edge_attr, alive)
    torch.testing.assert_close(out, reference(edge_index))
    same_gradients(block, out, reference(edge_index), gradients)
    shuffle = torch.randperm(40)
    torch.testing.assert_close(block(x, edge_index[:, shuffle], edge_attr[shuffle], alive), out)
    assert not torch.allclose(block(x, edge_index.flip(0), edge_attr, alive), out)
    if dead:
        assert torch.equal(out[~alive], x[~alive])


@pytest.mark.parametrize("mlp_ratio", [2.0, 0])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("induced_points", [None, 3])
def test_sab_equals_a_dense_recomputation(dense, gradients, induced_points, dead, mlp_ratio):
    block = SelfAttentionBlock(8, 2, mlp_ratio, induced_points=induced_points).double()
    x = torch.randn(14, 8, dtype=DOUBLE)
    graph = torch.tensor([0] * 5 + [1] * 1 + [2] * 8)
    alive = torch.rand(14) < 0.7 if dead else None
    if dead:
        alive[5] = False  # a graph without a living node
    out = block(x, graph, alive)
    torch.testing.assert_close(out, self_block(block, x, dense, graph, alive))
    same_gradients(block, out, self_block(block, x, dense, graph, alive), gradients)
    ptr = torch.tensor([0, 5, 6, 14])
    assert torch.equal(block(x, mask=alive, ptr=ptr), out)
    shuffle = torch.randperm(14)  # graphs need not be contiguous
    mask = None if alive is None else alive[shuffle]
    torch.testing.assert_close(block(x[shuffle], graph[shuffle], mask), out[shuffle])
    if dead:
        assert torch.equal(out[~alive], x[~alive])


@pytest.mark.parametrize("induced_points", [None, 3])
def test_the_encoder_on_copies_of_one_graph_equals_single_runs(dense, induced_points):
    model = NSAEncoder(8, "MSSM", heads=2, induced_points=induced_points).double()
    x = torch.randn(3, 9, 8, dtype=DOUBLE)
    edge_index = torch.randint(9, (2, 30))
    alive = torch.rand(3, 9) < 0.7
    alive[2] = False
    out = model(x, edge_index, mask=alive)
    for b in range(3):
        keep = alive[b][edge_index].all(dim=0)
        one = model(x[b], edge_index[:, keep], mask=alive[b])
        torch.testing.assert_close(out[b], one)
        h = x[b]
        for letter, block in zip("MSSM", model.blocks, strict=True):
            if letter == "M":
                h = masked_block(block, h, dense.allowed(edge_index, 9, 9), dense, None, alive[b])
            else:
                h = self_block(block, h, dense, alive=alive[b])
        torch.testing.assert_close(out[b], h)


def test_the_encoder_on_a_batch_equals_single_runs(gradients):
    model = NSAEncoder(8, "MS", heads=2, edge_dim=1)
    graphs = []
    for n, e in ((4, 9), (1, 0), (7, 20), (4, 12)):
        graphs.append((torch.randn(n, 8), torch.randint(n, (2, e)), torch.randn(e)))
    shifts = [0, 4, 5, 12]
    x = torch.cat([g[0] for g in graphs])
    edge_index = torch.cat([g[1] + s for g, s in zip(graphs, shifts, strict=True)], dim=1)
    batch = torch.repeat_interleave(torch.arange(4), torch.tensor([4, 1, 7, 4]))
    out = model(x, edge_index, torch.cat([g[2] for g in graphs]), batch)
    singles = torch.cat([model(*g) for g in graphs])
    torch.testing.assert_close(out, singles)
    gradients(model, out)


def test_blocks_without_nodes_edges_or_living_rows(gradients):
    model = NSAEncoder(8, "MS", heads=2, induced_points=2)
    nothing = torch.empty(2, 0, dtype=torch.long)
    for x, mask in (
        (torch.empty(0, 8), None),
        (torch.randn(5, 8), None),
        (torch.randn(5, 8), torch.zeros(5, dtype=torch.bool)),
        (torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)),
        (torch.empty(2, 0, 8), None),
    ):
        out = model(x, nothing, mask=mask)
        assert out.shape == x.shape
        gradients(model, out)
        if mask is not None:
            assert torch.equal(out, x)


@pytest.mark.parametrize("block", [MaskedAttentionBlock, SelfAttentionBlock])
def test_an_mlp_has_a_width_or_none(block):
    names = [name for name, _ in block(8, mlp_ratio=0).named_parameters()]
    assert not any("feed_forward" in name for name in names)
    assert block(8, mlp_ratio=0.01).feed_forward.lin1.out_features == 1
    with pytest.raises(ValueError, match=r"mlp_ratio must be 0 \(no MLP\) or more; got -1"):
        block(8, mlp_ratio=-1)


def test_dropout_and_reset():
    model = NSAEncoder(8, "MS", heads=2, dropout=0.3)
    x, edge_index = torch.randn(9, 8), torch.randint(9, (2, 30))
    torch.manual_seed(1)
    first = model(x, edge_index)
    assert not torch.equal(model(x, edge_index), first)
    torch.manual_seed(1)
    assert torch.equal(model(x, edge_index), first)
    model.eval()
    assert torch.equal(model(x, edge_index), model(x, edge_index))
    before = {n: p.clone() for n, p in model.named_parameters() if p.dim() == 2}
    model.reset_parameters()
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


def test_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match=r"channels=10 is not a multiple of heads=4; nearest .*: 5"
    ):
        MaskedAttentionBlock(10)
    with pytest.raises(ValueError, match="heads must divide channels"):
        SelfAttentionBlock(10)
    with pytest.raises(ValueError, match="must be positive"):
        SelfAttentionBlock(8, heads=0)
    with pytest.raises(ValueError, match=r"letters M .* such as 'MSMS'; got 'MX'"):
        NSAEncoder(8, "MX")
    with pytest.raises(ValueError, match="got ''"):
        NSAEncoder(8, "")
    with pytest.raises(ValueError, match="induced_points must be at least 1, got 0"):
        SelfAttentionBlock(8, induced_points=0)
    block = SelfAttentionBlock(8)
    with pytest.raises(ValueError, match=r"batch must have shape \[5\]"):
        block(torch.randn(5, 8), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="in the layout .B, N, C. the first axis is the batch"):
        block(torch.randn(2, 5, 8), torch.zeros(10, dtype=torch.long))
    with pytest.raises(ValueError, match="segments belong to the layout"):
        block(torch.randn(2, 5, 8), segments=Segments.single(5))
    with pytest.raises(TypeError, match=r"must be a boolean tensor, got torch.float32.*\.bool\(\)"):
        block(torch.randn(2, 5, 8), mask=torch.ones(2, 5))
    with pytest.raises(TypeError, match="must be a boolean tensor"):
        MaskedAttentionBlock(8)(torch.randn(5, 8), torch.tensor([[0], [1]]), mask=torch.ones(5))
    with pytest.raises(TypeError, match="must be a boolean tensor"):
        block(torch.randn(5, 8), mask=torch.ones(5))

"""NSAConv against TransformerConv and against a dense re-computation."""

import pytest
import torch
import torch_geometric.typing
from torch_geometric.nn import HeteroConv, TransformerConv
from torch_geometric.utils import coalesce, to_torch_csr_tensor

from pyg_nsa import EdgeSet, NSAConv


@pytest.mark.parametrize("bipartite", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"concat": True},
        {"concat": False},
        {"beta": True},
        {"beta": True, "concat": False},
        {"root_weight": False},
        {"bias": False, "heads": 1},
    ],
)
def test_it_is_transformer_conv_on_unique_edges(options, bipartite):
    options = {"heads": 3, **options}
    sizes = (6, 5) if bipartite else 6
    x_src = torch.randn(12, 6)
    x = (x_src, torch.randn(9, 5)) if bipartite else x_src
    edge_index = torch.stack([torch.randint(12, (50,)), torch.randint(9, (50,))])
    theirs = TransformerConv(sizes, 4, **options)
    ours = NSAConv(sizes, 4, **options)
    ours.load_state_dict(theirs.state_dict())
    unique = coalesce(edge_index)
    expected = theirs(x, unique)
    torch.testing.assert_close(ours(x, edge_index), expected)  # duplicates are one pair
    grads = torch.autograd.grad(expected.square().sum(), theirs.lin_key.weight)
    own = torch.autograd.grad(ours(x, edge_index).square().sum(), ours.lin_key.weight)
    torch.testing.assert_close(own, grads, rtol=1e-4, atol=1e-5)
    out, (pairs, weights) = ours(x, edge_index, return_attention_weights=True)
    _, (_, alpha) = theirs(x, unique, return_attention_weights=True)
    order = torch.argsort(unique[1] * 12 + unique[0])
    assert torch.equal(pairs, unique[:, order])
    torch.testing.assert_close(weights, alpha[order])


def test_every_form_of_edges_and_lazy_sizes():
    conv = NSAConv(-1, 4, heads=2)
    x = torch.randn(9, 5)
    edge_index = coalesce(torch.randint(9, (2, 40)))
    expected = conv(x, edge_index)
    assert expected.shape == (9, 8)
    forms = [
        EdgeSet.from_edge_index(edge_index, 9, 9),
        to_torch_csr_tensor(edge_index.flip(0), size=(9, 9)),
    ]
    if torch_geometric.typing.WITH_TORCH_SPARSE:
        from torch_sparse import SparseTensor

        forms.append(SparseTensor.from_edge_index(edge_index, sparse_sizes=(9, 9)).t())
    for form in forms:
        torch.testing.assert_close(conv(x, form), expected)
    assert repr(conv) == "NSAConv(-1, 4, heads=2)"


def test_edge_attributes_are_a_bias_of_the_logits(dense, gradients):
    conv = NSAConv((5, 4), 3, heads=2, edge_dim=2).double()
    x_src = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    x_dst = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    edge_index = torch.stack([torch.randint(8, (30,)), torch.randint(6, (30,))])
    edge_attr = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)

    def reference():
        pair_attr = dense.summed(edge_index, edge_attr, 8, 7)
        bias = (pair_attr @ conv.lin_edge.weight.t()).permute(2, 0, 1)
        message = dense.message(conv, x_src, x_dst, dense.allowed(edge_index, 8, 7), bias)
        return message + x_dst @ conv.lin_skip.weight.t() + conv.lin_skip.bias

    out, expected = conv((x_src, x_dst), edge_index, edge_attr), reference()
    torch.testing.assert_close(out, expected)
    grads, wanted = gradients(conv, out), gradients(conv, expected)
    for name in wanted:
        torch.testing.assert_close(grads[name], wanted[name], msg=name)
    inputs = (x_src, x_dst, edge_attr)
    own = torch.autograd.grad(conv((x_src, x_dst), edge_index, edge_attr).square().sum(), inputs)
    torch.testing.assert_close(own, torch.autograd.grad(reference().square().sum(), inputs))


def test_copies_of_one_graph_equal_single_runs():
    conv = NSAConv(5, 3, heads=2, edge_dim=1)
    x, edge_index, edge_attr = torch.randn(3, 8, 5), torch.randint(8, (2, 30)), torch.randn(30)
    alive = torch.rand(3, 8) < 0.7
    out, (_, weights) = conv(
        x, edge_index, edge_attr, return_attention_weights=True, alive=(alive, alive)
    )
    assert out.shape == (3, 8, 6)
    for b in range(3):
        keep = alive[b][edge_index].all(dim=0)
        one, (pairs, own) = conv(
            x[b], edge_index[:, keep], edge_attr[keep], return_attention_weights=True
        )
        torch.testing.assert_close(out[b], one)
        torch.testing.assert_close(weights[b][weights[b].sum(1) > 0], own)
        assert pairs.size(1) == int((weights[b].sum(1) > 0).sum())


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_it_works_inside_hetero_conv():
    a, b = ("u", "to", "v"), ("v", "on", "v")
    theirs = HeteroConv({a: TransformerConv((4, 3), 2, 2), b: TransformerConv(3, 2, 2)})
    ours = HeteroConv({a: NSAConv((4, 3), 2, 2), b: NSAConv(3, 2, 2)})
    ours.load_state_dict(theirs.state_dict())
    x = {"u": torch.randn(6, 4), "v": torch.randn(5, 3)}
    edges = {a: torch.tensor([[0, 5, 2], [0, 1, 4]]), b: torch.tensor([[0, 1], [4, 3]])}
    torch.testing.assert_close(ours(x, edges), theirs(x, edges))


def test_dropout_acts_in_training_only():
    conv = NSAConv(4, 4, dropout=0.5, root_weight=False)
    x, edge_index = torch.randn(50, 4), torch.randint(50, (2, 400))
    out = conv(x, edge_index)
    assert 0.3 < float((out == 0).float().mean()) < 0.7
    conv.eval()
    assert torch.equal(conv(x, edge_index), conv(x, edge_index))


def test_wrong_arguments_are_named():
    x, edge_index = torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(TypeError, match="NSAConv got unknown arguments: colour, size"):
        NSAConv(3, 2, size=4, colour=1)
    with pytest.raises(ValueError, match="NSAConv supports aggr='add' only"):
        NSAConv(3, 2, aggr="max")
    with pytest.raises(ValueError, match="NSAConv supports flow='source_to_target' only"):
        NSAConv(3, 2, flow="target_to_source")
    with pytest.raises(ValueError, match="made with edge_dim=2 and needs edge_attr"):
        NSAConv(3, 2, edge_dim=2)(x, edge_index)
    with pytest.raises(ValueError, match="made without edge_dim; say edge_dim="):
        NSAConv(3, 2)(x, edge_index, torch.randn(2))
    with pytest.raises(ValueError, match="expected 2 rows, got shape"):
        NSAConv(3, 2, edge_dim=1)(x, edge_index, torch.randn(3))
    with pytest.raises(ValueError, match="source index 4, but there are 4 source nodes"):
        NSAConv(3, 2)(x, torch.tensor([[4], [0]]))
    NSAConv(3, 2, aggr="sum", flow="source_to_target")

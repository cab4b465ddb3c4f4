"""A stack whose rows are in another order inside gives the same numbers outside: outputs and every gradient."""

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv, SAGEConv
from torch_geometric.nn.aggr import SoftmaxAggregation

from pyg_nsa import HeteroNSA, HeteroNSAConv
from pyg_nsa.nn.node_order import node_orders, places

TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 0, "atol": 1e-10}}


def random_orders(sizes):
    return {t: torch.randperm(n) for t, n in sizes.items()}


def assert_same(model, call, ordered, dtype, gradients):
    """Outputs, and gradients of parameters and of x."""
    results = []
    for arguments in (call, ordered):
        x_dict = {
            t: x.detach().to(dtype).requires_grad_(x.size(-1) > 0)
            for t, x in arguments["x_dict"].items()
        }
        out = model(**{**arguments, "x_dict": x_dict})
        grads = gradients(model, out)
        grads |= {f"x of {t}": x.grad for t, x in x_dict.items() if x.requires_grad}
        results.append((out, grads))
    (expected, wanted), (out, grads) = results
    assert list(out) == list(expected)
    for t in expected:
        torch.testing.assert_close(out[t], expected[t], **TOLERANCE[dtype])
    scale = max(1.0, *(float(g.abs().max()) for g in wanted.values() if g.numel()))
    for name in wanted:
        torch.testing.assert_close(
            grads[name] / scale,
            wanted[name] / scale,
            **TOLERANCE[dtype],
            msg=lambda m, name=name: f"{name}: {m}",
        )
    assert any(bool(g.abs().sum() > 0) for g in grads.values())


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def stack(relations, dtype, **options):
    options = {"pattern": "MSM", "heads": 2, "out_channels": 6} | options
    model = HeteroNSA(-1, 8, relations, **options)
    return model.to(dtype)


def cast(call, dtype):
    """Floating-point edge attributes in the model's type."""
    out = dict(call)
    for name in ("stoichiometry_dict", "edge_attr_dict"):
        if name in out:
            out[name] = {e: v.to(dtype) for e, v in out[name].items()}
    return out


@pytest.mark.parametrize("induced_points", [None, 3])
@pytest.mark.parametrize("deleted", [(), (3, 11)])
@pytest.mark.parametrize("order", ["random", "rcm", "packed"])
def test_one_graph(cell, gradients, dtype, order, deleted, induced_points):
    """Directed, bipartite and signed relations, coefficients that meet in one pair, deletions, learned embeddings."""
    data = cell.make(deleted, "wildtype", columns=4, dense=False)
    model = stack(cell.stoichiometric(), dtype, num_nodes=cell.sizes, induced_points=induced_points)
    order = random_orders(cell.sizes) if order == "random" else order
    ordered = cast(model.prepare(data, order), dtype)
    assert list(ordered["order_dict"]) == list(cell.sizes)
    assert_same(model, cast(model.collect(data), dtype), ordered, dtype, gradients)


def test_copies_of_one_base_graph(cell, gradients, dtype):
    data = cell.make((), "wildtype", columns=4, dense=False)
    model = stack(cell.stoichiometric(), dtype, num_nodes=cell.sizes)
    shared = {
        "x_dict": {t: data[t].x.expand(3, -1, -1) for t in cell.sizes},
        "mask_dict": {t: torch.rand(3, n) < 0.8 for t, n in cell.sizes.items()},
    }
    call = {k: v for k, v in model.prepare(data).items() if k != "pert_mask_dict"} | shared
    ordered = model.prepare(data, random_orders(cell.sizes))
    ordered = {k: v for k, v in ordered.items() if k != "pert_mask_dict"} | shared
    assert_same(model, cast(call, dtype), cast(ordered, dtype), dtype, gradients)
    # A copy alone gives the same.
    out = model(
        **cast(ordered, dtype)
        | {"x_dict": {t: data[t].x.to(dtype).expand(3, -1, -1) for t in cell.sizes}}
    )
    for b in range(3):
        mask = {t: alive[b] for t, alive in shared["mask_dict"].items()}
        single = {k: v for k, v in model.collect(data).items() if k != "pert_mask_dict"}
        x_dict = {t: data[t].x.to(dtype) for t in cell.sizes}
        alone = model(**cast(single, dtype) | {"mask_dict": mask, "x_dict": x_dict})
        for t in cell.sizes:
            torch.testing.assert_close(out[t][b], alone[t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numbering", ["compact", "wildtype"])
@pytest.mark.parametrize("which", ["base", "rows"])
def test_a_batch_of_graphs(cell, gradients, dtype, numbering, which):
    """The order of the base graph's nodes, applied inside of each graph; or any order of all rows."""
    graphs = [cell.make(d, numbering, columns=4, dense=False) for d in ((), (3, 11), (0, 1, 22))]
    batch = cell.batch(graphs)
    model = stack(cell.stoichiometric(), dtype, num_nodes=cell.sizes)
    call = cast(model.collect(batch), dtype)
    if which == "base":
        ordered = {**call, "order_dict": random_orders(cell.sizes)}
    else:
        ordered = cast(
            model.prepare(batch, random_orders({t: 3 * n for t, n in cell.sizes.items()})), dtype
        )
    assert_same(model, call, ordered, dtype, gradients)
    if which == "rows":
        automatic = cast(model.prepare(batch, "packed"), dtype)
        assert_same(model, call, automatic, dtype, gradients)


def test_the_base_order_keeps_graphs_together(cell):
    from pyg_nsa.nn.hetero_inputs import HeteroInputs

    batch = cell.batch(
        [cell.make((3, 11), "compact", columns=1), cell.make((5,), "compact", columns=1)]
    )
    model = HeteroNSA(-1, 8, cell.specs())
    order = torch.randperm(23)
    inputs = HeteroInputs("test", (), {**model.collect(batch), "order_dict": {"gene": order}})
    layout = inputs.in_order().layout("gene")
    for graph, deleted in enumerate([(3, 11), (5,)]):
        rows = layout.order[graph * 23 : (graph + 1) * 23]
        assert set(rows.tolist()) == set(range(graph * 23, (graph + 1) * 23))
        living = layout.alive[graph * 23 : (graph + 1) * 23]
        ids = layout.node_ids()[graph * 23 : (graph + 1) * 23][living]
        assert ids.tolist() == [n for n in order.tolist() if n not in deleted]
    assert inputs.layout("gene").order is None
    assert inputs.in_order().layout("reaction") is inputs.layout("reaction")
    # Nothing that a call or a layout knows is lost.
    assert vars(inputs.in_order()).keys() == vars(inputs).keys()
    assert vars(layout).keys() == vars(inputs.layout("gene")).keys()
    assert torch.equal(
        layout.rows(torch.arange(43)), layout.place[inputs.layout("gene").rows(torch.arange(43))]
    )


@pytest.mark.parametrize("route", ["dense", "symmetrized"])
def test_pairs_from_masks_and_options(cell, gradients, dtype, route):
    data = cell.make((3,), "wildtype", columns=4)
    relations = cell.specs("dense" if route == "dense" else "sparse")
    if route == "symmetrized":
        options = {"symmetrize": True, "self_loops": True}
        relations[cell.PHYSICAL] = {"kind": "adjacency_mask", "options": options}
    model = stack(relations, dtype)
    orders = random_orders(cell.sizes)
    assert_same(model, model.collect(data), model.prepare(data, orders), dtype, gradients)
    # Not prepared: pairs are found in each call, on the data as they are.
    assert_same(
        model, model.collect(data), {**model.collect(data), "order_dict": orders}, dtype, gradients
    )


def test_convs_of_pyg_and_learned_grouping(cell, gradients, dtype):
    data = cell.make((3, 11), "compact", columns=4, dense=False)
    relations = cell.stoichiometric()
    relations[cell.PHYSICAL] = SAGEConv((8, 8), 8)
    relations[cell.GPR] = GATv2Conv((8, 8), 4, heads=2, add_self_loops=False)
    model = stack(relations, dtype, aggr=SoftmaxAggregation(learn=True))
    ordered = cast(model.prepare(data, random_orders(cell.sizes)), dtype)
    assert_same(model, cast(model.collect(data), dtype), ordered, dtype, gradients)


def test_some_types_and_missing_relations(cell, gradients, dtype):
    data = cell.make((3,), "wildtype", columns=4, dense=False)
    model = stack(cell.stoichiometric(), dtype)
    model(
        **cast(
            {**model.collect(data), "x_dict": {t: data[t].x.to(dtype) for t in cell.sizes}}, dtype
        )
    )  # lazy layers
    del data[cell.RMR]
    for orders in ({"reaction": torch.randperm(31)}, {}, "packed"):
        ordered = model.prepare(data, orders)
        assert_same(model, model.collect(data), ordered, dtype, gradients)


def test_the_prepared_tiles_are_those_of_the_order(cell):
    """The order is found for the pairs that attend, options and all, and the pair sets have as many tiles."""
    torch.manual_seed(0)
    data = cell.make((), "wildtype", columns=1, dense=False)
    data["gene"].num_nodes = 700
    data["gene"].x = torch.randn(700, 1)
    data["gene"].mask = data["gene"].pert_mask = None
    data[cell.PHYSICAL].edge_index = torch.randint(700, (2, 900))
    data[cell.REGULATORY].edge_index = torch.randint(700, (2, 300))
    model = HeteroNSA(-1, 8, cell.specs())

    def tiles(prepared, edge_type):
        edges = prepared["edge_set_dict"][edge_type]
        return (edges.row // 128 * 1000 + edges.col // 128).unique().numel()

    natural, packed = model.prepare(data), model.prepare(data, "packed")
    assert "order_dict" not in natural
    total = [sum(tiles(p, e) for e in model.relations) for p in (natural, packed)]
    assert total[1] < total[0]
    index = {e: s.edge_index() for e, s in natural["edge_set_dict"].items()}
    expected = node_orders(index, {"gene": 700, "reaction": 31, "metabolite": 17})
    for t, order in packed["order_dict"].items():
        assert torch.equal(order, expected[t])
    edges = packed["edge_set_dict"][cell.PHYSICAL]
    place = places(packed["order_dict"]["gene"])
    there = {(int(place[a]), int(place[b])) for a, b in data[cell.PHYSICAL].edge_index.t().tolist()}
    assert there == set(zip(edges.col.tolist(), edges.row.tolist(), strict=True))


def test_a_conv_with_a_pattern_follows_the_order_and_a_bare_step_refuses_it(cell):
    data = cell.make((3, 11), "wildtype", columns=4, dense=False)
    conv = HeteroNSAConv(cell.stoichiometric(), pattern="MS", hidden_channels=8)
    expected = conv(**conv.collect(data))
    out = conv(**conv.stack.prepare(data, random_orders(cell.sizes)))
    for t in expected:
        torch.testing.assert_close(out[t], expected[t], rtol=1e-4, atol=1e-5)
    bare = HeteroNSAConv(cell.stoichiometric(), hidden_channels=8)
    expected = bare(**bare.collect(data))
    out = bare(**bare.collect(data), order_dict=random_orders(cell.sizes))
    for t in expected:
        # Not the same bits on every CPU: products of torch's library go by where in memory rows lie.
        torch.testing.assert_close(out[t], expected[t])
    with pytest.raises(ValueError, match="only a stack of blocks follows; leave both out"):
        bare(**conv.stack.prepare(data, random_orders(cell.sizes)))


def test_it_compiles_into_one_graph(cell):
    data = cell.make((), "wildtype", columns=4, dense=False)
    for store in data.node_stores:
        del store["pert_mask"], store["mask"]
    model = HeteroNSA(4, 8, cell.stoichiometric(), "MSM", heads=2).eval()
    prepared = model.prepare(data, random_orders(cell.sizes))
    expected = model(**model.collect(data))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(**prepared)
    for t in expected:
        torch.testing.assert_close(out[t], expected[t], rtol=1e-4, atol=1e-5)


def test_mistakes_are_named(cell):
    data = cell.make((3, 11), "wildtype", columns=4, dense=False)
    model = HeteroNSA(-1, 8, cell.specs())
    with pytest.raises(ValueError, match="permutation of its 23 nodes"):
        model.prepare(data, {"gene": torch.zeros(23, dtype=torch.long)})
    with pytest.raises(ValueError, match="node order 'metis': expected one of"):
        model.prepare(data, "metis")
    call = model.collect(data)
    with pytest.raises(
        ValueError, match=r"'order' of node type 'gene' must be int64 of shape \[N\]"
    ):
        model(**call, order_dict={"gene": torch.rand(23)})
    with pytest.raises(
        ValueError, match="has 20 entries but there are 23 rows; an order of the base"
    ):
        model(**call, order_dict={"gene": torch.arange(20)})


def test_the_conv_prepares_as_its_stack_does():
    data = HeteroData()
    data["a"].x = torch.randn(30, 4)
    data["a", "to", "a"].edge_index = torch.randint(30, (2, 90))
    edges = {("a", "to", "a"): "adjacency_mask"}
    conv = HeteroNSAConv(edges, pattern="M", in_channels=4, hidden_channels=8, heads=2)
    prepared = conv.prepare(data, "rcm")
    assert "order_dict" in prepared
    expected = conv(**conv.collect(data))
    torch.testing.assert_close(conv(**prepared)["a"], expected["a"], rtol=1e-5, atol=1e-5)
    bare = HeteroNSAConv(edges, in_channels=4, out_channels=8, heads=2)
    torch.testing.assert_close(bare(**bare.prepare(data)), bare(**bare.collect(data)))
    with pytest.raises(ValueError, match="belongs to a stack"):
        bare.prepare(data, "rcm")

"""Learned embeddings of a part of a graph go by `n_id`, as `NeighborLoader` gives it; without it a part is refused."""

import pytest
import torch
from torch_geometric.data import Batch, HeteroData
from torch_geometric.nn import SAGEConv

from pyg_nsa import HeteroNSA, HeteroNSAConv

pytestmark = pytest.mark.long

UU, VU = ("u", "near", "u"), ("v", "to", "u")
SIZES = {"u": 12, "v": 8}


@pytest.fixture
def graph():
    data = HeteroData()
    for t, n in SIZES.items():
        data[t].x = torch.randn(n, 3)
    data[UU].edge_index = torch.randint(12, (2, 30))
    data[VU].edge_index = torch.stack([torch.randint(8, (20,)), torch.randint(12, (20,))])
    return data


def sampled(data, **nodes):
    """What NeighborLoader makes of a graph: some nodes in any order, edges relabelled, and the nodes' numbers as `n_id`."""
    nodes = {t: torch.tensor(n, dtype=torch.long) for t, n in nodes.items()}
    out = data.subgraph(nodes)
    for t, n_id in nodes.items():
        out[t].n_id = n_id
    return out


def stack(pattern="MS", num_nodes=SIZES, kinds=None, **options):
    torch.manual_seed(1)
    kinds = kinds or {UU: "adjacency_mask", VU: "adjacency_mask"}
    return HeteroNSA(3, 8, kinds, pattern, heads=2, num_nodes=num_nodes, **options)


def with_rows_of(model, n_id):
    """The same model with embeddings of these nodes alone."""
    part = stack(model.pattern, {t: len(i) for t, i in n_id.items()})
    state = {k: v for k, v in model.state_dict().items() if "embedding" not in k}
    part.load_state_dict(state, strict=False)
    with torch.no_grad():
        for t, ids in n_id.items():
            part.inputs[t].embedding.weight.copy_(model.inputs[t].embedding.weight[ids])
    return part


def without(call, *names):
    return {k: v for k, v in call.items() if k not in names}


def assert_same(out, expected):
    for t in expected:
        torch.testing.assert_close(out[t], expected[t], rtol=1e-5, atol=1e-5)


def test_a_sampled_node_has_the_embedding_of_its_node(graph):
    model = stack()
    part = sampled(graph, u=[7, 2, 11, 0], v=[5, 3])
    call = model.collect(part)
    assert {t: v.tolist() for t, v in call["n_id_dict"].items()} == {
        "u": [7, 2, 11, 0],
        "v": [5, 3],
    }
    small = with_rows_of(model, call["n_id_dict"])
    out = model(**call)
    assert_same(out, small(**without(call, "n_id_dict")))
    sum(h.sum() for h in out.values()).backward()
    touched = model.inputs["u"].embedding.weight.grad.abs().sum(1) > 0
    assert touched.nonzero().flatten().tolist() == [0, 2, 7, 11]


def test_a_node_with_all_its_sources_is_as_in_the_whole_graph(graph):
    model = stack("M")
    whole = model(**model.collect(graph))
    seeds = [9, 4]
    sources = {t: graph[e].edge_index for t, e in (("u", UU), ("v", VU))}
    near = {t: i[0, torch.isin(i[1], torch.tensor(seeds))].tolist() for t, i in sources.items()}
    near["u"] = seeds + sorted(set(near["u"]) - set(seeds), reverse=True)
    near["v"] = sorted(set(near["v"]), reverse=True)
    out = model(**model.collect(sampled(graph, **near)))
    torch.testing.assert_close(out["u"][:2], whole["u"][seeds])


def test_all_nodes_in_another_order(graph):
    """As many rows as nodes are the nodes themselves only where n_id does not say otherwise."""
    model = stack()
    order = {t: torch.randperm(n) for t, n in SIZES.items()}
    whole = model(**model.collect(graph))
    part = sampled(graph, **{t: o.tolist() for t, o in order.items()})
    assert_same(model(**model.collect(part)), {t: h[order[t]] for t, h in whole.items()})


def test_n_id_is_gathered_for_embeddings_only(graph):
    part = sampled(graph, u=[7, 2], v=[5])
    assert list(stack(num_nodes={"v": 8}).collect(part)["n_id_dict"]) == ["v"]
    assert "n_id_dict" not in stack(num_nodes=None).collect(part)
    assert "n_id_dict" not in stack().collect(graph)
    kinds = {UU: "adjacency_mask", VU: "adjacency_mask"}
    conv = HeteroNSAConv(kinds, pattern="M", hidden_channels=8, num_nodes=SIZES)
    assert list(conv.collect(part)["n_id_dict"]) == ["u", "v"]
    assert list(conv.prepare(part)["n_id_dict"]) == ["u", "v"]
    bare = HeteroNSAConv(kinds, hidden_channels=8)
    assert "n_id_dict" not in bare.collect(part)


def test_convs_of_pyg_do_not_get_it(graph):
    part = sampled(graph, u=[7, 2, 11, 0], v=[5, 3])
    model = stack(kinds={UU: SAGEConv((8, 8), 8), VU: "adjacency_mask"})
    assert model(**model.collect(part))["u"].shape == (4, 8)
    bare = HeteroNSAConv({UU: SAGEConv((3, 3), 8)})
    expected = bare(part.x_dict, part.edge_index_dict)
    out = bare(part.x_dict, part.edge_index_dict, n_id_dict=part.collect("n_id"))
    assert torch.equal(out["u"], expected["u"])


def test_no_features(graph):
    for t in SIZES:
        del graph[t].x
        graph[t].num_nodes = SIZES[t]
    model = stack()
    model = HeteroNSA(-1, 8, model.relations, "M", heads=2, num_nodes=SIZES)
    part = sampled(graph, u=[7, 2, 11, 0], v=[])
    small = model(**model.collect(part))["u"]
    whole = model.inputs["u"].embedding.weight
    assert small.shape == (4, 8)
    small.sum().backward()
    assert (whole.grad.abs().sum(1) > 0).nonzero().flatten().tolist() == [0, 2, 7, 11]


def test_batches_of_sampled_parts(graph):
    model = stack()
    parts = [sampled(graph, u=[7, 2, 11], v=[5, 3]), sampled(graph, u=[2, 9], v=[0, 1, 7])]
    expected = [model(**model.collect(part)) for part in parts]
    whole = {t: torch.cat([e[t] for e in expected]) for t in SIZES}
    call = model.collect(Batch.from_data_list(parts))
    assert_same(model(**call), whole)
    # Disjoint sampling leaves the graphs' rows in any order, which embeddings by place can't be read from.
    order = {t: torch.randperm(h.size(0)) for t, h in whole.items()}
    place = {t: o.argsort() for t, o in order.items()}
    mixed = {
        "x_dict": {t: x[order[t]] for t, x in call["x_dict"].items()},
        "n_id_dict": {t: n[order[t]] for t, n in call["n_id_dict"].items()},
        "batch_dict": {t: b[order[t]] for t, b in call["batch_dict"].items()},
        "edge_index_dict": {
            e: torch.stack([place[e[0]][i[0]], place[e[2]][i[1]]])
            for e, i in call["edge_index_dict"].items()
        },
    }
    assert_same(model(**mixed), {t: h[order[t]] for t, h in whole.items()})
    with pytest.raises(ValueError, match=r"so that batch_dict ascends; or pass n_id_dict"):
        model(**without(mixed, "n_id_dict"))


@pytest.mark.parametrize("numbering", ["compact", "wildtype"])
@pytest.mark.parametrize("batched", [False, True])
def test_n_id_and_deleted_nodes(cell, numbering, batched):
    """Where masks tell the nodes too, both say the same; what n_id holds in a dead row is not looked at."""
    cells = [cell.make(d, numbering, columns=4) for d in [(3, 11), (0, 1, 22)][: 1 + batched]]
    data = cell.batch(cells) if batched else cells[0]
    model = HeteroNSA(4, 8, cell.stoichiometric(), "MS", heads=2, num_nodes=cell.sizes)
    call = model.collect(data)
    n_id = {}
    for t, n in cell.sizes.items():
        rows = []
        for one in cells:
            node = torch.arange(n)
            deleted = one[t].pert_mask
            ids = torch.full((n,), -7)
            if numbering == "compact":
                ids[: int((~deleted).sum())] = node[~deleted]
            else:
                ids[~deleted] = node[~deleted]
            rows.append(ids)
        n_id[t] = torch.cat(rows)
    expected, out = model(**call), model(**call, n_id_dict=n_id)
    for t in cell.sizes:
        alive = n_id[t] >= 0
        assert torch.equal(out[t][alive], expected[t][alive])
        assert out[t].isfinite().all()


@pytest.mark.parametrize("which", ["rows", "base"])
def test_an_order_of_the_rows_or_of_the_base_graph(graph, which):
    model = stack()
    part = sampled(graph, u=[7, 2, 11, 0], v=[5, 3])
    sizes = SIZES if which == "base" else {"u": 4, "v": 2}
    order = {t: torch.randperm(n) for t, n in sizes.items()}
    call = model.collect(part)
    expected = model(**call)
    assert_same(model(**call, order_dict=order), expected)
    assert_same(model(**model.prepare(part, "rcm")), expected)
    batch = model.collect(Batch.from_data_list([part, sampled(graph, u=[2, 9], v=[5])]))
    if which == "base":
        assert_same(model(**batch, order_dict=order), model(**batch))


def test_the_order_of_the_base_graph_is_that_of_n_id(graph):
    from pyg_nsa.nn.hetero_inputs import HeteroInputs

    part = sampled(graph, u=[7, 2, 11, 0], v=[5, 3])
    order = torch.randperm(12)
    call = {**stack().collect(part), "order_dict": {"u": order}}
    layout = HeteroInputs("test", (), call).in_order().layout("u")
    assert layout.node_ids().tolist() == [n for n in order.tolist() if n in (7, 2, 11, 0)]


def test_a_part_of_which_nothing_says_the_nodes_is_refused(graph):
    model = stack()
    part = model.collect(sampled(graph, u=[7, 2, 11, 0], v=[5, 3]))
    text = (
        r"num_nodes says 12 nodes of type 'u', but a graph has 4 rows and nothing says which .* pass "
        r"n_id_dict=\{'u': …\}, int64, .*NeighborLoader gives it as n_id"
    )
    with pytest.raises(ValueError, match=text):
        model(**without(part, "n_id_dict"))
    with pytest.raises(ValueError, match="12 nodes of type 'u'"):
        model(**part | {"n_id_dict": {"v": part["n_id_dict"]["v"]}})
    # A batch of such parts is no better, and neither is one of them beside the whole graph.
    batch = Batch.from_data_list([graph, graph.subgraph({"u": torch.tensor([7, 2, 11, 0])})])
    call = model.collect(batch)
    for given in ((), ("batch_dict",), ("ptr_dict",)):
        with pytest.raises(ValueError, match=text):
            model(**without(call, *given))


def test_rows_that_are_all_nodes_are_known(graph):
    model = stack()
    call = model.collect(graph)
    one = model(**call)
    out = model(**model.collect(Batch.from_data_list([graph, graph])))
    assert_same(out, {t: torch.cat([h, h]) for t, h in one.items()})
    shared = {t: x.expand(2, -1, -1) for t, x in call["x_dict"].items()}
    assert_same(
        model(**call | {"x_dict": shared}), {t: torch.stack([h, h]) for t, h in one.items()}
    )
    # Of a type without rows there is nothing to know.
    nothing = {"u": graph["u"].x, "v": graph["v"].x[:0]}
    assert model(nothing, {UU: graph[UU].edge_index})["v"].shape == (0, 8)


def test_wrong_n_id_is_named(graph):
    model = stack()
    call = model.collect(sampled(graph, u=[7, 2, 11, 0], v=[5, 3]))

    def refused(error, match, n_id, **more):
        with pytest.raises(error, match=match):
            model(**call | {"n_id_dict": {**call["n_id_dict"], "u": n_id}} | more)

    meaning = r"\(the base graph's node of each row of x, as PyG's NeighborLoader gives it\)"
    name = "'n_id' of node type 'u'"
    for wrong in (torch.zeros(4), torch.zeros(4, dtype=torch.int32)):
        refused(TypeError, f"{name} must be int64 of shape .N. {meaning}, got {wrong.dtype}", wrong)
    refused(TypeError, f"{name} must be int64.*got list", [7, 2, 11, 0])
    for wrong, shape in (
        (torch.zeros(3).long(), r"\[3\]"),
        (torch.zeros(4, 1).long(), r"\[4, 1\]"),
    ):
        refused(ValueError, rf"{name} must have shape \[4\] {meaning}, got {shape}", wrong)
    for value in (12, -1):
        refused(
            ValueError,
            rf"{name} is {value} in row 2, but num_nodes says 12 nodes \(valid: 0 to 11\)",
            torch.tensor([7, 2, value, 0]),
        )
    shared = {t: x.expand(2, -1, -1) for t, x in call["x_dict"].items()}
    refused(
        ValueError,
        rf"{name} does not go with x of shape \[B, N, C\]: there the rows are all nodes",
        call["n_id_dict"]["u"],
        x_dict=shared,
    )


def test_it_compiles_into_one_graph(graph):
    parts = [sampled(graph, u=[7, 2, 11, 0], v=[5, 3]), sampled(graph, u=[2, 9], v=[5])]
    one, batch = (stack().collect(data) for data in (parts[0], Batch.from_data_list(parts)))
    orders = {"u": torch.randperm(4), "v": torch.randperm(2)}
    # Self-attention in batches is not traced into one graph, with n_id or without.
    for pattern, call in (("MSM", one), ("MSM", one | {"order_dict": orders}), ("M", batch)):
        model = stack(pattern).eval()
        expected = model(**call)
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_same(compiled(**call), expected)

"""HeteroNSAConv as a superset of HeteroConv: every behaviour of HeteroConv, and declared kinds beside conv modules."""

import copy
import io
import warnings

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    HeteroConv,
    MessagePassing,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.nn.aggr import (
    LSTMAggregation,
    MultiAggregation,
    SetTransformerAggregation,
    SoftmaxAggregation,
    SumAggregation,
)

from pyg_nsa import (
    BuildContext,
    EdgeKind,
    EdgeSet,
    EdgeSpec,
    EdgeTerm,
    HeteroNSAConv,
    Operator,
    Options,
    Registry,
)

PP, AP, PA = ("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")
SIZES = {"paper": 12, "author": 8}
EDGES = {PP: 40, AP: 25, PA: 25}


def features():
    return {"paper": torch.randn(12, 6), "author": torch.randn(8, 5)}


def edges():
    return {
        e: torch.stack([torch.randint(SIZES[e[0]], (n,)), torch.randint(SIZES[e[2]], (n,))])
        for e, n in EDGES.items()
    }


def pyg_convs(lazy=True):
    paper, author = (-1, -1) if lazy else (6, 5)
    return {
        PP: GCNConv(paper, 8),
        AP: SAGEConv((author, paper), 8),
        PA: GATConv((paper, author), 8, edge_dim=3, add_self_loops=False),
    }


def pyg_call():
    return (
        (features(), edges(), {PA: torch.randn(25, 3)}),
        {"edge_weight_dict": {PP: torch.rand(40)}},
    )


def assert_same(out, expected):
    assert list(out) == list(expected)
    for t in expected:
        torch.testing.assert_close(out[t], expected[t])


# ---- as HeteroConv -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max", "cat", None])
def test_same_weights_same_outputs_as_hetero_conv(aggr, lazy):
    args, kwargs = pyg_call()
    theirs, ours = HeteroConv(pyg_convs(lazy), aggr), HeteroNSAConv(pyg_convs(lazy), aggr)
    expected = theirs(*args, **kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    out = ours(*args, **kwargs)
    assert_same(out, expected)
    sizes = {"cat": (12, 16), None: (12, 2, 8)}
    assert out["paper"].shape == sizes.get(aggr, (12, 8))
    names = dict(zip(("x_dict", "edge_index_dict", "edge_attr_dict"), args, strict=True))
    assert_same(ours(**names, **kwargs), expected)
    back = HeteroConv(pyg_convs(lazy), aggr)
    back.load_state_dict(ours.state_dict())
    assert_same(back(*args, **kwargs), expected)


class Weird(MessagePassing):
    """Arguments that no PyG conv has, one at node level, one at edge level, one that may be missing."""

    def __init__(self):
        super().__init__(aggr="add")
        self.seen = None

    def forward(self, x, edge_index, height, width=None, mask=None, **more):
        self.seen = {"height": height, "width": width, "mask": mask, **more}
        x = x if isinstance(x, tuple) else (x, x)
        size = (x[0].size(0), x[1].size(0))
        return self.propagate(edge_index, x=(x[0][:, :1], x[1][:, :1]), size=size)


def test_arguments_reach_convs_as_in_hetero_conv():
    x, index = features(), edges()
    height = {t: torch.randn(n, 3) for t, n in SIZES.items()}
    del height["author"]
    named = {
        "width_dict": {PP: torch.randn(40), PA: "anything", AP: None},
        "mask_dict": {"paper": torch.ones(12), "author": torch.ones(8)},  # the conv's own meaning
        "colour_dict": {"author": 1, AP: 2},
    }
    theirs = HeteroConv({e: Weird() for e in EDGES})
    ours = HeteroNSAConv({e: Weird() for e in EDGES})
    expected = theirs(x, index, height, **named)
    assert_same(ours(x, index, height, **named), expected)
    for e in EDGES:
        a, b = theirs.convs[e].seen, ours.convs[e].seen
        assert set(a) == set(b)
        for name, value in a.items():
            other = b[name]
            if isinstance(value, tuple):
                assert all(p is q for p, q in zip(value, other, strict=True))
            else:
                assert value is other
    assert ours.convs[PP].seen["height"] is height["paper"]  # same type: the tensor
    assert (
        ours.convs[AP].seen["height"][0] is None
    )  # two types: a tuple, with None for what is missing
    assert ours.convs[PP].seen["width"] is named["width_dict"][PP]  # edge level
    assert "colour" not in ours.convs[PP].seen


def test_edge_types_without_input_are_skipped():
    index = edges()
    del index[PA]
    index["author", "knows", "author"] = torch.randint(8, (2, 5))
    args = (features(), index)
    theirs = HeteroConv({PP: GCNConv(6, 8), AP: SAGEConv((5, 6), 8), PA: SAGEConv((6, 5), 8)})
    ours = HeteroNSAConv({PP: GCNConv(6, 8), AP: SAGEConv((5, 6), 8), PA: SAGEConv((6, 5), 8)})
    ours.load_state_dict(theirs.state_dict())
    out = ours(*args)
    assert list(out) == ["paper"]
    assert_same(out, theirs(*args))
    out["paper"].sum().backward()
    assert all(p.grad is not None for p in ours.parameters())
    assert ours.convs[PA].lin_l.weight.grad.abs().max() == 0
    assert ours(features(), {}) == {}


def test_the_checks_of_hetero_conv():
    args, kwargs = pyg_call()
    text = r"Keyword arguments in 'HeteroNSAConv' need to end with '_dict' \(got 'edge_weight'\)"
    with pytest.raises(ValueError, match=text):
        HeteroNSAConv(pyg_convs())(*args, edge_weight=kwargs["edge_weight_dict"])
    with pytest.raises(ValueError, match="incorrect message passing"):
        HeteroNSAConv({AP: GATConv((-1, -1), 8)})
    with pytest.raises(ValueError, match="incorrect message passing"):
        HeteroNSAConv({AP: GATConv((-1, -1), 8)}, pattern="M", hidden_channels=8)
    with pytest.warns(
        UserWarning, match=r"node types \(\{'author'\}\) whose representations do not"
    ):
        HeteroNSAConv({AP: SAGEConv((-1, -1), 8)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HeteroNSAConv(
            {AP: "adjacency_mask"}, pattern="M", hidden_channels=8
        )  # a stack updates all types


def test_node_types_with_dots():
    x = {"src.paper": torch.randn(12, 6), "author": torch.randn(8, 5)}
    types = [
        ("src.paper", "to", "src.paper"),
        ("author", "to", "src.paper"),
        ("src.paper", "to", "author"),
    ]
    index = dict(zip(types, edges().values(), strict=True))
    for convs, size in (
        (
            dict(
                zip(
                    types,
                    [SAGEConv(-1, 8), SAGEConv((-1, -1), 8), SAGEConv((-1, -1), 8)],
                    strict=True,
                )
            ),
            {},
        ),
        (dict.fromkeys(types, "adjacency_mask"), {"hidden_channels": 8}),
        (dict.fromkeys(types, "adjacency_mask"), {"hidden_channels": 8, "pattern": "MS"}),
    ):
        conv = HeteroNSAConv(convs, **size)
        out = conv(x, index)
        assert {t: tuple(h.shape) for t, h in out.items()} == {
            "src.paper": (12, 8),
            "author": (8, 8),
        }
        conv.load_state_dict(copy.deepcopy(conv.state_dict()))


@pytest.mark.parametrize(
    ("aggr", "size"),
    [
        (SumAggregation(), 8),
        (SoftmaxAggregation(learn=True), 8),
        (MultiAggregation(["mean", "max"]), 16),
        (LSTMAggregation(8, 6), 6),
        (SetTransformerAggregation(8, heads=2), 8),
    ],
)
def test_learned_grouping(aggr, size, gradients):
    conv = HeteroNSAConv(
        {PP: GCNConv(6, 8), AP: SAGEConv((5, 6), 8), PA: "adjacency_mask"}, aggr, out_channels=8
    )
    x, index = features(), edges()
    out = conv(x, index)
    assert {t: tuple(h.shape) for t, h in out.items()} == {"paper": (12, size), "author": (8, size)}
    if isinstance(aggr, SumAggregation):
        del conv.aggr
        conv.aggr = "sum"
        assert_same(out, conv(x, index))
        return
    gradients(conv, out)
    assert any(name.startswith("aggr.") for name in conv.state_dict()) == bool(
        list(aggr.parameters())
    )
    before = [p.clone() for p in conv.convs[PP].parameters() if p.dim() > 1]
    conv.reset_parameters()
    after = [p for p in conv.convs[PP].parameters() if p.dim() > 1]
    assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True))


# ---- declared kinds ------------------------------------------------------------------------------------------------------


def declared(**options):
    kinds = {PP: "adjacency_mask", AP: {"kind": "stoichiometry_bias"}, PA: SAGEConv((-1, -1), 8)}
    return HeteroNSAConv(kinds, hidden_channels=8, heads=2, **options)


def declared_call():
    return (features(), edges()), {"stoichiometry_dict": {AP: torch.randn(25)}}


def test_a_bare_step_is_the_grouped_messages(dense, gradients):
    conv = declared().double()
    x = {t: h.double() for t, h in features().items()}
    index = edges()
    index[PP][1] %= 11
    index[AP][1] %= 11  # paper 11 has no source
    values = torch.randn(25, dtype=torch.float64)
    alive = {"paper": torch.rand(12) < 0.8}
    out = conv(x, index, stoichiometry_dict={AP: values}, mask_dict=alive)
    expected = torch.zeros(12, 8, dtype=torch.float64)
    for e in (PP, AP):
        relation = conv.convs[e]
        num = (SIZES[e[0]], 12)
        allowed = dense.allowed(index[e], *num) & alive["paper"][:, None]
        if e == PP:
            allowed, bias = allowed & alive["paper"], None
        else:
            weights = dense.summed(index[e], values, *num)
            bias = (weights @ relation.term.lin.weight.t()).permute(2, 0, 1)
        message = dense.message(relation.conv, x[e[0]], x["paper"], allowed, bias)
        expected = expected + message @ relation.lin_out.weight.t()
    torch.testing.assert_close(out["paper"], expected)
    assert out["paper"][11].abs().max() == 0  # no source: a zero message
    assert out["paper"][~alive["paper"]].abs().max() == 0
    gradients(conv, out)


def test_conv_modules_leave_out_dead_rows(gradients):
    """A PyG conv beside declared kinds gets only edges between living rows, and dead rows get no message."""
    conv = HeteroNSAConv(
        {
            PP: GATConv(6, 8, edge_dim=2, add_self_loops=False),
            PA: SAGEConv((6, 5), 8),
            AP: "adjacency_mask",
        },
        hidden_channels=8,
    )
    x, index, attr = features(), edges(), torch.randn(40, 2)
    alive = {"paper": torch.rand(12) < 0.6, "author": torch.rand(8) < 0.6}
    out = conv(x, index, mask_dict=alive, edge_attr_dict={PP: attr})
    keep = {e: alive[e[0]][i[0]] & alive[e[2]][i[1]] for e, i in index.items()}
    fewer = {e: i[:, keep[e]] for e, i in index.items()}
    expected = conv(x, fewer, edge_attr_dict={PP: attr[keep[PP]]})
    for t in SIZES:
        torch.testing.assert_close(out[t][alive[t]], expected[t][alive[t]])
        assert out[t][~alive[t]].abs().max() == 0
    gradients(conv, out)
    shared = {t: h.expand(2, -1, -1) for t, h in x.items()}
    masks = {t: a.expand(2, -1) for t, a in alive.items()}
    with pytest.raises(ValueError, match="is a PyG conv module, which can leave out deleted nodes"):
        conv(shared, index, mask_dict=masks, edge_attr_dict={PP: attr})


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_edges_may_come_prepared():
    conv = HeteroNSAConv({PP: "adjacency_mask", PA: "adjacency_mask"}, hidden_channels=8)
    x, index = features(), edges()
    expected = conv(x, index)
    sets = {e: EdgeSet.from_edge_index(index[e], SIZES[e[0]], SIZES[e[2]]) for e in (PP, PA)}
    assert_same(conv(x, sets), expected)
    sparse = {
        e: torch.sparse_coo_tensor(i.flip(0), torch.ones(i.size(1)), (SIZES[e[2]], SIZES[e[0]]))
        for e, i in index.items()
    }
    assert_same(conv(x, sparse), expected)


def test_sizes_of_messages():
    x, index = features(), edges()
    one = {PP: "adjacency_mask"}
    assert HeteroNSAConv(one, hidden_channels=8)(x, index)["paper"].shape == (12, 8)
    assert HeteroNSAConv(one, out_channels=8)(x, index)["paper"].shape == (12, 8)
    both = HeteroNSAConv(one, hidden_channels=16, out_channels=8)
    assert both(x, index)["paper"].shape == (12, 8)
    stack = HeteroNSAConv(one, pattern="M", hidden_channels=16, out_channels=7)
    assert stack(x, index)["paper"].shape == (12, 7)
    with pytest.raises(ValueError, match="hidden_channels is needed"):
        HeteroNSAConv(one)
    with pytest.raises(ValueError, match=r"hidden_channels=10 is not a multiple of heads=4; .*: 5"):
        HeteroNSAConv(one, hidden_channels=10)
    for option in ({"num_nodes": {"paper": 12}}, {"sab_types": ["paper"]}, {"induced_points": 4}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} belongs to a stack"):
            HeteroNSAConv(one, hidden_channels=8, **option)
    with pytest.raises(
        ValueError, match=r"'paper' has no columns, .* nothing to attend by: .*pattern='M'"
    ):
        HeteroNSAConv(one, hidden_channels=8)({"paper": torch.empty(12, 0)}, index)


@pytest.mark.parametrize("pattern", [None, "M", "MS"])
def test_copies_files_resets_and_names(pattern):
    registry = Registry()  # holds a lock, which can be neither copied nor saved
    conv = declared(pattern=pattern, registry=registry)
    args, kwargs = declared_call()
    conv(*args, **kwargs)
    conv.eval()
    expected = conv(*args, **kwargs)
    assert_same(copy.deepcopy(conv)(*args, **kwargs), expected)
    file = io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    assert_same(torch.load(file, weights_only=False)(*args, **kwargs), expected)
    fresh = declared(pattern=pattern)
    fresh(*args, **kwargs)
    fresh.load_state_dict(conv.state_dict())
    assert_same(fresh.eval()(*args, **kwargs), expected)
    assert all(not m.training for m in conv.modules())
    assert all(m.training for m in conv.train().modules())
    before = {n: p.clone() for n, p in conv.named_parameters() if p.dim() > 1}
    conv.reset_parameters()
    assert all(not torch.equal(p, before[n]) for n, p in conv.named_parameters() if n in before)
    tail = "" if pattern is None else f", pattern='{pattern}'"
    assert repr(conv) == f"HeteroNSAConv(num_relations=3{tail})"


def test_a_list_of_specs_and_their_contradictions():
    spec = EdgeSpec(edge_type=PP, kind="adjacency_mask")
    x, index = features(), edges()
    assert list(HeteroNSAConv([spec], hidden_channels=8)(x, index)) == ["paper"]
    with pytest.raises(ValueError, match="is declared twice"):
        HeteroNSAConv([spec, spec], hidden_channels=8)
    with pytest.raises(ValueError, match=r"under key \('author', 'writes', 'paper'\) is for"):
        HeteroNSAConv({AP: spec}, hidden_channels=8)


def test_collect_for_conv_modules():
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.randn(12, 6), torch.randn(8, 5)
    index = edges()
    data[PP].edge_index, data[PP].edge_weight = index[PP], torch.rand(40)
    data[PA].edge_index, data[PA].edge_attr = index[PA], torch.randn(25, 3)
    data[AP].hyperedge_index = index[AP]
    convs = {
        PP: GCNConv(6, 8),
        PA: GATConv((6, 5), 8, edge_dim=3, add_self_loops=False),
        AP: TransformerConv((5, 6), 8),
    }
    conv = HeteroNSAConv(convs)
    expected = HeteroConv(convs)(
        data.x_dict,
        index,
        edge_weight_dict={PP: data[PP].edge_weight},
        edge_attr_dict={PA: data[PA].edge_attr},
    )
    collected = conv.collect(data)
    assert set(collected) == {"x_dict", "edge_index_dict", "edge_weight_dict", "edge_attr_dict"}
    assert_same(conv(**collected), expected)
    del data[PP].edge_index
    with pytest.raises(ValueError, match=r"the GCNConv of edge type .* requires 'edge_index' or"):
        conv.collect(data)


# ---- compiled ------------------------------------------------------------------------------------------------------------


class Plain(MessagePassing):
    def __init__(self):
        super().__init__(aggr="add")
        self.lin = torch.nn.Linear(6, 8)

    def forward(self, x, edge_index):
        return self.lin(self.propagate(edge_index, x=x))


@pytest.mark.parametrize("name", ["convs", "kinds", "M stack", "MS stack"])
def test_no_graph_break(name):
    x, index = features(), edges()
    kwargs = {}
    if name == "convs":
        convs = {PP: Plain(), AP: SAGEConv((5, 6), 8), PA: GATConv((6, 5), 8, add_self_loops=False)}
        conv = HeteroNSAConv(convs)
    else:
        kinds = {PP: "adjacency_mask", AP: "stoichiometry_bias", PA: "incidence_mask"}
        kwargs = {"stoichiometry_dict": {AP: torch.randn(25)}}
        options = {"hidden_channels": 8, "in_channels": {"paper": 6, "author": 5}}
        if "stack" in name:
            options |= {"pattern": name.split()[0], "num_nodes": {"paper": 12}}
        if name == "M stack":
            kwargs["mask_dict"] = {"paper": torch.rand(12) < 0.8}
            kwargs["pert_mask_dict"] = {"author": torch.rand(8) < 0.3}
        conv = HeteroNSAConv(kinds, **options)
    expected = conv(x, index, **kwargs)
    conv.zero_grad()
    sum(h.square().sum() for h in expected.values()).backward()
    grads = {n: p.grad.clone() for n, p in conv.named_parameters()}
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    out = compiled(x, index, **kwargs)
    assert_same(out, expected)
    conv.zero_grad()
    sum(h.square().sum() for h in out.values()).backward()
    for n, p in conv.named_parameters():
        torch.testing.assert_close(p.grad, grads[n], rtol=1e-4, atol=1e-5, msg=n)
    if name == "kinds":
        torch._dynamo.reset()
        explained = torch._dynamo.explain(conv)(x, index, **kwargs)
        assert (explained.graph_count, explained.graph_break_count) == (1, 0)


# ---- a kind of one's own -------------------------------------------------------------------------------------------------


class NearestOptions(Options):
    k: int = 2
    "How many sources each target attends to."


class Nearest(EdgeTerm):
    """Each target attends to its k nearest sources, by the positions in field 'distance' ``[N_src, N_dst]``."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def pairs(self, inputs):
        source = inputs.field("distance").topk(self.k, dim=0, largest=False).indices
        target = torch.arange(inputs.dst.num_rows).expand_as(source)
        index = torch.stack([source.flatten(), target.flatten()])
        return EdgeSet.from_edge_index(index, inputs.src.num_rows, inputs.dst.num_rows)


def build(context: BuildContext, options: NearestOptions):
    return Nearest(options.k)


@pytest.fixture
def registry():
    registry = Registry()
    registry.register(
        EdgeKind(
            name="my_lab.nearest",
            options=NearestOptions,
            build=build,
            summary="Each target attends to its k nearest sources.",
            requires=("distance",),
        )
    )
    return registry


CONFIG = """
version: 1
hidden_channels: 8
heads: 2
pattern: {pattern}
unmatched: skip
edges:
  - {{edge_type: [author, writes, paper], kind: my_lab.nearest, options: {{k: 3}}}}
  - {{edge_type: [paper, cites, paper], kind: adjacency_mask}}
"""


@pytest.mark.filterwarnings("ignore:There exist node types")
@pytest.mark.parametrize("pattern", ["null", "MS"])
def test_a_kind_of_ones_own_by_name_and_from_a_file(registry, pattern, tmp_path, gradients):
    path = tmp_path / "nsa.yaml"
    path.write_text(CONFIG.format(pattern=pattern))
    conv = HeteroNSAConv.from_config(path, registry=registry)
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.randn(12, 6), torch.randn(8, 5)
    data[PP].edge_index, data[AP].distance = edges()[PP], torch.rand(8, 12)
    out = conv(**conv.collect(data))
    assert out["paper"].shape == (12, 8)
    gradients(conv, out)
    near = data[AP].distance.topk(3, dim=0, largest=False).indices
    index = torch.stack([near.flatten(), torch.arange(12).expand(3, 12).flatten()])
    kinds = {AP: {"kind": "my_lab.nearest", "options": {"k": 3}}, PP: "adjacency_mask"}
    options = {"hidden_channels": 8, "heads": 2, "pattern": None if pattern == "null" else pattern}
    by_name = HeteroNSAConv(kinds, registry=registry, **options)
    plain = HeteroNSAConv({AP: "adjacency_mask", PP: "adjacency_mask"}, **options)
    by_name(**conv.collect(data))
    plain(data.x_dict, {AP: index, PP: data[PP].edge_index})
    by_name.load_state_dict(conv.state_dict())
    state = {n: v for n, v in conv.state_dict().items() if not n.endswith("made_from._extra_state")}
    plain.load_state_dict(state)  # of another kind
    assert_same(by_name(**by_name.collect(data)), out)
    assert_same(plain(data.x_dict, {AP: index, PP: data[PP].edge_index}), out)
    assert conv.config is not None
    assert copy.deepcopy(conv).config == conv.config
    del data[AP].distance
    data[AP].edge_index = index
    with pytest.raises(
        ValueError, match=r"'my_lab.nearest' .* requires 'distance', .*: edge_index"
    ):
        conv.collect(data)
    with pytest.raises(ValueError, match=r"has no 'distance'; pass distance_dict="):
        conv(data.x_dict, {AP: index, PP: data[PP].edge_index})


def test_a_kind_that_builds_something_else_is_named(registry):
    registry.register(EdgeKind(name="odd", build=lambda c, o: torch.nn.ReLU(), summary="Odd."))
    with pytest.raises(
        TypeError, match=r"edge kind 'odd' built a ReLU .* must return a pyg_nsa.EdgeTerm"
    ):
        HeteroNSAConv({PP: "odd"}, hidden_channels=8, registry=registry)
    registry.register(EdgeKind(name="lazy", build=lambda c, o: EdgeTerm(), summary="Lazy."))
    conv = HeteroNSAConv({PP: "lazy"}, hidden_channels=8, registry=registry)
    with pytest.raises(NotImplementedError, match=r"EdgeTerm must override pairs\(inputs\)"):
        conv(features(), edges())


def test_a_configuration_for_another_operator_is_refused(registry):
    registry.register(Operator(name="other", build=lambda c, o: torch.nn.ReLU(), summary="Other."))
    config = {"edges": [{"edge_type": list(PP), "kind": "adjacency_mask"}]}
    assert HeteroNSAConv.from_config(config, registry=registry).pattern == "MS"
    with pytest.raises(ValueError, match="is for operator 'other'; HeteroNSAConv is operator"):
        HeteroNSAConv.from_config({**config, "operator": "other"}, registry=registry)


@pytest.mark.parametrize(
    "edge_index_dict",
    [
        {("p", "cite", "p"): torch.tensor([[0, 1], [1, 2]])},
        {"p__cites__p": torch.tensor([[0, 1], [1, 2]])},
    ],
)
def test_a_stack_refuses_a_call_with_no_edge_type_that_is_declared(edge_index_dict):
    """It would take all relations for empty ones, and give rows all the same."""
    declared = {("p", "cites", "p"): "adjacency_mask"}
    conv = HeteroNSAConv(declared, hidden_channels=16, in_channels=4, pattern="M")
    with pytest.raises(ValueError, match=r"got .*cite.*; did you mean \('p', 'cites', 'p'\)\?"):
        conv({"p": torch.randn(3, 4)}, edge_index_dict)
    # Beside a declared one, HeteroConv's rule: others are passed over.
    both = {**edge_index_dict, ("p", "cites", "p"): torch.tensor([[0, 1], [1, 2]])}
    assert conv({"p": torch.randn(3, 4)}, both)["p"].shape == (3, 16)


def test_data_in_the_place_of_a_dictionary_is_refused():
    conv = HeteroNSAConv({("p", "cites", "p"): "adjacency_mask"}, hidden_channels=16, in_channels=4)
    with pytest.raises(
        TypeError, match=r"by node type \(x_dict\), got HeteroData; .*collect\(data\)"
    ):
        conv(HeteroData())


def test_rows_of_another_width_or_of_integers_are_named():
    edges = {("p", "cites", "p"): torch.tensor([[0, 1], [1, 2]])}
    conv = HeteroNSAConv({("p", "cites", "p"): "adjacency_mask"}, hidden_channels=16, pattern="M")
    conv({"p": torch.randn(3, 4)}, edges)
    with pytest.raises(ValueError, match="x of node type 'p' has 5 columns, .* made for 4"):
        conv({"p": torch.randn(3, 5)}, edges)
    with pytest.raises(
        TypeError, match=r"x of node type 'p' must be of floating point, got torch.int64"
    ):
        conv({"p": torch.ones(3, 4, dtype=torch.long)}, edges)


def test_an_error_in_a_kinds_build_says_which_kind_and_edge_type():
    def build(context, options):
        raise KeyError("boom")

    registry = Registry(discover=False)
    registry.register(EdgeKind(name="broken", summary="Breaks.", build=build))
    with pytest.raises(KeyError) as caught:
        HeteroNSAConv({("p", "cites", "p"): "broken"}, hidden_channels=16, registry=registry)
    (note,) = caught.value.__notes__
    assert "'broken'" in note and "('p', 'cites', 'p')" in note


def test_without_grouping_relations_come_before_channels_in_every_layout():
    kinds = {("a", "to", "b"): "adjacency_mask", ("a", "also", "b"): "adjacency_mask"}
    layer = HeteroNSAConv(kinds, aggr=None, hidden_channels=8)
    x = {"a": torch.randn(3, 5, 8), "b": torch.randn(3, 7, 8)}
    edges = {t: torch.stack([torch.randint(5, (20,)), torch.randint(7, (20,))]) for t in kinds}
    out = layer(x, edges)["b"]
    assert out.shape == (3, 7, 2, 8)
    for copy_, rows in enumerate(out):
        single = layer({t: v[copy_] for t, v in x.items()}, edges)["b"]
        torch.testing.assert_close(rows, single)


@pytest.mark.parametrize("option", ["self_loops", "symmetrize"])
def test_options_that_add_pairs_refuse_an_edge_set(option):
    edge = ("a", "to", "a")
    layer = HeteroNSAConv(
        {edge: {"kind": "adjacency_mask", "options": {option: True}}}, hidden_channels=8
    )
    index = torch.tensor([[0, 1], [1, 2]])
    edges = EdgeSet.from_edge_index(index, 4, 4)
    x = {"a": torch.randn(4, 8)}
    with pytest.raises(ValueError, match=f"{option} can't act on an EdgeSet.*{option}=True"):
        layer(x, {edge: edges})
    made = EdgeSet.from_edge_index(index, 4, 4, **{option: True})
    plain = HeteroNSAConv({edge: "adjacency_mask"}, hidden_channels=8)
    plain(x, {edge: made})
    layer(x, {edge: index})
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(plain(x, {edge: made})["a"], layer(x, {edge: index})["a"])

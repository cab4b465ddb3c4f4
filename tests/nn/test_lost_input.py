"""Calls that would lose graphs, nodes or relations without a word are refused, and the message says which."""

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from pyg_nsa import EdgeKind, EdgeTerm, HeteroNSAConv, swap
from pyg_nsa.registry import Registry

PP, AP = ("paper", "cites", "paper"), ("author", "writes", "paper")


def make(pattern="MS", **options):
    conv = HeteroNSAConv(
        {PP: "adjacency_mask", AP: "adjacency_mask"}, pattern=pattern, hidden_channels=8, **options
    )
    x = {"paper": torch.randn(6, 4), "author": torch.randn(4, 4)}
    index = {PP: torch.randint(3, (2, 8)), AP: torch.randint(2, (2, 5))}
    batch = {"paper": torch.tensor([0] * 3 + [1] * 3), "author": torch.tensor([0, 0, 1, 1])}
    return conv, x, index, batch


def test_a_misspelt_node_field():
    conv, x, index, batch = make()
    with pytest.raises(
        ValueError, match="got bacth_dict, which nothing reads; did you mean batch_dict"
    ):
        conv(x, index, bacth_dict=batch)
    conv(x, index, edge_time_dict={PP: torch.rand(8)})  # unread, and near to nothing


class Matched(SAGEConv):
    def forward(self, x, edge_index, match):
        return match * super().forward(x, edge_index)


class ByMatch(EdgeTerm):
    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index")

    def bias(self, inputs, edges):
        return edges.coalesce(inputs.edge_attr("match")).expand(-1, self.heads)


def by_match():
    registry = Registry()
    registry.register(
        EdgeKind(
            name="by_match",
            summary="By match.",
            produces={"mask", "bias"},
            requires=("edge_index", "match"),
            build=lambda context, options: ByMatch(context.heads),
        )
    )
    return registry


@pytest.mark.parametrize("relation", ["by_match", Matched(8, 8)], ids=["kind", "conv"])
@pytest.mark.parametrize("pattern", [None, "M"])
def test_a_field_that_a_relation_reads_is_no_misspelling(relation, pattern):
    """`match` is as near to `batch` as a misspelling is."""
    data = HeteroData()
    data["paper"].x = torch.randn(6, 8)
    data[PP].edge_index = torch.randint(6, (2, 9))
    data[PP].match = torch.rand(9 if relation == "by_match" else 1)
    conv = HeteroNSAConv({PP: relation}, pattern=pattern, hidden_channels=8, registry=by_match())
    out = conv(**conv.collect(data))["paper"]
    data[PP].match = data[PP].match * torch.linspace(5, -5, data[PP].match.numel())
    assert not torch.allclose(conv(**conv.prepare(data))["paper"], out)


class PerEdge(SAGEConv):
    def forward(self, x, edge_index, match):
        return super().forward(x, edge_index[:, match > 0.5])


class MatchedModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = HeteroConv({PP: PerEdge(8, 8)})

    def forward(self, x_dict, edge_index_dict, match_dict):
        return self.conv(x_dict, edge_index_dict, match_dict=match_dict)


def test_swap_tries_a_model_that_passes_such_a_field():
    data = HeteroData()
    data["paper"].x = torch.randn(6, 8)
    data[PP].edge_index, data[PP].match = torch.randint(6, (2, 9)), torch.rand(9)
    model = MatchedModel()
    config = {"pattern": "M", "edges": [{"edge_type": PP, "kind": "by_match"}]}
    report = swap(model, config, data, registry=by_match())
    assert not report.warnings
    model(data.x_dict, data.edge_index_dict, data.match_dict)


@pytest.mark.parametrize("pattern", [None, "MS"])
@pytest.mark.parametrize("field", ["batch", "ptr"])
def test_graphs_of_some_node_types_only(field, pattern):
    conv, x, index, batch = make(pattern)
    given = (
        batch
        if field == "batch"
        else {"paper": torch.tensor([0, 3, 6]), "author": torch.tensor([0, 2, 4])}
    )
    conv(x, index, **{f"{field}_dict": given})
    for partial in ({"author": given["author"]}, {**given, "paper": None}):
        with pytest.raises(
            ValueError,
            match="of which graph the nodes of type 'author' are, but not those of 'paper'",
        ):
            conv(x, index, **{f"{field}_dict": partial})
    # Of one graph there is nothing to be said.
    conv(x, index, batch_dict={"author": torch.zeros(4, dtype=torch.long)})


@pytest.mark.parametrize("values", [[-1, -1, -1, 0, 0, 0], [0, 0, 0, -1, -1, -1]])
def test_negative_graphs(values):
    conv, x, index, batch = make()
    with pytest.raises(ValueError, match="'batch' of node type 'paper' is negative"):
        conv(x, index, batch_dict={**batch, "paper": torch.tensor(values)})


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_edges_of_a_node_type_that_is_not_there(pattern):
    conv, x, index, _ = make(pattern)
    with pytest.raises(
        ValueError,
        match=r"'writes', 'paper'\) has edges, but x_dict has no rows of node type 'author'",
    ):
        conv({"paper": x["paper"]}, index)
    with pytest.raises(ValueError, match="did you mean 'author' by 'autor'"):
        conv({"paper": x["paper"], "autor": x["author"]}, index)
    out = conv({"paper": x["paper"]}, {**index, AP: index[AP][:, :0]})
    assert out["paper"].shape == (6, 8)


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_edge_types_as_text(pattern):
    conv, x, index, _ = make(pattern)
    with pytest.raises(
        ValueError, match=r"got 'paper__cites__paper'; did you mean \('paper', 'cites', 'paper'\)"
    ):
        conv(x, {"paper__cites__paper": index[PP]})


@pytest.mark.parametrize("pattern", [None, "MS"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_features_of_another_dtype(dtype, pattern):
    conv, x, index, _ = make(pattern)
    conv(x, index)
    wrong = {**x, "author": x["author"].to(dtype)}
    with pytest.raises(
        TypeError,
        match=f"x of node type 'author' is {dtype}, but the layer's weights are torch.float32",
    ):
        conv(wrong, index)
    with torch.autocast("cpu", torch.bfloat16):
        conv(x, index)
    conv.to(torch.float64)({t: v.double() for t, v in x.items()}, index)


def test_options_out_of_range():
    for pattern in (None, "M"):
        with pytest.raises(ValueError, match="dropout is a probability, from 0 to 1, got 2"):
            make(pattern, dropout=2)
    with pytest.raises(
        TypeError, match=r"sab_types is a list of node types: sab_types=\['paper'\]"
    ):
        make(sab_types="paper")


@pytest.fixture
def filled_memory():
    """New memory holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("filled_memory")
@pytest.mark.parametrize("pattern", [None, "MS"])
@pytest.mark.parametrize("kind", ["declared", "conv of PyG"])
def test_a_relation_that_was_never_met(kind, pattern):
    """Its lazy layers hold a bias that was not initialised yet."""
    met, unmet = ("a", "r", "a"), ("b", "s", "a")
    other = "adjacency_mask" if kind == "declared" else SAGEConv((-1, -1), 16)
    layer = HeteroNSAConv(
        {met: "adjacency_mask", unmet: other}, hidden_channels=16, pattern=pattern
    )
    x = {"a": torch.randn(4, 8), "b": torch.randn(3, 8)}
    out = layer(x, {met: torch.tensor([[0, 1], [1, 2]])})
    assert all(rows.isfinite().all() for rows in out.values())
    sum(rows.sum() for rows in out.values()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)

"""swap on models as users of PyG write them: they train before and after, and what differs is said."""

import copy
import io
import json

import pytest
import torch
from swap import swap_models as models
from swap.swap_models import BY, CITES, HOLDS, IN, SIZES, WRITES, call, train_an_epoch
from torch import nn
from torch_geometric.data import Batch, HeteroData
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    GINConv,
    HANConv,
    HeteroConv,
    HGTConv,
    HypergraphConv,
    SAGEConv,
)
from torch_geometric.nn.dense.linear import is_uninitialized_parameter

from pyg_nsa import (
    ConfigError,
    EdgeKind,
    EdgeTerm,
    HeteroNSAConfig,
    HeteroNSAConv,
    Registry,
    SwapError,
    swap,
)
from pyg_nsa.swapping import SwappedConv

MODELS = [
    models.Stack,
    models.WithAttributes,
    models.HGT,
    models.HAN,
    models.Shared,
    models.Nested,
]

pytestmark = pytest.mark.filterwarnings("ignore:There exist node types")


def adjacency(*edge_types):
    return [{"edge_type": list(e), "kind": "adjacency_mask"} for e in edge_types]


def state(model):
    return {
        n: (None if is_uninitialized_parameter(p) else p.clone())
        for n, p in model.state_dict(keep_vars=True).items()
    }


def assert_untouched(model, modules, before):
    assert list(model.modules()) == modules
    for name, value in state(model).items():
        assert (value is None) == (before[name] is None)
        # By their bits: biases of lazy layers hold anything, NaN too, until the first call.
        assert value is None or torch.equal(value.view(torch.int32), before[name].view(torch.int32))


# ---- models ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("pattern", [None, "M", "MS"])
@pytest.mark.parametrize("make", MODELS)
def test_each_model_trains_before_and_after(make, pattern, with_data, data):
    before, after = train_an_epoch(make(), data)
    assert after < before
    model = make()
    old = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    report = swap(model, {"pattern": pattern}, data if with_data else None)
    before, after = train_an_epoch(model, data)
    assert after < before
    layers = (HeteroConv, HGTConv, HANConv)
    left = [
        m for m in model.modules() if isinstance(m, layers) and not isinstance(m, HeteroNSAConv)
    ]
    assert left == []
    assert not report.dry_run
    assert report.warnings == ()
    assert all(row.tried is with_data for row in report.rows)
    new = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    # Every name of the old model is there or is named; nothing else is named.
    gone = set(old) - set(new)
    assert {n for n in gone if not n.startswith("steps")} == set(report.vanished)
    assert len(report.vanished) == len(set(report.vanished))
    for row in report.rows:
        layer = model.get_submodule(row.path)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("pattern", [None, "M"])
def test_edge_types_and_channels_are_inferred(pattern, data):
    config = {"pattern": pattern}
    model = models.WithAttributes()
    (row,) = swap(model, config).rows
    assert (row.path, row.before) == ("conv", "HeteroConv(aggr='sum')")
    assert [r.edge_type for r in row.relations] == [CITES, WRITES]
    assert [r.before for r in row.relations] == ["TransformerConv", "SAGEConv"]
    assert [(r.kind, r.chosen_by) for r in row.relations] == [
        ("edge_attr_bias", "default"),  # its TransformerConv reads edge attributes
        ("adjacency_mask", "default"),
    ]
    assert row.in_channels == {"paper": 7, "author": 6}
    assert row.out_channels == {"paper": 8}  # 4 x 2 heads
    assert row.lazy_after == (1 if pattern is None else len(pattern))  # columns of the attributes
    model = models.HGT(hidden=16, heads=2)
    (row, _) = swap(model, config).rows
    assert row.before == "HGTConv(16, heads=2)"
    assert row.in_channels == dict.fromkeys(SIZES, 16)
    assert row.config["heads"] == 2
    assert {r.edge_type for r in row.relations} == {CITES, WRITES, BY, IN, HOLDS}
    for in_channels in (-1, {"paper": 7, "author": 6}):
        model = models.HAN(in_channels)
        (row,) = swap(model, config).rows
        assert row.in_channels == (
            dict.fromkeys(["paper", "author"], -1) if in_channels == -1 else in_channels
        )
        assert row.out_channels == {"paper": 16}
        assert (row.lazy_after > 0) == (in_channels == -1)


def test_lazy_channels_are_taken_from_data_or_from_the_first_call(data):
    model = models.Stack()
    first, second = swap(model, {"pattern": None}, dry_run=True).rows
    assert set(first.in_channels.values()) == {-1}
    assert first.lazy_after > 0
    first, second = swap(model, {"pattern": None}, data, dry_run=True).rows
    assert first.in_channels == models.COLUMNS
    assert second.in_channels == dict.fromkeys(SIZES, 16)
    assert first.lazy_after == second.lazy_after == 0
    call(model, data)  # the layers know their sizes now
    first, second = swap(model, {"pattern": None}).rows
    assert first.in_channels == models.COLUMNS
    assert second.in_channels == dict.fromkeys(SIZES, 16)


def test_a_han_layer_that_was_called_knows_its_sizes(data):
    model = models.HAN()
    call(model, data)
    assert swap(model, {}, dry_run=True).rows[0].in_channels == {"paper": 7, "author": 6}


def test_shared_layers_are_replaced_once_and_stay_shared(data):
    model = models.Shared()
    (row,) = swap(model, {"pattern": None}, where="steps.1").rows
    assert (row.path, row.also_at) == ("conv", ("steps.0", "steps.1"))
    assert model.conv is model.steps[0] is model.steps[1]
    assert isinstance(model.conv, HeteroNSAConv)


def test_where_chooses_layers(data):
    model = models.Nested()
    report = swap(model, {"pattern": None}, where="encoder.*.1")
    assert [row.path for row in report.rows] == ["encoder.layers.1"]
    assert type(model.encoder.layers[0]) is HeteroConv
    swap(model, {"pattern": None})  # the one that is left
    assert all(isinstance(layer, HeteroNSAConv) for layer in model.encoder.layers)
    train_an_epoch(model, data)
    with pytest.raises(SwapError, match=r"no layer to replace.*encoder.layers.0 \(HeteroNSAConv\)"):
        swap(model, {})
    model = models.Nested()
    with pytest.raises(SwapError) as caught:
        swap(model, {}, where="encoder.layer.1")
    assert "where='encoder.layer.1' matches no layer" in str(caught.value)
    assert "encoder.layers.0 (HeteroConv), encoder.layers.1 (HeteroConv)" in str(caught.value)
    assert "did you mean 'encoder.layers.1'?" in str(caught.value)


# ---- the call and what it returns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_outputs_have_the_keys_and_shapes_of_the_replaced_layer(pattern, data):
    x, index = data.x_dict, data.edge_index_dict
    meta = data.metadata()

    class Holder(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

    only_targets = HeteroConv({e: SAGEConv((-1, -1), 8) for e in (CITES, WRITES)})
    hgt = HGTConv(-1, 8, (["paper", "author"], [CITES, WRITES]), heads=2)
    han = HANConv(-1, 8, meta, heads=2)
    some = {t: x[t] for t in ("paper", "author")}
    for conv, args in (
        (only_targets, (x, index)),
        (hgt, (some, {e: index[e] for e in (CITES, WRITES)})),
        (han, (x, index)),
        (han, (x, {e: index[e] for e in (BY, WRITES)})),
    ):
        holder = Holder(copy.deepcopy(conv))
        expected = holder.conv(*args)
        swap(holder, {"pattern": pattern})
        out = holder.conv(*args)
        assert set(out) == set(expected)
        for t, h in expected.items():
            if h is not None:
                assert out[t].shape == h.shape
            elif pattern is None:
                assert out[t] is None
    assert isinstance(holder.conv, SwappedConv)
    assert "in place of HANConv" in repr(holder.conv)
    collected = holder.conv.collect(data)
    assert set(holder.conv(**collected)) == set(SIZES)


def test_a_bare_step_in_place_of_hgt_gives_zeros_where_no_edge_type_was_passed(data):
    model = models.HGT(hidden=8)
    conv = model.convs[0]
    x = {t: torch.randn(n, 8) for t, n in SIZES.items()}
    index = {CITES: data[CITES].edge_index}
    expected = conv(x, index)
    swap(model, {"pattern": None})
    out = model.convs[0](x, index)
    assert list(out) == list(expected)
    assert out["venue"].shape == expected["venue"].shape
    assert out["venue"].abs().max() == 0


def test_semantic_attention_weights_are_refused(data):
    model = models.HAN(weights=True)
    with pytest.raises(SwapError, match="remove the argument from the call"):
        swap(model, {}, data)
    swap(model, {})
    with pytest.raises(ValueError, match="return_semantic_attention_weights=True was HANConv's"):
        call(model, data)
    x, index = (
        {k: d[k] for k in keys}
        for d, keys in zip((data.x_dict, data.edge_index_dict), models.HAN_METADATA, strict=True)
    )
    with pytest.raises(ValueError, match="no semantic attention"):
        model.han_conv(x, index, True)
    assert set(model.han_conv(x, index, False)) == {"paper", "author"}
    assert set(model.han_conv(x, index, return_semantic_attention_weights=False)) == {
        "paper",
        "author",
    }


def test_edge_attributes_reach_the_kind_that_reads_them(data):
    model = models.WithAttributes()
    with_bias = {
        "edge_type": list(CITES),
        "kind": "stoichiometry_bias",
        "options": {"edge_attr": "edge_attr"},
    }
    edges = [with_bias, *adjacency(WRITES)]
    (row,) = swap(model, {"edges": edges, "pattern": None}, data).rows
    assert row.relations[0].kind == "stoichiometry_bias"
    assert row.relations[0].options == {"edge_attr": "edge_attr"}
    assert not any("does not read" in note for note in row.notes)
    out = call(model, data)
    data[CITES].edge_attr = data[CITES].edge_attr * 5
    assert not torch.allclose(call(model, data), out)


def test_attributes_of_an_attention_conv_stay_in_its_logits_by_default(data):
    for given in (None, data):
        model = models.WithAttributes()
        report = swap(model, {"pattern": None}, given)
        assert [r.kind for r in report.rows[0].relations] == ["edge_attr_bias", "adjacency_mask"]
        assert report.warnings == ()
        out = call(model, data)
        data[CITES].edge_attr = data[CITES].edge_attr * 5
        assert not torch.allclose(call(model, data), out)
    # Here a trial shows that the forward does not pass them.
    model = models.Stack(layers=1)
    model.convs[0].convs[CITES] = GATConv((-1, -1), 16, add_self_loops=False, edge_dim=2)
    (row,) = swap(model, {"pattern": None}, data).rows
    assert {r.kind for r in row.relations} == {"adjacency_mask"}


def test_what_a_kind_leaves_unread_is_a_warning_unless_somebody_chose_the_kind(data):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = HeteroConv({CITES: GCNConv(7, 8, add_self_loops=False)})

        def forward(self, x_dict, edge_index_dict, edge_weight_dict):
            return self.conv(x_dict, edge_index_dict, edge_weight_dict=edge_weight_dict)

    data[CITES].edge_weight = torch.rand(60)
    said = "edge_weight of (paper, cites, paper) went into the GCNConv; kind 'adjacency_mask' does not read it"
    report = swap(Model(), {"pattern": None}, data)
    assert report.warnings == (
        f"conv: {said}: give the edge type an entry in edges, for example with kind 'edge_attr_bias' and options: "
        "{edge_attr: edge_weight}",
    )
    assert f"WARNING: {said}" in " ".join(report.render().split())
    report = swap(Model(), {"pattern": None, "edges": adjacency(CITES)}, data)
    assert report.warnings == ()
    assert said in report.rows[0].notes
    # The entry that the warning proposes:
    biased = {
        "edge_type": list(CITES),
        "kind": "edge_attr_bias",
        "options": {"edge_attr": "edge_weight"},
    }
    report = swap(Model(), {"pattern": None, "edges": [biased]}, data)
    assert report.warnings == ()
    assert not any("does not read" in note for note in report.rows[0].notes)
    # Which kinds another operator reads is its own affair; what it does with the field is seen in a call.
    assert swap(Model(), {"operator": "hetero_conv"}).warnings == ()
    report = swap(Model(), {"operator": "hetero_conv"}, data)
    assert report.warnings == (
        "conv: edge_weight of (paper, cites, paper) went into the HeteroConv, and makes no difference to the rows of its replacement",
    )


@pytest.mark.filterwarnings("error:.*none of its relations reads")
@pytest.mark.parametrize("pattern", [None, "MS"])
def test_what_the_report_says_is_unread_is_not_said_again_by_the_layer(pattern, data):
    model, edges = models.WithAttributes(), adjacency(CITES, WRITES)
    report = swap(model, {"pattern": pattern, "edges": edges}, data)
    assert "kind 'adjacency_mask' does not read it" in " ".join(str(report).split())
    call(model, data)


@pytest.mark.parametrize("operator", ["hgt", "hetero_conv"])
def test_attributes_that_another_operator_does_not_use(operator, data):
    model = models.WithAttributes()
    (warning,) = swap(model, {"operator": operator}, data).warnings
    assert (
        "edge_attr of (paper, cites, paper) went into the HeteroConv, and makes no difference"
        in warning
    )
    out = call(model, data)
    data[CITES].edge_attr = data[CITES].edge_attr * 5
    assert torch.equal(call(model, data), out)  # true, too
    if operator == "hetero_conv":
        more = {"conv": "GATv2Conv", "args": {"edge_dim": 2}, "fields": ["edge_attr"]}
        edges = [
            {"edge_type": list(CITES), "kind": "pyg_conv", "options": more},
            *adjacency(WRITES),
        ]
        model = models.WithAttributes()
        assert swap(model, {"operator": operator, "edges": edges}, data).warnings == ()


def test_a_pattern_that_uses_no_edges(data):
    report = swap(models.Stack(layers=1), {"pattern": "S"}, data)
    (warning,) = report.warnings
    assert warning.startswith(
        "convs.0: edge_index of (paper, cites, paper), (author, writes, paper)"
    )
    assert "makes no difference" in warning
    assert swap(models.Stack(layers=1), {"pattern": "SM"}, data).warnings == ()


@pytest.mark.parametrize("given", [False, True])
def test_fields_that_the_call_does_not_pass_are_reported(given, data):
    edges = [{"edge_type": list(e), "kind": "stoichiometry_bias"} for e in (CITES, WRITES)]
    model = models.HAN()
    report = swap(model, {"edges": edges}, data if given else None)
    (warning,) = report.warnings
    assert (
        "stoichiometry of (paper, cites, paper), stoichiometry of (author, writes, paper)"
        in warning
    )
    assert "call han_conv with stoichiometry_dict=…" in warning
    assert f"WARNING: {warning.split(',')[0]}" in report.render()
    with pytest.raises(ValueError, match="has no 'stoichiometry'"):
        call(model, data)
    model = models.WithAttributes()
    report = swap(model, {"edges": edges}, data if given else None)
    assert bool(report.warnings) is given  # without data nobody knows what the call passes
    assert "its kinds need" in report.render()
    assert "conv with stoichiometry_dict=…" in " ".join(report.render().split())


def test_the_default_kind_follows_the_field_that_the_call_passes(data):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = HeteroConv({CITES: HypergraphConv(7, 8)})

        def forward(self, x_dict, hyperedge_index_dict):
            return self.conv(x_dict, hyperedge_index_dict=hyperedge_index_dict)

    arguments = (data.x_dict, {CITES: data[CITES].edge_index})
    model = Model()
    (row,) = swap(model, {"pattern": None}, arguments).rows
    assert row.relations[0].kind == "incidence_mask"
    assert model(*arguments)["paper"].shape == (24, 8)


def test_self_loops_of_a_conv_are_kept_by_default_kinds():
    model = nn.ModuleDict({"conv": HeteroConv({CITES: GCNConv(7, 8), WRITES: SAGEConv((6, 7), 8)})})
    (row,) = swap(model, {"pattern": None}).rows
    assert [r.options for r in row.relations] == [{"self_loops": True}, {}]
    assert "adjacency_mask, self_loops=True [default]" in str(
        swap(nn.ModuleDict({"conv": HeteroConv({CITES: GCNConv(7, 8)})}), {})
    )


# ---- sizes -------------------------------------------------------------------------------------------------------------------


def model_of(convs, aggr="sum"):
    return nn.ModuleDict({"conv": HeteroConv(convs, aggr)})


@pytest.mark.parametrize(
    ("aggr", "pattern", "size"),
    [
        ("cat", None, (24, 16)),
        ("cat", "M", (24, 16)),
        (None, None, (24, 2, 8)),
        ("max", "M", (24, 8)),
    ],
)
def test_the_grouping_of_hetero_conv_is_kept(aggr, pattern, size, data):
    model = model_of({CITES: SAGEConv((7, 7), 8), WRITES: SAGEConv((6, 7), 8)}, aggr)
    (row,) = swap(model, {"pattern": pattern, "aggr": "mean"}).rows
    out = model["conv"](data.x_dict, data.edge_index_dict)
    assert out["paper"].shape == size
    assert any(note.startswith("aggr='mean' is not used") for note in row.notes)
    assert any("becomes 'sum'" in note for note in row.notes) is (aggr == "cat" and pattern == "M")


@pytest.mark.parametrize("pattern", [None, "M"])
@pytest.mark.parametrize("hidden", [None, 12])
def test_outputs_of_different_width_get_a_projection_each(pattern, hidden, data):
    model = model_of({WRITES: SAGEConv((6, 7), 8), BY: SAGEConv((7, 6), 5)})
    config = {"pattern": pattern, **({} if hidden is None else {"hidden_channels": hidden})}
    (row,) = swap(model, config).rows
    out = model["conv"](data.x_dict, data.edge_index_dict)
    assert {t: h.size(-1) for t, h in out.items()} == {"paper": 8, "author": 5} == row.out_channels
    assert model["conv"].projections["author"].in_features == (hidden or 8)
    assert any("one linear layer per node type" in note for note in row.notes)
    before = model["conv"].projections["paper"].weight.clone()
    model["conv"].reset_parameters()
    assert not torch.equal(model["conv"].projections["paper"].weight, before)


def test_hidden_channels_and_heads(data):
    def rows(**config):
        return swap(models.Stack(hidden=16), config, data, dry_run=True).rows[0].config

    assert rows(hidden_channels=32, heads=8)["hidden_channels"] == 32
    assert rows(hidden_channels=32, heads=8)["out_channels"] == 16
    assert "out_channels" not in rows()
    assert rows()["hidden_channels"] == 16
    assert rows(in_channels=3, out_channels=9)["in_channels"] == models.COLUMNS
    model = model_of({CITES: SAGEConv((7, 7), 3)})
    assert swap(model, {"pattern": None}, dry_run=True).rows[0].config["heads"] == 3
    with pytest.raises(SwapError, match="conv: heads=4 does not divide.*leave 'heads' out"):
        swap(model, {"pattern": None, "heads": 4})
    with pytest.raises(SwapError, match="or set 'hidden_channels'"):
        swap(model, {"heads": 4})
    # It is the layer's width that counts, and no default.
    assert swap(models.Stack(hidden=48), {"heads": 6}, dry_run=True).rows[0].config["heads"] == 6
    with pytest.raises(SwapError, match="heads=6 does not divide hidden_channels=32"):
        swap(model, {"heads": 6, "hidden_channels": 32})
    swap(model, {"heads": 4, "hidden_channels": 8})
    assert model["conv"](data.x_dict, data.edge_index_dict)["paper"].shape == (24, 3)


def test_a_width_that_no_module_says_is_seen_in_a_call(data):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()

            class Odd(SAGEConv):
                def __init__(self):
                    super().__init__((-1, -1), 8)
                    del self.out_channels

            self.conv = HeteroConv(
                {CITES: GINConv(nn.Sequential(nn.Linear(7, 8), nn.ReLU())), WRITES: Odd()}
            )

        def forward(self, x_dict, edge_index_dict):
            return self.conv(x_dict, edge_index_dict)

    model = Model()
    with pytest.raises(
        SwapError,
        match=r"the Odd of \(author, writes, paper\) does not say how wide .* pass data=",
    ):
        swap(model, {})
    assert swap(model, {}, data).rows[0].out_channels == {"paper": 8}


def test_messages_that_cannot_be_grouped():
    convs = {CITES: SAGEConv((7, 7), 8), WRITES: SAGEConv((6, 7), 4)}
    with pytest.raises(
        SwapError, match=r"messages to node type 'paper' differ in width .*: 8, .*: 4"
    ):
        swap(model_of(convs), {})
    with pytest.raises(SwapError, match="one operator with aggr='cat' can't give"):
        swap(model_of(convs, "cat"), {"pattern": None})
    same = {CITES: SAGEConv((7, 7), 8), WRITES: SAGEConv((6, 7), 8)}
    with pytest.raises(SwapError, match="aggr=None, which stacks .* use 'pattern: null'"):
        swap(model_of(same, None), {})
    with pytest.raises(SwapError, match="would change the size of HANConv's output"):
        swap(models.HAN(), {"aggr": "cat"})


# ---- the configuration -------------------------------------------------------------------------------------------------------


def test_edge_types_without_a_spec(data):
    near = ("paper", "cite", "paper")
    config = {"edges": adjacency(near, WRITES), "pattern": None}
    model = models.WithAttributes()
    with pytest.raises(SwapError) as caught:
        swap(model, config)
    assert str(caught.value) == (
        "conv: edge type (paper, cites, paper) has no entry in edges\n"
        "    did you mean '(paper, cite, paper)'?\n"
        "edges has (paper, cite, paper), (author, writes, paper); add an entry for each edge type that lacks one, set "
        "'unmatched: skip' to leave such edge types out, or choose fewer layers with where='…'"
    )
    (problem,) = caught.value.problems
    assert (problem.path, problem.code) == ("conv", "unmatched_edge_type")
    report = swap(model, {**config, "unmatched": "skip"}, data)
    (row,) = report.rows
    assert [r.kind for r in row.relations] == [None, "adjacency_mask"]
    assert row.unused == (near,)
    assert "left out (unmatched: skip)" in str(report)
    assert report.notes == (
        "edges has (paper, cite, paper), which no replaced layer has; did you mean (paper, cites, paper)?",
    )
    assert call(model, data).shape == (24, 3)


def test_what_leaving_out_can_break():
    skip = {"unmatched": "skip", "pattern": None}
    with pytest.raises(
        SwapError, match=r"convs.0: node type 'author' would get no output.*\(paper, by, author\)"
    ):
        swap(models.Stack(), {**skip, "edges": adjacency(CITES, IN)})
    with pytest.raises(SwapError, match="none of its edge types has an entry"):
        swap(models.Stack(), {**skip, "edges": adjacency(("a", "b", "c"))})
    convs = {CITES: SAGEConv((7, 7), 8), WRITES: SAGEConv((6, 7), 8)}
    with pytest.raises(SwapError, match="none can be left out"):
        swap(model_of(convs, "cat"), {**skip, "edges": adjacency(CITES)})
    # A stack has rows of a type that only sends.
    swap(models.Stack(), {"unmatched": "skip", "edges": adjacency(CITES, HOLDS, WRITES)})


def test_a_configuration_as_a_file_and_as_an_object(tmp_path):
    file = tmp_path / "nsa.yaml"
    file.write_text("version: 1\npattern: null\nheads: 2\n")
    assert swap(models.Stack(), file, dry_run=True).rows[0].config["heads"] == 2
    file.write_text("version: 1\nhead: 2\n")
    with pytest.raises(ConfigError, match=r"nsa.yaml:2:1: head: unknown key 'head'"):
        swap(models.Stack(), file)
    config = HeteroNSAConfig(
        edges=adjacency(CITES, WRITES, BY, IN, HOLDS), dropout=0.25, num_nodes={"venue": 5}
    )
    model = models.Stack()
    swap(model, config)
    assert model.convs[0].config.dropout == 0.25
    assert model.convs[0].config.num_nodes == {"venue": 5}
    with pytest.raises(SwapError, match="num_nodes belongs to a stack"):
        swap(
            models.Stack(),
            {
                "num_nodes": {"venue": 5},
                "pattern": None,
                "edges": adjacency(CITES, WRITES, BY, IN, HOLDS),
            },
        )


def test_sab_types_of_other_layers_are_left_to_them():
    config = {
        "edges": adjacency(CITES, WRITES, BY, IN, HOLDS),
        "sab": {"node_types": ["venue", "paper"]},
    }
    model = models.Shared()
    swap(model, config)
    assert model.conv.config.sab.node_types == ["paper"]


def test_names_of_node_types_that_no_layer_has(data):
    for wrong in ({"sab": {"node_types": ["papr"]}}, {"num_nodes": {"papr": 24}}):
        with pytest.raises(
            SwapError, match="names node type 'papr', which no replaced layer has"
        ) as caught:
            swap(models.Stack(), wrong, data)
        assert caught.value.problems[0].suggestion == "paper"


def test_numbers_of_nodes_that_do_not_arrive(data):
    class WithIds(models.Stack):
        def forward(self, x_dict, edge_index_dict, n_id_dict):
            for conv in self.convs:
                x_dict = conv(x_dict, edge_index_dict, n_id_dict=n_id_dict)
                x_dict = {key: x.relu() for key, x in x_dict.items()}
            return self.lin(x_dict["paper"])

    for t, n in SIZES.items():
        data[t].n_id = torch.randperm(n)
    config = {"pattern": "M", "num_nodes": {"paper": SIZES["paper"]}}
    report = swap(models.Stack(), config, data)
    assert [w.split(" is in the data")[0] for w in report.warnings] == [
        "convs.0: n_id of paper",
        "convs.1: n_id of paper",
    ]
    assert swap(WithIds(), config, data).warnings == ()
    assert swap(models.Stack(), {"pattern": "M"}, data).warnings == ()  # no embeddings, no need


def test_a_conv_that_fails_without_a_word(data):
    edges = [
        {"edge_type": list(CITES), "kind": "pyg_conv", "options": {"conv": "GATv2Conv"}},
        *adjacency(WRITES),
    ]
    with pytest.raises(
        SwapError,
        match=r"conv: its replacement fails with AssertionError in \w+, gatv2_conv.py:\d+: assert ",
    ):
        swap(models.WithAttributes(), {"pattern": None, "edges": edges}, data)


def test_a_kind_of_ones_own_and_an_operator_that_is_not_known(data):
    class All(EdgeTerm):
        def pairs(self, inputs):
            return inputs.edges_from_index("edge_index")

    registry = Registry()
    registry.register(
        EdgeKind(name="mine", build=lambda c, o: All(), summary="Mine.", requires=("edge_index",))
    )
    model = models.HAN()
    edges = [{"edge_type": list(e), "kind": "mine"} for e in (CITES, WRITES)]
    (row,) = swap(model, {"edges": edges}, data, registry=registry).rows
    assert [r.kind for r in row.relations] == ["mine", "mine"]
    with pytest.raises(ConfigError, match="unknown operator 'hgd'"):
        swap(models.HAN(), {"operator": "hgd"})


@pytest.mark.parametrize("operator", ["hgt", "hetero_conv"])
@pytest.mark.parametrize("make", [models.Stack, models.HGT, models.HAN])
def test_other_operators(make, operator, data):
    model = make()
    report = swap(model, {"operator": operator, "pattern": None}, data)
    assert report.rows[0].after.startswith(f"{operator}(")
    before, after = train_an_epoch(model, data)
    assert after < before


# ---- state -------------------------------------------------------------------------------------------------------------------


def test_mode_and_dtype_are_kept(data):
    model = models.HGT().double()
    model.convs[0].eval()
    swap(model, {"pattern": "M"})
    assert [conv.training for conv in model.convs] == [False, True]
    assert not any(m.training for m in model.convs[0].modules())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    model = models.HAN(in_channels=-1).to(torch.bfloat16)  # lazy parameters have a type, too
    swap(model, {"pattern": "M"})
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_device_is_kept():
    model = models.HGT().to("meta")
    swap(model, {})
    assert {p.device.type for p in model.convs.parameters()} == {"meta"}


@pytest.mark.parametrize("given", [False, True])
def test_one_seed_one_model(given, data):
    def swapped():
        torch.manual_seed(1)
        model = models.HGT()
        torch.manual_seed(5)
        swap(model, {}, data if given else None)
        return model

    a, b = swapped().state_dict(), swapped().state_dict()
    assert list(a) == list(b)
    for name, value in a.items():
        if name.startswith("convs"):
            assert torch.equal(value, b[name])


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("make", MODELS)
def test_a_dry_run_changes_nothing_and_reports_the_same(make, given, data):
    model = make()
    modules, before = list(model.modules()), state(model)
    model.train()
    seed = torch.get_rng_state()
    report = swap(model, {}, data if given else None, dry_run=True)
    assert torch.equal(torch.get_rng_state(), seed)
    assert_untouched(model, modules, before)
    assert all(m.training for m in modules)
    assert "Dry run: the model is as it was." in report.render()
    real = swap(model, {}, data if given else None)
    assert real.rows == report.rows


def test_an_error_leaves_the_model_as_it_was(data, monkeypatch):
    model = models.Nested()
    modules, before = list(model.modules()), state(model)
    with pytest.raises(SwapError) as caught:
        swap(model, {"edges": adjacency(CITES)})
    assert {p.path for p in caught.value.problems} == {"encoder.layers.0", "encoder.layers.1"}
    assert_untouched(model, modules, before)
    from pyg_nsa.swapping import replace

    real, calls = replace.build, []

    def second_fails(plan, registry):
        calls.append(plan.layer.path)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return real(plan, registry)

    monkeypatch.setattr(replace, "build", second_fails)
    with pytest.raises(SwapError, match=r"encoder.layers.1: out of memory"):
        swap(model, {})
    assert_untouched(model, modules, before)
    call(model, data)


def test_a_swapped_model_can_be_saved_and_loaded(data):
    model = models.HAN()
    swap(model, {}, data)
    model.eval()
    expected = call(model, data)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = models.HAN()
    swap(fresh, {}, data)
    fresh.load_state_dict(torch.load(file))
    torch.testing.assert_close(call(fresh.eval(), data), expected)
    torch.testing.assert_close(call(copy.deepcopy(model), data), expected)


# ---- what is not swapped -----------------------------------------------------------------------------------------------------


def test_a_model_of_to_hetero_is_refused_with_code_that_runs(data):
    model = models.hetero_graphsage()
    train_an_epoch(model, data)
    for holder in (model, nn.ModuleDict({"gnn": model})):
        with pytest.raises(
            SwapError, match=r"to_hetero has written the message passing .* \(conv1: 5 x SAGEConv"
        ) as caught:
            swap(holder, {})
    text = str(caught.value)
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    namespace = {"torch": torch, "HeteroNSAConv": HeteroNSAConv}
    exec(code, namespace)
    before, after = train_an_epoch(namespace["Model"](), data)
    assert after < before


def test_no_layer_names_what_there_is():
    with pytest.raises(
        SwapError,
        match=r"HeteroConv, HGTConv and HANConv; its convolutions: conv1 \(SAGEConv\), conv2",
    ):
        swap(models.GraphSAGE(), {})
    with pytest.raises(SwapError, match="it has no convolutions"):
        swap(nn.Linear(2, 2), {})


def test_a_layer_with_a_forward_of_its_own_is_left_alone_and_named():
    class Mine(HeteroConv):
        def forward(self, x_dict):
            return x_dict

    class Same(HeteroConv):
        """Another name only."""

    model = nn.ModuleDict({"a": Mine({CITES: SAGEConv(7, 8)}), "b": Same({CITES: SAGEConv(7, 8)})})
    report = swap(model, {})
    assert [row.path for row in report.rows] == ["b"]
    assert report.notes == (
        "a is a Mine with a forward of its own, whose call swap can't know: left alone",
    )


def test_the_model_itself_and_plain_containers():
    with pytest.raises(
        SwapError, match=r"the model itself is the HANConv.*HeteroNSAConv.from_config"
    ):
        swap(models.HAN().han_conv, {})
    model = models.Shared()
    model.later = {"again": model.conv}
    with pytest.raises(SwapError, match="conv: 'later', a plain dict, also holds this layer"):
        swap(model, {})
    model.later, model._hidden = {}, [model.conv]
    with pytest.raises(SwapError, match="'_hidden', a plain list"):
        swap(model, {})


@pytest.mark.parametrize("frozen", [False, True])
def test_that_what_was_frozen_is_trained_is_said(frozen):
    model = nn.ModuleDict({"a": HeteroConv({CITES: SAGEConv((8, 8), 8)})})
    model["a"].requires_grad_(not frozen)
    (row,) = swap(model, {}).rows
    assert any("were frozen" in note for note in row.notes) is frozen


def test_hooks_and_parameters_that_were_shared_are_named():
    gat = SAGEConv((8, 8), 8)
    model = nn.ModuleDict({"a": HeteroConv({CITES: gat}), "b": HeteroConv({CITES: gat})})
    model["a"].register_forward_hook(lambda *args: None)
    gat.lin_l.register_full_backward_hook(lambda *args: None)
    report = swap(model, {}, where="a")
    assert (
        "hooks go with the old modules: itself, convs.<paper___cites___paper>.lin_l"
        in report.rows[0].notes
    )
    (note,) = report.notes
    assert note.startswith(
        "parameters of a that are shared no longer: a.convs.<paper___cites___paper>.lin_l.weight (also b.convs"
    )


def test_a_trial_that_cannot_be_made(data):
    model = models.Stack()
    with pytest.raises(SwapError, match=r"before any swap, fails on this data: KeyError: .*paper"):
        swap(model, {}, ({}, {}))
    with pytest.raises(
        TypeError, match="data must be a torch_geometric HeteroData, or the arguments"
    ):
        swap(model, {}, 3)

    class Sized(models.Stack):
        def forward(self, x_dict, edge_index_dict, batch_size):
            return super().forward(x_dict, edge_index_dict)[:batch_size]

    with pytest.raises(
        SwapError, match="argument 'batch_size', which a HeteroData does not say; pass data="
    ):
        swap(Sized(), {}, data)
    by_name = {"x_dict": data.x_dict, "edge_index_dict": data.edge_index_dict, "batch_size": 3}
    assert swap(Sized(), {}, by_name).rows[0].tried
    assert swap(Sized(), {}, tuple(by_name.values())).rows[0].tried

    class Idle(models.Stack):
        def forward(self, x_dict, edge_index_dict):
            return self.lin(self.convs[0](x_dict, edge_index_dict)["paper"])

    report = swap(Idle(), {}, data)
    assert [row.tried for row in report.rows] == [True, False]
    assert report.notes == ("convs.1 was not called by the model on this data",)


# ---- batches -----------------------------------------------------------------------------------------------------------------


class Batched(models.Stack):
    """Its forward is written for the layers to come."""

    def forward(self, x_dict, edge_index_dict, batch_dict):
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict, batch_dict=batch_dict)
            x_dict = {key: x.relu() for key, x in x_dict.items()}
        return self.lin(x_dict["paper"])


ALL_PAIRS = [
    *adjacency(WRITES, BY, IN, HOLDS),
    {"edge_type": list(CITES), "kind": "all_pairs"},
]


@pytest.mark.parametrize(
    ("config", "mixes"),
    [
        ({"pattern": "MS"}, True),
        ({"pattern": "M"}, False),
        ({"pattern": None}, False),
        ({"pattern": "MS", "sab": {"node_types": []}}, False),
        ({"pattern": "MS", "sab": {"node_types": ["venue"]}}, True),
        ({"pattern": None, "edges": ALL_PAIRS}, True),
        ({"operator": "hetero_conv"}, False),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_graphs_of_a_batch_that_would_see_each_other_are_warned_of(config, mixes, by_name, data):
    other = models.make_data()
    other["paper"].x = other["paper"].x + 1
    batch = Batch.from_data_list([data, other])

    class ByName(models.Stack):
        def forward(self, data):
            x_dict = data.x_dict
            for conv in self.convs:
                x_dict = conv(x_dict=x_dict, edge_index_dict=data.edge_index_dict)
            return self.lin(x_dict["paper"])

    report = swap(ByName() if by_name else models.Stack(), config, batch)
    if mixes:
        assert [w.split(":")[0] for w in report.warnings] == ["convs.0", "convs.1"]
        assert all("let the model's forward pass batch_dict=" in w for w in report.warnings)
        assert "WARNING: graphs of a batch see each other" in report.render()
        # One graph has nothing to be mixed with.
        assert swap(models.Stack(), config, data).warnings == ()
    else:
        assert report.warnings == ()


def disjoint(*graphs, first=0):
    """Several graphs in one plain `HeteroData`, as a loader gives the trees of its seeds: rows in any order, and no `ptr`."""
    batch, out = Batch.from_data_list(list(graphs)), HeteroData()
    order = {t: torch.randperm(batch[t].num_nodes) for t in batch.node_types}
    for t, rows in order.items():
        out[t].x, out[t].batch = batch[t].x[rows], batch[t].batch[rows] + first
    for edge_type in batch.edge_types:
        ends = (order[edge_type[0]], order[edge_type[2]])
        rows = zip(ends, batch[edge_type].edge_index, strict=True)
        out[edge_type].edge_index = torch.stack([end.argsort()[index] for end, index in rows])
    return out


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize(
    ("make", "config", "mixes"),
    [
        (models.Stack, {}, True),
        (models.Stack, {"pattern": None, "edges": ALL_PAIRS}, True),
        (models.Stack, {"pattern": "M"}, False),
        (Batched, {}, False),
    ],
)
def test_trees_of_disjoint_sampling_that_would_see_each_other_are_warned_of(
    make, config, mixes, first, data
):
    trees = disjoint(data, models.make_data(), first=first)
    assert not hasattr(trees, "num_graphs")
    report = swap(make(), config, trees)
    assert len(report.warnings) == (2 if mixes else 0)
    assert all("which seed's tree" in w and "batch_dict" in w for w in report.warnings)
    # One seed has a single tree.
    assert swap(make(), config, disjoint(data, first=first)).warnings == ()


@pytest.mark.parametrize("config", [{"pattern": "MS"}, {"pattern": None, "edges": ALL_PAIRS}])
def test_a_forward_that_says_which_graph_a_node_is_of_can_be_tried(config, data):
    batch = Batch.from_data_list([data, models.make_data()])
    model = Batched()
    report = swap(model, config, batch)
    assert [row.tried for row in report.rows] == [True, True]
    assert report.warnings == ()
    assert "tried without batch_dict before the swap, which only its replacement takes" in str(
        report
    )
    model.eval()
    with torch.no_grad():
        both = model(batch.x_dict, batch.edge_index_dict, batch.batch_dict)
        alone = model(data.x_dict, data.edge_index_dict, {})
    assert torch.allclose(both[: SIZES["paper"]], alone, atol=1e-5)


def test_a_field_for_the_new_kinds_can_be_passed_before_the_swap(data):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = HeteroConv({CITES: SAGEConv(7, 8), WRITES: SAGEConv((6, 7), 8)})

        def forward(self, x_dict, edge_index_dict, stoichiometry_dict):
            return self.conv(x_dict, edge_index_dict, stoichiometry_dict=stoichiometry_dict)

    data[CITES].stoichiometry = torch.randn(60)
    edges = [{"edge_type": list(CITES), "kind": "stoichiometry_bias"}, *adjacency(WRITES)]
    report = swap(Model(), {"edges": edges}, data)
    assert report.rows[0].tried
    assert report.warnings == ()
    # No kind of this configuration reads it, so the old layer's refusal stands.
    with pytest.raises(SwapError, match="before any swap, fails on this data: .*stoichiometry"):
        swap(Model(), {}, data)


# ---- arguments ---------------------------------------------------------------------------------------------------------------


def test_what_is_no_model():
    with pytest.raises(TypeError, match=r"got the class Stack: make a model of it first, Stack\("):
        swap(models.Stack, {})
    with pytest.raises(TypeError, match=r"the model comes first, swap\(model, config\)"):
        swap({}, models.Stack())
    with pytest.raises(TypeError, match=r"expects a torch.nn.Module as its model, got a str"):
        swap("model.py", {})
    for config in (None, 3, [1]):
        with pytest.raises(TypeError, match="expects its configuration as a mapping, .* got"):
            swap(models.Stack(), config)
    for where in (None, 3, [], [3]):
        with pytest.raises(TypeError, match="where must be a glob such as"):
            swap(models.Stack(), {}, where=where)


def test_a_list_of_graphs_is_no_data(data):
    with pytest.raises(
        SwapError, match=r"data is a list of 2 graphs; give one of them, or .*Batch.from_data_list"
    ):
        swap(models.Stack(), {}, [data, data])


def test_metadata_are_no_data(data):
    model = models.Stack()
    with pytest.raises(
        SwapError, match=r"data is the metadata of a graph .*: swap\(model, config\)"
    ):
        swap(model, {"pattern": None}, data.metadata())
    assert type(model.convs[0]) is HeteroConv
    # As they come from a file, for example; and two dictionaries of arguments are no metadata.
    with pytest.raises(SwapError, match="data is the metadata of a graph"):
        swap(model, {"pattern": None}, [list(part) for part in data.metadata()])
    swap(model, {"pattern": None}, (data.x_dict, data.edge_index_dict))


def test_swap_comes_before_wrappers():
    model = torch.compile(models.Stack(), backend="eager")
    with pytest.raises(
        SwapError, match="the model went through torch.compile already, .*swap first"
    ):
        swap(model, {})
    with pytest.raises(SwapError, match="the model went through DataParallel already"):
        swap(nn.DataParallel(models.Stack()), {})
    inside = nn.Module()
    inside.compiled, inside.conv = model, HeteroConv({CITES: SAGEConv(7, 8)})
    with pytest.raises(SwapError, match="compiled: the module went through torch.compile"):
        swap(inside, {})
    assert swap(inside, {}, where="conv").rows[0].path == "conv"


def test_a_glob_that_matches_nothing_gets_a_wider_one():
    for glob, near in {"conv.*": "conv*", "conv": "conv*", "onvs.0": "*onvs.0*"}.items():
        with pytest.raises(SwapError) as caught:
            swap(models.Stack(), {}, where=glob)
        assert caught.value.problems[0].suggestion == near
        assert len(swap(models.Stack(), {}, where=near).rows) > 0
    with pytest.raises(SwapError, match="where='nope' matches no layer"):
        swap(models.Stack(), {}, where=["convs.0", "nope"])


# ---- the report --------------------------------------------------------------------------------------------------------------


def test_the_report_is_a_table_of_before_and_after(data):
    report = swap(models.HAN(), {"pattern": None}, data)
    lines = report.render().splitlines()
    assert lines[0].split() == [
        "layer",
        "before",
        "after",
        "edge",
        "types",
        "channels",
        "parameters",
    ]
    assert "HANConv(16, heads=4)" in lines[2]
    assert "HeteroNSAConv(pattern=None, heads=4)" in lines[2]
    assert "paper 7, author 6 -> 16" in lines[2]
    text = " ".join(report.render().split())
    for name in report.vanished:
        assert name.removeprefix("han_conv.") in text
    assert "build the optimizer after the swap" in text
    assert "tried: called as the layer was called on data" in text
    loaded = json.loads(json.dumps(report.to_dict()))
    assert loaded["rows"][0]["path"] == "han_conv"
    assert loaded["vanished"] == list(report.vanished)
    (row,) = report.rows
    fresh = models.HAN()
    assert (row.lazy_before, row.parameters_before) == (
        2,
        sum(p.numel() for p in fresh.parameters() if not is_uninitialized_parameter(p)) - 51,
    )


def test_the_configuration_in_a_row_builds_the_same_operator():
    model = models.Stack()
    (row, _) = swap(model, {"pattern": "MSM", "dropout": 0.1}).rows
    again = HeteroNSAConv.from_config(row.config)
    assert {
        n: getattr(p, "shape", None) if not is_uninitialized_parameter(p) else None
        for n, p in again.named_parameters()
    } == {
        n: getattr(p, "shape", None) if not is_uninitialized_parameter(p) else None
        for n, p in model.convs[0].named_parameters()
    }


def test_layers_that_are_alike_are_told_of_once(data):
    text = swap(models.Stack(layers=3), {"pattern": "M"}, data).render()
    assert text.count("(paper, cites, paper)") == 1
    assert "\nconvs.0, convs.1, convs.2\n" in text
    model = models.Stack(layers=3)
    model.convs[1].convs[CITES] = SAGEConv((-1, -1), 16)
    text = swap(model, {"pattern": "M"}, data).render()
    assert text.count("(paper, cites, paper)") == 2
    assert "\nconvs.0, convs.2\n" in text
    assert "\nconvs.1\n" in text


def test_the_report_of_another_operator_shows_no_kind_that_nobody_chose(data):
    report = swap(models.Stack(), {"operator": "hgt", "pattern": "MS"}, data)
    assert report.rows[0].after == "hgt(hidden=16, heads=4)"
    assert "GATConv -> hgt\n" in report.render()
    assert "adjacency_mask" not in report.render()
    chosen = {"operator": "hgt", "edges": adjacency(CITES, WRITES, BY, IN, HOLDS)}
    assert "GATConv -> hgt (kind adjacency_mask)\n" in swap(models.Stack(), chosen).render()

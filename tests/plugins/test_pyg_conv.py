"""``pyg_conv``: which convs may be named, with which arguments, and what is made of them."""

import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from pydantic import ValidationError
from torch_geometric.data import Batch, HeteroData

from pyg_nsa import (
    ConfigError,
    EdgeKind,
    EdgeSpec,
    HeteroNSAConv,
    Registry,
    build_operator,
    default_registry,
    load_config,
)
from pyg_nsa_plugins.conv_by_name import (
    check_args,
    check_conv,
    conv_names,
    make_conv,
    needed_fields,
)
from pyg_nsa_plugins.pyg_conv import PygConvOptions

UU, UV, VU = ("u", "near", "u"), ("u", "in", "v"), ("v", "of", "u")
NEEDS = {
    "ChebConv": {"K": 2},
    "FastRGCNConv": {"num_relations": 2},
    "GMMConv": {"dim": 2, "kernel_size": 3},
    "GatedGraphConv": {"num_layers": 2},
    "MixHopConv": {"powers": [1]},
    "PDNConv": {"edge_dim": 2, "hidden_channels": 4},
    "RGATConv": {"num_relations": 2},
    "RGCNConv": {"num_relations": 2},
    "SSGConv": {"alpha": 0.1},
    "SplineConv": {"dim": 2, "kernel_size": 3},
}
TAKES_TWO = {
    "SAGEConv",
    "GraphConv",
    "GATConv",
    "GATv2Conv",
    "TransformerConv",
    "GENConv",
    "LEConv",
}


def options(**given):
    return default_registry().edge_kind("pyg_conv").options(**given)


def problems(**given):
    with pytest.raises(ValidationError) as caught:
        options(**given)
    return {".".join(map(str, e["loc"])): e["msg"] for e in caught.value.errors()}


def fields_of(name, num_edges):
    return {
        "edge_attr": torch.rand(num_edges, 2),
        "edge_weight": torch.rand(num_edges),
        "edge_type": torch.randint(2, (num_edges,)),
    }


@pytest.mark.parametrize("name", conv_names())
def test_every_conv_that_may_be_named_works(name):
    """Made from names and numbers, it gives rows of the size that was asked for, with gradients."""
    torch.manual_seed(0)
    if name == "MeshCNNConv":
        pytest.skip("needs as many edges as meshes have")
    try:
        chosen = options(conv=name, args=NEEDS.get(name, {}))
    except ValidationError as error:
        for package in ("pyg-lib", "torch-spline-conv"):  # PyG 2.7's SplineConv wants the latter
            if f"requires '{package}" in str(error):
                pytest.skip(f"needs {package}, and the error says so")
        raise
    conv = make_conv(name, chosen.args, UU, (6, 6), 8, 2)
    assert type(conv) is getattr(pyg, name)
    index = torch.randint(5, (2, 12))
    extra = {n: fields_of(name, 12)[n] for n in needed_fields(name, chosen.args, chosen.fields)}
    out = conv(torch.randn(5, 6), index, **extra)
    assert out.shape == (5, 8)
    out.square().sum().backward()
    grads = [p.grad for p in conv.parameters() if p.requires_grad]
    assert any(g is not None and g.abs().sum() > 0 for g in grads)


def test_the_usual_ones_may_be_named():
    assert set(conv_names()) >= TAKES_TWO | {"GCNConv", "RGCNConv"}


@pytest.mark.parametrize("name", sorted(TAKES_TWO))
def test_between_two_node_types(name):
    conv = make_conv(name, {}, UV, (6, 3), 8, 2)
    x = (torch.randn(5, 6), torch.randn(4, 3))
    index = torch.stack([torch.randint(5, (9,)), torch.randint(4, (9,))])
    assert conv(x, index).shape == (4, 8)
    assert not getattr(conv, "add_self_loops", False)
    lazy = make_conv(name, {}, UV, (-1, -1), 8, 2)
    assert lazy(x, index).shape == (4, 8)


def test_convs_of_one_node_type():
    assert make_conv("GCNConv", {}, UU, (6, 6), 8, 2).in_channels == 6
    for name in ("GCNConv", "GatedGraphConv"):
        with pytest.raises(
            ValueError, match=f"{name} works within one node type, but .* 'u' to 'v'; take"
        ) as caught:
            make_conv(name, NEEDS.get(name, {}), UV, (6, 3), 8, 2)
        assert str(UV) in str(caught.value)


def test_a_conv_of_one_node_type_is_refused_where_it_stands(tmp_path):
    file = tmp_path / "nsa.yaml"
    entry = "  - {{edge_type: [{}], kind: pyg_conv, options: {{conv: GCNConv}}}}\n"
    file.write_text(f"edges:\n{entry.format('u, cites, u')}{entry.format('u, cites, v')}")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("edges[1].options.conv", 3)
    assert problem.message == (
        "GCNConv works within one node type, but this relation goes from 'u' to 'v'; take a conv for two, such as SAGEConv, "
        "GATv2Conv or TransformerConv"
    )
    # No plugin takes such a conv of a model for one that it can name.
    assert default_registry().spec_from_module(pyg.GCNConv(4, 4), UV) is None
    assert default_registry().spec_from_module(pyg.GCNConv(4, 4), UU).kind == "pyg_conv"


def test_heads():
    conv = make_conv("GATv2Conv", {}, UV, (6, 3), 8, 4)
    assert (conv.heads, conv.out_channels) == (4, 2)  # the model's
    conv = make_conv("GATv2Conv", {"heads": 2}, UV, (6, 3), 8, 4)
    assert (conv.heads, conv.out_channels) == (2, 4)
    conv = make_conv("GATv2Conv", {"heads": 3, "concat": False}, UV, (6, 3), 8, 4)
    assert (conv.heads, conv.out_channels) == (3, 8)
    with pytest.raises(
        ValueError, match="the 3 concatenated heads of GATv2Conv do not divide out_channels=8"
    ):
        make_conv("GATv2Conv", {"heads": 3}, UV, (6, 3), 8, 4)
    assert options(args={"heads": 3}).args == {
        "heads": 3
    }  # whether it divides shows with the sizes
    assert "heads=0, expected at least 1" in problems(args={"heads": 0})["args"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SAGEcon", "has no 'SAGEcon', did you mean 'SAGEConv'?"),
        ("sageconv", "did you mean 'SAGEConv'?"),
        ("Xyz", "has no 'Xyz'; it has ARMAConv, "),
        (
            "torch_geometric.nn.SAGEConv",
            "looks like a Python path; name a class of torch_geometric.nn.conv",
        ),
        ("os:system", "looks like a Python path"),
        ("GINConv", "GINConv cannot be named here: its argument 'nn' is a module"),
        ("HGTConv", "its forward is called with x_dict, edge_index_dict"),
        ("PointNetConv", "its forward is called with x, pos, edge_index"),
        ("LGConv", "the size of its rows is that of its input"),
        ("PANConv", "it returns more than rows"),
        ("MessagePassing", "it is no convolution of its own"),
        ("HypergraphConv", "hyperedge_index"),
    ],
)
def test_names(name, text):
    found = problems(conv=name)
    assert list(found) == ["conv"] and text in found["conv"]
    with pytest.raises(ValueError, match="conv"):
        check_conv(name)


def test_arguments():
    found = problems(
        args={"haeds": 2, "in_channels": 3, "out_channels": 4, "dropout": "x", "flow": "x"}
    )
    assert "no argument 'haeds', did you mean 'heads'?" in found["args.haeds"]
    assert "'in_channels' follows from the model" in found["args.in_channels"]
    assert "'out_channels' follows" in found["args.out_channels"]
    assert found["args.dropout"] == "'dropout' of GATv2Conv must be of type float, got 'x'"
    assert "no argument 'flow'; it has" in found["args.flow"]
    assert problems(conv="ChebConv") == {"args.K": "ChebConv needs argument 'K'"}
    assert "ChebConv refuses these arguments" in problems(conv="ChebConv", args={"K": 0})["args"]
    assert "'medn'" in problems(conv="SAGEConv", args={"aggr": "medn"})["args"]
    assert (
        "gives rows of 192 columns where out_channels is 64" in problems(conv="MixHopConv")["args"]
    )
    assert options(conv="SAGEConv", args={"aggr": ["mean", "max"]}).args["aggr"] == ["mean", "max"]


def test_arguments_are_values_of_json():
    assert any(loc.startswith("args.bias") for loc in problems(args={"bias": object()}))


def test_fields():
    assert (
        "takes no 'edge_atr', did you mean 'edge_attr'?"
        in problems(fields=["edge_atr"])["fields.0"]
    )
    assert "only with edge_dim" in problems(fields=["edge_attr"])["fields.0"]
    assert "takes no 'x'" in problems(fields=["x"])["fields.0"]
    kind = default_registry().edge_kind("pyg_conv")

    def wanted(**given):
        return kind.fields(options(**given))[2:]

    assert wanted() == ()
    assert wanted(args={"edge_dim": 3}) == ("edge_attr",)
    assert wanted(conv="GCNConv", fields=["edge_weight"]) == ("edge_weight",)
    assert wanted(conv="RGCNConv", args={"num_relations": 2}) == ("edge_type",)
    assert wanted(conv="RGCNConv", args={"num_relations": 2}, fields=["edge_type"]) == (
        "edge_type",
    )
    assert wanted(conv="GMMConv", args=NEEDS["GMMConv"], fields=["edge_attr"]) == ("edge_attr",)
    assert kind.missing(options(conv="GCNConv", fields=["edge_weight"]), {"edge_index"}) == [
        ("edge_weight",)
    ]


def test_checking_draws_no_random_numbers():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    options(conv="SAGEConv", args={"aggr": "mean"})
    check_args("GATv2Conv", {})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_round_trips_and_paths_in_files(tmp_path):
    spec = EdgeSpec(
        edge_type=UU, kind="pyg_conv", options={"conv": "GATv2Conv", "args": {"heads": 2}}
    )
    assert EdgeSpec.model_validate_json(spec.model_dump_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    file = tmp_path / "c.yaml"
    file.write_text(
        "edges:\n  - edge_type: [u, near, u]\n    kind: pyg_conv\n"
        "    options:\n      conv: GATv2Conv\n      args:\n        haeds: 2\n"
    )
    with pytest.raises(ConfigError, match="did you mean 'heads'") as caught:
        load_config(file)
    (problem,) = caught.value.problems
    assert problem.path == "edges[0].options.args.haeds" and problem.line == 7
    described = default_registry().edge_kind("pyg_conv").options.model_json_schema()["properties"]
    assert all(field.get("description") for field in described.values())


# ---- in HeteroNSA --------------------------------------------------------------------------------------------------------


def mixed(**changes):
    gat = {"kind": "pyg_conv", "options": {"args": {"edge_dim": 2}}}
    specs = {
        UU: gat,
        UV: {"kind": "pyg_conv", "options": {"conv": "SAGEConv"}},
        VU: "adjacency_mask",
    }
    return HeteroNSAConv(specs, hidden_channels=8, heads=2, **changes)


def data(seed=0):
    g = torch.Generator().manual_seed(seed)
    out = HeteroData()
    out["u"].x, out["v"].x = torch.randn(6, 5, generator=g), torch.randn(4, 3, generator=g)
    for edge_type, high in ((UU, (6, 6)), (UV, (6, 4)), (VU, (4, 6))):
        index = torch.stack([torch.randint(n, (9,), generator=g) for n in high])
        out[edge_type]["hyperedge_index" if edge_type == UV else "edge_index"] = index
    out[UU].edge_attr = torch.randn(9, 2, generator=g)
    return out


def test_a_bare_step_is_the_conv(one):
    torch.manual_seed(0)
    specs = {UU: {"kind": "pyg_conv", "options": {"conv": "GCNConv"}}, UV: "pyg_conv"}
    declared = HeteroNSAConv(specs, hidden_channels=8, heads=2)
    convs = {UU: pyg.GCNConv(-1, 8), UV: pyg.GATv2Conv((-1, -1), 4, heads=2, add_self_loops=False)}
    theirs = pyg.HeteroConv(convs)
    x, index = data().x_dict, {UU: data()[UU].edge_index, UV: data()[UV].hyperedge_index}
    theirs(x, index)
    declared.load_state_dict(theirs.state_dict())
    out, expected = declared(x, index), theirs(x, index)
    assert list(out) == list(expected)
    for t in out:
        torch.testing.assert_close(out[t], expected[t])
    one.gradients(declared, out)


@pytest.mark.parametrize("pattern", [None, "MSM"])
def test_beside_declared_attention(one, pattern):
    conv = mixed(pattern=pattern)
    call = conv.collect(data())
    assert set(call["edge_attr_dict"]) == {UU} and UV in call["edge_index_dict"]
    out = conv(**call)
    assert {t: tuple(x.shape) for t, x in out.items()} == {"u": (6, 8), "v": (4, 8)}
    assert all(bool(p.grad.isfinite().all()) for p in conv.parameters() if p.grad is not None)
    grads = one.gradients(conv, out)
    assert sum(n.endswith("lin_edge.weight") for n in grads) == (1 if pattern is None else 2)
    together = conv(**conv.collect(Batch.from_data_list([data(i) for i in range(3)])))
    for t in out:
        single = torch.cat([conv(**conv.collect(data(i)))[t] for i in range(3)])
        torch.testing.assert_close(together[t], single, atol=1e-5, rtol=1e-5)
    again = conv.prepare(data())
    torch.testing.assert_close(conv(**again)["u"], out["u"])


def test_each_block_has_its_own(one):
    stack = mixed(pattern="MM").stack
    first, second = (block.convs[UV] for block in stack.blocks)
    assert type(first) is type(second) is pyg.SAGEConv
    assert first.in_channels == (8, 8) and not torch.equal(first.lin_l.weight, second.lin_l.weight)


def test_by_an_operator():
    raw = {
        "hidden_channels": 8,
        "heads": 2,
        "edges": [
            {"edge_type": UU, "kind": "pyg_conv"},
            {"edge_type": UV, "kind": "pyg_conv", "options": {"conv": "SAGEConv"}},
            {"edge_type": VU, "kind": "adjacency_mask"},
        ],
    }
    for operator in ("hetero_nsa", "hetero_conv", "hgt"):
        conv = build_operator({**raw, "operator": operator}, data())
        assert {t: tuple(x.shape) for t, x in conv(**conv.collect(data())).items()} == {
            "u": (6, 8),
            "v": (4, 8),
        }


def test_no_edges(one):
    conv = HeteroNSAConv(
        {UV: {"kind": "pyg_conv", "options": {"conv": "SAGEConv"}}}, hidden_channels=8
    )
    out = conv(data().x_dict, {UV: torch.empty(2, 0, dtype=torch.long)})
    assert out["v"].shape == (4, 8)
    one.gradients(conv, out)


def test_errors_name_the_edge_type():
    with pytest.raises(ValueError, match="GCNConv works within one node type") as caught:
        HeteroNSAConv({UV: {"kind": "pyg_conv", "options": {"conv": "GCNConv"}}}, hidden_channels=8)
    assert str(UV) in str(caught.value)
    # Options that were made apart from the relation are refused when the conv is made.
    spec = EdgeSpec(edge_type=UV, kind="pyg_conv", options=PygConvOptions(conv="GCNConv"))
    with pytest.raises(ValueError, match="GCNConv works within one node type") as caught:
        HeteroNSAConv([spec], hidden_channels=8)
    assert str(UV) in str(caught.value)
    conv = mixed()
    graph = data()
    del graph[UU].edge_attr
    with pytest.raises(ValueError, match="'pyg_conv' of edge type .* requires 'edge_attr'"):
        conv.collect(graph)
    kind = EdgeKind(
        name="broken", build=lambda c, o: 3, summary="Broken.", produces=frozenset({"message"})
    )
    registry = Registry(discover=False)
    registry.register(kind)
    with pytest.raises(
        TypeError, match="built a int for edge type .*must return a torch.nn.Module"
    ):
        HeteroNSAConv({UU: "broken"}, hidden_channels=8, registry=registry)
    for produces in ({"message", "bias"}, "message"):
        with pytest.raises(ValueError, match="or 'message' alone"):
            EdgeKind(name="both", build=lambda c, o: 3, summary="Both.", produces=produces)

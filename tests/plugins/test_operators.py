"""The first-party operators: one configuration, one call, three modules."""

import subprocess
import sys

import pytest
import torch
from torch_geometric.data import Batch, HeteroData
from torch_geometric.nn import GATv2Conv, HeteroConv, HGTConv, SAGEConv

from pyg_nsa import EdgeSet, HeteroNSAConv, build_operator, default_registry
from pyg_nsa_plugins.hgt_operator import HGTOperator
from pyg_nsa_plugins.named_convs import NamedConvs

UU, UV, WU = ("u", "near", "u"), ("u", "in", "v"), ("w", "at", "u")
SIZES, COLUMNS = {"u": 9, "v": 5, "w": 4}, {"u": 6, "v": 3, "w": 2}
OPERATORS = ("hetero_nsa", "hetero_conv", "hgt")


def graph(seed=0):
    g = torch.Generator().manual_seed(seed)
    data = HeteroData()
    for t, n in SIZES.items():
        data[t].x = torch.randn(n, COLUMNS[t], generator=g)
    for edge_type, field in ((UU, "edge_index"), (UV, "hyperedge_index"), (WU, "edge_index")):
        ends = [torch.randint(SIZES[t], (14,), generator=g) for t in (edge_type[0], edge_type[2])]
        data[edge_type][field] = torch.stack(ends)
    data[UV].stoichiometry = torch.randn(14, generator=g)
    data[UU].edge_attr = torch.randn(14, 2, generator=g)
    return data


def config(operator="hetero_nsa", **changes):
    return {
        "operator": operator,
        "hidden_channels": 8,
        "heads": 2,
        "edges": [
            {"edge_type": UU, "kind": "edge_attr_bias", "options": {"symmetrize": True}},
            {"edge_type": UV, "kind": "stoichiometry_bias"},
            {"edge_type": WU, "kind": "adjacency_mask"},
        ],
        **changes,
    }


def call(data):
    """The full call, for operators that read it and those that leave much unread."""
    index = {UU: data[UU].edge_index, UV: data[UV].hyperedge_index, WU: data[WU].edge_index}
    fields = {
        "edge_attr_dict": {UU: data[UU].edge_attr},
        "stoichiometry_dict": {UV: data[UV].stoichiometry},
        "hyperedge_index_dict": {UV: data[UV].hyperedge_index},
    }
    return (data.x_dict, index), fields


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [-1, COLUMNS, {"u": 6}])
@pytest.mark.parametrize("out_channels", [None, 12])
@pytest.mark.parametrize("pattern", [None, "MS"])
def test_one_line_switches(pattern, out_channels, channels):
    data = graph()
    args, kwargs = call(data)
    shapes = {}
    for name in OPERATORS:
        conv = build_operator(
            config(name, pattern=pattern, out_channels=out_channels), data, channels
        )
        out = conv(*args, **kwargs)
        shapes[name] = {t: tuple(x.shape) for t, x in out.items()}
        same = conv(**conv.collect(data))
        assert set(same) == set(out)
        for t in out:
            torch.testing.assert_close(same[t], out[t])
        named = conv(x_dict=args[0], edge_index_dict=args[1], **kwargs)
        torch.testing.assert_close(named["v"], out["v"])
        sum(x.square().sum() for x in out.values()).backward()
        assert all(p.grad.isfinite().all() for p in conv.parameters() if p.grad is not None)
        used = [
            n for n, p in conv.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
        ]
        assert len(used) > 5
    types = "uv" if pattern is None else "uvw"
    assert shapes["hetero_nsa"] == {t: (SIZES[t], out_channels or 8) for t in types}
    assert shapes["hetero_conv"] == shapes["hgt"] == shapes["hetero_nsa"]


def test_what_they_build():
    data = graph()
    nsa = build_operator(config(pattern=None), data)
    assert type(nsa) is HeteroNSAConv and nsa.config.operator == "hetero_nsa"
    convs = build_operator(config("hetero_conv", pattern=None), data)
    assert isinstance(convs, HeteroConv) and isinstance(convs, NamedConvs)
    assert all(type(conv) is GATv2Conv for conv in convs.convs.values())
    hgt = build_operator(config("hgt", pattern=None), data)
    assert isinstance(hgt, HGTOperator) and isinstance(hgt.conv, HGTConv)
    assert hgt.conv.heads == 2


# ---- hetero_conv ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggr", ["sum", "mean", "cat", None])
def test_hetero_conv_is_pygs(aggr):
    data = graph()
    options = {"conv": "SAGEConv", "args": {"aggr": "max"}}
    raw = config("hetero_conv", pattern=None, aggr=aggr, operator_options=options)
    ours = build_operator(raw, data, COLUMNS)
    theirs = HeteroConv(
        {e: SAGEConv((COLUMNS[e[0]], COLUMNS[e[2]]), 8, aggr="max") for e in (UU, UV, WU)}, aggr
    )
    state = ours.state_dict()
    del state["made_from._extra_state"]  # what it was made from, which a HeteroConv does not read
    theirs.load_state_dict(state)
    (x, index), kwargs = call(data)
    out, expected = ours(x, index, **kwargs), theirs(x, index)
    assert list(out) == list(expected)
    for t in out:
        torch.testing.assert_close(out[t], expected[t])


def test_an_edge_type_may_have_a_conv_of_its_own():
    raw = config("hetero_conv", pattern=None, operator_options={"conv": "SAGEConv"})
    raw["edges"][0] = {
        "edge_type": UU,
        "kind": "pyg_conv",
        "options": {"conv": "GATv2Conv", "args": {"edge_dim": 2, "heads": 4}},
    }
    data = graph()
    conv = build_operator(raw, data)
    assert [type(c) for c in conv.convs.values()] == [GATv2Conv, SAGEConv, SAGEConv]
    assert conv.convs[UU].heads == 4
    (x, index), kwargs = call(data)
    out = conv(x, index, **kwargs)["u"]
    other = conv(x, index, **{**kwargs, "edge_attr_dict": {UU: -data[UU].edge_attr}})["u"]
    assert not torch.allclose(out, other)
    by_place = conv(x, index, kwargs["edge_attr_dict"])["u"]
    torch.testing.assert_close(by_place, out)
    with pytest.raises(
        ValueError, match=r"has no 'edge_attr', which its conv gets; pass edge_attr_dict="
    ) as caught:
        conv(x, index)
    assert str(UU) in str(caught.value)


def test_hetero_conv_leaves_out_deleted_nodes():
    data = graph()
    conv = build_operator(config("hetero_conv", pattern=None), data, COLUMNS)
    gone = torch.arange(9) == 3
    (x, index), _ = call(data)
    out = conv(x, index, pert_mask_dict={"u": gone})
    without = {**index}
    for edge_type, ends in ((UU, (0, 1)), (UV, (0,)), (WU, (1,))):
        keep = torch.stack([index[edge_type][end] != 3 for end in ends]).all(0)
        without[edge_type] = index[edge_type][:, keep]
    expected = conv(x, without)
    torch.testing.assert_close(out["v"], expected["v"])
    torch.testing.assert_close(out["u"][~gone], expected["u"][~gone])
    assert out["u"][gone].abs().max() == 0


# ---- hgt -----------------------------------------------------------------------------------------------------------------


def test_hgt_is_pygs():
    data = graph()
    ours = build_operator(config("hgt", pattern=None), data, COLUMNS)
    theirs = HGTConv(COLUMNS, 8, (["u", "v", "w"], [UU, UV, WU]), 2)
    theirs.load_state_dict(ours.conv.state_dict())
    (x, index), kwargs = call(data)
    out, expected = ours(x, index, **kwargs), theirs(x, index)
    assert set(out) == {"u", "v"}
    for t in out:
        torch.testing.assert_close(out[t], expected[t])
    unique = {t: i.unique(dim=1) for t, i in index.items()}
    row = unique[WU].flip(0)
    transposed = torch.sparse_coo_tensor(row, torch.ones(row.size(1)), (9, 4))
    sets = {UU: unique[UU], UV: EdgeSet.from_edge_index(index[UV], 9, 5), WU: transposed}
    for t, x_t in ours(x, sets).items():
        torch.testing.assert_close(x_t, ours(x, unique)[t])
    ours.reset_parameters()


def test_hgt_without_some_edges():
    data = graph()
    conv = build_operator(config("hgt", pattern=None), data, COLUMNS)
    (x, index), _ = call(data)
    assert set(conv(x, {UU: index[UU]})) == {"u", "v"}
    assert conv(x, {}) == {}
    assert set(conv({"u": x["u"]}, index)) == {"u"}


def test_hgt_refuses_what_it_cannot_leave_out():
    data = graph()
    conv = build_operator(config("hgt", pattern=None), data, COLUMNS)
    (x, index), _ = call(data)
    living = torch.ones(9, dtype=torch.bool)
    conv(
        x,
        index,
        mask_dict={"u": living},
        pert_mask_dict={"u": ~living},
        ptr_dict={"u": torch.tensor([0, 9])},
    )
    dead = torch.arange(9) == 3
    for kwargs, text in (
        ({"mask_dict": {"u": ~dead}}, "rows that 'mask' marks"),
        ({"pert_mask_dict": {"u": dead}}, "rows that 'pert_mask' marks as deleted"),
        ({"ptr_dict": {"u": torch.tensor([0, 4, 8])}}, "9 rows for 8 nodes"),
    ):
        with pytest.raises(ValueError, match=f"node type 'u' has {text}.*'hgt' cannot leave out"):
            conv(x, index, **kwargs)
    with pytest.raises(ValueError, match="copies of one graph"):
        conv({t: r.expand(2, -1, -1) for t, r in x.items()}, index)
    for aggr in ("cat", None):
        with pytest.raises(ValueError, match="operator 'hgt' groups .* set aggr: sum"):
            build_operator(config("hgt", pattern=None, aggr=aggr), data)
    with pytest.raises(ValueError, match="heads=2 does not divide out_channels=7"):
        build_operator(config("hgt", out_channels=7), data)


# ---- all -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_batch_equals_its_graphs(operator):
    graphs = [graph(i) for i in range(3)]
    conv = build_operator(config(operator, pattern=None), graphs[0], COLUMNS)
    together = conv(**conv.collect(Batch.from_data_list(graphs)))
    for t, x in together.items():
        single = torch.cat([conv(**conv.collect(data))[t] for data in graphs])
        torch.testing.assert_close(x, single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("operator", ["hetero_conv", "hgt"])
def test_calls_that_baselines_refuse(operator):
    data = graph()
    conv = build_operator(config(operator), data, COLUMNS)
    (x, index), _ = call(data)
    with pytest.raises(ValueError, match=r"need to end with '_dict' \(got 'edge_attr'\)"):
        conv(x, index, edge_attr={})
    with pytest.raises(TypeError, match="pass x_dict first"):
        conv(edge_index_dict=index)
    with pytest.raises(TypeError, match="pass further dictionaries by keyword"):
        conv(x, index, {}, {})
    with pytest.raises(
        ValueError, match=f"'u' has no columns, and operator '{operator}' learns no embeddings"
    ):
        conv({**x, "u": torch.empty(9, 0)}, index)
    dense = {WU: torch.ones(4, 9, dtype=torch.bool)}
    with pytest.raises(
        ValueError, match=f"only a dense 'adj_mask', but operator '{operator}' reads"
    ) as caught:
        conv(x, {UU: index[UU]}, adj_mask_dict=dense)
    assert str(WU) in str(caught.value)


@pytest.mark.parametrize("operator", ["hetero_conv", "hgt"])
def test_hyperedges_are_edges(operator):
    data = graph()
    conv = build_operator(config(operator), data, COLUMNS)
    (x, index), kwargs = call(data)
    fewer = {t: i for t, i in index.items() if t != UV}
    torch.testing.assert_close(conv(x, fewer, **kwargs)["v"], conv(x, index)["v"])


@pytest.mark.parametrize("operator", OPERATORS)
def test_state_dicts(operator):
    data = graph()
    make = lambda: build_operator(config(operator), data, COLUMNS)  # noqa: E731
    one, two = make(), make()
    args, kwargs = call(data)
    for conv in (one, two):
        conv(*args, **kwargs)  # sizes of edge attributes are taken from it
    two.load_state_dict(one.state_dict())
    for t, x in one.eval()(*args, **kwargs).items():
        torch.testing.assert_close(two.eval()(*args, **kwargs)[t], x)
    two.reset_parameters()


def test_hgt_collects_only_what_is_there():
    data = graph()
    conv = build_operator(config("hgt", pattern=None), data, COLUMNS)
    assert set(conv.collect(data)) == {"x_dict", "edge_index_dict"}
    del data[UV].hyperedge_index
    with pytest.raises(ValueError, match="has no edge_index; fields present: stoichiometry"):
        conv.collect(data)
    del data["u"].x
    with pytest.raises(ValueError, match="operator 'hgt' needs x of node type 'u'"):
        conv.collect(data)


def test_they_come_through_entry_points_without_torch():
    registry = default_registry()
    for name in OPERATORS:
        assert registry.provider(name).startswith("pyg-nsa ")
        operator = registry.operator(name)
        assert operator.api == (1, 0)
        described = operator.options.model_json_schema().get("properties", {})
        assert all(field.get("description") for field in described.values())
    code = (
        "import sys, pyg_nsa; r = pyg_nsa.default_registry(); "
        f"[r.operator(n) for n in {OPERATORS!r}]; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"

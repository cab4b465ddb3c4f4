"""The first-party edge kinds, as they are found through the entry points."""

import subprocess
import sys

import pytest
import torch

from pyg_nsa import BuildContext, EdgeSpec, HeteroNSAConv, RelationInputs, default_registry
from pyg_nsa.nn.node_layout import NodeLayout

UU, UV = ("u", "near", "u"), ("u", "in", "v")
SIZES = {"u": 6, "v": 4}
KINDS = {
    "adjacency_mask": ("edge_index", "adj_mask"),
    "incidence_mask": ("hyperedge_index", "edge_index", "inc_mask"),
    "stoichiometry_bias": ("hyperedge_index", "edge_index", "stoichiometry"),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def term(kind, edge_type=UV, heads=2, **options):
    declared = default_registry().edge_kind(kind)
    return declared.build(
        BuildContext(edge_type=edge_type, heads=heads), declared.options(**options)
    )


def inputs(edge_type=UV, **fields):
    ends = [NodeLayout(t, (SIZES[t],), torch.device("cpu")) for t in (edge_type[0], edge_type[2])]
    return RelationInputs(edge_type, *ends, fields)


def pairs(edges):
    return sorted(map(tuple, edges.edge_index().t().tolist()))


def dense(index, edge_type=UV):
    mask = torch.zeros(SIZES[edge_type[0]], SIZES[edge_type[2]], dtype=torch.bool)
    mask[index[0], index[1]] = True
    return mask


def test_they_come_through_entry_points():
    registry = default_registry()
    assert set(KINDS) <= set(registry.names())
    for name, fields in KINDS.items():
        kind = registry.edge_kind(name)
        assert registry.provider(name).startswith("pyg-nsa ")
        assert kind.fields(kind.options()) == fields
        assert kind.api == (1, 0)
        assert kind.produces >= {"mask"}
        described = kind.options.model_json_schema()["properties"]
        assert all(field.get("description") for field in described.values())
    assert "bias" in registry.edge_kind("stoichiometry_bias").produces


def test_declaring_them_imports_no_torch():
    code = "import sys, pyg_nsa; r = pyg_nsa.default_registry(); print(len(r.load_all()), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, has_torch = out.stdout.split()
    assert int(count) >= 3
    assert has_torch == "False"


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_gives_the_same_pairs(kind):
    index = torch.tensor([[0, 5, 0, 2, 2], [3, 0, 1, 1, 1]])
    expected = [(0, 1), (0, 3), (2, 1), (5, 0)]
    for field in KINDS[kind]:
        if field != "stoichiometry":
            value = dense(index) if field.endswith("mask") else index
            assert pairs(term(kind).pairs(inputs(**{field: value}))) == expected


def test_sources():
    edges, mask = torch.tensor([[0, 1], [1, 1]]), dense(torch.tensor([[4], [2]]))
    both = inputs(edge_index=edges, hyperedge_index=edges, adj_mask=mask, inc_mask=mask)
    for kind, name in (("adjacency_mask", "adj_mask"), ("incidence_mask", "inc_mask")):
        assert pairs(term(kind).pairs(both)) == [(0, 1), (1, 1)]  # sparse first
        dense_term = term(kind, source=name)
        assert pairs(dense_term.pairs(both)) == [(4, 2)]
        assert repr(dense_term) == f"PairTerm({name})"
        with pytest.raises(
            ValueError, match=f"has no '{name}'; pass {name}_dict=.*present: edge_index"
        ):
            dense_term.pairs(inputs(edge_index=edges))
        with pytest.raises(ValueError, match=r"has no '\w+' \(nor .*Fields present: none"):
            term(kind).pairs(inputs())
        with pytest.raises(ValueError, match="source"):
            term(kind, source="elsewhere")
    only = default_registry().edge_kind("adjacency_mask")
    options = only.options(source="adj_mask")
    assert only.fields(options) == ("adj_mask",)


@pytest.mark.parametrize("kind", KINDS)
def test_symmetrize_and_self_loops(kind):
    index = torch.tensor([[0, 5, 2, 2], [3, 0, 1, 2]])
    field = KINDS[kind][0]
    for value in [index] if kind == "stoichiometry_bias" else [index, dense(index, UU)]:
        name = field if value is index else KINDS[kind][-1]
        both = term(kind, UU, symmetrize=True).pairs(inputs(UU, **{name: value}))
        assert pairs(both) == [(0, 3), (0, 5), (1, 2), (2, 1), (2, 2), (3, 0), (5, 0)]
        loops = term(kind, UU, self_loops=True).pairs(inputs(UU, **{name: value}))
        assert pairs(loops) == sorted(
            {*map(tuple, index.t().tolist()), *((i, i) for i in range(6))}
        )
        for option in ("symmetrize", "self_loops"):
            bipartite = term(kind, UV, **{option: True})
            target = value % 4 if value is index else value[:, :4]
            with pytest.raises(
                ValueError, match=rf"'{option}' of edge type .* one node type; declare the"
            ):
                bipartite.pairs(inputs(UV, **{name: target}))
    for option in ("symmetrize", "self_loops"):
        with pytest.raises(
            ValueError, match=rf"'{option}' needs an edge type within one node type"
        ):
            EdgeSpec(edge_type=UV, kind=kind, options={option: True})


def test_coefficients_of_one_pair_are_summed_and_signed():
    index = torch.tensor([[2, 0, 2, 5], [1, 1, 1, 0]])  # 2 -> 1 on both sides of a reaction
    values = torch.tensor([-3.0, 2.0, 1.0, -1.0], requires_grad=True)
    module = term("stoichiometry_bias", heads=3)
    given = inputs(hyperedge_index=index, stoichiometry=values)
    edges, bias = module(given)
    assert edges.edge_index().t().tolist() == [[5, 0], [0, 1], [2, 1]]
    weight = module.lin.weight  # [heads, 1]
    torch.testing.assert_close(bias, torch.tensor([[-1.0], [2.0], [-2.0]]) @ weight.t())
    _, opposite = module(inputs(hyperedge_index=index, stoichiometry=-values))
    torch.testing.assert_close(opposite, -bias)
    (bias * torch.arange(9.0).view(3, 3)).sum().backward()
    slope = torch.arange(9.0).view(3, 3) @ weight
    torch.testing.assert_close(values.grad, slope[[2, 1, 2, 0], 0])
    expected = torch.tensor([[-1.0, 2.0, -2.0]]) @ torch.arange(9.0).view(3, 3)
    torch.testing.assert_close(weight.grad, expected.t())


def test_whole_numbers_columns_and_reversed_pairs():
    index = torch.tensor([[0, 1], [1, 2]])
    module = term("stoichiometry_bias", UU, symmetrize=True, self_loops=True)
    values = torch.tensor([[2, -1], [3, 5]])
    edges, bias = module(inputs(UU, edge_index=index, stoichiometry=values))
    found = dict(zip(map(tuple, edges.edge_index().t().tolist()), bias, strict=True))
    for pair, row in {(0, 1): 0, (1, 0): 0, (1, 2): 1, (2, 1): 1}.items():
        torch.testing.assert_close(found[pair], values[row].float() @ module.lin.weight.t())
    assert found[4, 4].abs().max() == 0  # the diagonal carries zero
    half = term("stoichiometry_bias").to(torch.bfloat16)
    _, bias = half(inputs(edge_index=index, stoichiometry=values.double()))
    assert bias.dtype == torch.bfloat16


def test_edge_attr_names_another_field():
    spec = {"kind": "stoichiometry_bias", "options": {"edge_attr": "flux"}}
    kind = default_registry().edge_kind("stoichiometry_bias")
    options = kind.options(edge_attr="flux")
    assert kind.fields(options) == ("hyperedge_index", "edge_index", "flux")
    assert kind.missing(options, {"edge_index", "stoichiometry"}) == [("flux",)]
    conv = HeteroNSAConv({UU: spec}, hidden_channels=8)
    x, index = {"u": torch.randn(6, 3)}, torch.randint(6, (2, 20))
    flux = torch.randn(20, 2)
    out = conv(x, {UU: index}, flux_dict={UU: flux}, stoichiometry_dict={UU: torch.randn(20)})
    out["u"].square().sum().backward()
    assert conv.convs[UU].term.lin.weight.shape == (4, 2)
    assert conv.convs[UU].term.lin.weight.grad.abs().min() > 0
    assert not torch.equal(conv(x, {UU: index}, flux_dict={UU: -flux})["u"], out["u"])
    with pytest.raises(ValueError, match=r"has no 'flux'; pass flux_dict="):
        conv(x, {UU: index}, stoichiometry_dict={UU: torch.randn(20)})


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_checked(kind):
    for options, text in (
        ({"edge_dropout": 1.0}, "less than 1"),
        ({"edge_dropout": -0.1}, "greater than or equal to 0"),
        ({"symetrize": True}, "symetrize"),
    ):
        with pytest.raises(ValueError, match=text):
            EdgeSpec(edge_type=UU, kind=kind, options=options)

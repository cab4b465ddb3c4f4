"""``build_operator``: from a configuration to the module that it names."""

import pytest
import torch
from fake_kinds import fake_registry
from torch import nn

from pyg_nsa import HeteroNSAConfig, Operator, OperatorContext, Options, Registry, build_operator
from pyg_nsa.errors import ConfigError, UnknownOperatorError

GG, GR = ("gene", "interacts", "gene"), ("gene", "gpr", "reaction")
METADATA = (["gene", "reaction"], [GG, GR])


class WideOptions(Options):
    width: int = 3
    "How wide."


class Seen(nn.Module):
    def __init__(self, context, options):
        super().__init__()
        self.context, self.options = context, options


@pytest.fixture
def registry():
    registry = fake_registry()
    registry.register(Operator(name="wide", options=WideOptions, build=Seen, summary="Sees."))
    return registry


def raw(**changes):
    edges = [{"edge_type": GG, "kind": "pairs"}, {"edge_type": GR, "kind": "pairs"}]
    return {"operator": "wide", "hidden_channels": 8, "heads": 2, "edges": edges, **changes}


def test_the_context(registry):
    built = build_operator(raw(), METADATA, {"gene": 5}, registry)
    context = built.context
    assert isinstance(context, OperatorContext)
    assert context.node_types == ("gene", "reaction") and context.edge_types == (GG, GR)
    assert context.in_channels == {"gene": 5, "reaction": -1}
    assert context.config.in_channels == {"gene": 5}
    assert context.out_channels == 8 and built.options == WideOptions()
    assert context.registry.edge_kind("pairs").name == "pairs"
    assert context.out_types == ("gene", "reaction")


def test_sizes_and_types(registry):
    def context(metadata=METADATA, channels=None, **changes):
        return build_operator(raw(**changes), metadata, channels, registry).context

    assert context(in_channels=7).in_channels == {"gene": 7, "reaction": 7}
    assert context(in_channels={"reaction": 2}).in_channels == {"gene": -1, "reaction": 2}
    assert context(in_channels=7, channels=-1).in_channels == {"gene": -1, "reaction": -1}
    assert context(out_channels=3).out_channels == 3
    only = {"edges": [{"edge_type": GR, "kind": "pairs"}], "unmatched": "skip"}
    assert context(**only, pattern=None).out_types == ("reaction",)
    assert context(**only).out_types == ("gene", "reaction")
    more = (["gene", "reaction", "phenotype"], [GG, GR])
    assert context(more).node_types[-1] == "phenotype"
    assert set(context(more).in_channels) == {"gene", "reaction"}
    assert context([["gene", "reaction"], [list(GG), list(GR)]]).edge_types == (GG, GR)


def test_options_are_the_operators_own(registry):
    assert (
        build_operator(
            raw(operator_options={"width": 9}), METADATA, registry=registry
        ).options.width
        == 9
    )
    for options, text in (
        ({"widht": 9}, r"operator_options.widht: (unknown key|.*[Ee]xtra)"),
        ({"width": "x"}, "operator_options.width: .*integer"),
    ):
        with pytest.raises(ConfigError, match=text):
            build_operator(raw(operator_options=options), METADATA, registry=registry)
    with pytest.raises(ConfigError, match="operator 'wide' takes WideOptions, got Options"):
        build_operator(raw(operator_options=Options()), METADATA, registry=registry)
    config = HeteroNSAConfig.model_validate(
        raw(operator_options={"width": 4}), context={"registry": registry}
    )
    again = HeteroNSAConfig.model_validate_json(
        config.model_dump_json(), context={"registry": registry}
    )
    assert again == config and again.operator_options == WideOptions(width=4)


def test_unknown_operators(registry):
    with pytest.raises(ConfigError, match="unknown operator 'wied'") as caught:
        build_operator(raw(operator="wied"), METADATA, registry=registry)
    (problem,) = caught.value.problems
    assert problem.suggestion == "wide" and "pairs" not in problem.allowed
    for name, near in (
        ("hetero_nas", "hetero_nsa"),
        ("hetero-conv", "hetero_conv"),
        ("hgd", "hgt"),
    ):
        edges = [{"edge_type": GG, "kind": "adjacency_mask"}]
        with pytest.raises(ConfigError, match=f"unknown operator '{name}'") as caught:
            build_operator({"operator": name, "edges": edges}, METADATA)
        assert caught.value.problems[0].suggestion == near


def test_the_default_is_looked_up_when_it_is_used(registry):
    with pytest.raises(UnknownOperatorError, match="unknown operator 'hetero_nsa'"):
        build_operator(raw(operator="hetero_nsa"), METADATA, registry=registry)
    with pytest.raises(ConfigError, match="operator_options"):
        build_operator(
            raw(operator="hetero_nsa", operator_options={"a": 1}), METADATA, registry=registry
        )
    # Validated without the operator, built with it.
    config = HeteroNSAConfig.model_validate(
        raw(operator="hetero_nsa"), context={"registry": registry}
    )
    registry.register(Operator(name="hetero_nsa", options=WideOptions, build=Seen, summary="Sees."))
    assert build_operator(config, METADATA, registry=registry).options == WideOptions()
    # An edge kind is no operator.
    with pytest.raises(ConfigError, match="'pairs' is an edge kind, not an operator"):
        build_operator(raw(operator="pairs"), METADATA, registry=registry)


def test_the_configuration_has_to_fit_the_graph(registry):
    with pytest.raises(ConfigError, match="the graph has no edge type"):
        build_operator(raw(), (["gene"], [GG]), registry=registry)
    for metadata in ([["gene"]], ("a", "b", "c")):
        with pytest.raises(TypeError, match=r"metadata must be a HeteroData or \(node_types"):
            build_operator(raw(), metadata, registry=registry)
    with pytest.raises(TypeError, match="expects a torch_geometric HeteroData"):
        build_operator(raw(), 3, registry=registry)


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        ({"gnee": 3}, "channels names node type 'gnee', .* did you mean 'gene'"),
        (-2, "whole number from -1 on, .* got -2$"),
        ({"gene": 1.5}, "got 1.5 for node type 'gene'"),
        (True, "got True"),
        ("gene", "got 'gene'"),
    ],
)
def test_channels(registry, channels, text):
    with pytest.raises(ValueError, match=text):
        build_operator(raw(), METADATA, channels, registry)


def test_a_build_that_returns_no_module(registry):
    registry.register(Operator(name="none", build=lambda c, o: None, summary="Builds nothing."))
    with pytest.raises(
        TypeError, match="operator 'none' of .* built a NoneType; build.* must return"
    ):
        build_operator(raw(operator="none"), METADATA, registry=registry)


def test_switched_off_plugins():
    edges = [{"edge_type": GG, "kind": "adjacency_mask"}]
    with pytest.raises(ConfigError, match="disabled"):
        build_operator(
            {"operator": "hgt", "plugins": {"disable": ["hgt"]}, "edges": edges}, (["gene"], [GG])
        )
    allowed = Registry(disable=["hetero_conv"])
    assert build_operator({"operator": "hgt", "edges": edges}, (["gene"], [GG]), registry=allowed)
    with pytest.raises(ConfigError, match="disabled"):
        build_operator(
            {"operator": "hetero_conv", "edges": edges}, (["gene"], [GG]), registry=allowed
        )


def test_from_a_file(tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text(
        "operator: hetero_conv\noperator_options: {conv: SAGEconv}\nhidden_channels: 8\n"
        "edges:\n  - {edge_type: [gene, interacts, gene], kind: adjacency_mask}\n"
    )
    with pytest.raises(ConfigError, match="did you mean 'SAGEConv'") as caught:
        build_operator(file, (["gene"], [GG]))
    assert caught.value.problems[0].line == 2
    file.write_text(file.read_text().replace("SAGEconv", "SAGEConv"))
    built = build_operator(str(file), (["gene"], [GG]))
    x = {"gene": torch.randn(4, 3)}
    assert built(x, {GG: torch.tensor([[0, 1], [1, 2]])})["gene"].shape == (4, 8)

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import sys
import warnings

import fake_kinds
import pydantic
import pytest
from fake_distributions import kind_module
from fake_kinds import WeightOptions, fake_registry
from ruamel.yaml import YAML

from pyg_nsa import sources
from pyg_nsa.api import EdgeKind, Options, PairOptions
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig, PluginsConfig, SABConfig
from pyg_nsa.errors import ConfigError, PluginWarning
from pyg_nsa.load import load_config
from pyg_nsa.registry import DisabledPluginError, Registry, use_registry

GG = ("gene", "interacts", "gene")
GR = ("gene", "gpr", "reaction")


@pytest.fixture(autouse=True)
def registry():
    with use_registry(fake_registry()) as registry:
        yield registry


def make(**changes) -> HeteroNSAConfig:
    raw = {
        "edges": [
            {"edge_type": GG, "kind": "pairs", "options": {"symmetrize": True}},
            {"edge_type": GR, "kind": "weighted", "options": {"edge_attr": "cost", "clip": 1e-6}},
        ],
        **changes,
    }
    return HeteroNSAConfig.model_validate(raw)


def problems(**changes) -> dict[str, str]:
    with pytest.raises(pydantic.ValidationError) as caught:
        make(**changes)
    return {".".join(map(str, entry["loc"])): entry["msg"] for entry in caught.value.errors()}


class RetiredOptions(Options):
    k: int = 1
    "How many."

    old: int = pydantic.Field(default=1, deprecated="use k")
    "How many, formerly."

    older: int = pydantic.Field(default=1, deprecated=True)
    "Of no use."


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 2}, []),
        ({"old": 1}, ["option 'old' of edge kind 'retired' is deprecated: use k"]),
        ({"older": 1}, ["option 'older' of edge kind 'retired' is deprecated"]),
    ],
)
def test_a_deprecated_option_is_warned_of_where_it_is_given(registry, options, said):
    registry.register(
        EdgeKind(name="retired", options=RetiredOptions, build=fake_kinds.build, summary="Old.")
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        EdgeSpec(edge_type=GG, kind="retired", options=options)
    assert [str(w.message) for w in caught] == said
    assert all(w.category is FutureWarning for w in caught)


# --- models ---------------------------------------------------------------------------------------


def test_defaults():
    config = make()
    assert config.operator == "hetero_nsa"
    assert (config.in_channels, config.hidden_channels, config.out_channels) == (-1, 64, None)
    assert (config.heads, config.pattern, config.aggr) == (4, "MS", "sum")
    assert (config.dropout, config.mlp_ratio) == (0.0, 2.0)
    assert config.sab == SABConfig(node_types=None, induced_points=None)
    assert config.num_nodes == {}
    assert (config.numbering, config.unmatched, config.version) == ("auto", "error", 1)
    assert config.plugins == PluginsConfig()


def test_options_are_the_plugins_own_model(registry):
    first, second = make().edges
    assert first.edge_type == GG
    assert first.options == PairOptions(symmetrize=True)
    assert second.options == WeightOptions(edge_attr="cost", clip=1e-6)
    assert second.resolved(registry) is registry.edge_kind("weighted")
    assert second.resolved() is registry.edge_kind("weighted")


@pytest.mark.parametrize("options", [{}, {"options": None}, {"options": {}}])
def test_options_may_be_left_out(options):
    spec = EdgeSpec.model_validate({"edge_type": list(GG), "kind": "pairs", **options})
    assert spec.options == PairOptions()


def test_every_field_is_described():
    for model in (HeteroNSAConfig, EdgeSpec, SABConfig, PluginsConfig):
        missing = [name for name, field in model.model_fields.items() if not field.description]
        assert missing == [], model


def test_models_are_frozen():
    config = make()
    for model, name in ((config, "heads"), (config.edges[0], "kind"), (config.sab, "node_types")):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(model, name, None)


def test_defaults_are_not_shared():
    make().plugins.disable.append("pairs")
    make().num_nodes["gene"] = 3
    assert make().plugins.disable == []
    assert make().num_nodes == {}


def test_an_alias_becomes_the_name():
    assert EdgeSpec(edge_type=GG, kind="pair_mask").kind == "pairs"


def test_the_registry_of_the_validation_context_goes_first():
    raw = {"edge_type": GG, "kind": "pairs"}
    with pytest.raises(pydantic.ValidationError, match="This registry is empty"):
        EdgeSpec.model_validate(raw, context={"registry": Registry(discover=False)})
    with use_registry(Registry(discover=False)):
        spec = EdgeSpec.model_validate(raw, context={"registry": fake_registry()})
    assert spec.kind == "pairs"


def test_an_unknown_kind():
    with pytest.raises(pydantic.ValidationError) as caught:
        EdgeSpec(edge_type=GG, kind="weighed")
    (entry,) = caught.value.errors()
    assert entry["type"] == "unknown_edge_kind"
    assert entry["loc"] == ("kind",)
    assert "unknown edge kind 'weighed', did you mean 'weighted'?" in entry["msg"]
    assert entry["ctx"]["suggestion"] == "weighted"


def test_options_of_another_kind():
    with pytest.raises(pydantic.ValidationError) as caught:
        EdgeSpec(edge_type=GG, kind="weighted", options=PairOptions())
    (entry,) = caught.value.errors()
    assert entry["loc"] == ("options",)
    assert entry["msg"] == (
        "edge kind 'weighted' takes WeightOptions, got PairOptions; pass its own options, or a mapping"
    )
    spec = EdgeSpec(edge_type=GG, kind="weighted", options=WeightOptions(clip=2.0))
    assert spec.options.clip == 2.0


def test_a_plugin_whose_options_model_raises():
    found = problems(
        edges=[{"edge_type": GG, "kind": "touchy", "options": {"key": "b"}}],
    )
    assert found == {
        "edges.0.options": "the options of edge kind 'touchy' cannot be checked: its plugin, fake_kinds "
        "(registered by hand), raised KeyError: 'b'"
    }


# --- edge types -----------------------------------------------------------------------------------


@pytest.mark.parametrize("edge_type", [["a", "r", "b"], ("a.x", "r", "b-c"), ["a", "_r", "b c"]])
def test_good_edge_types(edge_type):
    assert EdgeSpec(edge_type=edge_type, kind="pairs").edge_type == tuple(edge_type)


@pytest.mark.parametrize(
    ("edge_type", "text"),
    [
        (["a", "r__x", "b"], r"type name 'r__x' must not contain '__': PyG joins the names"),
        (["a#1", "r", "b"], r"type name 'a#1' must not contain '#'"),
        (["a_", "r", "b"], r"type name 'a_' must not end in '_'"),
        (["a", "", "b"], r"must not be empty"),
        (["a", "b"], r"list of three names, source node type, relation, target node type"),
        ("a__r__b", r"such as \[gene, interacts, gene\]; got 'a__r__b'"),
        ([["a"], "r", "b"], r"valid string"),
        (["a", True, "b"], r"valid string"),
        (None, r"got None"),
    ],
)
def test_bad_edge_types(edge_type, text):
    with pytest.raises(pydantic.ValidationError, match=text):
        EdgeSpec(edge_type=edge_type, kind="pairs")


def test_refused_names_are_those_that_pyg_mangles():
    module_dict = pytest.importorskip("torch_geometric.nn.module_dict")
    torch = pytest.importorskip("torch")
    for bad in (("a#1", "r", "b"), ("a_", "r", "b"), ("a", "r_", "b")):
        assert bad not in list(module_dict.ModuleDict({bad: torch.nn.Identity()}).keys())
    for good in (("a.x", "r", "b-c"), ("a", "_r", "b")):
        assert good in list(module_dict.ModuleDict({good: torch.nn.Identity()}).keys())


# --- the whole ------------------------------------------------------------------------------------


def test_heads_that_do_not_divide():
    assert problems(heads=5) == {
        "heads": "heads=5 does not divide hidden_channels=64; the nearest numbers that do: 4, 8"
    }
    assert "numbers that do: 1, 7" in problems(heads=3, hidden_channels=7)["heads"]
    assert "numbers that do: 7" in problems(heads=9, hidden_channels=7)["heads"]
    # The default has to divide, too, or what `fill` writes would be refused.
    assert "heads=4 does not divide hidden_channels=6" in problems(hidden_channels=6)["heads"]


@pytest.mark.parametrize("pattern", ["M", "MSMS", None])
def test_good_patterns(pattern):
    assert make(pattern=pattern).pattern == pattern


def test_a_bare_step_has_nothing_that_belongs_to_blocks():
    stack = {"sab": {"node_types": ["gene"], "induced_points": 4}, "num_nodes": {"gene": 3}}
    found = problems(pattern=None, **stack)
    assert sorted(found) == ["num_nodes", "sab.induced_points", "sab.node_types"]
    assert found["num_nodes"] == (
        "num_nodes belongs to a stack of blocks, but the pattern is null (one bare step); set pattern: MS (or another), or "
        "leave num_nodes out"
    )
    assert make(pattern="M", **stack).num_nodes == {"gene": 3}
    assert make(**stack).pattern == "MS"
    assert make(pattern=None, sab={"node_types": None}, num_nodes={}).pattern is None
    # Where the pattern itself is wrong, that alone is said; other operators leave unread what is about blocks.
    assert set(problems(pattern="X", **stack)) == {"pattern"}
    assert make(operator="other_conv", pattern=None, **stack).num_nodes == {"gene": 3}


@pytest.mark.parametrize("pattern", ["", "MX", "ms", "M S", "MS\n"])
def test_bad_patterns(pattern):
    assert problems(pattern=pattern)["pattern"].endswith(f"or is null; got {pattern!r}")


def test_a_misspelt_node_type_of_in_channels_is_told():
    with pytest.raises(ConfigError) as caught:
        load_config(
            {
                "in_channels": {"gene": 4, "raection": 2},
                "edges": [{"edge_type": GR, "kind": "pairs"}],
            }
        )
    (problem,) = caught.value.problems
    assert problem.path == "in_channels.raection"
    assert problem.code == "unknown_node_type"
    assert problem.suggestion == "reaction"


@pytest.mark.parametrize("columns", [-1, 0, 3, {"gene": 4, "reaction": -1}])
def test_good_in_channels(columns):
    assert make(in_channels=columns).in_channels == columns


@pytest.mark.parametrize("columns", [-2, "3x", 1.5, True, None, {"gene": -2}, {"gene": "x"}, [3]])
def test_bad_in_channels_are_one_problem(columns):
    path = "in_channels.gene" if isinstance(columns, dict) else "in_channels"
    found = problems(in_channels=columns)
    assert list(found) == [path]
    assert "expected a whole number from -1 on, or one for each node type, got" in found[path]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"version": 2}, "version"),
        ({"hidden_channels": 0}, "hidden_channels"),
        ({"heads": 0}, "heads"),
        ({"out_channels": 0}, "out_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"mlp_ratio": -0.5}, "mlp_ratio"),
        ({"aggr": "median"}, "aggr"),
        ({"numbering": "dense"}, "numbering"),
        ({"unmatched": "warn"}, "unmatched"),
        ({"sab": {"induced_points": 0}}, "sab.induced_points"),
        ({"num_nodes": {"gene": 0}}, "num_nodes.gene"),
        ({"edges": []}, "edges"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bounds(changes, path):
    assert list(problems(**changes)) == [path]


def test_operators():
    assert make(operator="other_conv").operator == "other_conv"
    text = problems(operator="other_con")["operator"]
    assert text.startswith("unknown operator 'other_con', did you mean 'other_conv'? Available:")
    assert "pairs" not in text


def test_an_edge_type_stands_once():
    edges = [{"edge_type": GG, "kind": "pairs"}] * 3
    found = problems(edges=edges)
    assert list(found) == ["edges.1.edge_type", "edges.2.edge_type"]
    assert found["edges.1.edge_type"] == (
        "edge type (gene, interacts, gene) is there already, in edges[0]; one entry per edge type: merge "
        "them, or give the relations different names"
    )


def test_symmetrize_needs_one_node_type():
    found = problems(
        edges=[
            {
                "edge_type": GR,
                "kind": "pairs",
                "options": {"symmetrize": True, "self_loops": True},
            }
        ]
    )
    assert found["edges.0.options.symmetrize"] == (
        "'symmetrize' needs an edge type within one node type, but (gene, gpr, reaction) goes from "
        "'gene' to 'reaction'; remove the option"
    )
    assert "'self_loops' needs" in found["edges.0.options.self_loops"]


def test_node_types_have_to_occur():
    found = problems(sab={"node_types": ["gene", "reactoin"]}, num_nodes={"gene": 3, "genes": 3})
    assert found == {
        "sab.node_types.1": "no edge type in edges has the node type 'reactoin'",
        "num_nodes.genes": "no edge type in edges has the node type 'genes'",
    }


def test_all_problems_at_once():
    found = problems(
        heads=5,
        sab={"node_types": ["genes"]},
        colour="red",
        edges=[
            {"edge_type": GG, "kind": "weighted", "options": {"clop": 1, "clip": -1}},
            {"edge_type": GG, "kind": "pears"},
            {"edge_type": GR, "kind": "pairs", "options": {"self_loops": True}},
        ],
    )
    assert set(found) == {
        "heads",
        "colour",
        "sab.node_types.0",
        "edges.0.options.clop",
        "edges.0.options.clip",
        "edges.1.kind",
        "edges.1.edge_type",
        "edges.2.options.self_loops",
    }


# --- plugins --------------------------------------------------------------------------------------


def test_disable_acts_before_the_import(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    raw = {"edges": [{"edge_type": GG, "kind": "fake_one"}]}
    registry = Registry(allow=["fake-kinds"])
    with pytest.raises(pydantic.ValidationError) as caught:
        HeteroNSAConfig.model_validate(
            {**raw, "plugins": {"disable": ["fake_one"]}}, context={"registry": registry}
        )
    (entry,) = caught.value.errors()
    assert entry["loc"] == ("edges", 0, "kind")
    assert entry["msg"] == (
        "plugin 'fake_one' of fake-kinds 1.0 is disabled: switched off by plugins.disable, which lists "
        "'fake_one'."
    )
    assert "fake_mod" not in sys.modules
    with pytest.raises(
        pydantic.ValidationError, match=r"disabled: switched off by plugins\.disable"
    ):
        HeteroNSAConfig.model_validate_json(
            json.dumps({**raw, "plugins": {"disable": ["fake-kinds"]}}),
            context={"registry": registry},
        )
    assert "fake_mod" not in sys.modules
    HeteroNSAConfig.model_validate(raw, context={"registry": registry})
    assert "fake_mod" in sys.modules


@pytest.mark.parametrize(
    ("listed", "path"),
    [([2], "plugins.disable[0]"), (["needy", ["fake_one"]], "plugins.disable[1]")],
)
def test_what_is_no_name_in_disable_is_a_problem_like_others(listed, path):
    raw = {"edges": [{"edge_type": GG, "kind": "adjacency_mask"}], "plugins": {"disable": listed}}
    with pytest.raises(ConfigError) as caught:
        load_config(raw, registry=Registry())
    assert [problem.path for problem in caught.value.problems] == [path]


def test_disable_settles_a_conflict_for_one_configuration(install):
    install("dup-one", {"fake_one": "dup_one_mod"}, {"dup_one_mod": kind_module("fake_one")})
    install("dup-two", {"fake_one": "dup_two_mod"}, {"dup_two_mod": kind_module("fake_one")})
    base = Registry(allow=["dup-one", "dup-two"])
    config = load_config(
        {"edges": [{"edge_type": GG, "kind": "fake_one"}], "plugins": {"disable": ["dup-two"]}},
        registry=base,
    )
    assert config.edges[0].resolved(config.registry(base)).name == "fake_one"
    config.bind((["gene"], [GG]), registry=base)


def test_a_misspelt_disable_is_noted(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    raw = {"edges": [{"edge_type": GG, "kind": "fake_one"}], "plugins": {"disable": ["fake_on"]}}
    with pytest.warns(PluginWarning) as warned:
        load_config(raw, registry=Registry(allow=["fake-kinds"]))
    (warning,) = {str(one.message) for one in warned}
    assert warning == (
        "plugins.disable lists 'fake_on', and nothing that is installed has that name; did you mean 'fake_one'?"
    )
    # What is not installed, or is, may be switched off without a word.
    raw["edges"][0]["kind"] = "adjacency_mask"
    for quiet in (["another"], ["Fake_Kinds"], ["fake_one@fake_kinds"], []):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_config({**raw, "plugins": {"disable": quiet}}, registry=Registry())


def test_a_required_distribution_with_a_typo():
    found = problems(plugins={"require": ["pyg-nsaa>=0.1"]})
    assert found["plugins.require.0"] == (
        "'pyg-nsaa>=0.1' is required, but pyg-nsaa is not installed; did you mean 'pyg-nsa', which is installed? Otherwise: "
        'pip install "pyg-nsaa>=0.1"'
    )


def test_disable_leaves_the_registry_as_it_was(registry):
    config = make(plugins={"disable": ["needy"]})
    assert registry.edge_kind("needy")
    with pytest.raises(DisabledPluginError):
        config.registry().edge_kind("needy")


def test_require(install):
    install("fake-kinds", {}, {}, version="2.1.0")
    make(plugins={"require": ["fake-kinds", "Fake_Kinds>=2,<3", "x; python_version < '3'"]})
    found = problems(plugins={"require": ["fake-kinds>=3", "no-such-dist>=1", "a b"]})
    assert found == {
        "plugins.require.0": "'fake-kinds>=3' is required, but fake-kinds 2.1.0 is installed; "
        'pip install "fake-kinds>=3"',
        "plugins.require.1": "'no-such-dist>=1' is required, but no-such-dist is not installed; "
        'pip install "no-such-dist>=1"',
        "plugins.require.2": "'a b' is no requirement that pip would take; write a distribution and perhaps versions, such as "
        "pyg-nsa-stoich>=0.3",
    }


# --- round trips ----------------------------------------------------------------------------------


def full() -> HeteroNSAConfig:
    return make(
        operator="other_conv",  # hetero_nsa would refuse a bare step with what belongs to blocks
        in_channels={"gene": 0, "reaction": 3},
        pattern=None,
        aggr=None,
        sab={"node_types": ["gene"], "induced_points": 4},
        num_nodes={"gene": 6607},
        plugins={"disable": ["needy"]},
    )


def test_json_round_trip():
    config = full()
    text = config.model_dump_json()
    assert json.loads(text)["edges"][0]["edge_type"] == list(GG)
    assert json.loads(text)["edges"][1]["options"]["clip"] == 1e-6
    assert HeteroNSAConfig.model_validate_json(text) == config
    assert HeteroNSAConfig.model_validate(config.model_dump()) == config
    assert HeteroNSAConfig.model_validate(config) == config


def test_yaml_round_trip(tmp_path):
    config = full()
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(config.model_dump(mode="json"), stream)
    path = tmp_path / "nsa.yaml"
    path.write_text(stream.getvalue())
    assert load_config(path) == config


@pytest.mark.parametrize("way", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy, copy.copy])
def test_copies(way):
    config = full()
    assert way(config) == config
    assert type(way(config).edges[1].options) is WeightOptions


def test_a_short_dump_keeps_what_was_set():
    dump = make().model_dump(mode="json", exclude_unset=True)
    assert dump == {
        "edges": [
            {"edge_type": list(GG), "kind": "pairs", "options": {"symmetrize": True}},
            {
                "edge_type": list(GR),
                "kind": "weighted",
                "options": {"edge_attr": "cost", "clip": 1e-6},
            },
        ]
    }


def test_json_schema_can_be_made():
    assert "edges" in HeteroNSAConfig.model_json_schema()["properties"]


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full().model_dump_json()


# --- bind -----------------------------------------------------------------------------------------


class Graph(dict):
    """Looks like a HeteroData to `bind`."""

    def metadata(self):
        return ["gene", "reaction"], list(self)


def bind_problems(config, data):
    with pytest.raises(ConfigError) as caught:
        config.bind(data)
    return caught.value.problems


def test_a_graph_that_fits():
    config = make()
    config.bind(Graph({GG: {"adj_mask": 0}, GR: {"edge_index": 0, "cost": 0}}))
    config.bind((["gene", "reaction"], [GG, GR]))


def test_everything_that_does_not_fit():
    near = ("gene", "gpr", "reactions")
    found = bind_problems(make(), Graph({GG: {"edge_indx": 0, "x": 0}, near: {}}))
    assert [problem.render() for problem in found] == [
        "edges[0]: edge kind 'pairs' needs 'edge_index' or 'adj_mask', but edge type (gene, interacts, "
        "gene) of the graph has 'edge_indx', 'x'\n"
        "    did you mean 'edge_indx'?\n"
        "    checked by: edge kind 'pairs' of fake_kinds (registered by hand)",
        "edges[1].edge_type: the graph has no edge type (gene, gpr, reaction)\n"
        "    did you mean '(gene, gpr, reactions)'?\n"
        "    allowed: (gene, interacts, gene), (gene, gpr, reactions)",
        "edges: the graph has edge type (gene, gpr, reactions), which no entry mentions; add an entry for "
        "it, or set 'unmatched: skip' to leave such edges out",
    ]
    assert [problem.code for problem in found] == [
        "missing_input",
        "missing_edge_type",
        "unmatched_edge_type",
    ]


def test_a_field_that_an_option_names():
    (found,) = bind_problems(
        make(), Graph({GG: {"edge_index": 0}, GR: {"edge_index": 0, "weight": 0}})
    )
    assert found.path == "edges[1]"
    assert found.message == (
        "edge kind 'weighted' needs 'cost', but edge type (gene, gpr, reaction) of the graph has "
        "'edge_index', 'weight'"
    )


def test_unmatched_edge_types_can_be_skipped():
    make(unmatched="skip").bind((["gene"], [GG, GR, ("gene", "other", "gene")]))


def test_bind_wants_a_graph():
    with pytest.raises(TypeError, match="HeteroData or its metadata"):
        make().bind({"edge_index": 0})


def test_bind_takes_a_hetero_data():
    data_module = pytest.importorskip("torch_geometric.data")
    data = data_module.HeteroData()
    import torch

    data["gene"].x = torch.zeros(3, 1)
    data["reaction"].x = torch.zeros(2, 1)
    data[GG].edge_index = torch.zeros(2, 0, dtype=torch.long)
    data[GR].edge_index = torch.zeros(2, 0, dtype=torch.long)
    data[GR].cost = torch.zeros(0)
    make().bind(data)
    make().bind(data_module.Batch.from_data_list([data, data]))
    del data[GR].cost
    (found,) = bind_problems(make(), data)
    assert "needs 'cost'" in found.message


def test_bind_names_file_and_line(tmp_path):
    path = tmp_path / "nsa.yaml"
    path.write_text("edges:\n  - edge_type: [gene, interacts, gene]\n    kind: pairs\n")
    (found,) = bind_problems(load_config(path), (["gene"], []))
    assert (found.file, found.line, found.column) == (str(path), 2, 5)


def test_sources_are_forgotten_with_their_configuration(tmp_path):
    path = tmp_path / "nsa.yaml"
    path.write_text("edges:\n  - {edge_type: [gene, interacts, gene], kind: pairs}\n")
    gc.collect()
    before = len(sources._sources)
    config = load_config(path)
    assert len(sources._sources) == before + 1
    del config
    gc.collect()
    assert len(sources._sources) == before


def test_options_base_class_is_not_enough():
    with pytest.raises(pydantic.ValidationError, match="takes WeightOptions, got Options"):
        EdgeSpec(edge_type=GG, kind="weighted", options=Options())

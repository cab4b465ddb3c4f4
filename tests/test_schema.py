from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path

import jsonschema
import pytest
from fake_distributions import kind_module
from fake_kinds import NeedyOptions, WeightOptions, build, fake_registry
from pydantic import ConfigDict, Field
from ruamel.yaml import YAML

import pyg_nsa.cell
from pyg_nsa.api import EdgeKind, Operator, Options
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError, PluginWarning
from pyg_nsa.load import load_config
from pyg_nsa.registry import Registry
from pyg_nsa.schema import json_schema, schema_text, undescribed

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(Path(pyg_nsa.cell.__file__).parent.glob("*.yaml"))
DELETE = object()

BASE = {
    "version": 1,
    "plugins": {"require": ["pyg-nsa"], "disable": ["no_such_plugin"]},
    "operator": "hetero_nsa",
    "in_channels": -1,
    "hidden_channels": 64,
    "out_channels": 32,
    "heads": 4,
    "pattern": "MSMS",
    "aggr": "sum",
    "dropout": 0.1,
    "mlp_ratio": 2.0,
    "sab": {"node_types": ["gene"], "induced_points": 4},
    "num_nodes": {"gene": 10},
    "numbering": "auto",
    "unmatched": "error",
    "edges": [
        {
            "edge_type": ["gene", "regulates", "gene"],
            "kind": "adjacency_mask",
            "options": {"symmetrize": True, "edge_dropout": 0.1, "source": "auto"},
        },
        {"edge_type": ["gene", "gpr", "reaction"], "kind": "incidence_mask"},
        {
            "edge_type": ["reaction", "rmr", "metabolite"],
            "kind": "stoichiometry_bias",
            "options": {"edge_attr": "stoichiometry"},
        },
        {
            "edge_type": ["gene", "near", "gene"],
            "kind": "weighted",
            "options": {"clip": 2.0, "sign": "abs", "inner": {"depth": 2}},
        },
        {"edge_type": ["gene", "_far", "gene"], "kind": "needy", "options": {"radius": 1.0}},
    ],
}


@pytest.fixture(scope="module")
def registry():
    """The first-party kinds and two of a third party."""
    registry = Registry(disable=(), allow=["pyg-nsa"])
    for name, options in (("weighted", WeightOptions), ("needy", NeedyOptions)):
        registry.register(EdgeKind(name=name, options=options, build=build, summary="A kind."))
    return registry


@pytest.fixture(scope="module")
def schema(registry):
    return json_schema(registry)


def changed(path, value):
    raw = copy.deepcopy(BASE)
    *before, last = path
    place = raw
    for step in before:
        place = place[step]
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    return raw


def text_of(path):
    """The path as problems write it, put together in another way than they do."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def places_of_schema(raw, schema, validator=jsonschema.Draft202012Validator):
    """Where jsonschema finds mistakes. It reports a missing or an unknown key at the mapping; the key is added here."""
    places = set()
    for error in validator(schema).iter_errors(raw):
        path = list(error.absolute_path)
        if error.validator == "required":
            path.append(re.match("'(.+)' is a required", error.message)[1])
            places.add(text_of(path))
        elif error.validator == "additionalProperties" and error.validator_value is False:
            for key in set(error.instance) - set(error.schema["properties"]):
                places.add(text_of([*path, key]))
        else:
            places.add(text_of(path))
    return places


def places_of_pydantic(raw, registry, model=HeteroNSAConfig):
    try:
        load_config(raw, model, registry=registry)
    except ConfigError as error:
        return {problem.path for problem in error.problems}
    return set()


# --- valid ----------------------------------------------------------------------------------------


def readme_example():
    blocks = re.findall(r"```yaml\n(version:.*?)```", (ROOT / "README.md").read_text(), re.S)
    return YAML(typ="safe", pure=True).load(blocks[0])


VALID = {
    "base": BASE,
    "readme": readme_example(),
    "shortest": {"edges": [{"edge_type": ["a", "r", "b"], "kind": "adjacency_mask"}]},
    "nulls": {
        "out_channels": None,
        "pattern": None,
        "aggr": None,
        "sab": {"node_types": None, "induced_points": None},
        "edges": [{"edge_type": ["a", "r", "b"], "kind": "adjacency_mask", "options": None}],
    },
    "by type": changed(("in_channels",), {"gene": 0, "reaction": 3}),
    "whole numbers with a point": {
        **changed(("in_channels",), 4.0),
        "version": 1.0,
        "heads": 4.0,
        "num_nodes": {"gene": 3.0},
    },
    "whole numbers as numbers": changed(("edges", 3, "options", "clip"), 2),
    "schema key": {"$schema": "./pyg_nsa.schema.json", **BASE},
    "union": changed(("edges", 3, "options", "size"), 1.5),
}


@pytest.mark.parametrize("name", VALID)
def test_examples_are_valid_in_both(name, schema, registry):
    raw = VALID[name]
    assert places_of_pydantic(raw, registry) == set()
    assert places_of_schema(raw, schema) == set()
    assert places_of_schema(raw, schema, jsonschema.Draft7Validator) == set()
    # With all defaults written out, too.
    filled = load_config(raw, registry=registry).model_dump(mode="json")
    assert places_of_schema(filled, schema) == set()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_shipped_training_runs_are_valid_in_both(file):
    registry = Registry(disable=(), allow=["pyg-nsa"])
    raw = YAML(typ="safe", pure=True).load(file.read_text())
    schema = json_schema(registry, model=CellConfig)
    assert places_of_pydantic(raw, registry, CellConfig) == set()
    assert places_of_schema(raw, schema) == set()
    raw["operator"]["edges"][0]["options"] = {"selfloops": True}
    raw["training"]["epochs"] = 0
    places = {"operator.edges[0].options.selfloops", "training.epochs"}
    assert places_of_pydantic(raw, registry, CellConfig) == places
    assert places_of_schema(raw, schema) == places


# --- invalid --------------------------------------------------------------------------------------

E0, E3, E4 = ("edges", 0), ("edges", 3), ("edges", 4)
ADJACENCY, WEIGHTED = (*E0, "options"), (*E3, "options")

MUTATIONS = [
    (("version",), 0),
    (("version",), 2),
    (("version",), "one"),
    (("version",), "1"),
    (("version",), True),
    (("version",), 1.5),
    (("in_channels",), "4"),
    (("in_channels",), True),
    (("in_channels",), {"gene": "4"}, ("in_channels", "gene")),
    (("in_channels",), {"gene": -2}, ("in_channels", "gene")),
    (("hidden_channels",), "64"),
    (("hidden_channels",), True),
    (("out_channels",), "32"),
    (("heads",), "4"),
    (("heads",), True),
    (("dropout",), "0.1"),
    (("dropout",), False),
    (("mlp_ratio",), "2.0"),
    (("num_nodes", "gene"), "10"),
    (("num_nodes", "gene"), True),
    (("sab", "induced_points"), "4"),
    (("plugins",), []),
    (("plugins", "require"), "pyg-nsa"),
    (("plugins", "require", 0), 3),
    (("plugins", "disable"), {"a": 1}),
    (("plugins", "enable"), []),
    (("operator",), "hetero_nsaa"),
    (("operator",), 3),
    (("operator_options",), {"no_such": 1}, ("operator_options", "no_such")),
    (("operator_options",), [1]),
    (("in_channels",), -2),
    (("in_channels",), "all"),
    (("in_channels",), [4]),
    (("in_channels",), 1.5),
    (("hidden_channels",), 0),
    (("hidden_channels",), 6.5),
    (("hidden_channels",), None),
    (("out_channels",), 0),
    (("out_channels",), "same"),
    (("heads",), 0),
    (("heads",), [4]),
    (("pattern",), "MX"),
    (("pattern",), ""),
    (("pattern",), 3),
    (("aggr",), "som"),
    (("aggr",), 1),
    (("dropout",), 1.0),
    (("dropout",), -0.1),
    (("dropout",), None),
    (("mlp_ratio",), -0.5),
    (("mlp_ratio",), "wide"),
    (("sab",), True),
    (("sab", "induced_points"), 0),
    (("sab", "node_types"), "gene"),
    (("sab", "node_types", 0), 1),
    (("sab", "points"), 4),
    (("num_nodes",), 10),
    (("num_nodes", "gene"), 0),
    (("num_nodes", "gene"), "ten"),
    (("numbering",), "dense"),
    (("unmatched",), "warn"),
    (("colour",), "red"),
    (("edges",), DELETE),
    (("edges",), []),
    (("edges",), {"a": 1}),
    (E0, "adjacency_mask"),
    ((*E0, "edge_type"), DELETE),
    ((*E0, "edge_type"), ["gene", "gene"]),
    ((*E0, "edge_type"), "gene__regulates__gene"),
    ((*E0, "edge_type", 1), "a__b"),
    ((*E0, "edge_type", 1), "a#b"),
    ((*E0, "edge_type", 1), "a_"),
    ((*E0, "edge_type", 1), "_"),
    ((*E0, "edge_type", 1), ""),
    ((*E0, "edge_type", 1), 3),
    ((*E0, "kind"), DELETE),
    ((*E0, "kind"), "adjacency_mas"),
    ((*E0, "kind"), "hetero_nsa"),
    ((*E0, "kind"), None),
    ((*E0, "sort"), "x"),
    (ADJACENCY, [1]),
    ((*ADJACENCY, "selfloops"), True),
    ((*ADJACENCY, "self_loops"), "maybe"),
    ((*ADJACENCY, "self_loops"), "true"),
    ((*ADJACENCY, "self_loops"), 1),
    ((*ADJACENCY, "edge_dropout"), "0.1"),
    ((*ADJACENCY, "edge_dropout"), 1),
    ((*ADJACENCY, "source"), "inc_mask"),
    ((*ADJACENCY, "edge_attr"), "an option of another kind"),
    (("edges", 1, "options"), {"source": "adj_mask"}, ("edges", 1, "options", "source")),
    (("edges", 2, "options", "edge_attr"), 3),
    ((*WEIGHTED, "sign"), "spilt"),
    ((*WEIGHTED, "clip"), "big"),
    ((*WEIGHTED, "size"), "big"),
    ((*WEIGHTED, "inner"), 3),
    ((*WEIGHTED, "inner", "dpeth"), 3),
    ((*WEIGHTED, "inner", "depth"), 1.5),
    ((*WEIGHTED, "inner", "depth"), "1"),
    ((*WEIGHTED, "inner", "depth"), True),
    ((*WEIGHTED, "clip"), "2.0"),
    ((*WEIGHTED, "clip"), True),
    ((*WEIGHTED, "size"), "4"),
    ((*WEIGHTED, "size"), True),
    ((*WEIGHTED, "normalize"), "yes"),
    ((*WEIGHTED, "normalize"), 0),
    ((*E4, "options"), DELETE, (*E4, "options", "radius")),
    ((*E4, "options", "radius"), DELETE),
    ((*E4, "options", "radius"), "far"),
]


def test_there_are_enough_mutations():
    assert len({json.dumps(one[:2], default=repr) for one in MUTATIONS}) >= 40


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: f"{text_of(one[0])}={one[1]!r:.20}")
def test_mutated_configurations_fail_in_both(mutation, schema, registry):
    path, value, *elsewhere = mutation
    raw = changed(path, value)
    place = {text_of(elsewhere[0] if elsewhere else path)}
    assert places_of_pydantic(raw, registry) == place
    if path == (*E4, "options"):
        # Left out altogether, the options themselves are what the schema misses.
        place = {"edges[4].options"}
    assert places_of_schema(raw, schema) == place
    assert places_of_schema(raw, schema, jsonschema.Draft7Validator) == place


def test_a_schema_key_has_to_be_text(schema, registry):
    raw = {**BASE, "$schema": 3}
    assert places_of_pydantic(raw, registry) == {"['$schema']"}
    assert places_of_schema(raw, schema) == {"$schema"}
    # It is a key of the whole file only.
    raw = changed(("sab", "$schema"), "x")
    assert places_of_pydantic(raw, registry) == {"sab['$schema']"}
    assert places_of_schema(raw, schema) == {"sab.$schema"}


OUT_OF_REACH = [
    (("heads",), 5, "heads", "heads divides hidden_channels: arithmetic over two fields"),
    ((*E3, "edge_type", 1), "regulates", "edges[3].edge_type", "an edge type stands once"),
    (
        (*E0, "edge_type", 2),
        "protein",
        "edges[0].options.symmetrize",
        "within one node type: two items of a list are compared",
    ),
    (
        ("sab", "node_types", 0),
        "genes",
        "sab.node_types[0]",
        "a node type that occurs in some edge type",
    ),
    (("num_nodes",), {"genes": 3}, "num_nodes.genes", "a node type that occurs in some edge type"),
    (
        ("in_channels",),
        {"genes": 3},
        "in_channels.genes",
        "a node type that occurs in some edge type (in_channels)",
    ),
    (
        ("plugins", "require", 0),
        "no-such-dist",
        "plugins.require[0]",
        "what is installed is not in the file",
    ),
    (
        ("plugins", "require", 0),
        "pyg-nsa>=999",
        "plugins.require[0]",
        "versions are not in the file",
    ),
    (
        ("plugins", "disable", 0),
        "incidence_mask",
        "edges[1].kind",
        "a kind that the file itself switches off",
    ),
    ((*WEIGHTED, "clip"), -1, "edges[3].options.clip", "a plugin's own validator function"),
    ((*WEIGHTED, "clip"), float("inf"), "edges[3].options.clip", "JSON has no infinity"),
    (("pattern",), "MS\n", "pattern", "Python's '$' also matches before a last line break"),
]


@pytest.mark.parametrize(
    ("path", "value", "place", "reason"), OUT_OF_REACH, ids=[one[-1] for one in OUT_OF_REACH]
)
def test_what_json_schema_cannot_say_fails_in_pydantic(
    path, value, place, reason, schema, registry
):
    raw = changed(path, value)
    assert places_of_pydantic(raw, registry) == {place}
    assert places_of_schema(raw, schema) == set(), "in reach after all: move it to MUTATIONS"


# --- the schema itself ----------------------------------------------------------------------------


def test_it_is_a_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_everything_is_described():
    registry = Registry(disable=(), allow=["pyg-nsa"])
    assert undescribed(json_schema(registry)) == []
    assert undescribed(json_schema(registry, model=CellConfig)) == []


def test_what_is_not_described_is_found():
    class BareOptions(Options):
        depth: int = 1
        width: int = 1
        "Described."

    registry = Registry(discover=False)
    registry.register(EdgeKind(name="bare", options=BareOptions, build=build, summary="Bare."))
    assert undescribed(json_schema(registry)) == ["bare.depth"]


def test_kinds_defaults_and_provenance_of_a_third_party(install):
    install(
        "fake-kinds",
        {"my_lab.near": "fake_near", "near_one": "fake_near"},
        {"fake_near": kind_module("my_lab.near", more="aliases=('near_one',), revision=3")},
        version="2.1",
    )
    schema = json_schema(Registry(allow=["fake-kinds"]))
    edge = schema["$defs"]["EdgeSpec"]
    assert edge["properties"]["kind"]["enum"] == ["my_lab.near", "near_one"]
    (choice,) = edge["allOf"]
    options = choice["then"]["properties"]["options"]
    assert options["properties"]["k"] == {
        "default": 8,
        "description": "How many.",
        "title": "K",
        "type": "integer",
    }
    assert options["additionalProperties"] is False
    assert schema["x-pyg-nsa"]["kinds"] == {
        "my_lab.near": {
            "distribution": "fake-kinds",
            "version": "2.1",
            "revision": 3,
            "aliases": ["near_one"],
        }
    }
    raw = {"edges": [{"edge_type": ["a", "r", "b"], "kind": "near_one", "options": {"k": "x"}}]}
    assert places_of_schema(raw, schema) == {"edges[0].options.k"}


def test_defaults_are_those_of_the_models(schema):
    for name, field in HeteroNSAConfig.model_fields.items():
        part = schema["properties"][name]
        if field.is_required():
            assert name in schema["required"]
        elif name != "operator_options":
            default = field.get_default(call_default_factory=True)
            plain = default.model_dump() if hasattr(default, "model_dump") else default
            assert part["default"] == plain, name


def test_it_is_the_same_text_every_time():
    def text(names):
        registry = Registry(discover=False)
        for name in names:
            registry.register(
                EdgeKind(name=name, options=WeightOptions, build=build, summary="Kind.")
            )
        return schema_text(json_schema(registry))

    assert text(["b", "a", "c"]) == text(["c", "b", "a"])
    assert text(["a"]).endswith("}\n")


def test_operators():
    registry = fake_registry()
    schema = json_schema(registry)
    assert schema["properties"]["operator"]["enum"] == ["hetero_nsa", "other_conv"]
    assert schema["x-pyg-nsa"]["operators"] == {
        "other_conv": {"distribution": None, "version": None, "revision": 1}
    }


@pytest.mark.skipif(
    "operator_options" not in HeteroNSAConfig.model_fields, reason="operators have no options yet"
)
def test_options_of_operators():
    class DepthOptions(Options):
        depth: int = Field(default=1, ge=1)
        "How deep."

    registry = fake_registry()
    registry.register(
        Operator(name="deep", options=DepthOptions, build=build, summary="A deep one.")
    )
    schema = json_schema(registry)
    raw = {
        "operator": "deep",
        "operator_options": {"depth": 0},
        "edges": [{"edge_type": ["a", "r", "b"], "kind": "pairs"}],
    }
    assert places_of_schema(raw, schema) == {"operator_options.depth"}
    raw["operator_options"] = {"depth": 2}
    assert places_of_schema(raw, schema) == set()
    raw["operator"] = "other_conv"
    assert places_of_schema(raw, schema) == {"operator_options.depth"}


def test_options_that_have_no_schema_spoil_nothing():
    class Odd:
        pass

    class OddOptions(Options):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        odd: Odd | None = None
        "Odd."

    registry = fake_registry()
    registry.register(EdgeKind(name="odd", options=OddOptions, build=build, summary="Odd."))
    with pytest.warns(PluginWarning, match="options of 'odd' have no JSON Schema"):
        schema = json_schema(registry)
    raw = {
        "edges": [
            {"edge_type": ["a", "r", "b"], "kind": "odd", "options": {"odd": 1}},
            {"edge_type": ["a", "s", "b"], "kind": "weighted", "options": {"clop": 1}},
        ]
    }
    assert places_of_schema(raw, schema) == {"edges[1].options.clop"}


def test_a_broken_plugin_is_left_out_with_a_warning(install):
    install("fake-bad", {"bad_one": "fake_bad"}, {"fake_bad": "raise RuntimeError('no')"})
    install("fake-good", {"good_one": "fake_good"}, {"fake_good": kind_module("good_one")})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schema = json_schema(Registry(allow=["fake-bad", "fake-good"]))
    assert schema["$defs"]["EdgeSpec"]["properties"]["kind"]["enum"] == ["good_one"]
    assert ["bad_one" in str(one.message) for one in caught] == [True]

from __future__ import annotations

import json
import pickle

import pydantic
import pytest
from fake_kinds import fake_registry

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError, Problem, UnknownEdgeKindError, nearest, path_text
from pyg_nsa.load import load_config
from pyg_nsa.registry import Registry

GG = ["gene", "interacts", "gene"]
EDGE = "edges:\n  - {edge_type: [gene, interacts, gene], kind: pairs}\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads text as a file of the given name, with the folder as the working directory, so that messages are short."""
    monkeypatch.chdir(tmp_path)
    registry = fake_registry()

    def load(text, name="nsa.yaml", **more):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(name, registry=registry, **more)

    return load


@pytest.fixture
def refused(load):
    """Loads text that cannot be used, and returns the message."""

    def refused(text, name="nsa.yaml", **more) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, name, **more)
        return str(caught.value)

    return refused


def test_a_problem_as_text():
    problem = Problem(
        path="edges[1].options.normalise",
        message="unknown key 'normalise'",
        code="extra_forbidden",
        file="nsa.yaml",
        line=8,
        column=7,
        plugin="edge kind 'stoichiometry_bias' of pyg-nsa 0.1.0",
        allowed=("clip", "normalize", "sign"),
        suggestion="normalize",
    )
    assert problem.render() == (
        "nsa.yaml:8:7: edges[1].options.normalise: unknown key 'normalise'\n"
        "    did you mean 'normalize'?\n"
        "    allowed: clip, normalize, sign\n"
        "    checked by: edge kind 'stoichiometry_bias' of pyg-nsa 0.1.0"
    )
    error = ConfigError([problem, Problem("", "is empty")])
    assert str(error) == problem.render() + "\nis empty"
    assert isinstance(error, ValueError)
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)


def test_paths_and_near_names():
    assert path_text(("edges", 1, "options", "clip")) == "edges[1].options.clip"
    assert path_text(("num_nodes", "a.b")) == "num_nodes['a.b']"
    assert path_text(()) == ""
    assert nearest("Adjacency-Mask", ["adjacency_mask", "bias"]) == "adjacency_mask"
    assert nearest("zzz", ["adjacency_mask"]) is None


def test_numbers_in_quotes_are_told_as_such():
    raw = {
        "heads": "4",
        "dropout": "much",
        "edges": [{"edge_type": GG, "kind": "pairs", "options": {"self_loops": "true"}}],
    }
    with pytest.raises(ConfigError) as caught:
        load_config(raw, registry=fake_registry())
    assert {problem.path: problem.message for problem in caught.value.problems} == {
        "heads": "input should be a valid integer, got '4', which is text: remove the quotes",
        "dropout": "input should be a valid number, got 'much'",
        "edges[0].options.self_loops": "input should be a valid boolean, got 'true', which is text: remove the quotes",
    }


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
def test_a_schema_key_of_an_editor_is_left_unread(suffix, tmp_path):
    raw = {"$schema": "./pyg_nsa.schema.json", "edges": [{"edge_type": GG, "kind": "pairs"}]}
    text = json.dumps(raw)  # JSON is YAML
    if suffix == ".toml":
        text = '"$schema" = "x"\n[[edges]]\nedge_type = ["gene", "interacts", "gene"]\nkind = "pairs"\n'
    (tmp_path / f"nsa{suffix}").write_text(text)
    config = load_config(tmp_path / f"nsa{suffix}", registry=fake_registry())
    assert config == load_config({"edges": raw["edges"]}, registry=fake_registry())
    assert load_config(raw, registry=fake_registry()) == config
    with pytest.raises(ConfigError, match=r"\['\$schema'\]: unknown key"):
        load_config({**raw, "$schema": 1}, registry=fake_registry())


def test_all_problems_with_their_places(refused):
    text = """\
version: 1
heads: 5
aggr: som
sab: {node_types: [genes]}
edges:
  - {edge_type: [gene, on, gene], kind: pairs, options: {symmetrize: true}}
  - edge_type: [gene, gpr, reaction]
    kind: weighted
    options:
      normalise: 1
      sign: spilt
      clip: .inf
      size: big
      inner: {dpeth: 1}
  - {edge_type: [gene, gpr, reaction], kind: weigthed}
  - {edge_type: [gene, r__x, reaction], kind: pairs}
  - {edge_type: [gene, rx, reaction], kind: pairs, options: {self_loops: true}}
  - {edge_type: [gene, ry, reaction]}
  - {edge_type: [gene, rz, reaction], kind: needy}
  - {edge_type: [gene, rw, reaction], kind: weighted, options: {clip: -1}}
colour: red
"""
    by = "    checked by: edge kind '{}' of fake_kinds (registered by hand)\n"
    fields = sorted(HeteroNSAConfig.model_fields)
    assert refused(text) + "\n" == (
        "nsa.yaml:2:1: heads: heads=5 does not divide hidden_channels=64; the nearest numbers that do: 4, 8\n"
        "nsa.yaml:3:1: aggr: 'som' is not allowed\n"
        "    did you mean 'sum'?\n"
        "    allowed: sum, mean, min, max, cat, null\n"
        "nsa.yaml:4:20: sab.node_types[0]: no edge type in edges has the node type 'genes'\n"
        "    did you mean 'gene'?\n"
        "    allowed: gene, reaction\n"
        "nsa.yaml:10:7: edges[1].options.normalise: unknown key 'normalise'\n"
        "    did you mean 'normalize'?\n"
        "    allowed: clip, edge_attr, inner, normalize, sign, size\n"
        + by.format("weighted")
        + "nsa.yaml:11:7: edges[1].options.sign: 'spilt' is not allowed\n"
        "    did you mean 'split'?\n"
        "    allowed: keep, abs, split\n"
        + by.format("weighted")
        + "nsa.yaml:12:7: edges[1].options.clip: input should be a finite number, got inf\n"
        + by.format("weighted")
        + "nsa.yaml:13:7: edges[1].options.size: input should be a valid integer, got 'big'; or: input should "
        "be a valid number, got 'big'\n"
        + by.format("weighted")
        + "nsa.yaml:14:15: edges[1].options.inner.dpeth: unknown key 'dpeth'\n"
        "    did you mean 'depth'?\n"
        "    allowed: depth\n"
        + by.format("weighted")
        + "nsa.yaml:15:6: edges[2].edge_type: edge type (gene, gpr, reaction) is there already, in edges[1]; one "
        "entry per edge type: merge them, or give the relations different names\n"
        "nsa.yaml:15:40: edges[2].kind: unknown edge kind 'weigthed'\n"
        "    did you mean 'weighted'?\n"
        "    allowed: needy, pairs, touchy, weighted\n"
        "nsa.yaml:16:24: edges[3].edge_type[1]: type name 'r__x' must not contain '__': PyG joins the names of an "
        "edge type with '__' and writes '.' as '#' in parameter names, so it could not be told apart; rename the "
        "type\n"
        "nsa.yaml:17:62: edges[4].options.self_loops: 'self_loops' needs an edge type within one node type, but "
        "(gene, rx, reaction) goes from 'gene' to 'reaction'; remove the option\n"
        + by.format("pairs")
        + "nsa.yaml:18:5: edges[5].kind: is required, but missing\n"
        "nsa.yaml:19:5: edges[6].options.radius: is required, but missing\n"
        + by.format("needy")
        + "nsa.yaml:20:65: edges[7].options.clip: clip must be above 0; leave it out for no clipping\n"
        + by.format("weighted")
        + "nsa.yaml:21:1: colour: unknown key 'colour'\n"
        f"    allowed: {', '.join(fields)}\n"
    )


@pytest.mark.parametrize(
    "broken",
    [
        "edge_type: [gene, on], kind: pairs",
        "edge_type: gene on gene, kind: pairs",
        "kind: pairs",
        "edge_type: [gene, on, 3], kind: pairs",
    ],
)
def test_unknown_node_types_are_told_beside_an_edge_type_that_cannot_be_read(broken, refused):
    text = (
        "num_nodes: {gen: 3}\nsab: {node_types: [on]}\n"
        f"edges:\n  - {{{broken}}}\n  - {{edge_type: [gene, r, gene], kind: pairs}}\n"
    )
    found = refused(text)
    assert (
        "nsa.yaml:1:13: num_nodes.gen: no edge type in edges has the node type 'gen'\n"
        "    did you mean 'gene'?\n"
    ) in found
    assert "edges[0].edge_type" in found
    # What stands in the entry may be the node type.
    assert ("sab.node_types" in found) == ("on" not in broken)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("nsa.yaml", "edges:\n  a__r__a: pairs\n  x: 1\n", "nsa.yaml:1:1"),
        ("nsa.toml", '[edges]\na__r__a = "pairs"\nx = 1\n', "nsa.toml"),
        ("nsa.json", '{"edges": {"a__r__a": "pairs", "x": 1}}', "nsa.json:1:2"),
    ],
)
def test_edges_that_are_no_list(name, text, place, refused):
    assert refused(text, name) == (
        f"{place}: edges: expected a list with an entry for each edge type, got a mapping with the keys a__r__a, x; write each "
        "entry as '- {edge_type: [source, relation, target], kind: adjacency_mask}', in TOML below a line [[edges]] of its own"
    )


def test_options_of_an_operator_say_who_checks_them(refused):
    assert refused("operator: other_conv\noperator_options: {dpeth: 1}\n" + EDGE) == (
        "nsa.yaml:2:20: operator_options.dpeth: unknown key 'dpeth'\n"
        "    checked by: operator 'other_conv' of fake_kinds (registered by hand)"
    )


def test_problems_keep_their_facts(load):
    with pytest.raises(ConfigError) as caught:
        load(EDGE + "haeds: 4\n")
    (problem,) = caught.value.problems
    assert problem.code == "extra_forbidden"
    assert (problem.file, problem.line, problem.column) == ("nsa.yaml", 3, 1)
    assert problem.suggestion == "heads"
    assert "heads" in problem.allowed
    assert problem.plugin is None
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)


# --- YAML -----------------------------------------------------------------------------------------


def test_yaml_words_and_numbers(load):
    config = load(
        "edges:\n"
        "  - {edge_type: [pin, on, net], kind: weighted, options: {clip: 1e-6, edge_attr: no}}\n"
        "  - {edge_type: [y, off, n], kind: pairs}\n"
    )
    assert config.edges[0].edge_type == ("pin", "on", "net")
    assert config.edges[0].options.clip == 1e-6
    assert config.edges[0].options.edge_attr == "no"
    assert config.edges[1].edge_type == ("y", "off", "n")


def test_duplicate_keys_are_all_reported(refused):
    text = (
        "heads: 4\nheads: 8\nedges:\n  - {edge_type: [a, r, b], kind: pairs, kind: weighted}\n"
        "  - kind: pairs\n    edge_type: [a, s, b]\n    options: &o {edge_dropout: 0.1}\n"
    )
    assert refused(text) == (
        "nsa.yaml:2:1: heads: key 'heads' stands twice, first in line 1; remove one\n"
        "nsa.yaml:4:41: edges[0].kind: key 'kind' stands twice, first in line 4; remove one"
    )


def test_anchors_and_merges(load, refused):
    text = (
        "edges:\n  - &first {edge_type: [a, r, b], kind: weighted, options: {clip: CLIP}}\n"
        "  - <<: *first\n    edge_type: [a, s, b]\n"
    )
    config = load(text.replace("CLIP", "2"))
    assert config.edges[1].options.clip == 2.0
    found = [line for line in refused(text.replace("CLIP", "x")).splitlines() if line[0] != " "]
    assert [line.partition(": input")[0] for line in found] == [
        "nsa.yaml:2:61: edges[0].options.clip",
        "nsa.yaml:2:61: edges[1].options.clip",
    ]


def test_an_anchor_within_itself(refused):
    assert "edges" in refused("edges: &a [*a]\n")


def test_yaml_syntax(refused):
    assert refused("edges:\n  - [a, b\nheads: 4\n").startswith(
        "nsa.yaml:3:6: not valid YAML: while"
    )
    assert refused("a: 1\n\tb: 2\n").startswith("nsa.yaml:2:1: not valid YAML: ")
    assert refused("a: !!python/object:os.system x\n").startswith("nsa.yaml:1:4: not valid YAML: ")
    assert refused("a: 1\n---\nb: 1\n").startswith(
        "nsa.yaml:2:1: not valid YAML: expected a single"
    )
    assert refused("a: \x00\n").startswith("nsa.yaml: not valid YAML: ")


def test_yaml_1_1_is_refused(refused):
    assert refused("# old\n%YAML 1.1\n---\nedges: []\n") == (
        "nsa.yaml:2:1: is marked as YAML 1.1, where 'on' and 'no' are booleans; pyg_nsa reads YAML 1.2: "
        "remove the line '%YAML ...'"
    )


# --- files ----------------------------------------------------------------------------------------


def test_a_missing_file(refused, tmp_path):
    assert refused(None, "nowhere.yaml") == "nowhere.yaml: there is no such file"
    (tmp_path / "config.yaml").write_text(EDGE)
    assert refused(None, "confg.yaml") == (
        "confg.yaml: there is no such file\n    did you mean 'config.yaml'?"
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file(refused, text):
    assert refused(text) == (
        "nsa.yaml:1:1: the file is empty; a configuration needs at least 'edges', a list of edge types and "
        "edge kinds"
    )


def test_a_top_level_that_is_no_mapping(refused):
    assert refused("\n- a\n- b\n") == (
        "nsa.yaml:2:1: the top level must be a mapping of keys to values, got a list; start with a key, "
        "such as 'version: 1'"
    )
    assert "got a text" in refused("edges\n")
    assert "nsa.json:1:1: the top level" in refused("[1]", "nsa.json")


def test_a_suffix_that_says_nothing(refused):
    assert refused(EDGE, "nsa.cfg") == (
        "nsa.cfg: cannot tell the format from the suffix '.cfg'; name the file .yaml, .yml, .json or .toml"
    )


def test_a_folder_and_an_encoding(refused, tmp_path):
    (tmp_path / "dir.yaml").mkdir()
    assert refused(None, "dir.yaml").startswith("dir.yaml: cannot be read: ")
    assert refused(b"a: 1\nb: \xff\n") == "nsa.yaml:2: is not UTF-8 text; save it as UTF-8"
    assert refused(b"\xef\xbb\xbfcolour: 1\n").startswith("nsa.yaml:1:1: ")


def test_text_in_place_of_a_file():
    with pytest.raises(ConfigError, match="expected the name of a file or a mapping, got text"):
        load_config(EDGE)


def test_a_mapping(load):
    registry = fake_registry()
    raw = {"edges": [{"edge_type": ["a", "r", "b"], "kind": "pairs"}]}
    assert load_config(raw, registry=registry).edges[0].kind == "pairs"
    with pytest.raises(ConfigError) as caught:
        load_config({**raw, "haeds": 3}, registry=registry)
    assert str(caught.value).startswith("haeds: unknown key 'haeds'\n    did you mean 'heads'?")


# --- JSON and TOML --------------------------------------------------------------------------------


def test_json(load, refused):
    raw = {
        "edges": [{"edge_type": ["a", "on", "b"], "kind": "weighted", "options": {"clip": 1e-6}}]
    }
    for indent in (None, 2, "\t"):
        config = load(json.dumps(raw, indent=indent), "nsa.json")
        assert config.edges[0].edge_type == ("a", "on", "b")
    raw["edges"][0]["options"] = {"clop": 1}
    text = refused(json.dumps(raw, indent="\t"), "nsa.json")
    assert text.startswith(
        "nsa.json:11:5: edges[0].options.clop: unknown key 'clop'\n    did you m"
    )
    assert refused('{\n  "edges": [,]\n}', "nsa.json") == (
        "nsa.json:2:13: not valid JSON: Expecting value"
    )
    assert refused('{"heads": 1,\n "heads": 2}', "nsa.json") == (
        "nsa.json:2:2: heads: key 'heads' stands twice, first in line 1; remove one"
    )


def test_toml(load, refused):
    text = (
        '[[edges]]\nedge_type = ["a", "r", "b"]\nkind = "weighted"\n[edges.options]\nCLIP = 1e-6\n'
    )
    assert load(text.replace("CLIP", "clip"), "nsa.toml").edges[0].options.clip == 1e-6
    assert refused(text.replace("CLIP", "clop"), "nsa.toml").startswith(
        "nsa.toml: edges[0].options.clop: unknown key 'clop'\n    did you mean 'clip'?"
    )
    assert refused("heads = \n", "nsa.toml") == "nsa.toml:1:9: not valid TOML: Invalid value"


# --- other models ---------------------------------------------------------------------------------


class Training(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    epochs: int = 3
    model: HeteroNSAConfig
    others: dict[str, HeteroNSAConfig] = {}


def test_another_model_around_it(load, refused):
    edges = "edges:\n    - {edge_type: [gene, interacts, gene], kind: KIND}\n"
    text = f"epochs: 4\nmodel:\n  heads: 4\n  {edges}others:\n  a:\n    {edges.replace('    -', '      -')}"
    config = load(text.replace("KIND", "pairs"), model=Training)
    assert config.model.edges[0].kind == "pairs"
    with pytest.raises(ConfigError) as caught:
        config.others["a"].bind((["gene"], []))
    (problem,) = caught.value.problems
    assert problem.path == "others.a.edges[0].edge_type"
    assert (problem.line, problem.column) == (9, 10)
    assert refused(text.replace("KIND", "pear"), model=Training).splitlines()[0] == (
        "nsa.yaml:5:44: model.edges[0].kind: unknown edge kind 'pear'"
    )
    message = refused("epcohs: 4\n" + text.replace("KIND", "pairs"), model=Training)
    assert message == (
        "nsa.yaml:1:1: epcohs: unknown key 'epcohs'\n    did you mean 'epochs'?\n"
        "    allowed: epochs, model, others"
    )


def test_an_empty_registry_says_what_to_do(tmp_path):
    with pytest.raises(
        ConfigError, match=r"edges\[0\].kind: unknown edge kind 'pairs'. This registry"
    ):
        load_config(
            {"edges": [{"edge_type": ["a", "r", "b"], "kind": "pairs"}]},
            registry=Registry(discover=False),
        )


def test_a_number_in_quotes_where_one_of_a_few_is_wanted(refused):
    assert refused('version: "1"\n' + EDGE) == (
        "nsa.yaml:1:1: version: '1' is not allowed, since it is text: remove the quotes\n    allowed: 1"
    )


def test_a_name_that_yaml_reads_as_a_number(refused):
    assert refused(EDGE.replace("interacts", "1")).endswith(
        "edge_type[1]: input should be a valid string, got 1, which is no text: quote it, '1'"
    )
    assert refused(EDGE.replace("interacts", "true")).endswith(
        "got True, which is no text: quote it, 'true'"
    )


def test_a_tab_in_yaml(refused):
    assert refused("edges:\n\t- {}\n").endswith("cannot start any token; indent with spaces")


def test_allowed_names_are_of_the_sort_that_is_wanted():
    # Whatever has been loaded before.
    for kind, operator in (("adjacency_mas", "hetero_nsa"), ("adjacency_mask", "hetero_nsaa")):
        raw = {"operator": operator, "edges": [{"edge_type": GG, "kind": kind}]}
        with pytest.raises(ConfigError) as caught:
            load_config(raw, registry=Registry(allow=["pyg-nsa"], disable=()))
        (problem,) = caught.value.problems
        is_kind = problem.path == "edges[0].kind"
        assert ("adjacency_mask" in problem.allowed) == is_kind
        assert ("hgt" in problem.allowed) != is_kind
        assert problem.suggestion == ("adjacency_mask" if is_kind else "hetero_nsa")


def test_a_strict_registry_still_names_what_there_is(install):
    install("bad", {"bad_kind": "bad_module"}, {"bad_module": "1 / 0"})
    raw = {"edges": [{"edge_type": GG, "kind": "adjacency_mas"}]}
    with pytest.raises(ConfigError, match="did you mean 'adjacency_mask'"):
        load_config(raw, registry=Registry(strict=True))


def test_a_kind_of_a_vendor_that_is_not_installed():
    raw = {"edges": [{"edge_type": GG, "kind": "my_lab.nearest"}]}
    with pytest.raises(
        ConfigError, match="unknown edge kind 'my_lab.nearest'; install the package that provides"
    ):
        load_config(raw, registry=Registry(allow=["pyg-nsa"], disable=()))
    with pytest.raises(UnknownEdgeKindError, match=r"'my_lab.nearest'\. Install the package that"):
        Registry(allow=["pyg-nsa"], disable=()).edge_kind("my_lab.nearest")

"""Values set beside a configuration file."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from pyg_nsa import HeteroNSAConfig
from pyg_nsa.errors import ConfigError
from pyg_nsa.load import load_config
from pyg_nsa.load.overrides import apply_overrides, parse_override, set_in_text

TEXT = """\
version: 1  # the format
hidden_channels: 64
edges:
  - {edge_type: [gene, gpr, reaction], kind: incidence_mask}
  - {edge_type: [reaction, rmr, metabolite], kind: stoichiometry_bias, options: {edge_attr: stoichiometry}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nsa.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("training.epochs=3", ("training", "epochs"), 3),
        ("a=1e-3", ("a",), 1e-3),
        ("a=on", ("a",), "on"),  # YAML 1.2
        ("a=", ("a",), None),
        ("a=null", ("a",), None),
        ("a= x = y", ("a",), "x = y"),
        ("a=[0.7, 0.1, 0.2]", ("a",), [0.7, 0.1, 0.2]),
        ("a.b={c: 1}", ("a", "b"), {"c": 1}),
        ("edges[0].kind=x", ("edges", 0, "kind"), "x"),
        ("edges.0.kind=x", ("edges", 0, "kind"), "x"),
        ("num_nodes['a.b']=5", ("num_nodes", "a.b"), 5),
        ('num_nodes["a=b"]=5', ("num_nodes", "a=b"), 5),
        (" a.b =5", ("a", "b"), 5),
    ],
)
def test_what_is_read(text, path, value):
    override = parse_override(text)
    assert (override.path, override.value) == (path, value)
    assert override.source == f"--set {text}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "expected KEY=VALUE, such as training.epochs=3, got no '='"),
        ("=3", "got no key"),
        ("a..b=3", "cannot read the key 'a..b' from '..b' on"),
        (".a=3", "cannot read the key '.a'"),
        ("a[x]=3", "cannot read the key 'a[x]' from '[x]' on"),
        ("a=[1", "the value '[1' is not valid YAML"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert str(caught.value).startswith(f"--set {text}: ")
    assert message in str(caught.value)


def test_values_are_put_in_and_the_last_one_wins(file):
    config = load_config(
        file,
        overrides=["hidden_channels=32", "heads=8", "hidden_channels=16", "edges.1.options={}"],
    )
    assert (config.hidden_channels, config.heads) == (16, 8)
    assert load_config(file).hidden_channels == 64
    raw = {"a": [1, 2]}
    assert apply_overrides(raw, [parse_override("a[1]=5"), parse_override("b.c.d=1")]) == {
        "a": [1, 5],
        "b": {"c": {"d": 1}},
    }
    assert raw == {"a": [1, 2]}


def test_all_paths_that_lead_nowhere_are_listed(file):
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides=["edges[2].kind=x", "hidden_channels.x=1", "edges.first=1"])
    assert [problem.message for problem in caught.value.problems] == [
        "edges is a list with items 0 to 1, and 2 is none of them",
        "hidden_channels is 64, and nothing can be set inside of it",
        "edges is a list with items 0 to 1, and 'first' is none of them",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides=["heads", "=1"])
    assert len(caught.value.problems) == 2


def test_errors_name_what_was_set(file):
    with pytest.raises(ConfigError) as caught:
        load_config(
            file, overrides=["hidden_chanels=3", "edges.0.kind=incidense_mask", "heads=many"]
        )
    lines = str(caught.value).splitlines()
    assert "--set hidden_chanels=3: hidden_chanels: unknown key 'hidden_chanels'" in lines
    assert (
        "--set edges.0.kind=incidense_mask: edges[0].kind: unknown edge kind 'incidense_mask'"
        in lines
    )
    assert any(line.startswith("--set heads=many: heads: ") for line in lines)
    assert lines.count("    did you mean 'hidden_channels'?") == 1


def test_errors_around_what_was_set_name_both(file):
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides=["heads=7"])  # does not divide the channels
    (problem,) = caught.value.problems
    assert "--set heads=7" in problem.file
    # A mistake elsewhere keeps its line.
    file.write_text(TEXT.replace("rmr, metabolite", "rmr"))
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides=["heads=8"])
    assert (caught.value.problems[0].file, caught.value.problems[0].line) == (str(file), 5)


def test_the_text_keeps_its_comments_and_says_what_was_set():
    overrides = [parse_override("hidden_channels=32"), parse_override("edges[0].options={}")]
    text = set_in_text(TEXT, overrides)
    assert text.startswith(
        "# --set hidden_channels=32\n# --set edges[0].options={}\nversion: 1  # the format\n"
    )
    wanted = apply_overrides(YAML(typ="safe").load(TEXT), overrides)
    assert YAML(typ="safe").load(text) == wanted
    HeteroNSAConfig.model_validate(wanted)

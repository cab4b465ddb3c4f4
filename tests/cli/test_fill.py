from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

import pyg_nsa.cell
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cli import main
from pyg_nsa.load import load_config, migrations

TEXT = """\
# The header.
heads: 8   # eight
# About edges.
edges:
  - {edge_type: [gene, regulates, gene], kind: adjacency_mask}  # the first
  - edge_type: [gene, gpr, reaction]
    # of genes
    kind: incidence_mask
    options:   # none yet
  - edge_type: [reaction, rmr, metabolite]
    kind: stoichiometry_bias
    options:
      edge_attr: stoichiometry  # signed

# About self-attention.
sab:
  induced_points: 16

# The end.
"""


@pytest.fixture
def fill(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nsa.yaml").write_text(TEXT)

    def fill(*arguments):
        return CliRunner().invoke(main, ["fill", *arguments])

    return fill


def everything(file) -> dict:
    return load_config(file).model_dump(mode="json")


def parsed(text) -> dict:
    return YAML(typ="safe", pure=True).load(text)


def test_the_text_stays_and_the_defaults_come(fill):
    result = fill("nsa.yaml")
    assert result.exit_code == 0
    assert parsed(result.stdout) == everything("nsa.yaml")
    lines = result.stdout.splitlines()
    # Each of the user's lines is still there, in its place; only one entry and one value grew.
    rest = iter(lines)
    for line in TEXT.splitlines():
        assert any(
            new.startswith(line.partition("}")[0].partition("   # none")[0]) for new in rest
        ), line
    assert (
        "    options: {symmetrize: false, self_loops: false, edge_dropout: 0.0, source: auto}   # none yet"
        in lines
    )
    assert lines[lines.index("sab:") : lines.index("sab:") + 3] == [
        "sab:",
        "  node_types: null",
        "  induced_points: 16",
    ]
    assert lines[-1] == "# The end."
    assert Path("nsa.yaml").read_text() == TEXT, "without -o or --in-place nothing is written"


def test_filled_twice_is_filled_once(fill):
    assert fill("nsa.yaml", "--in-place").exit_code == 0
    once = Path("nsa.yaml").read_text()
    assert once != TEXT
    assert fill("nsa.yaml").stdout == once
    assert fill("nsa.yaml", "--diff").stdout == ""


def test_diff(fill):
    result = fill("nsa.yaml", "--diff")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == ["--- nsa.yaml", "+++ nsa.yaml (filled)"]
    assert "+hidden_channels: 64" in lines
    assert " heads: 8   # eight" in lines
    assert Path("nsa.yaml").read_text() == TEXT


@pytest.mark.parametrize("name", ["out.yaml", "nsa.yaml"])
def test_an_output_file(fill, name):
    before = everything("nsa.yaml")
    result = fill("nsa.yaml", "-o", name)
    assert (result.exit_code, result.stdout) == (0, f"wrote {name}\n")
    assert everything(name) == before
    assert "# The header." in Path(name).read_text()


def test_json_and_toml(fill):
    result = fill("nsa.yaml", "-o", "nsa.json")
    assert result.stderr == "note: JSON has no comments; those of the file are lost\n"
    assert json.loads(Path("nsa.json").read_text()) == everything("nsa.yaml")
    assert fill("nsa.json").stdout == Path("nsa.json").read_text()
    Path("nsa.toml").write_text('[[edges]]\nedge_type = ["a", "r", "b"]\nkind = "incidence_mask"\n')
    result = fill("nsa.toml")
    assert "TOML cannot be written; this is YAML" in result.stderr
    assert parsed(result.stdout) == everything("nsa.toml")
    result = fill("nsa.toml", "--in-place")
    assert result.exit_code == 1
    assert (
        "cannot write a configuration as '.toml'; name the output .yaml or .json" in result.output
    )


@pytest.mark.parametrize(
    "text",
    [
        "edges: [{edge_type: [a, r, b], kind: incidence_mask}]",
        "{edges: [{kind: incidence_mask, edge_type: [a, r, b], options: {}}], heads: 2}\n",
        "edges:\n- kind: incidence_mask\n  edge_type:\n  - a\n  - r\n  - b\npattern: >-\n  MS\n\n",
        "\n---\nedges:\n  -\n    edge_type: [a, r, b]\n    kind: incidence_mask\n    options: null\n...\n",
        "plugins:\n# late\nsab: {}   # empty\nedges: [{edge_type: [a, r, b], kind: incidence_mask}]\nnum_nodes: {}\n",
        "mlp_ratio: 2\ndropout: 1e-3\nedges: [{edge_type: [on, 'no', 'y: z'], kind: incidence_mask}]\nheads: 4.0\n",
    ],
)
def test_other_layouts(fill, text):
    if text.startswith("plugins:\n"):
        text = text.replace("plugins:\n", "plugins: {}\n")
    Path("nsa.yaml").write_text(text)
    result = fill("nsa.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert parsed(result.stdout) == everything("nsa.yaml")
    assert result.stdout.count("#") == text.count("#")


@pytest.mark.parametrize("name", ["nsa.yaml", "nsa.json"])
def test_a_schema_key_of_an_editor_stays(fill, name):
    text = '{"$schema": "./s.json", "edges": [{"edge_type": ["a", "r", "b"], "kind": "incidence_mask"}]}'
    if name == "nsa.yaml":
        text = f"# mine\n$schema: ./s.json\nedges: {json.loads(text)['edges']}\n"
    Path(name).write_text(text)
    result = fill(name, "--in-place")
    assert (result.exit_code, result.stderr) == (0, "")
    filled = Path(name).read_text()
    raw = YAML(typ="safe", pure=True).load(filled)
    assert next(iter(raw)) == "$schema" and raw["$schema"] == "./s.json"
    assert "heads" in raw
    assert ("# mine" in filled) == (name == "nsa.yaml")
    assert fill(name).stdout == filled


def test_anchors_cannot_be_edited_and_that_is_said(fill):
    Path("nsa.yaml").write_text(
        "# lost\nedges:\n  - &first {edge_type: [a, r, a], kind: adjacency_mask}\n"
        "  - {<<: *first, edge_type: [a, s, a]}\n"
    )
    result = fill("nsa.yaml")
    assert "so its comments are lost" in result.stderr
    assert parsed(result.stdout) == everything("nsa.yaml")


def test_a_file_of_an_earlier_version(fill, monkeypatch):
    def rename(raw):
        raw["hidden_channels"] = raw.pop("width")
        return raw

    step = migrations.Migration("'width' is called 'hidden_channels' now", rename)
    monkeypatch.setitem(migrations.MIGRATIONS, 0, step)
    Path("nsa.yaml").write_text("version: 0\nwidth: 32\n" + TEXT)
    result = fill("nsa.yaml", "-o", "new.yaml")
    assert result.exit_code == 0
    assert "warning: nsa.yaml is of version 0" in result.stderr
    assert load_config("new.yaml").hidden_channels == 32
    assert load_config("new.yaml").version == 1


@pytest.mark.parametrize(
    "file", sorted(Path(pyg_nsa.cell.__file__).parent.glob("*.yaml")), ids=lambda file: file.name
)
def test_shipped_training_runs_keep_their_comments(fill, file):
    result = fill(str(file), "--training")
    assert (result.exit_code, result.stderr) == (0, "")
    assert parsed(result.stdout) == load_config(file, CellConfig).model_dump(mode="json")
    comments = [line for line in file.read_text().splitlines() if line.lstrip().startswith("#")]
    assert [
        line for line in result.stdout.splitlines() if line.lstrip().startswith("#")
    ] == comments

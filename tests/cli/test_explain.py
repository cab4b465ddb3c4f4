from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import pyg_nsa
from pyg_nsa.cli import main

TEXT = """\
edges:
  - {edge_type: [gene, regulates, gene], kind: adjacency_mask, options: {self_loops: true}}
  - edge_type: [reaction, rmr, metabolite]
    kind: stoichiometry_bias
"""


@pytest.fixture
def explain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nsa.yaml").write_text(TEXT)

    def explain(*arguments):
        return CliRunner().invoke(main, ["explain", *arguments])

    return explain


def test_a_table(explain):
    result = explain("nsa.yaml")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for part in (
        "gene, regulates, gene adjacency_mask symmetrize=false (default)",
        f"pyg-nsa {pyg_nsa.__version__} nsa.yaml:2",
        "self_loops=true edge_dropout=0.0 (default)",
        'edge_attr="stoichiometry" (default)',
        "nsa.yaml:3",
    ):
        assert part in text


def test_json(explain):
    first, second = json.loads(explain("nsa.yaml", "--json").stdout)
    assert first["edge_type"] == ["gene", "regulates", "gene"]
    assert first["options"]["self_loops"] is True
    assert first["set"] == ["self_loops"]
    assert first["reads"] == ["edge_index", "adj_mask"]
    assert first["plugin"] == f"pyg-nsa {pyg_nsa.__version__}"
    assert (second["file"], second["line"], second["column"]) == ("nsa.yaml", 3, 5)
    assert second["set"] == []


def test_problems(explain, tmp_path):
    (tmp_path / "nsa.yaml").write_text(TEXT.replace("kind: stoichiometry_bias", "kind: stoich"))
    result = explain("nsa.yaml")
    assert result.exit_code == 1
    assert "nsa.yaml:4:5: edges[1].kind: unknown edge kind 'stoich'" in result.output


def test_a_training_run(explain, tmp_path):
    operator = "".join(f"  {line}\n" for line in TEXT.splitlines())
    (tmp_path / "cell.yaml").write_text(f"operator:\n{operator}")
    rows = json.loads(explain("cell.yaml", "--training", "--json").stdout)
    assert [row["line"] for row in rows] == [3, 4]

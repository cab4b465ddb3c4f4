"""``pyg-nsa cell``: what it prints, and its mistakes."""

from __future__ import annotations

import json

import cobra
import pandas as pd
import pytest
from click.testing import CliRunner

from pyg_nsa.cli import main


def run(*arguments, status=0):
    result = CliRunner().invoke(main, ["cell", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def model_file(tmp_path):
    """A model with something of everything that a graph leaves out."""
    model = cobra.Model("odd")
    a, unused = cobra.Metabolite("A", compartment="c"), cobra.Metabolite("Z", compartment="c")
    take, grow = cobra.Reaction("take"), cobra.Reaction("grow")
    shut = cobra.Reaction("shut", lower_bound=0, upper_bound=0)
    take.add_metabolites({a: 1.0})
    for reaction in (grow, shut):
        reaction.add_metabolites({a: -1.0})
    model.add_reactions([take, grow, shut])
    model.add_metabolites([unused])
    take.gene_reaction_rule = "(g1 and g2) or g3"
    model.genes.append(cobra.Gene("lonely"))
    model.objective = "grow"
    path = tmp_path / "odd.json"
    cobra.io.save_json_model(model, str(path))
    return path


def test_info_as_json_has_exact_counts():
    found = json.loads(run("info", "textbook", "--json"))
    assert {t: of["count"] for t, of in found["nodes"].items()} == {
        "gene": 137,
        "reaction": 207,
        "metabolite": 72,
    }
    assert {" ".join(of["edge_type"]): of["count"] for of in found["edges"]} == {
        "gene co_complex gene": 326,
        "gene producer_consumer gene": 3623,
        "gene gpr reaction": 251,
        "reaction rev_gpr gene": 251,
        "reaction rmr metabolite": 762,
        "metabolite rev_rmr reaction": 762,
    }
    rmr = next(of for of in found["edges"] if of["edge_type"][1] == "rmr")
    assert rmr["fields"]["stoichiometry"] == {"dtype": "float32", "shape": [762]}
    assert found["bytes"]["instance"] == 20
    assert found["bytes"]["dense_masks"] == 124_064
    assert found["model"]["id"] == "e_coli_core"
    assert found["model"]["file"].endswith("textbook.xml.gz")


def test_info_for_people():
    text = " ".join(run("info", "textbook").split())
    assert "reaction 207 node_ids str[207], reaction_index int64[207]" in text
    assert "gene producer_consumer gene 3,623" in text
    assert (
        "instance of two deleted genes: 20 bytes; as dense boolean masks it would be 124.1 kB"
        in text
    )
    assert "without node features (--features), stored once" in text
    assert (
        "reactions without genes, whose nodes no deletion removes: 26 (ACt2r, ATPM, Biomass_Ecoli_core, ETOHt2r, EX_ac_e, "
        "… 21 more (--json))" in text
    )
    assert (
        "metabolites of more than 20 reactions, which producer_consumer leaves out: 1 (h_c)" in text
    )


def test_info_says_whether_the_model_grows_and_on_what(tmp_path):
    found = json.loads(run("info", "textbook", "--json"))["growth"]
    assert found["growth"] == pytest.approx(0.8739, abs=1e-4)
    assert found["growth_problem"] is None
    assert found["objective"] == {"direction": "max", "reactions": {"Biomass_Ecoli_core": 1.0}}
    assert found["uptakes"][0] == {
        "reaction": "EX_glc__D_e",
        "metabolite": "glc__D_e",
        "limit": 10.0,
    }
    assert len(found["uptakes"]) == 7
    lines = run("info", "textbook").splitlines()
    assert "objective: maximises Biomass_Ecoli_core" in lines
    assert "growth of the wildtype: 0.8739 (1/h for biomass)" in lines
    assert any(
        line.startswith("open uptakes, and their limits: 7 (EX_glc__D_e 10, EX_co2_e 1000, ")
        for line in lines
    )


def test_info_of_a_model_that_does_not_grow(model_file, tmp_path):
    model = cobra.io.load_json_model(str(model_file))
    model.reactions.take.bounds = (0, 0)
    shut = tmp_path / "shut.json"
    cobra.io.save_json_model(model, str(shut))
    lines = run("info", shut).splitlines()
    assert "objective: maximises grow" in lines
    assert any(
        line.startswith("growth of the wildtype: Model 'odd': the wildtype does not grow")
        for line in lines
    )
    assert "open uptakes, and their limits: 0" in lines
    found = json.loads(run("info", shut, "--json"))["growth"]
    assert found["growth"] is None
    model.reactions.take.bounds = (0, float("inf"))
    model.objective = {model.reactions.grow: 2.0}
    model.objective_direction = "min"
    fewest = tmp_path / "fewest.xml"  # JSON says nothing of the direction
    cobra.io.write_sbml_model(model, str(fewest))
    lines = run("info", fewest).splitlines()
    assert "objective: minimises 2 grow" in lines
    assert "open uptakes, and their limits: 1 (take without limit)" in lines
    model.objective = {}
    cobra.io.save_json_model(model, str(shut))
    assert "objective: none" in run("info", shut).splitlines()


def test_info_with_features():
    found = json.loads(run("info", "textbook", "--json", "--features"))
    assert found["nodes"]["gene"]["fields"]["x"]["shape"][1] > 0
    assert "without node features" not in run("info", "textbook", "--features")


def test_what_was_left_out(model_file, tmp_path):
    table = tmp_path / "pairs.tsv"
    table.write_text("source\ttarget\ng1\tg2\ng9\tg1\n\ng1\tg2\ng2\tg8\n")
    found = json.loads(run("info", model_file, "--json", "--gene-table", f"physical={table}"))
    assert found["left_out"] == {
        "blocked_reactions": ["shut"],
        "reactions_without_genes": ["grow", "shut"],
        "genes_without_reactions": ["lonely"],
        "metabolites_without_reactions": ["Z"],
        "unjoined_metabolites": [],
    }
    assert found["gene_tables"] == {
        "physical": {
            "rows": 4,
            "edges": 1,
            "unknown_ids": ["g9", "g8"],
            "unknown_rows": ["line 3: 'g9'", "line 6: 'g8'"],
            "repeated_rows": ["line 5: 'g1', 'g2' as in line 2"],
        }
    }
    text = run("info", model_file, "--gene-table", f"physical={table}")
    for line in (
        "  reactions blocked by their bounds, which keep one node: 1 (shut)",
        "  genes without reactions, nodes without gpr edges: 1 (lonely)",
        "  metabolites without reactions, nodes without rmr edges: 1 (Z)",
        "  rows of physical with ids that the model lacks: 2 of 4 (line 3: 'g9'; line 6: 'g8')",
        "  rows of physical that repeat a pair: 1 of 4 (line 5: 'g1', 'g2' as in line 2)",
    ):
        assert line in text.splitlines()
    assert "co_complex" not in text  # proxies are for models without tables
    assert "co_complex" in run("info", model_file, "--gene-table", f"p={table}", "--proxies")
    assert "co_complex" not in run("info", model_file, "--no-proxies")


def test_parquet_tables(model_file, tmp_path):
    table = tmp_path / "pairs.parquet"
    pd.DataFrame([["g1", "g2"]], columns=["a", "b"]).to_parquet(table)
    found = json.loads(run("info", model_file, "--json", "--gene-table", f"physical={table}"))
    assert found["gene_tables"]["physical"]["edges"] == 1


def test_names_and_files_that_are_none(tmp_path):
    text = run("info", "ijo1336", status=1)
    assert "Unknown model 'ijo1336'" in text
    assert "Did you mean 'iJO1366'?" in text
    missing = tmp_path / "none.xml"
    assert f"{missing}: no such file" in run("info", missing, status=1)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert f"{broken}: cobra cannot read this model" in run("info", broken, status=1)
    text = run("info", "textbook", "--gene-table", f"p={tmp_path / 'none.tsv'}", status=1)
    assert "none.tsv: no such file (gene_tables['p'])." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--gene-table", "pairs.tsv"],
            "expected NAME=FILE, such as physical=pairs.tsv, got 'pairs.tsv'",
        ),
        (["--gene-table", "p=a.tsv", "--gene-table", "p=b.tsv"], "the name 'p' stands twice"),
    ],
)
def test_wrong_usage(arguments, message):
    assert message in " ".join(run("info", "textbook", *arguments, status=2).split())


def test_labels(tmp_path):
    table = tmp_path / "labels.tsv"
    text = run("labels", "textbook", "--cache", tmp_path, "-o", table)
    (kept,) = (tmp_path / "processed").glob("labels-*.npz")
    assert text == (
        "137 single deletions\n8,385 pair deletions, 880 of them interacting\n"
        f"kept in {kept}\nwrote {table}\n"
    )
    frame = pd.read_csv(table, sep="\t")
    assert len(frame) == 8522
    assert list(frame.columns) == ["genes", "fitness", "fitness_std", "gene_interaction"]
    text = run("labels", "textbook", "--cache", tmp_path, "--deletions", "singles")
    assert text.startswith("137 single deletions\nkept in ")
    assert "expected a name ending in .csv or .tsv" in run(
        "labels", "textbook", "-o", tmp_path / "labels.xlsx", status=2
    )


def test_training_finds_labels_that_were_simulated_before(tmp_path, monkeypatch):
    from pyg_nsa.cell.data.dataset import PerturbationDataset
    from pyg_nsa.cell.labels import simulated as simulated_labels

    run("labels", "textbook", "--cache", tmp_path)
    monkeypatch.setattr(simulated_labels, "_simulate", None)  # would fail if called
    assert len(PerturbationDataset(tmp_path, "textbook", features=False)) == 8522

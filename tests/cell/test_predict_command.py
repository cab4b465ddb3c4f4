"""``pyg-nsa predict`` and ``pyg-nsa report``: what a run's folder is good for afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import cobra.io
import numpy as np
import pandas as pd
import pytest
import torch
from cell.tiny import tiny_config
from click.testing import CliRunner

from pyg_nsa.cell.data.batch import PerturbationCollate
from pyg_nsa.cell.data.splits import split_by_gene
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.models.build import build_model
from pyg_nsa.cell.network.metabolic_model import load_model
from pyg_nsa.cell.network.names import node_names
from pyg_nsa.cell.training.checkpoint import CheckpointError, identity, read_checkpoint
from pyg_nsa.cell.training.prediction import (
    UnknownGenesError,
    perturbations,
    predict_deletions,
)
from pyg_nsa.cell.training.restore import restore
from pyg_nsa.cell.training.trainer import _prepare
from pyg_nsa.cell.training.written_deletions import deletion_table, deletion_words
from pyg_nsa.cli import main


@pytest.fixture
def invoke(cell_cache, monkeypatch):
    monkeypatch.setenv("PYG_NSA_CACHE", str(cell_cache))
    monkeypatch.setattr(sys, "stdin", None)
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def best(tiny_run):
    return tiny_run / "hetero_nsa" / "best.ckpt"


@pytest.fixture(scope="module")
def restored(tiny_run, cell_cache):
    return restore(tiny_run / "hetero_nsa" / "best.ckpt", cell_cache)


# ---- which deletions -------------------------------------------------------------------------------------------------


def test_deletions_of_a_command_line():
    assert deletion_words(["b0001", "b0002+b0003", "b1 + b1"]).deletions() == [
        ("b0001",),
        ("b0002", "b0003"),
        ("b1",),
    ]
    for word in ("", "b0001+", "+"):
        with pytest.raises(ValueError, match=r"expected a gene, or genes joined by '\+'"):
            deletion_words([word])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "what,genes\n1,NA\n2,b1;b2\n3,b1+b2\n4,b1 b1\n"),
        ("x.tsv", "genes\twhat\nNA\t1\nb1,b2\t2\nb1|b2\t3\nb1\t4\n"),
    ],
)
def test_deletions_of_a_table(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = deletion_table(tmp_path / name).deletions()
    assert found == [("NA",), ("b1", "b2"), ("b1", "b2"), ("b1",)]


def test_a_table_that_is_none(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("gene,fitness\nb1,1\n")
    with pytest.raises(
        TableError, match=r"x.csv: no column 'genes' in the header; got gene, fitness"
    ):
        deletion_table(file)
    file.write_text("genes,x\nb1,1\n,2\n")
    with pytest.raises(TableError, match=r"every row needs a gene:\n  line 3: no genes"):
        deletion_table(file)
    for text in ("genes\n", "genes,x\n\n"):
        file.write_text(text)
        with pytest.raises(TableError, match=r"x.csv: no rows below the header; every deletion"):
            deletion_table(file)
    file.write_text("genes,x,genes\nb1,1,b2\n")
    with pytest.raises(
        TableError, match=r"x.csv: more than one column 'genes' in the header; got genes, x, genes"
    ):
        deletion_table(file)


def test_ids_that_hold_a_separator(tmp_path):
    known = {"lcl|7", "G+H", "G", "b1"}
    words = ["G+H", "b1+G+H", "G+b1", "lcl|7 + G+H", "lcl|7"]
    assert deletion_words(words).deletions(known) == [
        ("G+H",),
        ("b1", "G+H"),
        ("G", "b1"),
        ("lcl|7", "G+H"),
        ("lcl|7",),
    ]
    file = tmp_path / "x.csv"
    file.write_text("genes\nlcl|7;b1\nb1|lcl|7|G+H\nG+H\nlcl|8\n")
    assert deletion_table(file).deletions(known) == [
        ("lcl|7", "b1"),
        ("b1", "lcl|7", "G+H"),
        ("G+H",),
        ("lcl", "8"),
    ]


def test_all_unknown_genes_are_listed_with_what_was_meant(restored):
    with pytest.raises(UnknownGenesError) as caught:
        predict_deletions(restored, [("b0720", "b0720x"), ("GltA",), ("zzzz", "b0720x")])
    assert caught.value.genes == ("b0720x", "GltA", "zzzz")
    assert "3 genes that the graph does not have (it has 137, such as" in str(caught.value)
    assert "\n  'b0720x', did you mean 'b0720'?" in str(caught.value)
    assert "\n  'GltA', did you mean 'b0720'?" in str(caught.value)  # by the gene's name
    assert str(caught.value).endswith("\n  'zzzz'")
    with pytest.raises(
        UnknownGenesError, match=r"'b0720,b2464': join genes .* with '\+': b0720\+b2464"
    ):
        predict_deletions(restored, [("b0720,b2464",)])
    with pytest.raises(UnknownGenesError, match="1 gene that"):
        perturbations(restored.module.graph, [("zzzz",)])


# ---- predicting ------------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_run_beside_the_labels(restored, tiny_run):
    wanted = pd.read_csv(tiny_run / "hetero_nsa" / "predictions.csv").iloc[::9]
    deletions = [tuple(reversed(genes.split(";"))) for genes in wanted["genes"]]
    table = predict_deletions(restored, deletions, batch_size=3)
    assert table["genes"].tolist() == ["+".join(genes) for genes in deletions]
    assert set(table["size"]) == {1, 2}
    for name in ("fitness", "gene_interaction", "fitness_pred", "gene_interaction_pred"):
        np.testing.assert_allclose(table[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_deletions_without_a_label(restored):
    table = predict_deletions(restored, [("b0720", "b0116", "b3916"), ("b3916",)])
    assert table["fitness"].isna().tolist() == [True, False]
    assert np.isfinite(table["fitness_pred"]).all()
    assert table["gene_interaction_pred"].isna().tolist() == [False, True]
    assert "fitness" not in predict_deletions(restored, [("b3916",)], labels=False)


def test_the_command_prints_writes_and_gives_json(invoke, best, tmp_path):
    result = invoke("predict", best, "b3916", "b0720+b0116")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    row = next(line for line in lines if line and line[0] == "b3916")
    assert len(row) == 5
    assert row[3:] == ["–", "–"]
    assert "fitness, simulated" in result.output
    rows = json.loads(invoke("predict", best, "b3916", "b0720+b0116", "--json").output)
    assert [r["genes"] for r in rows] == [["b3916"], ["b0720", "b0116"]]
    assert rows[0]["gene_interaction_pred"] is None
    assert f"{rows[0]['fitness_pred']:.4f}" == row[1]
    deletions = tmp_path / "deletions.csv"
    deletions.write_text("genes\nb3916\nb0720;b0116\n")
    out = tmp_path / "out.tsv"
    result = invoke("predict", best, deletions, "-o", out, "--without-labels")
    assert result.exit_code == 0, result.output
    assert f"wrote {out} (2 deletions)" in result.output
    text = out.read_text()
    parquet = tmp_path / "deletions.parquet"
    pd.read_csv(deletions).to_parquet(parquet)
    result = invoke("predict", best, parquet, "-o", out, "--without-labels")
    assert result.exit_code == 0, result.output
    assert out.read_text() == text
    written = pd.read_csv(out, sep="\t")
    assert written.columns.tolist() == ["genes", "size", "fitness_pred", "gene_interaction_pred"]
    np.testing.assert_allclose(
        written["fitness_pred"], [r["fitness_pred"] for r in rows], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{best}", "zzzz"], "gene that the graph does not have"),
        (["{best}", "no_such.csv"], "no_such.csv: no such file"),
        (["{best}", "no_such.csv.bz2"], "no_such.csv.bz2: no such file"),
        (["{best}", "no_such.xlsx"], "no_such.xlsx: no such file"),
        (
            ["{run}", "b3916"],
            "is a folder; name a checkpoint in it, such as {run}/hetero_nsa/best.ckpt",
        ),
        (["{run}/x.ckpt", "b3916"], "x.ckpt: no such file"),
        (["{run}/metrics.csv", "b3916"], "metrics.csv: cannot be read as a checkpoint"),
    ],
)
def test_mistakes_have_no_traceback(invoke, best, tiny_run, words, message):
    names = {"best": best, "run": tiny_run}
    result = invoke("predict", *(word.format(**names) for word in words))
    assert result.exit_code == 1
    assert message.format(**names) in result.output.replace("\n", "")
    assert "Traceback" not in result.output


def test_unknown_genes_of_a_file_are_named_with_their_lines(invoke, best, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("genes\nb3916\nb0720;b0116x\nzzzz\nzzzz\n")
    result = invoke("predict", best, file)
    assert result.exit_code == 1
    assert "\n  line 3: 'b0116x', did you mean 'b0116'?\n  line 4: 'zzzz'" in result.output
    assert "line 5" not in result.output


@pytest.mark.parametrize(
    "command", [["explain"], ["explain", "--training"], ["fill"], ["check"], ["train"]]
)
def test_a_run_or_a_checkpoint_in_the_place_of_a_configuration(
    invoke, best, tiny_run, tmp_path, command
):
    result = invoke(*command, tiny_run)
    assert result.exit_code == 1
    assert (
        f"{tiny_run}: cannot be read: it is a folder, of a training run, it seems; its configuration is {tiny_run}/config.yaml"
        in result.output
    )
    (tmp_path / "empty").mkdir()
    result = invoke(*command, tmp_path / "empty")
    assert (
        "empty: cannot be read: it is a folder; name a configuration, a file .yaml, .yml, .json or .toml"
        in (result.output)
    )
    if command != ["check"]:
        result = invoke(*command, best)
        assert result.exit_code == 1
        assert (
            f"{best}: is a file of torch by its suffix, and no configuration; 'pyg-nsa check {best}' says what"
            in result.output
        )
    assert invoke("explain", "--training", f"{tiny_run}/config.yaml").exit_code == 0


def test_what_is_loaded_is_what_was_checked(best, tmp_path, monkeypatch):
    """A training that goes on may write the next checkpoint in between."""
    file = tmp_path / "last.ckpt"
    shutil.copy(best, file)
    checked = zipfile.ZipFile.testzip

    def replaced(archive):
        file.write_bytes(b"another one")
        return checked(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", replaced)
    assert read_checkpoint(file)["pyg_nsa"]["name"] == "hetero_nsa"
    assert file.read_bytes() == b"another one"


def test_a_checkpoint_that_may_not_be_read(best, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CheckpointError, match=r"best.ckpt: cannot be read: Permission denied"):
        read_checkpoint(best)


def test_wrong_usage(invoke, best):
    assert invoke("predict", best).exit_code == 2
    result = invoke("predict", best, "b3916", "-o", "out.xlsx")
    assert result.exit_code == 2
    assert "name the file .csv, .tsv or .parquet" in result.output


def test_parquet_without_the_package_is_told_before_anything_is_computed(
    invoke, tmp_path, monkeypatch
):
    monkeypatch.setattr("pyg_nsa.cli.predict.find_spec", lambda name: None)
    out = tmp_path / "out.parquet"
    result = invoke("predict", tmp_path / "none.ckpt", "b3916", "-o", out)
    assert result.exit_code == 2
    assert "pip install pyarrow. Or name the file .csv or .tsv" in " ".join(result.output.split())


def test_where_the_table_goes_is_checked_before_anything_is_computed(invoke, tmp_path, monkeypatch):
    # The checkpoint is not there either: it would be told first if it were read first.
    checkpoint = tmp_path / "none.ckpt"
    (tmp_path / "file").write_text("")
    for folder, mend in (
        ("nodir", f"make it first (mkdir -p {tmp_path / 'nodir'})"),
        ("file", "that is a file"),
    ):
        out = tmp_path / folder / "p.csv"
        result = invoke("predict", checkpoint, "b3916", "-o", out)
        assert result.exit_code == 2
        assert f"-o {out}: there is no folder {out.parent}; {mend}" in result.output
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    result = invoke("predict", checkpoint, "b3916", "-o", tmp_path / "p.csv")
    assert result.exit_code == 2
    assert "p.csv: it may not be written (permission denied)" in result.output


# ---- the graph behind a checkpoint -----------------------------------------------------------------------------------


@pytest.fixture
def own_model(tmp_path, cell_cache):
    """A checkpoint of an untrained model on a file of one's own; and the file's model, to be changed."""
    file = tmp_path / "cell.json"
    model = load_model("textbook")
    cobra.io.save_json_model(model, str(file))
    config = tiny_config(tmp_path, f"data.model={file}", "data.labels=simulated-singles")
    dataset = open_dataset(config, tmp_path / "cache", progress=False)
    split = split_by_gene(dataset.table, config.data.fractions, 0)
    module, *_ = _prepare(
        build_model(config, dataset.graph), dataset, split, config, split.val[:2], 0
    )
    said = identity(config, dataset.graph, name="hetero_nsa", seed=0, instances="", labels="")
    torch.save({"state_dict": module.state_dict(), **said}, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt", file, model


def test_without_a_cache_the_graph_is_built_and_labels_are_unknown(own_model, tmp_path, invoke):
    checkpoint, file, model = own_model
    cached, built = (restore(checkpoint, tmp_path / name) for name in ("cache", "empty"))
    assert cached.labels is not None
    assert built.labels is None
    assert not (tmp_path / "empty" / "processed").exists()
    tables = [predict_deletions(r, [("b3916",)], labels=False) for r in (cached, built)]
    pd.testing.assert_frame_equal(*tables)
    result = invoke("predict", checkpoint, "b3916", "--cache", tmp_path / "empty")
    assert "the cache has no labels of this cell" in result.output
    # Written anew, with other white space: still the same model.
    cobra.io.save_json_model(model, str(file), pretty=True)
    restore(checkpoint, tmp_path / "cache")


def test_a_target_that_was_never_trained_is_not_predicted(own_model, tmp_path, invoke):
    checkpoint, *_ = own_model  # labels of single deletions only: no interaction is known
    out = tmp_path / "out.csv"
    words = ("predict", checkpoint, "b0720+b0116", "--cache", tmp_path / "cache")
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert (
        "note: gene_interaction is not predicted: the model was trained without a known label of it"
        in result.output
    )
    row = next(line.split() for line in result.output.splitlines() if "b0720+b0116" in line)
    assert row[2] == "–"
    assert float(row[1]) > -9
    printed = invoke(*words, "--json").output
    rows = json.loads(printed[printed.index("[") :])  # below the note, which goes to stderr
    assert rows[0]["gene_interaction_pred"] is None
    invoke(*words, "-o", out)
    assert pd.read_csv(out)["gene_interaction_pred"].isna().all()
    assert pd.read_csv(out)["fitness_pred"].notna().all()


def test_a_changed_model_file_is_an_error_that_says_so(own_model, tmp_path):
    checkpoint, file, model = own_model
    coefficient = model.reactions.PFK
    coefficient.add_metabolites({"h_c": 1.0})
    cobra.io.save_json_model(model, str(file))
    with pytest.raises(
        CheckpointError,
        match=r"x.ckpt: was trained on another graph than the one that .*cell.json gives now. The file has changed since "
        r"\(genes, reactions, stoichiometry or relations\); put the old one back, or train anew",
    ):
        restore(checkpoint, tmp_path / "cache")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"cannot be built again: .*cell.json"):
        restore(checkpoint, tmp_path / "cache")


# ---- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_report_writes_the_page_anew(invoke, copy):
    before = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "figures")
    for folder in ("hetero_nsa", "hetero_conv"):  # no training, no model
        shutil.rmtree(copy / folder)
    result = invoke("report", copy)
    assert result.exit_code == 0, result.output
    assert f"report: {copy / 'report.html'}" in result.output.replace("\n", "")
    assert (copy / "report.html").read_bytes() == before
    assert (copy / "figures" / "metrics.png").exists()


def test_report_names_what_is_missing(invoke, copy, tmp_path):
    (copy / "history.csv").unlink()
    (copy / "metrics.csv").unlink()
    result = invoke("report", copy)
    assert result.exit_code == 1
    text = result.output.replace("\n", "")
    assert "history.csv: no such file" in text
    assert "also missing: metrics.csv" in text
    assert "config.yaml: no such file" in invoke("report", tmp_path / "nothing").output.replace(
        "\n", ""
    )


def test_report_draws_the_knockout_that_is_asked_for(invoke, copy, restored):
    result = invoke("report", copy, "--knockout", "b0720")
    assert result.exit_code == 0, result.output
    page = " ".join((copy / "report.html").read_text().split())
    assert "Deleted: <b>gltA (b0720)</b>" in page
    assert "How it was chosen: asked for" in page
    assert "citrate synthase" in page.lower()
    facts = json.loads((copy / "run.json").read_text())["knockout"]
    assert facts["stops"]["missing"] and facts["stops"]["blocked"]
    assert (
        set(facts["stops"]["missing"]) <= facts["names"]["metabolite"].keys()
    )  # also if not drawn
    assert set(facts["stops"]["blocked"]) <= facts["names"]["reaction"].keys()
    row = predict_deletions(restored, [("b0720",)]).iloc[0]
    assert facts["fitness_pred"] == pytest.approx(row["fitness_pred"], abs=1e-5)
    assert facts["fitness"] == pytest.approx(row["fitness"], abs=1e-6)
    attention = pd.read_csv(copy / "attention.csv")
    mine = attention[(attention["source"] == "b0720") & (attention["relation"] == "gpr")]
    assert len(mine)
    assert (mine["weight_knockout"] == 0).all()
    assert (mine["weight_wildtype"] > 0).all()


def test_a_knockout_that_cannot_be_drawn(invoke, copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    result = invoke("report", copy, "--knockout", "b0720x")
    assert result.exit_code == 1
    assert "did you mean 'b0720'?" in result.output
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**facts, "model": "hetero_conv"}))
    result = invoke("report", copy, "--knockout", "b0720")
    assert result.exit_code == 1
    assert (
        "hetero_conv has no attention of its own to draw; --knockout needs operator hetero_nsa"
        in result.output
    )
    (copy / "run.json").write_text(json.dumps(facts, indent=2))
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_names():
    names = node_names(
        "textbook",
        [
            ("gene", "b0720"),
            ("reaction", "CS|0|forward"),
            ("metabolite", "cit_c"),
            ("gene", "b"),
            ("x", "y"),
        ],
    )
    assert names == {
        "gene": {"b0720": "gltA"},
        "reaction": {"CS": "citrate synthase"},
        "metabolite": {"cit_c": "Citrate"},
    }


def test_a_batch_of_named_deletions_is_that_of_the_dataset(restored, cell_cache, tmp_path):
    dataset = open_dataset(tiny_config(tmp_path), cell_cache, progress=False)
    collate = PerturbationCollate(dataset.graph)
    genes = dataset.table.ids(500)
    wanted, got = (
        collate([dataset.get(500)]),
        collate(perturbations(restored.module.graph, [genes])),
    )
    for node_type, alive in wanted.alive_dict.items():
        assert torch.equal(alive, got.alive_dict[node_type])

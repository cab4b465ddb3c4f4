from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cell.networks import toy_network

from pyg_nsa.cell.files.sealed_file import write_sealed
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels import simulated as simulated_labels
from pyg_nsa.cell.labels.fba import GrowthSimulator
from pyg_nsa.cell.labels.measured import read_label_table
from pyg_nsa.cell.labels.simulated import simulate_labels
from pyg_nsa.cell.labels.table import LabelFileError, LabelTable
from pyg_nsa.cell.network.graph import build_graph


def same(one: LabelTable, other: LabelTable) -> bool:
    arrays = ("genes", "fitness", "gene_interaction", "fitness_std")
    return (
        one.gene_ids == other.gene_ids
        and all(
            np.array_equal(getattr(one, a), getattr(other, a), equal_nan=a != "genes")
            for a in arrays
        )
        and one.provenance == other.provenance
    )


@pytest.fixture(scope="module")
def toy_graph(toy):
    return build_graph(toy, features=False)


def test_simulated_labels(tmp_path, textbook):
    table = simulate_labels(textbook, tmp_path, progress=False)
    assert repr(table) == "LabelTable(8522 instances: 137 of 1, 8385 of 2 deleted genes)"
    assert np.isnan(table.gene_interaction[:137]).all()
    assert int(table.interacting.sum()) == 880
    assert table.nbytes / len(table) < 100
    simulator = GrowthSimulator(textbook)
    for i in (0, 40, 137, 5000, 8521):
        assert table.fitness[i] == pytest.approx(simulator.fitness(table.ids(i)), abs=1e-6)
    assert table.provenance["model"] == "e_coli_core"
    singles = simulate_labels(textbook, tmp_path, deletions="singles", progress=False)
    assert len(singles) == 137
    assert np.array_equal(singles.fitness, table.fitness[:137])


def test_cache_is_reused_with_a_log_line(tmp_path, toy, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    first = simulate_labels(toy, tmp_path)
    assert "labels of toy: simulated 7 instances with " in caplog.text
    monkeypatch.setattr(simulated_labels, "_simulate", None)  # would fail if called
    assert same(simulate_labels(toy, tmp_path), first)
    assert f"labels of toy: read from {tmp_path}" in caplog.text


def test_another_model_or_version_has_another_cache(tmp_path, toy, monkeypatch):
    simulate_labels(toy, tmp_path)
    simulate_labels(replace(toy, upper=toy.upper * 2), tmp_path)
    monkeypatch.setattr(simulated_labels, "SIMULATION_VERSION", 99)
    simulate_labels(toy, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flip", "field"])
def test_damaged_cache_is_made_again(tmp_path, toy, caplog, damage):
    first = simulate_labels(toy, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    content = path.read_bytes()
    if damage == "field":
        with np.load(path) as archive:
            fields = {k: archive[k] for k in archive.files if k != "fitness"}
        stream = io.BytesIO()
        np.savez(stream, **fields)
        write_sealed(path, stream.getvalue())
        message = f"{path}: not a label file: it lacks 'fitness is not a file in the archive'."
    else:
        flipped = content[:300] + bytes([content[300] ^ 4]) + content[301:]
        damaged = {"cut": content[:-200], "empty": b"", "text": b"x", "flip": flipped}[damage]
        path.write_bytes(damaged)
        message = f"{path}: damaged or written by something else: its {len(damaged):,} bytes do not fit their checksum."
    with pytest.raises(LabelFileError, match=re.escape(message)):
        LabelTable.load(path)
    assert same(simulate_labels(toy, tmp_path), first)
    assert message in caplog.text
    assert "Simulating again" in caplog.text
    assert same(LabelTable.load(path), first)


def test_a_flip_of_any_byte_is_found(tmp_path):
    table = LabelTable(
        ("a",), np.zeros((1, 1), np.int32), np.ones(1, np.float32), np.ones(1, np.float32)
    )
    path = table.save(tmp_path / "labels.npz")
    content = path.read_bytes()
    assert LabelTable.load(path).fitness.tolist() == [1.0]
    with np.load(path) as archive:  # NumPy itself can read the file, too
        assert archive["fitness"].tolist() == [1.0]
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(LabelFileError, match="do not fit their checksum"):
            LabelTable.load(path)


def test_save_and_load(tmp_path):
    table = LabelTable(
        gene_ids=("a", "ß", "c"),
        genes=np.array([[0, -1], [1, 2]], np.int32),
        fitness=np.array([1, np.nan], np.float32),
        gene_interaction=np.array([np.nan, -0.5], np.float32),
        provenance={"source": "measured", "n": 3},
    )
    path = table.save(tmp_path / "deep" / "labels.npz")
    assert same(LabelTable.load(path), table)
    assert table.sizes.tolist() == [1, 2]
    assert table.ids(1) == ("ß", "c")
    assert table.interacting.tolist() == [False, True]
    assert table.y.shape == (2, 2)
    assert same(table.select(np.array([True, True])), table)
    with pytest.raises(FileNotFoundError):
        LabelTable.load(tmp_path / "none.npz")
    stream = io.BytesIO()
    np.savez(stream, head=np.array(json.dumps({"format": 7})))
    write_sealed(tmp_path / "new.npz", stream.getvalue())
    with pytest.raises(
        LabelFileError, match=r"new\.npz: written in format 7, expected 2\. Simulate again\."
    ):
        LabelTable.load(tmp_path / "new.npz")


def test_arrays_are_checked():
    y = np.zeros(2, np.float32)
    genes = np.zeros((2, 1), np.int32)
    with pytest.raises(ValueError, match=r"genes: expected an int32 array \[n, K\], got int64"):
        LabelTable(("a",), genes.astype(np.int64), y, y)
    with pytest.raises(
        ValueError, match=r"fitness: expected a float32 array of shape \(2,\), got float64"
    ):
        LabelTable(("a",), genes, y.astype(np.float64), y)
    with pytest.raises(
        ValueError, match=r"genes: indices must be below 1, the number of gene_ids; -1 pads\."
    ):
        LabelTable(("a",), genes + 1, y, y)


def test_labels_of_another_graph(toy_graph, tmp_path, textbook):
    table = simulate_labels(textbook, tmp_path, progress=False)
    with pytest.raises(
        ValueError,
        match=r"The labels belong to another graph: their 137 genes are not the first of",
    ):
        table.check_graph(toy_graph)


# --- measured tables ---


def test_measured_table(tmp_path, toy_graph):
    path = tmp_path / "measured.tsv"
    path.write_text(
        "strain\tgenes\tfitness\tfitness_std\tgene_interaction\n"
        "s1\ta\t0.9\t0.1\t\n"
        "s2\td;a\t0.5\tNA\t-0.2\n"
        "s3\tb|c\t\t0.2\tnan\n"
        "s4\ta  b,c\t1e-1\t\t\n"
    )
    table = read_label_table(path, toy_graph)
    assert table.genes.tolist() == [[0, -1, -1], [0, 3, -1], [1, 2, -1], [0, 1, 2]]
    np.testing.assert_array_equal(table.fitness, np.array([0.9, 0.5, np.nan, 0.1], np.float32))
    np.testing.assert_array_equal(
        table.gene_interaction, np.array([np.nan, -0.2, np.nan, np.nan], np.float32)
    )
    np.testing.assert_array_equal(
        table.fitness_std, np.array([0.1, np.nan, 0.2, np.nan], np.float32)
    )
    assert table.provenance == {
        "source": "measured",
        "file": str(path),
        "model": "toy",
        "left_out": 0,
        "left_out_report": "",
        "doubts": [],
    }
    table.check_graph(toy_graph)


def test_measured_table_in_memory_and_gzipped(tmp_path, toy_graph):
    frame = pd.DataFrame({"genes": ["a,b", "c"], "fitness": [0.25, None]})
    path = tmp_path / "measured.csv.gz"
    frame.to_csv(path, index=False)
    for source in (frame, path):
        table = read_label_table(source, toy_graph)
        assert table.genes.tolist() == [[0, 1], [2, -1]]
        assert table.fitness[0] == 0.25
        assert np.isnan(table.fitness[1])
        assert np.isnan(table.gene_interaction).all()


def test_ids_that_hold_a_separator(tmp_path):
    """They are valid ids, and to_frame writes them."""
    cell = toy_network(
        {"R": {"A": 1.0}, "growth": {"A": -1.0}}, {"R": [{"lcl|7"}, {"G+H"}, {"a"}, {"lcl"}]}
    )
    graph = build_graph(cell, features=False)
    names = graph["gene"].node_ids
    genes = ["lcl|7", "lcl|7;a", "a+G+H", "lcl", "G+H", "lcl|a"]
    table = read_label_table(pd.DataFrame({"genes": genes, "fitness": 1.0}), graph)
    wanted = [{"lcl|7"}, {"lcl|7", "a"}, {"a", "G+H"}, {"lcl"}, {"G+H"}, {"lcl", "a"}]
    assert [set(table.ids(i)) for i in range(len(table))] == wanted
    path = tmp_path / "again.csv"
    table.to_frame().to_csv(path, index=False)
    np.testing.assert_array_equal(read_label_table(path, graph).genes, table.genes)
    assert set(names) == {"lcl|7", "G+H", "a", "lcl"}


def test_problems_are_reported_together_with_lines(tmp_path, toy_graph):
    path = tmp_path / "measured.csv"
    path.write_text(
        "genes,fitness\na,1\nzz;yy,0.5\n\na,1.0\nb;b,0.3\n,0.3\nc;d,low\nd;c,0.2\nb,inf\n"
    )
    with pytest.raises(TableError) as error:
        read_label_table(path, toy_graph)
    assert str(error.value) == (
        f"{path}: 7 problems. Genes are named as in the graph ('a', …), and every set of genes has one row; "
        "average repeated measurements first:\n"
        "  line 9: contradicts line 8 (d;c)\n"
        "  line 5: repeats line 2 (a)\n"
        "  line 6: a gene twice in 'b;b'\n"
        "  line 7: no genes\n"
        "  line 8: fitness 'low' is not a finite number\n"
        "  line 10: fitness 'inf' is not a finite number\n"
        "  line 3: unknown gene 'zz', 'yy'"
    )


def test_of_many_problems_each_kind_is_shown_and_all_are_in_a_file(tmp_path, toy_graph):
    path, listing = tmp_path / "measured.csv", tmp_path / "all.txt"
    path.write_text("genes,fitness\na,1\n" + "".join(f"z{i},1\n" for i in range(14)) + "a,0.5\n")
    wanted = ["line 17: contradicts line 2 (a)"]
    wanted += [f"line {i + 3}: unknown gene 'z{i}'" for i in range(14)]
    with pytest.raises(TableError) as error:
        read_label_table(path, toy_graph, listing=listing)
    said = str(error.value).splitlines()
    assert said[0].startswith(f"{path}: 15 problems.")
    assert said[1:12] == [f"  {problem}" for problem in wanted[:11]]
    assert said[12:] == [
        "  and 4 more rows with unknown genes",
        f"All 15 are listed in {listing}",
    ]
    assert listing.read_text().splitlines() == wanted
    with pytest.raises(TableError) as error:
        read_label_table(path, toy_graph)
    own = Path(str(error.value).rpartition("listed in ")[2])
    assert own.read_text() == listing.read_text()
    own.unlink()


@pytest.mark.parametrize(
    ("cell", "mend"),
    [
        ("0,92", "; with a decimal point it is 0.92"),
        ("-1,5e-2", "; with a decimal point it is -1.5e-2"),
        ("92 %", "; divide percent by 100"),
        ("#N/A", "; leave the cell empty if nothing was measured"),
        ("n.d.", "; leave the cell empty if nothing was measured"),
        ("#DIV/0!", "; leave the cell empty if nothing was measured"),
        ("-", "; leave the cell empty if nothing was measured"),
        ("0_92", ""),  # no 92
        ("low", ""),
        ("1,234.5", ""),
    ],
)
def test_what_a_spreadsheet_writes_in_the_place_of_a_number(tmp_path, toy_graph, cell, mend):
    path = tmp_path / "measured.tsv"
    path.write_text(f"genes\tfitness\na\t{cell}\n")
    with pytest.raises(TableError) as error:
        read_label_table(path, toy_graph)
    assert str(error.value).splitlines()[1:] == [
        f"  line 2: fitness {cell!r} is not a finite number{mend}"
    ]


def test_lines_are_those_of_the_file_where_cells_hold_line_breaks(tmp_path, toy_graph):
    path = tmp_path / "measured.csv"
    path.write_bytes(
        b'genes,fitness,"a note\nof two lines"\n'  # lines 1 and 2
        b'a,1,"one\r\ntwo\n\nfour"\n'  # 3 to 6
        b'\nb,low,\nb,0.5,"\n"\nzz,1,\n'  # 8, 9 and 10, 11
    )
    with pytest.raises(TableError) as error:
        read_label_table(path, toy_graph)
    assert str(error.value).splitlines()[1:] == [
        "  line 9: contradicts line 8 (b)",
        "  line 8: fitness 'low' is not a finite number",
        "  line 11: unknown gene 'zz'",
    ]


def test_measured_table_in_parquet(tmp_path, toy_graph):
    path = tmp_path / "measured.parquet"
    rows = {
        "genes": ["a,b", "c", "zz"],
        "fitness": [0.25, None, 1.0],
        "gene_interaction": [-0.1, None, None],
    }
    pd.DataFrame(rows).to_parquet(path)
    with pytest.raises(TableError, match=r"1 problem\..*\n  row 2: unknown gene 'zz'$"):
        read_label_table(path, toy_graph)
    table = read_label_table(path, toy_graph, on_unknown="skip")
    assert table.genes.tolist() == [[0, 1], [2, -1]]
    np.testing.assert_array_equal(table.fitness, np.array([0.25, np.nan], np.float32))
    np.testing.assert_array_equal(table.gene_interaction, np.array([-0.1, np.nan], np.float32))


def test_rows_with_unknown_genes_can_be_skipped_with_a_report(tmp_path, toy_graph, caplog):
    path = tmp_path / "measured.tsv"
    path.write_text("genes\tfitness\na\t1\nzz;a\t0.5\n\nb\t0.25\nyy\t0\n")
    table = read_label_table(path, toy_graph, on_unknown="skip")
    assert table.genes.tolist() == [[0], [1]]
    assert table.fitness.tolist() == [1, 0.25]
    assert table.provenance["left_out"] == 2
    assert caplog.messages == [
        f"{path}: left out 2 of 4 rows:\n  line 3: unknown gene 'zz'\n  line 6: unknown gene 'yy'"
    ]
    path.write_text("genes\tfitness\na\t1\nzz\t0.5\na\t0.5\n")
    with pytest.raises(TableError, match=r"1 problem\..*\n  line 4: contradicts line 2 \(a\)$"):
        read_label_table(path, toy_graph, on_unknown="skip")  # what contradicts is never skipped
    with pytest.raises(ValueError, match="on_unknown='drop': expected 'error' or 'skip'"):
        read_label_table(path, toy_graph, on_unknown="drop")


def test_a_simulated_table_goes_to_a_file_and_back(tmp_path, textbook):
    table = simulate_labels(textbook, tmp_path, deletions="triples", progress=False)
    assert (
        repr(table) == "LabelTable(21137 instances: 137 of 1, 8385 of 2, 12615 of 3 deleted genes)"
    )
    table.to_frame().to_csv(tmp_path / "table.csv", index=False)
    back = read_label_table(tmp_path / "table.csv", build_graph(textbook, features=False))
    assert np.array_equal(back.genes, table.genes)
    for name in ("fitness", "gene_interaction", "fitness_std"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))


def test_missing_columns(tmp_path, toy_graph):
    path = tmp_path / "measured.csv"
    path.write_text("gene,fitness\na,1\n")
    with pytest.raises(TableError) as error:
        read_label_table(path, toy_graph)
    assert str(error.value) == (
        f"{path}: expected one column 'genes', got the columns 'gene', 'fitness'. "
        "Needed: genes, fitness; optional: gene_interaction, fitness_std."
    )
    with pytest.raises(TableError, match=r"none\.csv: no such file \(measured labels\)"):
        read_label_table(tmp_path / "none.csv", toy_graph)

"""Tables of measurements that are read, and yet are hardly meant like that."""

import logging

import numpy as np
import pandas as pd
import pytest

from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels.measured import read_label_table
from pyg_nsa.cell.network.gene_tables import read_gene_pairs
from pyg_nsa.cell.network.graph import build_graph


@pytest.fixture(scope="module")
def graph(textbook):
    return build_graph(textbook)


def _table(graph, fitness, **columns):
    genes = graph["gene"].node_ids[: len(fitness)]
    return pd.DataFrame({"genes": genes, "fitness": fitness, **columns})


def _said(graph, table, caplog):
    with caplog.at_level(logging.WARNING):
        read = read_label_table(table, graph)
    return read, caplog.text


def test_nothing_is_said_of_usual_labels(graph, caplog):
    table = _table(graph, [1.0, 0.0, 0.98, 1.02, 1.0, 0.4], replicate=1, fitness_2=1.0)
    read, text = _said(graph, table, caplog)
    assert text == "" and read.provenance["doubts"] == []


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("gene_interactions", "gene_interaction"),
        ("fitness_sd", "fitness_std"),
        ("epsilon", "gene_interaction"),
        ("GI score", "gene_interaction"),
    ],
)
def test_a_column_that_is_nearly_one_that_is_read(graph, caplog, column, meant):
    _, text = _said(graph, _table(graph, [1.0, 0.5], **{column: 0.1}), caplog)
    assert f"column {column!r} is not used; did you mean {meant!r}?" in text


def test_percent(graph, caplog):
    _, text = _said(graph, _table(graph, [100.0, 99.0, 101.0, 0.0, 97.0]), caplog)
    assert "the median fitness of 5 single deletions is 99." in text
    assert "divide them by 100" in text and "line" not in text


def test_single_values_that_no_cell_has(graph, caplog):
    _, text = _said(graph, _table(graph, [1.0, 1.0, -3.0, 1.2e9, 1.0, 0.9]), caplog)
    names = graph["gene"].node_ids
    assert f"fitness -3 of {names[2]}" in text and f"fitness 1.2e+09 of {names[3]}" in text
    assert "2 values are far from what a cell does" in text


def test_interactions_of_single_deletions_are_left_out(graph, caplog):
    a, b, c = graph["gene"].node_ids[:3]
    table = pd.DataFrame(
        {"genes": [a, b, f"{a};{b}", c], "fitness": 1.0, "gene_interaction": [0.7, 0, -0.2, None]}
    )
    read, text = _said(graph, table, caplog)
    assert "2 values are gene_interaction of a single deletion, which is not defined" in text
    assert f"\n  row 0: 0.7 of {a}\n  row 1: 0 of {b}" in text
    assert "row 2" not in text
    np.testing.assert_array_equal(read.gene_interaction, np.float32([np.nan, np.nan, -0.2, np.nan]))
    assert len(read.provenance["doubts"]) == 1
    _, text = _said(graph, table.iloc[2:], caplog)
    assert text.count("not defined") == 1  # of the first table only


def test_interactions_that_the_fitness_in_the_same_table_contradicts(graph, caplog):
    """A screen of scores, or with the sign turned, must not pass for epsilon."""
    a, b, c, d = graph["gene"].node_ids[:4]
    table = pd.DataFrame(
        {
            "genes": [a, b, c, f"{a};{b}", f"{c};{b}", f"{a};{c}", f"{a};{d}"],
            "fitness": [0.9, 0.8, 1.0, 0.2, 0.75, 0.95, 0.1],
            "gene_interaction": [None, None, None, 0.52, -0.05, None, 2.0],  # d was not measured
        }
    )
    read, text = _said(graph, table, caplog)
    assert "1 of 2 values of gene_interaction that can be compared are more than 0.3 off" in text
    assert f"row 3: 0.52 of {a}+{b}, whose fitness makes it 0.2 - 0.9 * 0.8 = -0.52" in text
    assert "With the other sign 1 of them would fit." in text
    assert "row 4" not in text and "row 6" not in text
    assert len(read.provenance["doubts"]) == 1
    np.testing.assert_allclose(read.gene_interaction[3], 0.52)  # said, not changed
    caplog.clear()
    table.loc[3, "gene_interaction"] = 4.0 - 1.3
    assert "other sign" not in _said(graph, table, caplog)[1]
    caplog.clear()
    table.loc[3, "gene_interaction"] = -0.5
    assert _said(graph, table, caplog)[1] == ""


def test_a_table_without_rows_is_refused(graph, tmp_path):
    labels, pairs = tmp_path / "labels.csv", tmp_path / "pairs.tsv"
    labels.write_text("genes,fitness\n")
    with pytest.raises(TableError, match="no rows below the header"):
        read_label_table(labels, graph)
    pairs.write_text("gene_a\tgene_b\n")
    with pytest.raises(TableError, match=r"no pairs of genes below the header 'gene_a', 'gene_b'"):
        read_gene_pairs("physical", pairs, graph["gene"].node_ids)


def test_another_separator_is_named(graph, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("genes;fitness\nb0008;1\n")
    with pytest.raises(TableError, match="separated by semicolons, and .csv files by commas"):
        read_label_table(labels, graph)

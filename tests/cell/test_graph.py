from __future__ import annotations

import dataclasses
import gzip
import re
import sys

import pandas as pd
import pytest
import torch

from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels.measured import read_label_table
from pyg_nsa.cell.network.gene_tables import read_gene_pairs
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.names import ids_as_written

GPR = ("gene", "gpr", "reaction")
RMR = ("reaction", "rmr", "metabolite")
CO_COMPLEX = ("gene", "co_complex", "gene")
PRODUCER = ("gene", "producer_consumer", "gene")


def counts(graph):
    return [
        graph["reaction"].num_nodes,
        graph[GPR].num_edges,
        graph[RMR].num_edges,
    ]


def pairs(graph, edge_type):
    """Edges by name."""
    source, target = (graph[t].node_ids for t in (edge_type[0], edge_type[2]))
    return {(source[i], target[j]) for i, j in graph[edge_type].edge_index.T.tolist()}


def test_textbook_counts(textbook_model):
    graph = build_graph(textbook_model, features=False)
    assert (graph["gene"].num_nodes, graph["metabolite"].num_nodes) == (137, 72)
    assert counts(graph) == [207, 251, 762]
    assert graph[CO_COMPLEX].num_edges == 326
    assert graph[PRODUCER].num_edges == 3623
    assert graph.model_id == "e_coli_core"


def test_ijo1366_counts(ijo1366):
    graph = build_graph(ijo1366, features=False)
    assert (graph["gene"].num_nodes, graph["metabolite"].num_nodes) == (1367, 1805)
    assert counts(graph) == [5468, 5877, 17897]
    assert graph[CO_COMPLEX].num_edges == 1606
    assert graph[PRODUCER].num_edges == 10417


def test_yeast_counts(yeast):
    graph = build_graph(yeast, features=False)
    assert counts(graph) == [7122, 5450, 26325]
    assert int(graph[RMR].edge_type.sum()) == 13580


def test_toy_by_hand(toy):
    graph = build_graph(toy, features=False)
    assert graph["gene"].node_ids == ["a", "b", "c", "d"]
    assert graph["reaction"].node_ids == [
        "uptake|0|forward",
        "ab|0|forward",
        "ab|0|backward",
        "ab|1|forward",
        "ab|1|backward",
        "bc|0|forward",
        "growth|0|forward",
    ]
    reaction = graph["reaction"]
    assert reaction.reaction_index.tolist() == [0, 1, 1, 1, 1, 2, 3]
    assert reaction.direction.tolist() == [1, 1, -1, 1, -1, 1, 1]
    assert reaction.has_gene.tolist() == [False, True, True, True, True, True, False]
    assert reaction.reversible.tolist() == [False, True, True, True, True, False, False]
    assert pairs(graph, GPR) == {
        ("a", "ab|0|forward"),
        ("b", "ab|0|forward"),
        ("a", "ab|0|backward"),
        ("b", "ab|0|backward"),
        ("c", "ab|1|forward"),
        ("c", "ab|1|backward"),
        ("d", "bc|0|forward"),
    }
    signed = {
        (reaction.node_ids[r], graph["metabolite"].node_ids[m]): (s, kind)
        for (r, m), s, kind in zip(
            graph[RMR].hyperedge_index.T.tolist(),
            graph[RMR].stoichiometry.tolist(),
            graph[RMR].edge_type.tolist(),
            strict=True,
        )
    }
    assert signed["ab|0|forward", "A"] == (-1.0, 0)
    assert signed["ab|0|forward", "B"] == (2.0, 1)
    assert signed["ab|1|backward", "A"] == (1.0, 1)
    assert signed["ab|1|backward", "B"] == (-2.0, 0)
    assert pairs(graph, CO_COMPLEX) == {("a", "b"), ("b", "a")}
    # ab makes B for bc; never within one reaction, though ab both makes and uses B.
    assert pairs(graph, PRODUCER) == {("a", "d"), ("b", "d"), ("c", "d")}


def naive_nodes(model):
    """Reaction nodes by plain loops over cobra's own objects."""
    nodes = []
    for reaction in model.reactions:
        rule = str(reaction.gene_reaction_rule)
        found = []
        if rule:
            for part in rule.split(" or "):  # right for rules that are in disjunctive normal form
                members = frozenset(part.replace("(", "").replace(")", "").split(" and "))
                members = frozenset(m.strip() for m in members)
                if members not in found:
                    found.append(members)
        for clause in found or [frozenset()]:
            nodes.append((reaction.id, clause, 1))
            if reaction.lower_bound < 0:
                nodes.append((reaction.id, clause, -1))
    return nodes


def test_nodes_and_signs_against_loops(textbook_model):
    graph = build_graph(textbook_model, features=False)
    plain = [r for r in textbook_model.reactions if " and (" not in r.gene_reaction_rule]
    plain = {r.id for r in plain if ") and" not in r.gene_reaction_rule}
    genes, metabolites = graph["gene"].node_ids, graph["metabolite"].node_ids
    members: dict[int, set] = {}
    for gene, node in graph[GPR].hyperedge_index.T.tolist():
        members.setdefault(node, set()).add(genes[gene])
    column: dict[int, dict] = {}
    for (node, m), s in zip(
        graph[RMR].hyperedge_index.T.tolist(), graph[RMR].stoichiometry.tolist(), strict=True
    ):
        column.setdefault(node, {})[metabolites[m]] = s
    mine = []
    for node, name in enumerate(graph["reaction"].node_ids):
        reaction = textbook_model.reactions[int(graph["reaction"].reaction_index[node])]
        assert name.startswith(reaction.id + "|")
        way = int(graph["reaction"].direction[node])
        expected = {m.id: way * v for m, v in reaction.metabolites.items()}
        assert column[node] == pytest.approx(expected)
        if reaction.id in plain:
            mine.append((reaction.id, frozenset(members.get(node, ())), way))
    theirs = [n for n in naive_nodes(textbook_model) if n[0] in plain]
    assert len(plain) > 80
    assert mine == theirs


def test_directions_of_blocked_and_backward_reactions():
    from cell.networks import toy_network

    network = toy_network(
        {"growth": {"A": -1.0}, "blocked": {"A": 1.0}, "back": {"A": -1.0}},
        {},
        {"blocked": (0.0, 0.0), "back": (-5.0, 0.0)},
    )
    graph = build_graph(network, features=False)
    assert graph["reaction"].node_ids == [
        "growth|0|forward",
        "blocked|0|forward",
        "back|0|backward",
    ]
    assert graph[GPR].hyperedge_index.shape == (2, 0)


def naive_producers(network, graph):
    """Producer → consumer pairs by loops over pairs of reaction nodes."""
    sides: dict[int, tuple[list, list]] = {}
    for (node, m), s in zip(
        graph[RMR].hyperedge_index.T.tolist(), graph[RMR].stoichiometry.tolist(), strict=True
    ):
        sides.setdefault(m, ([], []))[s < 0].append(node)
    of = graph["reaction"].reaction_index.tolist()
    members: dict[int, list] = {}
    for gene, node in graph[GPR].hyperedge_index.T.tolist():
        members.setdefault(node, []).append(gene)
    found = set()
    for makers, users in sides.values():
        if len({of[n] for n in makers + users}) > 20:
            continue
        for p in makers:
            for c in users:
                if of[p] != of[c]:
                    found |= {(g, h) for g in members.get(p, ()) for h in members.get(c, ())}
    return sorted((g, h) for g, h in found if g != h)


def test_proxies_against_loops(textbook):
    graph = build_graph(textbook, features=False)
    expected = naive_producers(textbook, graph)
    assert graph[PRODUCER].edge_index.T.tolist() == [list(p) for p in expected]
    joined = {(g, h) for cs in textbook.clauses for c in cs for g in c for h in c if g != h}
    assert graph[CO_COMPLEX].edge_index.T.tolist() == [list(p) for p in sorted(joined)]


def test_fields(textbook):
    graph = build_graph(textbook, features=False)
    assert graph.validate()
    for node_type in ("gene", "reaction", "metabolite"):
        store = graph[node_type]
        assert store.x.shape == (store.num_nodes, 0)
        assert store.x.dtype == torch.float32
        assert len(store.node_ids) == len(set(store.node_ids)) == store.num_nodes
        assert store.feature_names == []
    for forth, back in (
        (GPR, ("reaction", "rev_gpr", "gene")),
        (RMR, ("metabolite", "rev_rmr", "reaction")),
    ):
        assert graph[forth].hyperedge_index is graph[forth].edge_index
        assert graph[forth].edge_index.dtype == torch.int64
        assert torch.equal(graph[back].hyperedge_index, graph[forth].hyperedge_index.flip(0))
        assert torch.equal(graph[back].edge_index, graph[forth].edge_index.flip(0))
    back = graph["metabolite", "rev_rmr", "reaction"]
    assert torch.equal(back.stoichiometry, graph[RMR].stoichiometry)
    assert torch.equal(back.edge_type, graph[RMR].edge_type)
    assert torch.equal(graph[RMR].edge_type, (graph[RMR].stoichiometry > 0).long())
    assert graph[RMR].stoichiometry.dtype == torch.float32
    assert not any(
        name.startswith("rev_")
        for _, name, _ in build_graph(textbook, reverse=False, features=False).edge_types
    )


# --- the user's tables ---


def test_tables_of_every_kind(tmp_path, toy):
    (tmp_path / "physical.tsv").write_text("source\ttarget\tscore\na\tb\t1\nc\td\t2\n\na\tb\t3\n")
    (tmp_path / "regulatory.csv").write_text("d,a\nd,b\n")
    frame = pd.DataFrame({"x": ["a"], "y": ["a"]})
    graph = build_graph(
        toy,
        gene_tables={
            "physical": tmp_path / "physical.tsv",
            "regulatory": tmp_path / "regulatory.csv",
            "own": frame,
        },
        features=False,
    )
    assert graph["gene", "physical", "gene"].edge_index.tolist() == [[0, 2], [1, 3]]
    assert graph["gene", "regulatory", "gene"].edge_index.tolist() == [[3, 3], [0, 1]]
    assert graph["gene", "own", "gene"].edge_index.tolist() == [[0], [0]]
    assert CO_COMPLEX not in graph.edge_types
    both = build_graph(toy, gene_tables={"own": frame}, proxies=True, features=False)
    assert CO_COMPLEX in both.edge_types
    assert CO_COMPLEX not in build_graph(toy, proxies=False, features=False).edge_types


def test_unknown_genes_are_reported_with_lines(tmp_path, toy, caplog):
    path = tmp_path / "physical.tsv"
    path.write_text("from\tto\na\tb\n\nzz\tb\na\t\nc\tyy\n")
    with pytest.raises(TableError) as error:
        build_graph(toy, gene_tables={"physical": path})
    assert str(error.value) == (
        f"{path}: gene ids that the model does not have, in 3 of 4 pairs. Correct them, or leave those pairs out "
        "(data.unknown_genes: skip in a configuration, unknown='skip' in Python), or add the genes ('add' there):\n"
        "  line 4: 'zz'\n  line 5: an empty cell\n  line 6: 'yy'"
    )
    graph = build_graph(toy, gene_tables={"physical": path}, unknown="skip", features=False)
    assert graph["gene", "physical", "gene"].edge_index.tolist() == [[0], [1]]
    assert caplog.messages == [
        f"{path}: left out gene ids that the model does not have, in 3 of 4 pairs:\n"
        "  line 4: 'zz'\n  line 5: an empty cell\n  line 6: 'yy'"
    ]


def test_repeated_pairs_are_reported_with_lines(tmp_path, toy, caplog):
    path = tmp_path / "physical.tsv"
    path.write_text("from\tto\na\tb\nb\ta\na\tb\n")
    graph = build_graph(toy, gene_tables={"physical": path}, features=False)
    assert graph["gene", "physical", "gene"].edge_index.tolist() == [[0, 1], [1, 0]]
    assert caplog.messages == [
        f"{path}: 1 of 3 pairs stand in an earlier row, and make no second edge:\n"
        "  line 4: 'a', 'b' as in line 2"
    ]


@pytest.fixture
def named(toy):
    """The toy network with names of its first genes; two genes share one."""
    rest = [""] * (len(toy.genes) - 3)
    return dataclasses.replace(toy, gene_names=("PFK1", "double", "double", *rest))


def test_a_gene_that_the_model_has_by_another_id_is_never_added(named):
    """Added, it would be a second node of that gene, which no deletion and no reaction knows."""
    first, second, *_ = named.genes
    for alias in ("pfk1", "PFK1", first.upper()):
        table = pd.DataFrame({"source": [alias, second], "target": [second, "new"]})
        with pytest.raises(TableError) as error:
            build_graph(named, gene_tables={"physical": table}, unknown="add", features=False)
        assert f"row 0: {alias!r} (the model's {first!r})" in str(error.value)
        assert "is not added" in str(error.value) and "row 1" not in str(error.value)
    ambiguous = pd.DataFrame({"source": ["double"], "target": [first]})
    graph = build_graph(named, gene_tables={"physical": ambiguous}, unknown="add", features=False)
    assert graph["gene"].node_ids[-1] == "double"


def test_labels_by_name_are_told_the_ids(named):
    graph = build_graph(named, features=False)
    first = named.genes[0]
    table = pd.DataFrame({"genes": ["Pfk1", "zz"], "fitness": 1.0})
    with pytest.raises(TableError) as error:
        read_label_table(table, graph, written=ids_as_written(named))
    assert str(error.value).splitlines()[1:] == [
        f"  row 0: unknown gene 'Pfk1' (the model's {first!r})",
        "  row 1: unknown gene 'zz'",
    ]


def test_unknown_genes_can_be_added(toy, caplog):
    table = pd.DataFrame([["a", "q"], ["p", "q"]])
    graph = build_graph(toy, gene_tables={"physical": table}, unknown="add")
    assert graph["gene"].node_ids == ["a", "b", "c", "d", "q", "p"]
    assert graph["gene", "physical", "gene"].edge_index.tolist() == [[0, 5], [4, 4]]
    assert graph["gene"].x.shape[0] == 6
    assert "added 2 genes that the model does not have" in caplog.text
    assert "'q'\n  'p'" in caplog.text


def test_parquet(tmp_path, toy):
    path = tmp_path / "physical.parquet"
    pd.DataFrame([["a", "b"], ["c", "d"]], columns=["x", "y"]).to_parquet(path)
    graph = build_graph(toy, gene_tables={"physical": path}, features=False)
    assert graph["gene", "physical", "gene"].edge_index.tolist() == [[0, 2], [1, 3]]
    pd.DataFrame([["a", "b"], ["zz", None]], columns=["x", "y"]).to_parquet(path)
    with pytest.raises(TableError, match=r"physical\.parquet: .*\n  row 1: 'zz', an empty cell$"):
        build_graph(toy, gene_tables={"physical": path})
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(TableError, match=r"physical\.parquet: cannot be read \(.+\)"):
        build_graph(toy, gene_tables={"physical": path})


def test_parquet_without_its_package(tmp_path, toy, monkeypatch):
    path = tmp_path / "physical.parquet"
    path.write_bytes(b"PAR1")
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TableError) as error:
        build_graph(toy, gene_tables={"physical": path})
    assert str(error.value) == (
        f"{path}: Parquet files need the package 'pyarrow': pip install pyarrow. "
        "Or give the table as .csv or .tsv."
    )


@pytest.mark.parametrize("compression", [".gz", ".bz2"])
def test_compressed_tables(tmp_path, toy, compression):
    path = tmp_path / f"physical.tsv{compression}"
    pd.DataFrame([["a", "b"]]).to_csv(path, sep="\t", index=False, header=False)
    graph = build_graph(toy, gene_tables={"physical": path}, features=False)
    assert graph["gene", "physical", "gene"].edge_index.tolist() == [[0], [1]]


@pytest.mark.parametrize("header", ["gene1\tgene2\n", "source\ttarget\n", "Locus 1\tLocus 2\n", ""])
def test_a_header_is_told_from_pairs_that_the_model_lacks(tmp_path, header):
    path = tmp_path / "physical.tsv"
    path.write_text(header + "b9998\tb9999\nb0116\tb0118\n")
    pairs = read_gene_pairs("physical", path, ["b0116", "b0118"], "skip", quiet=True)
    first = 2 if header else 1
    assert pairs.unknown == [f"line {first}: 'b9998', 'b9999'"]
    assert (pairs.rows, pairs.pairs.tolist()) == (2, [[0], [1]])


def test_many_problems_are_shortened(toy):
    table = pd.DataFrame([[f"g{i}", "a"] for i in range(12)])
    with pytest.raises(TableError, match=r"row 9: 'g9'\n  and 2 more$"):
        build_graph(toy, gene_tables={"physical": table})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.tsv", None, r"none\.tsv: no such file \(gene_tables\['physical'\]\)\."),
        (
            "one.tsv",
            "a,b\nc,d\n",
            r"expected two columns of gene ids, got 1\. Columns are separated by commas",
        ),
        ("empty.csv", "", r"empty\.csv: cannot be read \(No columns to parse"),
        ("table.xlsx", "a", r"unknown ending '\.xlsx' .*Expected \.csv, \.tsv"),
    ],
)
def test_unreadable_tables(tmp_path, toy, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=message):
        build_graph(toy, gene_tables={"physical": tmp_path / name})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "ragged.csv",
            b'a,"b\nb"\n\nc,d\na,b,c\n',  # the first row takes two lines
            r"line 5 has 3 cells, and line 1 has 2\. No line may have more cells than the first: mend the line, or the first "
            r"one; put a cell that holds a comma in double quotes, and write numbers with a decimal point\.$",
        ),
        (
            "ragged.tsv",
            b"a\tb\na\tb\tc\td\n",
            r"line 2 has 4 cells, and line 1 has 2\. No line may .*: mend the line, or the first one\.$",
        ),
        (
            "decimal.csv",
            b"gene;fitness\na;0,98\n",
            r"line 2 has 2 cells, and line 1 has 1\. Its first line is separated by semicolons, and \.csv files by commas: write "
            r"it with commas, and its numbers with a decimal point \(0\.98, not 0,98\)\.$",
        ),
        (
            "semicolons.csv",
            b"a;b\nc;d,e\n",
            r"line 2 has 2 cells, and line 1 has 1\. Its first .* by semicolons, and \.csv files by commas: write it with commas\.$",
        ),
        (
            "quote.csv",
            b'a,b\n\nc,"d\n' + b"a,b\n" * 50_000,
            "a double quote in line 3 is never closed, or .*: close it",
        ),
        (
            "wide.csv",
            "a,b\nc,d\n".encode("utf-16"),
            "it is UTF-16 text, and tables are UTF-8: save it as UTF-8",
        ),
        (
            "latin.csv",
            "a,b\r\nc,d\r\né,b\r\n".encode("latin-1"),
            r"line 3 is no UTF-8 text \(byte 0xe9\): save the file as UTF-8 .* iconv -f latin1",
        ),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_wrong_with_a_table_is_told_with_its_line(
    tmp_path, toy, name, content, message, compress
):
    path = tmp_path / f"{name}{'.gz' if compress else ''}"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(TableError, match=f"^{re.escape(str(path))}: {message}") as caught:
        build_graph(toy, gene_tables={"physical": path})
    assert "tokenizing" not in str(caught.value)
    assert "codec" not in str(caught.value)


def test_wrong_options(toy):
    with pytest.raises(ValueError, match=r"unknown='drop': expected 'error', 'skip' or 'add'\."):
        build_graph(toy, unknown="drop")
    table = pd.DataFrame([["a", "b"]])
    with pytest.raises(ValueError, match=r"'co_complex' is the name of a proxy relation"):
        build_graph(toy, gene_tables={"co_complex": table}, proxies=True)

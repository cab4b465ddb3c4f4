"""``pyg-nsa init``: what it writes is valid, says what it saw, and says what it could not decide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from nn.conftest import make_cell
from ruamel.yaml import YAML
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, SAGEConv

from pyg_nsa import HeteroNSAConv, default_registry, load_config
from pyg_nsa.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def kinds(file="nsa.yaml"):
    return {spec.edge_type: spec.kind for spec in load_config(file).edges}


def attributed():
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.zeros(4, 3), torch.zeros(2, 5)
    data["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1, 1], [1, 0, 2]])
    data["paper", "cites", "paper"].edge_attr = torch.zeros(3, 2)
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1], [3, 3]])
    data["author", "writes", "paper"].year = torch.zeros(2)
    return data


def mangled():
    data = HeteroData()
    for name in ("on", "null", "1e3", "a: b", "x,y", "no\nbreak", "gène"):
        data[name].x = torch.zeros(2, 1)
        data[name, "yes", "on"].edge_index = torch.tensor([[0], [1]])
    return data


def without_edges():
    data = attributed()
    data["paper", "cites", "paper"].edge_index = torch.empty(2, 0, dtype=torch.long)
    data["paper", "cites", "paper"].edge_attr = torch.empty(0, 2)
    return data


DATA = {
    "cell": lambda: make_cell(),
    "wildtype cell with features": lambda: make_cell((), "wildtype", 3),
    "cell without masks": lambda: make_cell(dense=False),
    "edge attributes": attributed,
    "names": mangled,
    "without edges": without_edges,
    "list": lambda: [make_cell((1,)), make_cell((2, 5)), make_cell(())],
}


@pytest.mark.parametrize("name", DATA)
def test_what_is_written_passes_the_check(run, name):
    torch.save(DATA[name](), "data.pt")
    result = run("init", "--data", "data.pt")
    assert result.exit_code == 0, result.output
    assert result.output == "wrote nsa.yaml\n"
    checked = run("check", "nsa.yaml", "--data", "data.pt")
    assert checked.exit_code == 0, checked.output
    assert checked.output.endswith("nsa.yaml is valid and fits data.pt\n")


@pytest.mark.filterwarnings("ignore:There exist node types")
@pytest.mark.parametrize("name", ["cell", "edge attributes"])
def test_what_is_written_runs(run, name):
    data = DATA[name]()
    torch.save(data, "data.pt")
    run("init", "--data", "data.pt", "--hidden-channels", "8")
    conv = HeteroNSAConv.from_config("nsa.yaml")
    out = conv(**conv.collect(data))
    assert {x.size(-1) for x in out.values()} == {8}


def test_kinds_follow_the_fields_and_comments_the_data(run):
    torch.save(make_cell(), "data.pt")
    text = run("init", "--data", "data.pt", "-o", "-").stdout
    assert "num_nodes: {gene: 23, reaction: 31, metabolite: 17}" in text
    assert (
        "#   gene: 21 nodes, 23 rows with padding, x [23, 0], no features, 1 without any edge\n"
        in text
    )
    (line,) = (line for line in text.splitlines() if "# reaction -> metabolite: " in line)
    source, target = make_cell()["reaction", "rmr", "metabolite"].hyperedge_index.tolist()
    more = len(source) - len(set(zip(source, target, strict=True)))
    assert line == (
        f"  # reaction -> metabolite: {len(source)} edges, {more} of them more than once, {17 - len(set(target))} of 17 targets "
        "isolated"
    )
    entries = YAML(typ="safe", pure=True).load(text)["edges"]
    assert [entry["kind"] for entry in entries] == [
        "adjacency_mask",
        "adjacency_mask",
        "incidence_mask",
        "stoichiometry_bias",
    ]


def test_the_whole_text(run):
    torch.save(attributed(), "my data.pt")
    text = run("init", "--data", "my data.pt", "-o", "-", "--hidden-channels", "6").stdout
    assert text == (
        "# A configuration to start from, for my data.pt.\n"
        "# Check it:             pyg-nsa check FILE --data 'my data.pt'\n"
        "# Options of a kind:    pyg-nsa plugins show KIND\n"
        "# With all defaults:    pyg-nsa fill FILE\n"
        "version: 1\n"
        "operator: hetero_nsa  # in the same line a baseline: hetero_conv or hgt\n"
        "hidden_channels: 6\n"
        "heads: 3  # divides hidden_channels\n"
        "pattern: MS  # M: attention along the edge types below, S: among all nodes of a type, null: one bare step like HeteroConv\n"
        "# Nodes:\n"
        "#   paper: 4 nodes, x [4, 3]\n"
        "#   author: 2 nodes, x [2, 5]\n"
        "edges:\n"
        "  # paper -> paper: 3 edges, directed (2 of 3 have their reverse), 1 of 4 nodes isolated\n"
        "  # fields: edge_index [2, 3] int64, edge_attr [3, 2] float32\n"
        "  # other kinds that fit: adjacency_mask, all_pairs, distance_bias, incidence_mask, pyg_conv\n"
        "  - {edge_type: [paper, cites, paper], kind: edge_attr_bias}\n"
        "  # author -> paper: 2 edges, 3 of 4 targets isolated\n"
        "  # fields: edge_index [2, 2] int64, year [2] float32\n"
        "  # to attend by year: kind: edge_attr_bias, options: {edge_attr: year}\n"
        "  # other kinds that fit: all_pairs, incidence_mask, pyg_conv\n"
        "  - {edge_type: [author, writes, paper], kind: adjacency_mask}\n"
    )


def test_names_that_yaml_would_mangle_come_back(run):
    torch.save(mangled(), "data.pt")
    run("init", "--data", "data.pt")
    assert {edge_type[0] for edge_type in kinds()} == set(mangled().node_types)


def undecidable():
    data = attributed()
    data["paper", "bad__name", "paper"].edge_index = torch.tensor([[0], [1]])
    data["paper", "sparse", "paper"].adj_t = torch.zeros(4, 4).to_sparse()
    data["paper", "nothing", "author"].weight = torch.zeros(2)
    data["paper", "floats", "author"].edge_index = torch.zeros(2, 3)
    return data


def test_what_could_not_be_decided_is_a_comment_with_the_reason(run):
    torch.save(undecidable(), "data.pt")
    result = run("init", "--data", "data.pt")
    # torch 2.11 warns of sparse tensors first.
    said = result.output.splitlines()[-1]
    assert said == "wrote nsa.yaml; not decided: 4 of 6 edge types, see the comments"
    text = Path("nsa.yaml").read_text()
    assert (
        "unmatched: skip  # since some edge types below are not decided; 'error' once they are\n"
        in text
    )
    for reason, entry in (
        ("type name 'bad__name' must not contain '__'", "[paper, bad__name, paper]"),
        ("it has adj_t, which no kind reads; keep edge_index", "[paper, sparse, paper]"),
        (
            "it has weight, and no edge_index, hyperedge_index, adj_mask or inc_mask",
            "[paper, nothing, author]",
        ),
        (
            "'edge_index' of edge type (paper, floats, author) must hold integers",
            "[paper, floats, author]",
        ),
    ):
        line = next(line for line in text.splitlines() if reason in line)
        assert line.startswith("  # Not decided: ")
        following = text[text.index(line) + len(line) :].splitlines()[1]
        assert following == f"  # - {{edge_type: {entry}, kind: KIND}}"
    assert run("check", "nsa.yaml", "--data", "data.pt").exit_code == 0


def test_an_edge_type_that_some_graphs_lack(run):
    fewer = attributed()
    del fewer["author", "writes", "paper"]
    torch.save([attributed(), fewer], "data.pt")
    run("init", "--data", "data.pt")
    assert list(kinds().values()) == ["edge_attr_bias"]
    assert (
        "# Not decided: 1 of 2 graphs do not have it, which is a problem for what is declared; add it to them, with edges of "
        "shape [2, 0], and take kind adjacency_mask\n"
    ) in Path("nsa.yaml").read_text()
    assert run("check", "nsa.yaml", "--data", "data.pt").exit_code == 0


def test_a_wrong_attribute_gives_the_next_kind_and_the_reason(run):
    data = attributed()
    data["paper", "cites", "paper"].edge_attr = torch.zeros(2, 2)
    torch.save(data, "data.pt")
    run("init", "--data", "data.pt")
    assert kinds()["paper", "cites", "paper"] == "adjacency_mask"
    assert (
        "  # not edge_attr_bias: 'edge_attr' of edge type (paper, cites, paper) must have one row"
        in (Path("nsa.yaml").read_text())
    )


def test_nodes_without_features_in_graphs_of_different_sizes(run):
    graphs = [attributed(), attributed()]
    del graphs[0]["author"].x, graphs[1]["author"].x
    graphs[0]["author"].num_nodes, graphs[1]["author"].num_nodes = 2, 9
    torch.save(graphs, "data.pt")
    text = run("init", "--data", "data.pt", "-o", "-").stdout
    assert "num_nodes:" not in text
    assert "no x; has no features, and the number of nodes differs between graphs" in text


def test_many_nodes_get_induced_points(run):
    data = attributed()
    data["paper"].x = torch.zeros(30_000, 1)
    torch.save(data, "data.pt")
    run("init", "--data", "data.pt")
    assert load_config("nsa.yaml").sab.induced_points == 64


def test_nothing_to_decide(run):
    data = HeteroData()
    data["a"].x = torch.zeros(2, 1)
    torch.save(data, "data.pt")
    result = run("init", "--data", "data.pt")
    assert result.exit_code == 1
    assert result.stderr == "Error: data.pt has no edge types\n"
    data["a", "r", "a"].weight = torch.zeros(3)
    torch.save(data, "data.pt")
    assert run("init", "--data", "data.pt").stderr == (
        "Error: (a, r, a): it has weight, and no edge_index, hyperedge_index, adj_mask or inc_mask\n"
    )


def test_it_does_not_write_over_a_file(run, tmp_path):
    torch.save(attributed(), "data.pt")
    (tmp_path / "nsa.yaml").write_text("mine")
    result = run("init", "--data", "data.pt")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: nsa.yaml is there already; --force writes over it, -o names another file\n"
    )
    assert (tmp_path / "nsa.yaml").read_text() == "mine"
    assert run("init", "--data", "data.pt", "--force").exit_code == 0
    assert (tmp_path / "nsa.yaml").read_text() != "mine"


def test_wrong_usage(run):
    torch.save(attributed(), "data.pt")
    for arguments in (["init"], ["init", "--data", "data.pt", "--from-model", "m.py"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "either --data FILE or --from-model MODEL_FILE" in result.stderr
    result = run("init", "--data", "data.pt", "-o", "nsa.json")
    assert result.exit_code == 2
    assert "'nsa.json' is not a YAML file" in result.stderr
    result = run("init", "--data", "missing.pt")
    assert result.exit_code == 2
    Path("data.txt").write_text("text")
    result = run("init", "--data", "data.txt")
    assert result.exit_code == 1
    assert "data.txt: " in result.stderr


# --- from a model ---------------------------------------------------------------------------------

MODEL = """
import torch
from torch_geometric.nn import GATConv, GINConv, HeteroConv, SAGEConv, TransformerConv

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = torch.nn.ModuleList([
            HeteroConv({
                ("paper", "cites", "paper"): GATConv(16, 16, add_self_loops=True, edge_dim=2),
                ("author", "writes", "paper"): SAGEConv((16, 16), 16, aggr="max"),
                ("paper", "by", "author"): TransformerConv((16, 16), 8, heads=2),
                ("paper", "like", "paper"): GINConv(torch.nn.Linear(16, 16)),
            }, aggr="mean"),
            HeteroConv({("author", "writes", "paper"): GATConv((16, 16), 16, add_self_loops=False)}),
        ])
"""


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_from_a_model(run, tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    result = run("init", "--from-model", "model.py")
    assert result.exit_code == 0, result.output
    text = Path("nsa.yaml").read_text()
    assert text.endswith(
        "hidden_channels: 16\n"
        "heads: 4  # divides hidden_channels\n"
        "pattern: null  # M: attention along the edge types below, S: among all nodes of a type, null: one bare step like "
        "HeteroConv\n"
        "aggr: mean\n"
        "edges:\n"
        "  # convs.0: GATConv\n"
        "  - {edge_type: [paper, cites, paper], kind: edge_attr_bias, options: {self_loops: true}}\n"
        "  # convs.0: SAGEConv\n"
        "  # in convs.1 it would be adjacency_mask\n"
        "  - {edge_type: [author, writes, paper], kind: pyg_conv, options: {conv: SAGEConv, args: {aggr: max}}}\n"
        "  # convs.0: TransformerConv\n"
        "  - {edge_type: [paper, by, author], kind: adjacency_mask}\n"
        "  # convs.0: GINConv\n"
        "  # no plugin knows this conv; targets attend along its edges\n"
        "  - {edge_type: [paper, like, paper], kind: adjacency_mask}\n"
    )
    assert run("check", "nsa.yaml").exit_code == 0
    # What is written can take the place of the layers.
    swapped = run("swap", "model.py", "-c", "nsa.yaml")
    assert "HeteroNSAConv" in swapped.output


def test_a_model_without_layers_is_told(run, tmp_path):
    (tmp_path / "model.py").write_text("import torch\nmodel = torch.nn.Linear(1, 1)\n")
    result = run("init", "--from-model", "model.py")
    assert result.exit_code == 1
    assert "the model has no layer to replace" in result.stderr


EDGE = ("a", "r", "b")


def test_plugins_say_what_a_conv_is(install):
    source = """
from pyg_nsa.api import EdgeKind, hookimpl

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(name="mine", build=lambda c, o: None, summary="Mine.", api=(1, 0))]

@hookimpl
def pyg_nsa_spec_from_module(module):
    from pyg_nsa import EdgeSpec
    if type(module).__name__ == "SAGEConv":
        return EdgeSpec(edge_type=("a", "r", "b"), kind="mine")
    if type(module).__name__ == "GATConv":
        return {answer}
"""
    from pyg_nsa.registry import BrokenPluginError, Registry

    install("mine-dist", {"mine": "mine_mod"}, {"mine_mod": source.replace("{answer}", "'mine'")})
    registry = Registry()
    # A third party is asked before pyg_nsa's own plugins.
    assert registry.spec_from_module(SAGEConv(2, 2), EDGE).kind == "mine"
    assert default_registry().spec_from_module(SAGEConv(2, 2), EDGE).kind == "pyg_conv"
    assert registry.spec_from_module(torch.nn.Linear(2, 2), EDGE) is None
    with pytest.raises(
        BrokenPluginError,
        match="pyg_nsa_spec_from_module of mine_mod must return an EdgeSpec or None, it returned str 'mine'",
    ):
        registry.spec_from_module(GATConv(2, 2), EDGE)
    install("more-dist", {"mine": "more_mod"}, {"more_mod": source.replace("{answer}", "1 / 0")})
    registry = Registry(disable=["mine-dist"])
    with pytest.raises(BrokenPluginError, match="of more_mod failed for a GATConv: ZeroDivisionE"):
        registry.spec_from_module(GATConv(2, 2), EDGE)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            "EdgeSpec(edge_type=('x', 'y', 'z'), kind='mine')",
            "pyg_nsa_spec_from_module of mine_mod was asked about a SAGEConv of edge type (a, r, b) and returned a spec of "
            "(x, y, z); it gets the edge type as edge_type, and its spec must be of that one",
        ),
        (
            "EdgeSpec(edge_type=('a', 'r', 'b'), kind='min')",
            "failed for a SAGEConv: ValidationError: EdgeSpec: kind: unknown edge kind 'min', did you mean 'mine'?",
        ),
    ],
)
def test_a_spec_that_a_plugin_got_wrong_is_told(install, answer, text):
    source = f"""
from pyg_nsa import EdgeSpec
from pyg_nsa.api import EdgeKind, hookimpl

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(name="mine", build=lambda c, o: None, summary="Mine.", api=(1, 0))]

@hookimpl
def pyg_nsa_spec_from_module(module):
    return {answer}
"""
    from pyg_nsa.registry import BrokenPluginError, Registry

    install("mine-dist", {"mine": "mine_mod"}, {"mine_mod": source})
    with pytest.raises(BrokenPluginError) as caught:
        Registry().spec_from_module(SAGEConv(2, 2), EDGE)
    assert text in str(caught.value)


def test_help_imports_no_torch():
    code = (
        "import sys\nfrom pyg_nsa.cli import main\n"
        "try:\n    main(['init', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

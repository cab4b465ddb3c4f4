from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch_geometric import transforms
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cli import main
from pyg_nsa.cli.graphs import read_graphs
from pyg_nsa.load import load_config, migrations
from pyg_nsa.registry import Registry, use_registry

GG, GR = ("gene", "regulates", "gene"), ("gene", "gpr", "reaction")
GOOD = (
    "edges:\n  - {edge_type: [gene, regulates, gene], kind: adjacency_mask}\n"
    "  - {edge_type: [gene, gpr, reaction], kind: incidence_mask}\n"
)
BAD = GOOD.replace("kind: incidence_mask", "kind: incidence_mask, options: {selfloops: true}")


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)

    def check(*arguments):
        return CliRunner().invoke(main, ["check", *arguments])

    return check


def graph() -> HeteroData:
    data = HeteroData()
    data["gene"].x = torch.zeros(4, 2)
    data["reaction"].x = torch.zeros(3, 1)
    data["reaction"].num_nodes = 3
    data[GG].edge_index = torch.tensor([[0, 3], [1, 2]])
    data[GR].hyperedge_index = torch.tensor([[0, 3], [2, 1]])
    return data


def test_a_valid_file(check):
    result = check("good.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "gene regulates gene: adjacency_mask\ngene gpr reaction: incidence_mask\ngood.yaml is valid\n"
    )


def test_text(check):
    result = check("good.yaml", "bad.yaml")
    assert result.exit_code == 1
    assert result.stdout == "good.yaml is valid\n"
    assert result.stderr.startswith(
        "bad.yaml:3:72: edges[1].options.selfloops: unknown key 'selfloops'\n"
        "    did you mean 'self_loops'?\n"
    )
    assert result.stderr.endswith("1 problem in bad.yaml\n")


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_json(check, option):
    result = check("good.yaml", "bad.yaml", *option)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["valid"] is False
    good, bad = found["files"]
    assert good == {"file": "good.yaml", "valid": True, "problems": []}
    (problem,) = bad["problems"]
    assert problem["path"] == "edges[1].options.selfloops"
    assert (problem["line"], problem["suggestion"]) == (3, "self_loops")


def test_github(check):
    result = check("bad.yaml", "good.yaml", "--format", "github")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    assert line.startswith("::error file=bad.yaml,line=3,col=72,title=pyg-nsa%3A extra_forbidden::")
    assert "%0Adid you mean 'self_loops'?" in line
    assert check("good.yaml", "--format", "github").stdout == ""


def test_an_old_file_is_noted(check, tmp_path, monkeypatch):
    step = migrations.Migration("nothing much", lambda raw: raw)
    monkeypatch.setitem(migrations.MIGRATIONS, 0, step)
    (tmp_path / "old.yaml").write_text("version: 0\n" + GOOD)
    result = check("old.yaml")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: old.yaml is of version 0 of the format")
    assert "nothing much" in json.loads(check("old.yaml", "--json").stdout)["warnings"][0]


# --- with data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["data", "dict", "list", "dataset"])
def test_graphs_that_fit(check, form):
    if form == "dataset":
        InMemoryDataset.save([graph(), graph()], "graph.pt")
    else:
        made = {"data": graph(), "dict": graph().to_dict(), "list": [graph(), graph()]}[form]
        torch.save(made, "graph.pt")
    result = check("good.yaml", "--data", "graph.pt")
    assert result.output.endswith("good.yaml is valid and fits graph.pt\n")
    assert result.exit_code == 0


def test_the_first_graph_of_a_dataset(tmp_path):
    bigger = graph()
    bigger["gene"].x = torch.zeros(9, 2)
    InMemoryDataset.save([graph(), bigger], tmp_path / "graph.pt")
    ((label, first),) = read_graphs(tmp_path / "graph.pt")
    assert label.startswith("the first graph of ")
    assert first["gene"].x.shape == (4, 2)
    assert first["reaction"].num_nodes == 3
    assert first[GR].hyperedge_index.tolist() == [[0, 3], [2, 1]]


@pytest.mark.parametrize("form", ["data", "list", "dataset"])
def test_graphs_that_went_through_transforms(check, form):
    """They leave a cache in the storages, whose classes torch does not load of itself."""
    data = graph()
    data[GG].edge_attr = torch.ones(2, 3)
    split = transforms.RandomLinkSplit(0.5, 0.0, edge_types=[GG])
    made = split(transforms.ToUndirected()(data))[0]
    assert made[GG]._cached_attr
    if form == "dataset":
        InMemoryDataset.save([made, made], "graph.pt")
    else:
        torch.save([made, made] if form == "list" else made, "graph.pt")
    before = torch.serialization.get_safe_globals()
    result = check("good.yaml", "--data", "graph.pt")
    assert "and fits graph.pt" in result.output, result.output
    assert set(torch.serialization.get_safe_globals()) == set(before)
    for _, found in read_graphs(Path("graph.pt")):
        assert found.to_dict().keys() == made.to_dict().keys()
        # Whoever reads the cache makes it anew, of its own class.
        assert found[GG].is_edge_attr("edge_attr")
        assert not found[GG].is_edge_attr("edge_label_index")


def test_a_graph_that_does_not_fit(check):
    data = graph()
    data[GR].hyperedge_index = torch.tensor([[0.0], [1.0]])
    data["gene", "extra", "gene"].edge_index = torch.empty(2, 0, dtype=torch.long)
    torch.save(data, "graph.pt")
    result = check("good.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "good.yaml:3:5: edges[1]: graph.pt: 'hyperedge_index' of edge type (gene, gpr, reaction) must hold integers, "
        "got torch.float32; convert it: data[('gene', 'gpr', 'reaction')].hyperedge_index = data["
    )
    assert "good.yaml:1:1: edges: graph.pt: the graph has edge type (gene, extra, gene)" in (
        result.stderr
    )


def test_of_a_list_the_graph_is_named(check):
    bad = graph()
    bad[GG].edge_index = bad[GG].edge_index + 2
    torch.save([graph(), bad, bad], "graph.pt")
    result = check("good.yaml", "--data", "graph.pt", "--json")
    (problem,) = json.loads(result.stdout)["files"][0]["problems"]
    assert problem["message"].startswith("graph 1 of graph.pt: 'edge_index' of edge type")
    assert problem["code"] == "wrong_input"


class Foreign:
    pass


def test_what_is_not_safe_to_load_is_named(check):
    data = graph()
    data.extra = Foreign()
    torch.save(data, "graph.pt")
    before = torch.serialization.get_safe_globals()
    result = check("good.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"graph.pt: holds {Foreign.__module__}.Foreign, which weights_only"
    )
    assert "config.bind(torch.load('graph.pt', weights_only=False))" in result.stderr
    assert "and fits" not in result.stdout
    assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            Batch.from_data_list([graph()]),
            "save its graphs: torch.save(batch.to_data_list(), file)",
        ),
        (
            Data(num_nodes=3).to_dict(),
            "holds a dict that is no HeteroData.to_dict() (keys: 'num_nodes')",
        ),
        (3, "holds a int, not a HeteroData; save a HeteroData: torch.save(data, file)"),
    ],
)
def test_what_is_no_graph(check, made, message):
    torch.save(made, "graph.pt")
    result = check("good.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert message in result.stderr


def test_what_is_no_file_of_torch(check, tmp_path):
    (tmp_path / "graph.pt").write_text("hello")
    result = check("good.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert "graph.pt: cannot be read as a file of torch.save (" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("form", ["data", "list"])
def test_a_graph_of_one_node_type_is_told_as_such(check, form):
    data = Data(x=torch.zeros(3, 2), edge_index=torch.tensor([[0], [1]]))
    torch.save(data if form == "data" else [data], "graph.pt")
    result = check("good.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "graph.pt: holds a Data, not a HeteroData; it has no node and edge types; turn it into a HeteroData with "
        "data.to_heterogeneous(...)\n"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("good.yaml", "by its name it is a configuration; the file of the graph belongs here"),
        ("notes.txt", "it is neither a zip archive nor a pickle"),
    ],
)
def test_a_file_that_torch_never_wrote(check, tmp_path, name, why):
    (tmp_path / "notes.txt").write_text("edges\n")
    result = check("good.yaml", "--data", name)
    assert result.exit_code == 1
    assert f"{name}: cannot be read as a file of torch.save ({why}); write it" in result.stderr
    assert "weights_only" not in result.stderr


def test_older_files_of_torch_are_read(check):
    torch.save(graph().to_dict(), "graph.pt", _use_new_zipfile_serialization=False)
    assert check("good.yaml", "--data", "graph.pt").exit_code == 0


def test_nodes_are_compared(check, tmp_path):
    (tmp_path / "sized.yaml").write_text(GOOD + "num_nodes: {gene: 2}\nin_channels: {gene: 3}\n")
    torch.save(graph(), "graph.pt")
    result = check("sized.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert (
        "sized.yaml:4:13: num_nodes.gene: graph.pt: num_nodes says that the base graph has 2"
        in (result.stderr)
    )
    assert "sized.yaml:5:15: in_channels.gene: graph.pt: in_channels says that x" in result.stderr


# --- training runs --------------------------------------------------------------------------------

RUN = "title: Mine\ntraining: {epochs: 2}\noperator:\n" + "".join(
    f"  {line}\n" for line in GOOD.splitlines()
)


@pytest.mark.parametrize("command", ["check", "explain", "fill"])
def test_a_training_run_without_the_option(check, tmp_path, command):
    (tmp_path / "my.yaml").write_text(RUN)
    result = CliRunner().invoke(main, [command, "my.yaml"])
    assert result.exit_code == 1
    assert "my.yaml:3:1: operator: this looks like a training run" in result.output
    assert "fill take it with --training" in result.output
    assert "unknown key" not in result.output and "required" not in result.output
    assert CliRunner().invoke(main, [command, "my.yaml", "--training"]).exit_code == 0


@pytest.mark.parametrize("command", [["check", "--training"], ["train"], ["compare"]])
def test_an_operator_in_place_of_a_training_run(check, command):
    result = CliRunner().invoke(main, [command[0], "good.yaml", *command[1:]])
    assert result.exit_code == 1
    assert (
        "good.yaml:1:1: edges: this looks like the configuration of an operator alone; put all of it, indented, under "
        "'operator:'"
    ) in result.output
    assert "unknown key" not in result.output


def test_other_mistakes_in_a_training_run_are_listed_as_ever(check, tmp_path):
    (tmp_path / "my.yaml").write_text(RUN.replace("title", "titel"))
    result = check("my.yaml", "--training")
    assert "my.yaml:1:1: titel: unknown key 'titel'" in result.stderr
    (tmp_path / "both.yaml").write_text(f"operator: {{name: hgt}}\n{GOOD}")
    assert "operator: input should be a valid string" in check("both.yaml").stderr


DATA = "data:\n  model: cell.xml\n  labels: screen.csv\n  gene_tables: {mine: pairs.csv}\n"


def test_files_of_data_that_are_missing(check, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "my.yaml").write_text(DATA + RUN)
    (tmp_path / "project" / "pears.csv").touch()
    (tmp_path / "project" / "screen.csv").mkdir()
    result = check("project/my.yaml", "--training")
    assert result.exit_code == 1
    taken = f"(taken from the folder of the configuration, {tmp_path / 'project'})"
    model, labels, table, near, number = result.stderr.splitlines()
    assert model == (
        f"project/my.yaml:2:3: data.model: cell.xml: no such file {taken}; "
        "instead of a file it may be textbook, iJO1366, salmonella"
    )
    assert labels.startswith(
        f"project/my.yaml:3:3: data.labels: screen.csv: is a folder, expected a file {taken}; "
        "instead of a file it may be simulated, simulated-singles"
    )
    assert table == f"project/my.yaml:4:17: data.gene_tables.mine: pairs.csv: no such file {taken}"
    assert near == "    did you mean 'pears.csv'?"
    assert number == "3 problems in project/my.yaml"
    both = check("project/my.yaml", "--training", "--build", "--json")
    assert len(json.loads(both.stdout)["files"][0]["problems"]) == 3


def test_files_of_data_that_are_there(check, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "my.yaml").write_text(DATA + RUN)
    for name in ("cell.xml", "screen.csv", "pairs.csv"):
        (tmp_path / "project" / name).touch()
    assert check("project/my.yaml", "--training").exit_code == 0
    named = DATA.replace("cell.xml", "salmonella").replace("screen.csv", "simulated-triples")
    (tmp_path / "project" / "my.yaml").write_text(named + RUN)
    assert check("project/my.yaml", "--training").exit_code == 0


def test_a_name_of_data_that_is_misspelled(check, tmp_path):
    (tmp_path / "my.yaml").write_text("data: {model: ijo1366, labels: simulatd-triples}\n" + RUN)
    result = check("my.yaml", "--training")
    assert "my.yaml:1:8: data.model: ijo1366: no such file" in result.stderr
    assert "did you mean 'iJO1366'?" in result.stderr
    assert "did you mean 'simulated-triples'?" in result.stderr
    train = CliRunner().invoke(main, ["train", "my.yaml", "--dry-run"])
    assert train.exit_code == 1
    assert "my.yaml:1:8: data.model: ijo1366: no such file" in train.output


def test_a_file_of_data_is_not_taken_from_the_working_folder(check, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "my.yaml").write_text(DATA + RUN)
    for name in ("cell.xml", "screen.csv", "pairs.csv"):
        (tmp_path / name).touch()  # where the command runs
    result = check("project/my.yaml", "--training")
    assert result.exit_code == 1
    assert result.stderr.count("no such file (taken from the folder of the configuration") == 3
    for command in (["train"], ["compare"]):
        said = CliRunner().invoke(main, [*command, "project/my.yaml", "--dry-run"])
        assert said.exit_code == 1
        assert "project/my.yaml:2:3: data.model: cell.xml: no such file" in said.output


def test_folders_that_are_called_as_a_built_in_name_is(check, tmp_path):
    (tmp_path / "my.yaml").write_text("data: {model: textbook, labels: simulated-singles}\n" + RUN)
    for name in ("textbook", "simulated-singles"):
        (tmp_path / name).mkdir()
    assert check("my.yaml", "--training").exit_code == 0
    config = load_config(tmp_path / "my.yaml", CellConfig).relative_to(tmp_path)
    assert (config.data.model, config.data.labels) == ("textbook", "simulated-singles")
    (tmp_path / "own.yaml").write_text("data: {model: ./textbook}\n" + RUN)
    result = check("own.yaml", "--training")
    assert "data.model: ./textbook: is a folder, expected a file" in result.stderr


def test_a_file_of_data_in_the_home_folder(check, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cell.xml").touch()
    (tmp_path / "my.yaml").write_text("data: {model: ~/cell.xml}\n" + RUN)
    assert check("my.yaml", "--training").exit_code == 0


def test_a_kind_that_needs_one_node_type(check, tmp_path):
    (tmp_path / "far.yaml").write_text(GOOD.replace("incidence_mask", "distance_bias"))
    result = check("far.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "far.yaml:3:40: edges[1].kind: edge kind 'distance_bias' cannot be used here: it needs an edge type within one node "
        "type, but (gene, gpr, reaction) goes from 'gene' to 'reaction'; take another kind\n"
    )


# --- what can be built ----------------------------------------------------------------------------

FRAGILE = """
from pyg_nsa.api import EdgeKind, Options, hookimpl

class FragileOptions(Options):
    wants: str = "nothing"
    "What is wrong with it."

def build(context, options):
    if options.wants == "value":
        raise ValueError("no such radius; take a larger one")
    if options.wants == "module":
        import no_such_module
    import torch
    from pyg_nsa import EdgeTerm

    class Fragile(EdgeTerm):
        def __init__(self):
            super().__init__()
            self.size = torch.arange(3).sum().item()  # not possible without memory

        def pairs(self, inputs):
            return inputs.edges_from_index("edge_index")

    return Fragile()

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(name="fragile", options=FragileOptions, build=build, summary="Breaks.", requires=("edge_index",))]
"""


@pytest.fixture
def fragile(check, tmp_path, install):
    install("fragile-kinds", {"fragile": "fragile_module"}, {"fragile_module": FRAGILE})
    torch.save(graph(), "graph.pt")

    def checked(wants, *arguments):
        entry = f"kind: fragile, options: {{wants: {wants}}}"
        (tmp_path / "it.yaml").write_text(GOOD.replace("kind: adjacency_mask", entry))
        with use_registry(Registry()):  # the default one was made before the plugin was installed
            return check("it.yaml", *arguments)

    return checked


@pytest.mark.parametrize("option", [["--build"], ["--data", "graph.pt"]])
@pytest.mark.parametrize(
    ("wants", "said"),
    [
        ("value", "cannot be built: no such radius; take a larger one\n"),
        ("module", "cannot be built: ModuleNotFoundError: No module named 'no_such_module'\n"),
    ],
)
def test_what_a_build_raises_stands_at_its_edge_type(fragile, option, wants, said):
    result = fragile(wants, *option)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"it.yaml:2:5: edges[0]: {said}    checked by: edge kind 'fragile' of fragile-kinds 1.0\n"
    )
    assert result.stderr.endswith("1 problem in it.yaml\n")
    assert fragile(wants).exit_code == 0  # nothing was asked to build it


@pytest.mark.parametrize("option", [["--build"], ["--data", "graph.pt"]])
def test_a_build_that_needs_memory_gets_it(fragile, option):
    result = fragile("nothing", *option)
    assert result.exit_code == 0, result.output


def test_what_an_operator_refuses(check, tmp_path):
    (tmp_path / "cat.yaml").write_text(f"operator: hgt\naggr: cat\n{GOOD}")
    result = check("cat.yaml", "--build")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "cat.yaml:1:1: operator: cannot be built: operator 'hgt' groups the messages of all edge types in one softmax"
    )
    assert "checked by: operator 'hgt' of pyg-nsa" in result.stderr


def test_a_build_takes_no_memory_for_parameters(check, tmp_path):
    # 64 columns of four bytes for each node would be 256 terabytes.
    (tmp_path / "big.yaml").write_text(f"{GOOD}num_nodes: {{gene: 1000000000000}}\n")
    result = check("big.yaml", "--build")
    assert result.exit_code == 0, result.output


def test_what_is_not_valid_is_not_built(check):
    result = check("bad.yaml", "--build")
    assert "cannot be built" not in result.output
    assert result.stderr.endswith("1 problem in bad.yaml\n")


BARE = "pattern: null\nnum_nodes: {gene: 4}\nsab: {induced_points: 3}\n"


def test_a_bare_step_with_what_belongs_to_blocks(check, tmp_path):
    (tmp_path / "bare.yaml").write_text(BARE + GOOD)
    result = check("bare.yaml")
    assert result.exit_code == 1
    assert "bare.yaml:2:1: num_nodes: num_nodes belongs to a stack of blocks" in result.stderr
    assert "bare.yaml:3:7: sab.induced_points: sab.induced_points belongs to" in result.stderr
    assert result.stderr.endswith("2 problems in bare.yaml\n")


def test_a_bare_step_beside_nodes_without_x(check, tmp_path):
    (tmp_path / "bare.yaml").write_text("pattern: null\n" + GOOD)
    data = graph()
    del data["reaction"].x
    torch.save(data, "graph.pt")
    result = check("bare.yaml", "--data", "graph.pt")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "bare.yaml:4:5: edges[1]: graph.pt: node type 'reaction' has no x, so attention along this edge type has nothing to go by"
    )

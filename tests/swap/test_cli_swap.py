"""``pyg-nsa swap``: the report of a model in a file, and what a wrong call is told."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch_geometric.data import Data

from pyg_nsa.cli import main

MODELS = Path(__file__).with_name("swap_models.py")

pytestmark = pytest.mark.filterwarnings("ignore:There exist node types")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nsa.yaml").write_text("version: 1\npattern: null\n")

    def run(*args):
        result = CliRunner().invoke(main, ["swap", *args])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def test_the_report_ends_with_the_lines_to_add(run, data):
    torch.save(data, "data.pt")
    result = run(f"{MODELS}:HAN", "--config", "nsa.yaml", "--data", "data.pt", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0].startswith("layer")
    assert "tried: called as the layer was called" in result.output
    assert result.output.endswith("    from pyg_nsa import swap\n    swap(model, 'nsa.yaml')\n")
    result = run(f"{MODELS}:Stack", "-c", "nsa.yaml", "--where", "convs.1")
    assert "swap(model, 'nsa.yaml', where=['convs.1'])" in result.output
    assert "convs.0" not in result.output
    assert sorted(p.name for p in Path().iterdir()) == ["data.pt", "nsa.yaml"]


def test_json(run):
    result = run(f"{MODELS}:HGT", "--config", "nsa.yaml", "--json")
    report = json.loads(result.output)
    assert [row["path"] for row in report["rows"]] == ["convs.0", "convs.1"]
    assert report["dry_run"] is True


def test_one_model_in_a_file_needs_no_name(run):
    Path("helper.py").write_text("WIDTH = 8\n")
    text = (
        "from torch import nn\nfrom torch_geometric.nn import HeteroConv, SAGEConv\nfrom helper import WIDTH\n"
        "class Net(nn.Module):\n    def __init__(self, width=WIDTH):\n        super().__init__()\n"
        "        self.conv = HeteroConv({('a', 'to', 'a'): SAGEConv(-1, width)})\n"
    )
    Path("net.py").write_text(text)
    result = run("net.py", "--config", "nsa.yaml")
    assert result.exit_code == 0, result.output
    assert "swap(model, 'nsa.yaml')" in result.output
    Path("net.py").write_text(f"{text}network = Net()\n")
    result = run("net.py", "--config", "nsa.yaml")
    assert "swap(network, 'nsa.yaml')" in result.output


def test_problems_exit_with_1(run):
    Path("bad.yaml").write_text("version: 1\nhead: 2\n")
    result = run(f"{MODELS}:HAN", "--config", "bad.yaml")
    assert result.exit_code == 1
    assert "bad.yaml:2:1: head: unknown key 'head'" in result.output
    result = run(f"{MODELS}:hetero_graphsage", "--config", "nsa.yaml")
    assert result.exit_code == 1
    assert "to_hetero has written" in result.output
    Path("bias.yaml").write_text(
        "version: 1\nunmatched: skip\nedges: [{edge_type: [paper, cites, paper], kind: stoichiometry_bias}]\n"
    )
    result = run(f"{MODELS}:HAN", "--config", "bias.yaml")
    assert result.exit_code == 1
    assert "WARNING: its kinds need" in result.output
    Path("broken.py").write_text("import nothing_of_this_name\n")
    result = run("broken.py", "--config", "nsa.yaml")
    assert result.exit_code == 1
    assert "broken.py can't be run: ModuleNotFoundError" in result.output


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("missing.py", "there is no file 'missing.py'"),
        (f"{MODELS}:Stak", "did you mean 'Stack'?"),
        (f"{MODELS}:SIZES", "neither a model nor callable without arguments"),
        (f"{MODELS}:make_data", "make_data() returned a HeteroData"),
        (f"{MODELS}", "models; say which"),
        (f"{MODELS}:call", "without arguments"),
    ],
)
def test_wrong_usage_exits_with_2(run, target, said):
    result = run(target, "--config", "nsa.yaml")
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_help_says_what_runs():
    text = " ".join(CliRunner().invoke(main, ["swap", "--help"]).output.split())
    assert "It is run, as" in text
    assert "never changes or writes a file" in text


def test_data_that_are_no_graph(run):
    torch.save(Data(x=torch.zeros(2, 1)), "data.pt")
    Path("notes.txt").write_text("hello")
    torch.save(3, "number.pt")
    for name, said in (
        ("data.pt", "data.pt: holds a Data, not a HeteroData; it has no node and edge types"),
        ("notes.txt", "notes.txt: cannot be read as a file of torch.save (it is neither"),
        ("nsa.yaml", "by its name it is a configuration"),
        ("number.pt", "number.pt: holds a int, not a HeteroData"),
    ):
        result = run(f"{MODELS}:HAN", "-c", "nsa.yaml", "--data", name)
        assert result.exit_code == 1
        assert said in result.output

"""docs/cell_data.md: its examples run, and its tables and messages are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.dataset import SIMULATED, PerturbationDataset
from pyg_nsa.cell.data.splits import SplitKind
from pyg_nsa.cell.data_names import INTERACTING
from pyg_nsa.cell.evaluation.metrics import LETHAL_BELOW
from pyg_nsa.cell.files.cache import open_dataset
from pyg_nsa.cell.files.tables import TableError
from pyg_nsa.cell.labels import lp_runner
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.sizes import dense_mask_bytes
from pyg_nsa.cli import main

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "cell_data.md").read_text()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Names after all examples, which build on one another; and the folder that they ran in."""
    folder = tmp_path_factory.mktemp("docs")
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for example in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
            exec(example, names)
    return names, folder


def test_the_examples_run(ran):
    names, folder = ran
    assert repr(names["dataset"]) in PAGE
    assert repr(names["table"]) in PAGE
    assert names["alive"].shape == (32, 207)
    assert names["counts"] == (207, 251, 762)
    assert names["mask"].shape == (4 * 137, 207)
    assert torch.equal(names["again"]["gene"].x, names["graphs"][0]["gene"].x)
    assert names["graph"]["gene", "physical", "gene"].num_edges == 2
    assert len(names["measured"]) == 2
    assert len(names["test"]) > 0
    assert len((folder / "labels.csv").read_text().splitlines()) == 21_138


def test_the_docs_say_what_counts_as_lethal():
    for page in (PAGE, (DOCS / "training.md").read_text()):
        said = re.search(r"lethal (?:in|if) [^.]*below (\d+\.\d+) ", page)
        assert said and float(said[1]) == LETHAL_BELOW


def test_the_files_are_those_named(ran):
    _, folder = ran
    patterns = [
        re.escape(name)
        .replace("HASH", "[0-9a-f]{16}")
        .replace("MODEL", ".+")
        .replace("vN", "v[0-9]+")
        for name in re.findall(r"^\| `(\S+\.(?:pt|npz|journal))` \|", PAGE, flags=re.M)
    ]
    assert len(patterns) == 4
    names = [p.name for p in (folder / "cells" / "processed").iterdir() if p.suffix != ".lock"]
    names = [name.replace("-triples.npz", "-pairs.npz") for name in names]
    assert all(any(re.fullmatch(p, name) for p in patterns) for name in names), names
    assert all(any(re.fullmatch(p, name) for name in names) for p in patterns)


def test_the_command_runs(ran, monkeypatch):
    monkeypatch.chdir(ran[1])
    (command,) = re.findall(r"^\$ pyg-nsa (.*)$", PAGE, flags=re.M)
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output
    assert "line 4: 'b0001'" in result.output


def test_the_error_shown_is_the_error_given(ran, monkeypatch):
    monkeypatch.chdir(ran[1])
    rows = "genes,fitness\nb0116,0.81\nb0118,0.5\nzwf,1\nb0116,0.9\n"
    Path("measured.csv").write_text(rows)
    with pytest.raises(TableError) as error:
        PerturbationDataset("cells", "textbook", labels="measured.csv", features=False)
    (shown,) = re.findall(r"```text\n(measured.*?)\n```", PAGE, flags=re.S)
    assert str(error.value) == shown


def test_the_configuration_is_read(ran, monkeypatch):
    monkeypatch.chdir(ran[1])
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)
    edges = [{"edge_type": ["gene", "gpr", "reaction"], "kind": "incidence_mask"}]
    data = YAML(typ="safe").load(text)["data"]
    config = CellConfig.model_validate({"data": data, "operator": {"edges": edges}})
    dataset = open_dataset(config, Path("cells"), progress=False)
    assert dataset.graph["gene", "physical", "gene"].num_edges == 2
    assert ("gene", "co_complex", "gene") in dataset.graph.edge_types
    assert dataset.table.genes.shape == (21_137, 3)
    data |= {"labels": "unknown.csv", "unknown_labels": "skip", "unknown_genes": "add"}
    Path("unknown.csv").write_text("genes,fitness\nb0116,0.5\nzwf,0.5\n")
    config = CellConfig.model_validate({"data": data, "operator": {"edges": edges}})
    dataset = open_dataset(config, Path("cells"), progress=False)
    assert len(dataset) == 1
    assert dataset.graph["gene"].node_ids[-1] == "b0001"


def test_every_field_is_documented(ran):
    names, _ = ran
    for graph in (names["dataset"].graph, names["big"]):
        fields = {field for store in graph.stores for field in store if not field.startswith("_")}
        for field in fields - {"batch", "ptr", "x_batch", "x_ptr", "model_id"}:  # PyG's own
            assert f"`{field}`" in PAGE, field


def test_numbers(ijo1366):
    graph = build_graph(ijo1366, features=False)
    row = re.search(r"^\| iJO1366 .*$", PAGE, flags=re.M)[0]
    counts = [int(cell.replace(",", "")) for cell in re.findall(r" ([\d,]+) ", row)]
    assert counts == [
        *(graph[t].num_nodes for t in ("gene", "reaction", "metabolite")),
        graph["gene", "gpr", "reaction"].num_edges,
        graph["reaction", "rmr", "metabolite"].num_edges,
    ]
    megabytes = int(re.search(r"instance of iJO1366 would take (\d+) MB", PAGE)[1])
    assert megabytes == round(dense_mask_bytes(graph) / 1e6)
    assert f"{lp_runner.CHUNK} at a time" in PAGE
    assert f"{INTERACTING:.0e}".replace("e-03", "e-3") in PAGE


def test_every_choice_is_documented():
    for name in SIMULATED:
        assert f"`{name}`" in PAGE or name == "simulated-pairs"
    for kind in SplitKind.__args__:
        assert re.search(rf"^\| `{kind}` \|", PAGE, flags=re.M)

"""The README's examples run, and its promises about commands hold."""

import re
from pathlib import Path

import click
import pytest
import torch

from pyg_nsa import default_registry, load_config
from pyg_nsa.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_example_runs_and_is_short():
    example = blocks("python")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    namespace = {}
    exec(example, namespace)
    shapes = {t: list(x.shape) for t, x in namespace["out"].items()}
    assert shapes == {"gene": [6, 32], "reaction": [4, 32], "metabolite": [5, 32]}


def test_where_attention_goes(capsys):
    namespace = {}
    for example in blocks("python")[:2]:
        exec(example, namespace)
    assert len(namespace["maps"]) == 6  # three relations in each of two M blocks
    assert (
        "('gene', 'gpr', 'reaction') torch.Size([2, 3]) torch.Size([3, 4])"
        in capsys.readouterr().out
    )


def test_the_custom_kind_runs_and_is_ten_lines():
    example = blocks("python")[2]
    plugin = example.split("class Distance")[1].split("conv = ")[0]
    assert len([line for line in plugin.splitlines() if line.strip()]) <= 10
    namespace = {}
    try:
        exec(example, namespace)
        conv = namespace["conv"]
        city, road = torch.randn(3, 4), ("city", "road", "city")
        edge_index = torch.tensor([[0, 1, 2], [1, 1, 0]])
        out = conv(
            {"city": city}, {road: edge_index}, distance_dict={road: torch.tensor([0.1, 2.0, 1.0])}
        )
        out["city"].sum().backward()
        rate = next(p for n, p in conv.named_parameters() if n.endswith("rate"))
        assert rate.grad.abs().sum() > 0
    finally:
        default_registry().unregister("distance")


def test_the_configuration_is_valid(tmp_path):
    file = tmp_path / "nsa.yaml"
    file.write_text(blocks("yaml")[0])
    config = load_config(file)
    assert [spec.kind for spec in config.edges] == [
        "adjacency_mask",
        "incidence_mask",
        "stoichiometry_bias",
    ]


def test_the_error_shown_is_the_error_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nsa.yaml").write_text(blocks("yaml")[0].replace("self_loops", "selfloops"))
    with pytest.raises(ValueError, match="unknown key") as caught:
        load_config("nsa.yaml")
    shown = blocks("text")[0].strip()
    assert shown in str(caught.value)


def test_every_listed_kind_is_installed():
    listed = re.findall(r"^\| `(\w+)` \|", README, flags=re.M)
    assert listed
    assert set(listed) == {r.name for r in default_registry().records() if r.dist == "pyg-nsa"}


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\$ make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_the_pages_and_commands_exist():
    pages = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / page).exists()] == []
    commands = set(re.findall(r"`pyg-nsa ([a-z]+)", README))
    assert commands >= {"demo", "train", "check", "swap", "plugins"}
    assert commands <= set(main.list_commands(click.Context(main)))


def test_every_page_of_the_documentation_is_listed():
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if f"({page})" not in README} == set()

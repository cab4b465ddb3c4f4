"""The written pages are up to date and complete, and the examples of docs/configuration.md run."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

import pyg_nsa
import pyg_nsa.errors
from pages import plugin_page
from pages.configuration_page import PAGE
from pages.error_page import SECTIONS
from pages.written import PAGES, text_of
from pyg_nsa import load_config
from pyg_nsa.cell.config import ReadoutConfig
from pyg_nsa.cli import main
from pyg_nsa.registry import Registry
from pyg_nsa.schema import json_schema, undescribed
from pyg_nsa.swapping import SwapError

SOURCES = Path(pyg_nsa.__file__).parent
PLUGINS = SOURCES.parent / "plugins" / "pyg_nsa_plugins"


@pytest.mark.filterwarnings("ignore:There exist node types")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_up_to_date(page):
    assert page.read_text() == text_of(page), "run: python tests/pages --write"


# --- plugins --------------------------------------------------------------------------------------


def first_party():
    records = Registry(allow=["pyg-nsa"], disable=(), strict=True).load_all()
    return [record.name for record in records if record.dist == "pyg-nsa"]


def test_every_kind_and_option_is_described():
    assert undescribed(json_schema(Registry(allow=["pyg-nsa"], disable=()))) == []
    for name in first_party():
        facts = plugin_page.facts_of(name)
        assert facts["summary"].endswith("."), name
        for row in facts["options"]:
            assert row["description"].endswith("."), f"{name}.{row['name']}"
            assert row["type"] != "anything", f"{name}.{row['name']}"


def test_every_example_of_a_plugin_is_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = next(page for page in PAGES if page.name == "plugins.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    assert len(examples) == len(first_party())
    for example in examples:
        assert isinstance(whole(example), dict)
        load_config(whole(example))


# --- errors ---------------------------------------------------------------------------------------


def codes_of(path):
    """The codes of problems that a source file writes down."""
    for node in ast.walk(ast.parse(path.read_text())):
        values = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = {
                "Problem": 2,
                "_refused": 2,
                "refused": 2,
                "PydanticCustomError": 0,
                "as_pydantic": 0,
            }.get(name)
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if place is not None and len(node.args) > place:
                values.append(node.args[place])
        elif isinstance(node, ast.Dict):
            values = [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "code"
            ]
        for value in values:
            parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            for part in parts:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def test_every_code_is_in_the_catalogue():
    files = [
        *(path for path in SOURCES.glob("*.py") if path.name != "api.py"),
        *(
            path
            for folder in ("config", "load", "registry", "suggest", "swapping")
            for path in (SOURCES / folder).glob("*.py")
        ),
        SOURCES / "cli" / "graphs.py",
        SOURCES / "cli" / "checkpoints.py",
        *PLUGINS.glob("*.py"),
    ]
    found = {code: path.name for path in files for code in codes_of(path)}
    assert len(found) > 50
    # A stand-in for a registry's own error, and the default of a class.
    found = {
        code: name for code, name in found.items() if code not in ("unusable_operator", "invalid")
    }
    listed = {case.name for cases in SECTIONS.values() for case in cases}
    assert set(found) - listed == set(), "add a case to tests/pages/errors_of_….py"


def test_every_exception_is_in_the_catalogue():
    listed = {case.name for cases in SECTIONS.values() for case in cases}
    abstract = {"RegistryError", "UnknownNameError", "ConfigError", "Problem"}
    assert set(pyg_nsa.errors.__all__) - abstract <= listed
    assert SwapError.__name__ in listed


def test_no_case_stands_twice():
    names = [case.name for cases in SECTIONS.values() for case in cases]
    assert len(set(names)) == len(names)


# --- docs/configuration.md ------------------------------------------------------------------------

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), flags=re.S)


def whole(text):
    """A configuration, with edges where an example leaves them out."""
    raw = YAML(typ="safe", pure=True).load(text)
    edges = [
        {"edge_type": ["gene", "gpr", "reaction"], "kind": "incidence_mask"},
        {"edge_type": ["reaction", "rmr", "metabolite"], "kind": "incidence_mask"},
    ]
    return {"edges": edges, **raw}


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_the_examples_of_configurations_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = ""
    seen = set()
    for language, text in BLOCKS:
        seen.add(language)
        if text.startswith("# nsa.yaml\n"):
            Path("nsa.yaml").write_text(text)
        if language == "yaml":
            load_config(whole(text))
        elif language in ("json", "toml"):
            Path(f"example.{language}").write_text(text)
            assert load_config(f"example.{language}").hidden_channels == 64
        elif language == "python":
            exec(text, namespace)
            printed = capsys.readouterr().out
        elif language == "text":
            assert printed == text
        else:
            command, _, output = text.partition("\n")
            _, program, *arguments = shlex.split(command)
            assert program == "pyg-nsa"
            result = CliRunner().invoke(main, arguments)
            assert (result.exit_code, result.output) == (0, output)
    assert seen == {"yaml", "json", "toml", "python", "text", "console"}


def test_the_commands_that_are_named_exist():
    for command in set(re.findall(r"`pyg-nsa (\w+)", PAGE.read_text())):
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0, command


# --- the readout ----------------------------------------------------------------------------------

DOCS = PAGE.parent


def switches():
    """The section of docs/training.md on the readout."""
    text = (DOCS / "training.md").read_text()
    return re.search(r"^## The switches of the readout\n(.*?)^## ", text, flags=re.S | re.M)[1]


def test_every_switch_of_the_readout_is_explained_with_its_default():
    rows = re.findall(r"^\| `readout\.(\w+)` \| `(.*?)` \|", switches(), flags=re.M)
    said = {name: YAML(typ="safe", pure=True).load(default) for name, default in rows}
    assert said == {name: field.default for name, field in ReadoutConfig.model_fields.items()}


def test_the_example_of_a_readout_is_the_demo_s():
    (example,) = re.findall(r"```yaml\n(.*?)```", switches(), flags=re.S)
    yaml = YAML(typ="safe", pure=True)
    demo = yaml.load((SOURCES / "cell" / "demo.yaml").read_text())["readout"]
    del demo["hidden_channels"]  # it goes with the demo's operator
    assert yaml.load(example)["readout"] == demo


def test_numbers_of_the_readout_are_those_of_the_comparison():
    comparison = (DOCS / "comparison.md").read_text()
    rows = [line for line in switches().splitlines() if line.startswith("| `readout.")]
    measured = " ".join(line.split("|")[4] for line in rows)
    numbers = re.findall(r"\d[\d.,]*\d", re.sub(r"\(comparison.*?\)", "", measured))
    assert len(numbers) > 10
    for number in numbers:
        assert number in comparison, number


def test_links_lead_to_a_heading():
    """Of all pages; a heading's anchor is as GitHub makes it."""
    pages = {page.name: page.read_text() for page in DOCS.glob("*.md")}
    anchors = {
        name: {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, flags=re.M)
        }
        for name, text in pages.items()
    }
    for name, text in pages.items():
        for target, anchor in re.findall(r"\]\(([\w.]*?)#([^)\s]+)\)", text):
            assert anchor in anchors[target or name], f"{name}: {target}#{anchor}"
        for target in re.findall(r"\]\(([\w/.-]+?\.md)[)#]", text):
            assert (DOCS / target).exists(), f"{name}: {target}"

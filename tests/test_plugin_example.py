"""The third-party plugin of docs/examples, and a generated one, beside a wheel of pyg_nsa in a fresh environment."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from fresh_environment import ROOT, FreshEnvironment

import pyg_nsa

pytestmark = pytest.mark.long

EXAMPLE = ROOT / "docs" / "examples" / "pyg-nsa-recency"

CONFIG = """\
edges:
  - edge_type: [person, meets, person]
    kind: recency_bias
    options: {max_age: 30}
"""


@pytest.fixture(scope="module")
def environment(fresh_environment: FreshEnvironment) -> FreshEnvironment:
    """With the example in it."""
    copy = fresh_environment.folder / EXAMPLE.name  # Nothing is left in the checkout.
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    fresh_environment.install(copy)
    return fresh_environment


def listed(environment):
    rows = json.loads(environment.run("pyg-nsa", "plugins", "list", "--load", "--json"))
    return {row["name"]: row for row in rows}


def test_pyg_nsa_is_that_of_the_wheel(environment):
    code = "import pyg_nsa, pyg_nsa_plugins; print(pyg_nsa.__file__, pyg_nsa_plugins.__file__)"
    for file in environment.run("python", "-c", code).split():
        assert file.startswith(str(environment.site))
    code = "from importlib.metadata import distributions as d; print(sum(x.name == 'pyg-nsa' for x in d()))"
    assert environment.run("python", "-c", code).strip() == "1"


def test_the_example_is_listed_as_loaded_from_its_distribution(environment):
    version = re.search(r'^version = "(.+)"$', (EXAMPLE / "pyproject.toml").read_text(), flags=re.M)
    row = listed(environment)["recency_bias"]
    assert row["what"] == "edge kind"
    assert row["status"] == "loaded"
    assert (row["dist"], row["version"]) == ("pyg-nsa-recency", version[1])
    # Those of pyg_nsa itself come from its wheel in the same way.
    own = listed(environment)["adjacency_mask"]
    assert (own["status"], own["version"]) == ("loaded", pyg_nsa.__version__)


def test_a_configuration_is_checked_by_the_example(environment, tmp_path):
    (tmp_path / "nsa.yaml").write_text(CONFIG)
    assert "nsa.yaml is valid" in environment.run("pyg-nsa", "check", "nsa.yaml", cwd=tmp_path)
    (tmp_path / "nsa.yaml").write_text(CONFIG.replace("max_age", "max_ages"))
    text = environment.run("pyg-nsa", "check", "nsa.yaml", cwd=tmp_path, status=1)
    assert "nsa.yaml:4:15: edges[0].options.max_ages: unknown key 'max_ages'" in text
    assert "did you mean 'max_age'?" in text
    assert "checked by: edge kind 'recency_bias' of pyg-nsa-recency 0.2.0" in text


def test_the_tests_of_the_example_pass(environment):
    # With the installed kind: conformance, the formula, and forward passes of layers, one of them from a configuration.
    text = run_tests(environment, environment.folder / EXAMPLE.name)
    own = len(
        re.findall(r"^def test_", (EXAMPLE / "tests/test_recency_bias.py").read_text(), flags=re.M)
    )
    assert passed(text) > own, text  # `test_conformance` is many tests.


def test_a_generated_project_works(environment, tmp_path):
    name = "my_lab.nearest"
    text = environment.run("pyg-nsa", "plugins", "new", name, "--dir", "made", cwd=tmp_path)
    made = tmp_path / "made"
    commands = [line.strip() for line in text.splitlines() if line.startswith("  python -m ")]
    assert commands == ["python -m pip install -e '.[test]'", "python -m pytest"]
    environment.run("python", "-m", "pip", "install", "--quiet", "-e", ".[test]", cwd=made)
    assert passed(run_tests(environment, made)) > 10  # the conformance checks and one of its own

    row = listed(environment)[name]
    assert (row["status"], row["dist"]) == ("loaded", "pyg-nsa-my-lab-nearest")
    shown = environment.run("pyg-nsa", "plugins", "show", name)
    assert str(made / "src") in shown
    # Neither it nor the example makes listings slow.
    code = "import sys; from pyg_nsa import Registry; Registry(strict=True).load_all(); print('torch' in sys.modules)"
    assert environment.run("python", "-c", code).strip() == "False"
    # What is installed now is in the way of a second one of that name.
    text = environment.run("pyg-nsa", "plugins", "new", name, cwd=tmp_path, status=1)
    assert "'my_lab.nearest' is provided by pyg-nsa-my-lab-nearest 0.1.0 already" in text


def run_tests(environment, project):
    return environment.run("python", "-m", "pytest", "-p", "no:cacheprovider", cwd=project)


def passed(text):
    return int(re.search(r"(\d+) passed", text)[1])

from __future__ import annotations

import json

from click.testing import CliRunner
from fake_distributions import kind_module

from pyg_nsa.cli import main
from pyg_nsa.registry import Registry, use_registry


def schema(*arguments):
    return CliRunner().invoke(main, ["schema", *map(str, arguments)])


def test_printed():
    result = schema()
    assert result.exit_code == 0
    assert (
        "adjacency_mask"
        in json.loads(result.stdout)["$defs"]["EdgeSpec"]["properties"]["kind"]["enum"]
    )
    training = json.loads(schema("--training").stdout)
    assert training["title"] == "CellConfig"
    assert "EdgeSpec" in training["$defs"]


def test_written_and_checked(tmp_path):
    file = tmp_path / "nsa.schema.json"
    result = schema("-o", file, "--check")
    assert (result.exit_code, result.stderr) == (
        1,
        f"{file} does not exist; run: pyg-nsa schema -o {file}\n",
    )
    assert schema("-o", file).exit_code == 0
    result = schema("-o", file, "--check")
    assert (result.exit_code, result.stdout) == (0, f"{file} is up to date\n")
    file.write_text("{}")
    assert (
        "is not a schema of pyg-nsa; run: pyg-nsa schema -o "
        in schema("-o", file, "--check").stderr
    )


def test_what_changed_is_said(tmp_path, install):
    file = tmp_path / "nsa.schema.json"
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    with use_registry(Registry(allow=["fake-kinds"])):
        schema("-o", file)
    with use_registry(Registry(allow=["pyg-nsa"], disable=["hetero_nsa"])):
        result = schema("-o", file, "--check")
    assert result.exit_code == 1
    assert "adjacency_mask is new" in result.stderr
    assert "fake_one is no longer installed" in result.stderr
    file.write_text(file.read_text().replace('"version": "1.0"', '"version": "0.9"'))
    with use_registry(Registry(allow=["fake-kinds"])):
        result = schema("-o", file, "--check")
    assert (
        "fake_one was of fake-kinds 0.9, revision 1 and is of fake-kinds 1.0, revision 1; "
        not in result.stderr
    )
    assert "out of date (fake_one was of fake-kinds 0.9, revision 1 and is of fake-kinds 1.0" in (
        result.stderr
    )


def test_a_broken_plugin_is_a_warning(install):
    install("fake-bad", {"bad_one": "fake_bad"}, {"fake_bad": "raise RuntimeError('no')"})
    with use_registry(Registry(allow=["fake-bad"])):
        result = schema()
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "warning: plugin 'bad_one' of fake-bad 1.0 (fake_bad) is broken"
    )
    assert json.loads(result.stdout)["x-pyg-nsa"]["kinds"] == {}

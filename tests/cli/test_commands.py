"""What all commands share: help without torch, exit codes, completion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyg_nsa.cli import main
from pyg_nsa.errors import BrokenPluginError

SCRIPT = Path(sys.executable).parent / "pyg-nsa"


def test_help_imports_no_torch():
    # The group's own help first, then that of every command below it, each looked at before the next is imported.
    code = """
import sys, click
from pyg_nsa.cli import main
from pyg_nsa.errors import BrokenPluginError

def visit(command, names):
    try:
        main([*names, "--help"])
    except SystemExit as end:
        assert not end.code, names
    for module in ("torch", "torch_geometric", "numba", "pandas"):
        assert module not in sys.modules, f"{names} --help imports {module}"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            visit(command.get_command(context, name), [*names, name])

visit(main, [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usages = {line for line in done.stdout.splitlines() if line.startswith("Usage:")}
    assert len(usages) == done.stdout.count("Usage:") > 10
    for command in (
        "check",
        "plugins",
        "plugins list",
        "plugins show",
        "plugins doctor",
        "plugins new",
    ):
        assert any(f" {command} [" in usage for usage in usages), command


def test_help_of_a_group_imports_no_library():
    code = (
        "import sys\nfrom pyg_nsa.cli import main\n"
        "try:\n    main(['plugins', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "slow = {'pydantic', 'pluggy', 'ruamel.yaml', 'rich'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["check", "explain", "fill", "schema"])
def test_commands_that_need_no_data_import_no_torch(command, tmp_path):
    file = tmp_path / "nsa.yaml"
    file.write_text("edges:\n  - {edge_type: [a, r, a], kind: adjacency_mask}\n")
    arguments = [command] if command == "schema" else [command, str(file)]
    code = (
        "import sys\nfrom pyg_nsa.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "a.yaml", "--format", "xml"],
        ["check", "a.yaml", "--data", "nowhere.pt"],
        ["explain"],
        ["fill", "a.yaml", "--diff", "--in-place"],
        ["schema", "--check"],
        ["plugins", "list", "nothing"],
        ["plugins", "show"],
        ["plugins", "doctor", "--nothing"],
        ["plugins", "new"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    assert CliRunner().invoke(main, arguments).exit_code == 2


@pytest.mark.parametrize("command", ["check", "explain", "fill"])
def test_a_missing_file_is_status_1(command, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    result = CliRunner().invoke(main, [command, str(tmp_path / "confg.yaml")])
    assert result.exit_code == 1
    assert "there is no such file" in result.output
    assert "config.yaml'?" in result.output


def test_exit_codes_and_completion_are_documented():
    text = CliRunner().invoke(main, ["--help"]).output
    assert "0 fine, 1 problems, 2 wrong usage" in text
    for shell in ("bash", "zsh", "fish"):
        assert f"_PYG_NSA_COMPLETE={shell}_source pyg-nsa" in text


@pytest.mark.skipif(not SCRIPT.exists(), reason="the command is not installed here")
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_works_in_bash():
    environment = {**os.environ, "_PYG_NSA_COMPLETE": "bash_source"}
    source = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert "_pyg_nsa_completion" in source.stdout
    # What bash calls when Tab is pressed after `pyg-nsa ex`.
    environment |= {
        "_PYG_NSA_COMPLETE": "bash_complete",
        "COMP_WORDS": "pyg-nsa ex",
        "COMP_CWORD": "1",
    }
    words = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert words.stdout.split() == ["plain,explain"]
    # The line that --help shows is one that bash accepts.
    command = f'PATH={SCRIPT.parent}:$PATH; eval "$(_PYG_NSA_COMPLETE=bash_source pyg-nsa)"; complete -p pyg-nsa'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "_pyg_nsa_completion" in done.stdout, done.stderr


def test_a_plugin_error_is_a_message_and_no_traceback(monkeypatch):
    def fail(*arguments, **options):
        raise BrokenPluginError("edge kind 'near' of near-plugin 1.0 is broken: no module 'scipyy'")

    monkeypatch.setattr("pyg_nsa.registry.Registry.load_all", fail)
    result = CliRunner().invoke(main, ["plugins", "list", "--load"])
    assert result.exit_code == 1
    assert (
        result.output
        == "Error: edge kind 'near' of near-plugin 1.0 is broken: no module 'scipyy'\n"
    )


def test_a_misspelt_command_is_told():
    result = CliRunner().invoke(main, ["chek"])
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: No such command 'chek'. Did you mean 'check'?\n")
    assert CliRunner().invoke(main, ["zzz"]).stderr.endswith("Error: No such command 'zzz'.\n")

"""``pyg-nsa check`` on checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from pyg_nsa import HeteroNSAConv
from pyg_nsa.cli import main

CONFIG = {
    "hidden_channels": 8,
    "heads": 2,
    "in_channels": 4,
    "pattern": None,
    "edges": [{"edge_type": ["a", "r", "a"], "kind": "adjacency_mask"}],
}


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["check", *arguments])


def save(file, replaced=()):
    state = HeteroNSAConv.from_config(CONFIG).state_dict()
    text = bytes(state["made_from._extra_state"].tolist())
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    state["made_from._extra_state"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    torch.save({"state_dict": {f"net.{name}": value for name, value in state.items()}}, file)


def test_what_a_checkpoint_was_made_from(check):
    save("model.ckpt")
    result = check("model.ckpt")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "net: operator 'hetero_nsa' (pyg-nsa 0.1.0, revision 1), heads=2, pyg-nsa 0.1.0\n"
        "    a r a: 'adjacency_mask' (pyg-nsa 0.1.0, revision 1)\n"
        "model.ckpt is valid\n"
    )


def test_what_is_missing(check):
    replaced = [
        (
            b'"kind":"adjacency_mask","distribution":"pyg-nsa"',
            b'"kind":"near","distribution":"my-lab"',
        )
    ]
    save("model.pt", replaced)
    result = check("model.pt")
    assert result.exit_code == 1
    assert result.stderr == (
        "model.pt: net: (a, r, a): the checkpoint needs edge kind 'near' (my-lab 0.1.0, revision 1), which is not installed; "
        "pip install my-lab==0.1.0\n1 problem in model.pt\n"
    )
    (found,) = json.loads(check("model.pt", "--json").stdout)["files"]
    assert found["problems"][0]["code"] == "missing_plugin"


def test_files_that_say_nothing(check, tmp_path):
    torch.save({"lin.weight": torch.zeros(2)}, "old.pt")
    assert "old.pt: does not say what it was made from" in check("old.pt").stderr
    assert "none.pt: there is no such file" in check("none.pt").stderr
    (tmp_path / "text.pt").write_text("version: 1")
    assert "text.pt: was refused (" in check("text.pt").stderr
    torch.save(HeteroNSAConv.from_config({**CONFIG, "in_channels": -1}).state_dict(), "lazy.pt")
    assert "call the model once before saving it" in check("lazy.pt").stderr
    torch.save({"lin": torch.nn.Linear(1, 1)}, "module.pt")
    result = check("module.pt")
    assert "module.pt: holds torch.nn.modules.linear.Linear, which weights" in result.stderr
    assert "torch.save(model.state_dict(), file)" in result.stderr
    assert result.exit_code == 1

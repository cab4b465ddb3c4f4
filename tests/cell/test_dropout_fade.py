"""Dropout that fades: which dropouts, by how much at which step, and that a model is left as it was."""

from __future__ import annotations

import pytest
import torch
from cell.test_training import Experiment, assert_same, dataset, stop_after
from cell.tiny import tiny_config
from pydantic import ValidationError
from torch import nn
from torch_geometric.nn import MLP, GATv2Conv

from pyg_nsa.cell.models import build
from pyg_nsa.cell.training import lightning_module
from pyg_nsa.cell.training.checkpoint import read_checkpoint
from pyg_nsa.cell.training.dropout_fade import DropoutFade
from pyg_nsa.cell.training.interrupt import TrainingInterrupted
from pyg_nsa.nn.feed_forward import FeedForward

__all__ = ["dataset", "stop_after"]  # fixtures

READ = [
    "readout.deletion=true",
    "readout.copies=false",
    "readout.dropout=0.5",
    "operator.dropout=0.25",
]


class Named(nn.Module):
    """Has something of that name that is no dropout."""

    dropout = True


def test_every_kind_of_dropout_is_scaled_and_given_back():
    model = nn.ModuleDict(
        {
            "own": FeedForward(4, 1.0, dropout=0.5),
            "conv": GATv2Conv(4, 4, dropout=0.25),
            "mlp": MLP([4, 4, 1], dropout=[0.5, 0.1], norm=None),
            "torch": nn.Sequential(nn.Dropout(0.8), nn.Dropout1d(0.4)),
            "other": Named(),
        }
    )
    fade = DropoutFade(model)

    def found():
        layers = model["torch"]
        return (
            model["own"].dropout,
            model["conv"].dropout,
            *model["mlp"].dropout,
            *(layer.p for layer in layers),
        )

    before = found()
    fade.scale(0.5)
    assert found() == pytest.approx((0.25, 0.125, 0.25, 0.05, 0.4, 0.2))
    fade.scale(0.0)
    assert found() == (0,) * 6
    fade.scale(1.0)
    assert found() == before == (0.5, 0.25, 0.5, 0.1, 0.8, 0.4)


@pytest.fixture
def shares(monkeypatch):
    """The dropouts of the deletion reading and of the operator at each step."""
    seen = []
    step = lightning_module.CellModule.training_step

    def watched(self, batch, batch_idx):
        model = self.model
        block = model.operator.blocks[0] if hasattr(model.operator, "blocks") else None
        inner = next(iter(block.convs.values())).conv if block else model.operator
        seen.append((model.deletion.dropout, model.head.each[0].dropout[0], inner.dropout))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(lightning_module.CellModule, "training_step", watched)
    return seen


@pytest.mark.parametrize("name", ["hetero_nsa", "hetero_conv"])
def test_dropout_goes_down_with_the_steps_for_any_operator(tmp_path, request, shares, name):
    run = Experiment(request.getfixturevalue("dataset"), tmp_path / "run")
    builder = build.build_model if name == "hetero_nsa" else build.build_hetero_conv
    trained, _ = run(build=builder, sets=READ, dropout_fade="[0.25, 0.75]")
    # Six steps, of which 0/6, 1/6, … are done when each begins.
    kept = torch.tensor([1, 1, 5 / 6, 1 / 2, 1 / 6, 0])
    wanted = kept[:, None] * torch.tensor([0.5, 0.5, 0.25])
    assert torch.allclose(torch.tensor(shares), wanted, atol=1e-6)
    model = trained.module.model
    assert (model.deletion.dropout, model.head.each[0].dropout[0]) == (0.5, 0.5)


def test_without_it_dropout_stays(tmp_path, request, shares):
    Experiment(request.getfixturevalue("dataset"), tmp_path / "run")(sets=READ)
    assert set(shares) == {(0.5, 0.5, 0.25)}


def test_resumed_is_uninterrupted(tmp_path, request, stop_after):
    how = {"sets": READ, "dropout_fade": "[0.1, 0.9]"}
    whole = Experiment(request.getfixturevalue("dataset"), tmp_path / "whole")
    parts = Experiment(request.getfixturevalue("dataset"), tmp_path / "parts")
    whole(**how)
    with stop_after(3), pytest.raises(TrainingInterrupted):
        parts(**how)
    parts(resume=True, **how)
    wanted, found = (read_checkpoint(run.last)["state_dict"] for run in (whole, parts))
    assert_same(found, wanted)


def test_an_interrupted_training_leaves_the_dropouts(tmp_path, request, stop_after, monkeypatch):
    made = []

    def builder(config, graph):
        made.append(build.build_model(config, graph))
        return made[0]

    run = Experiment(request.getfixturevalue("dataset"), tmp_path / "run")
    with stop_after(4), pytest.raises(TrainingInterrupted):
        run(build=builder, sets=READ, dropout_fade="[0.0, 1.0]")
    assert made[0].deletion.dropout == 0.5


@pytest.mark.parametrize("shares", ["[0.9, 0.3]", "[0.5, 0.5]", "[-0.1, 0.5]", "[0.5, 1.5]"])
def test_shares_that_make_no_sense(tmp_path, shares):
    with pytest.raises(
        (ValidationError, ValueError), match=r"two ascending shares of the training"
    ):
        tiny_config(tmp_path, dropout_fade=shares)


def test_a_configuration_from_before_can_be_resumed():
    from pyg_nsa.cell.training.checkpoint import differences

    before, now = {"training": {"epochs": 2}}, {"training": {"epochs": 2, "dropout_fade": None}}
    assert differences(before, now) == []
    now["training"]["dropout_fade"] = [0.3, 0.9]
    assert differences(before, now)

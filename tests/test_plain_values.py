"""Plain data of configurations and options: the same in every process, and readable again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import AliasChoices, Field, RootModel
from torch import nn

import pyg_nsa.cell
from pyg_nsa import EdgeKind, EdgeTerm, HeteroNSAConv, describe_checkpoint
from pyg_nsa.api import Options
from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.evaluation.contenders import contenders_of
from pyg_nsa.cell.training.checkpoint import differences
from pyg_nsa.cli import main
from pyg_nsa.errors import ConfigError
from pyg_nsa.load import load_config
from pyg_nsa.plain_values import plain_values
from pyg_nsa.registry import Registry, use_registry
from pyg_nsa.testing import check_edge_kind

CELL = Path(pyg_nsa.cell.__file__).parent
LETTERS = [chr(number) for number in range(ord("a"), ord("z") + 1)]
AA = ("a", "r", "a")


class Depth(Options):
    depth_: int = Field(default=1, alias="depth")
    "How deep."


class Names(RootModel[frozenset[str]]):
    pass


class Odd(Options):
    names: frozenset[str] = frozenset(LETTERS)
    "Text, whose hashes are others in every process."

    mixed: frozenset[int | str] = frozenset({8, 0, "b", "a"})
    "Values that have no order."

    by_name: dict[str, tuple[frozenset[str], ...]] = Field(default={"x": (frozenset(LETTERS),)})
    "Sets inside of others."

    anything: Any = None
    "Whatever."

    lambda_: float = Field(default=1.0, alias="lambda")
    "An option that Python cannot name."

    k: int = Field(default=3, validation_alias=AliasChoices("k", "num_neighbours"))
    "An option with a former name."

    inner: tuple[Depth, ...] = (Depth(),)
    "An alias inside."


class Rooted(Odd):
    root: Names = Names(frozenset(LETTERS))
    "A root model, which a kind's options may not hold."


class Pairs(EdgeTerm):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(nn.init.ones_(nn.Linear(1, 1).weight))

    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index")


KIND = EdgeKind(
    name="odd",
    build=lambda context, options: Pairs(),
    summary="Odd options.",
    options=Odd,
    requires=("edge_index",),
)


@pytest.fixture
def registry():
    registry = Registry()
    registry.register(KIND)
    with use_registry(registry):
        yield registry


def raw(options):
    edges = [{"edge_type": list(AA), "kind": "odd", "options": options}]
    return {"hidden_channels": 8, "in_channels": 4, "edges": edges}


def test_sets_are_sorted():
    plain = plain_values(Rooted(anything={"deep": {"b", "a"}}))
    assert plain["names"] == plain["root"] == plain["by_name"]["x"][0] == LETTERS
    assert plain["anything"] == {"deep": ["a", "b"]}
    assert plain["mixed"] == ["a", "b", 0, 8]
    # The same set, in another order of its hashes.
    one, other = ({"anything": {8, 0}}, {"anything": {0, 8}})
    assert list(one["anything"]) != list(other["anything"])
    assert plain_values(Odd(**one)) == plain_values(Odd(**other))


def test_fields_are_written_by_the_keys_that_are_read():
    options = Odd.model_validate({"lambda": 2.0, "num_neighbours": 7, "inner": [{"depth": 4}]})
    plain = plain_values(options)
    assert (plain["lambda"], plain["k"], plain["inner"]) == (2.0, 7, [{"depth": 4}])
    assert Odd.model_validate(plain) == options
    assert set(plain) == set(Odd.model_json_schema()["properties"])  # as editors complete them
    assert plain_values(options, exclude_unset=True) == {
        "lambda": 2.0,
        "k": 7,
        "inner": [{"depth": 4}],
    }


@pytest.mark.parametrize("name", ["textbook.yaml", "demo.yaml"])
def test_without_sets_and_aliases_it_is_pydantics_own_dump(name):
    config = load_config(CELL / name, CellConfig)
    plain, dumped = plain_values(config), config.model_dump(mode="json")
    assert plain == dumped
    assert list(plain["operator"]) == list(dumped["operator"])  # of one hash, so of one order


def test_a_checkpoints_configuration_is_read_again(registry):
    conv = HeteroNSAConv.from_config(raw({"lambda": 2.0}))
    (made,) = describe_checkpoint(conv.state_dict()).values()
    assert made.options[AA]["lambda"] == 2.0
    assert made.options[AA]["names"] == LETTERS
    again = load_config(made.config)
    assert again.edges[0].options == Odd.model_validate({"lambda": 2.0})


def test_what_fill_writes_is_valid(registry, tmp_path):
    file = tmp_path / "nsa.yaml"
    file.write_text(
        "edges:\n  - {edge_type: [a, r, a], kind: odd, options: {lambda: 2.0}}  # odd\n"
    )
    before = load_config(file)
    result = CliRunner().invoke(main, ["fill", str(file), "--in-place"])
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert "# odd" in text and "lambda: 2.0" in text and "lambda_" not in text
    assert load_config(file) == before
    explained = CliRunner().invoke(main, ["explain", str(file), "--json"])
    assert '"lambda": 2.0' in explained.output and "lambda_" not in explained.output


def test_an_unknown_key_is_told_the_keys_that_may_be_written(registry):
    with pytest.raises(ConfigError) as caught:
        load_config(raw({"lambda_": 2.0}))
    (problem,) = caught.value.problems
    assert problem.suggestion == "lambda"
    assert {"lambda", "k"} < set(problem.allowed) and "lambda_" not in problem.allowed


def test_a_run_with_such_options_is_recognised(registry):
    def config(names):
        whole = plain_values(load_config(CELL / "textbook.yaml", CellConfig))
        entry = whole["operator"]["edges"][0]
        entry |= {"kind": "odd", "options": {"anything": names}}
        return load_config(whole, CellConfig)

    one, other, third = (config(names) for names in ({8, 0}, {0, 8}, {0, 16}))
    assert differences(plain_values(one), plain_values(other)) == []
    assert differences(plain_values(one), plain_values(third))
    keys = [contenders_of({"run": one})[0].key for one in (one, other, third)]
    assert keys[0] == keys[1] != keys[2]


def test_the_kit_takes_such_options():
    results = check_edge_kind(KIND, options=[{}, {"lambda": 2.0}])
    failed = {one.check: one.message for one in results if one.status == "failed"}
    assert not failed.keys() & {"round_trip", "unknown_option", "default_options"}, failed

from __future__ import annotations

import warnings

import pytest
from fake_kinds import fake_registry
from pydantic import BaseModel

from pyg_nsa.config import HeteroNSAConfig
from pyg_nsa.errors import ConfigError, MigrationWarning
from pyg_nsa.load import load_config, migrations
from pyg_nsa.load.migrations import CURRENT, MIGRATIONS, Migration, NewerVersionError, migrate

EDGE = "edges:\n  - {edge_type: [gene, interacts, gene], kind: pairs}\n"


def rename_width(raw):
    if "width" in raw:
        raw["hidden_channels"] = raw.pop("width")
    return raw


@pytest.fixture
def version_0(monkeypatch):
    monkeypatch.setitem(
        MIGRATIONS, 0, Migration("'width' is called 'hidden_channels' now", rename_width)
    )


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = fake_registry()

    def load(text, **more):
        (tmp_path / "nsa.yaml").write_text(text)
        return load_config("nsa.yaml", registry=registry, **more)

    return load


def test_the_current_version_is_the_models():
    assert HeteroNSAConfig.model_fields["version"].default == CURRENT
    assert sorted(MIGRATIONS) == list(range(1, CURRENT))


def test_steps_are_taken_one_after_the_other():
    raw = {"version": 0, "a": 1, "inner": {"list": [1]}}

    def first(raw):
        raw["inner"]["list"].append(2)
        return {**raw, "b": raw.pop("a")}

    def second(raw):
        assert raw["version"] == 1
        return {**raw, "c": raw["b"]}

    steps = {0: Migration("one", first), 1: Migration("two", second)}
    new, notes = migrate(raw, steps, current=2)
    assert notes == ["one", "two"]
    assert (new["version"], new["c"], new["inner"]) == (2, 1, {"list": [1, 2]})
    assert raw == {"version": 0, "a": 1, "inner": {"list": [1]}}, "the user's data stay"
    assert migrate({"version": 2}, steps, current=2) == ({"version": 2}, [])


@pytest.mark.parametrize("raw", [{}, {"version": "one"}, {"version": True}, {"version": -3}])
def test_what_no_migration_starts_from_is_left_to_validation(raw, version_0):
    assert migrate(raw) == (raw, [])


def test_a_newer_version():
    with pytest.raises(NewerVersionError, match=r"newer than this pyg_nsa .* upgrade: pip install"):
        migrate({"version": CURRENT + 1})


def test_loading_an_old_file_warns(load, version_0):
    with pytest.warns(MigrationWarning) as caught:
        config = load("version: 0\nwidth: 32\n" + EDGE)
    assert config.hidden_channels == 32
    assert config.version == 1
    (warning,) = caught
    assert str(warning.message) == (
        "nsa.yaml is of version 0 of the format and was read as one of version 1: 'width' is called "
        "'hidden_channels' now. Write it anew: pyg-nsa fill nsa.yaml -o FILE"
    )
    assert warning.filename == __file__


def test_problems_of_an_old_file_keep_their_lines(load, version_0):
    with pytest.warns(MigrationWarning), pytest.raises(ConfigError) as caught:
        load("version: 0\nwidth: 32\nhaeds: 4\n" + EDGE)
    assert str(caught.value).startswith("nsa.yaml:3:1: haeds: unknown key 'haeds'")


def test_a_current_file_is_quiet(load, version_0):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("version: 1\n" + EDGE)
        load(EDGE)


def test_a_newer_file_is_one_problem(load):
    with pytest.raises(ConfigError) as caught:
        load("something_new: 1\nversion: 2\n" + EDGE)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.code) == ("version", 2, "newer_version")
    assert "knows version 1; upgrade: pip install -U pyg-nsa" in problem.message


def test_a_version_without_a_migration(load):
    with pytest.raises(ConfigError, match="version: 0 is not allowed"):
        load("version: 0\n" + EDGE)


class Training(BaseModel):
    model: HeteroNSAConfig
    others: dict[str, HeteroNSAConfig] = {}


def test_a_configuration_inside_of_another(load, version_0):
    inner = "  " + EDGE.replace("\n  -", "\n    -")
    text = f"model:\n  version: 0\n  width: 8\n{inner}"
    with pytest.warns(MigrationWarning, match=r"nsa.yaml \(model\) is of version 0"):
        config = load(text, model=Training)
    assert config.model.hidden_channels == 8
    with pytest.raises(ConfigError) as caught:
        load(text.replace("version: 0", "version: 7"), model=Training)
    assert [problem.path for problem in caught.value.problems] == ["model.version"]


def test_the_registry_is_read_at_the_call(monkeypatch):
    monkeypatch.setitem(migrations.MIGRATIONS, 0, Migration("x", lambda raw: raw))
    assert migrate({"version": 0})[1] == ["x"]

"""What a checkpoint says of itself, without modules: reading, comparing, and the words."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from fake_distributions import kind_module

from pyg_nsa.api import EdgeKind, Operator
from pyg_nsa.checkpoint import ENTRY, MadeOf, Part, describe_checkpoint, made_of, with_config
from pyg_nsa.checkpoint_problems import changed_options, differences, not_installed
from pyg_nsa.config import EdgeSpec, HeteroNSAConfig
from pyg_nsa.errors import CheckpointMismatchError
from pyg_nsa.registry import Registry

GG, GR = ("gene", "near", "gene"), ("gene", "gpr", "reaction")
NEAR = Part(name="near", distribution="my-lab", version="1.2", revision=1)
OTHER = Part(name="adjacency_mask", distribution="pyg-nsa", version="0.1.0")
OPERATOR = Part(name="hetero_nsa", distribution="pyg-nsa", version="0.1.0")
MADE = MadeOf(edges={GG: NEAR, GR: OTHER}, operator=OPERATOR, heads=4, config={"heads": 4})


def entry(made):
    return torch.frombuffer(bytearray(made.to_json().encode()), dtype=torch.uint8)


@pytest.fixture
def registry():
    registry = Registry(allow=["pyg-nsa"])
    return registry


def texts(problems):
    return [(p.path, p.code, p.message) for p in problems]


# --- comparing ------------------------------------------------------------------------------------


def test_the_same_is_no_difference(registry):
    assert differences(MADE, MADE, registry) == []


def test_another_version_of_one_revision_is_only_logged(registry, caplog):
    newer = replace(MADE, edges={GG: replace(NEAR, version="1.3"), GR: OTHER}, version="9.9")
    with caplog.at_level(logging.DEBUG, "pyg_nsa"):
        assert differences(MADE, newer, registry) == []
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == (
        "(gene, near, gene): the checkpoint has edge kind 'near' (my-lab 1.2, revision 1), this module has 'near' (my-lab 1.3, "
        "revision 1)"
    )


def test_a_kind_that_moved_into_a_package_is_the_same(registry):
    by_hand = replace(MADE, edges={GG: Part(name="near"), GR: OTHER})
    assert differences(by_hand, MADE, registry) == []
    assert differences(MADE, by_hand, registry) == []


def test_a_kind_under_its_former_name_is_the_same(registry):
    nearest = replace(NEAR, name="nearest", version="2.0", aliases=("near",))
    assert differences(MADE, replace(MADE, edges={GG: nearest, GR: OTHER}), registry) == []
    # No alias, another revision, another distribution: not the same.
    (problem,) = differences(
        MADE, replace(MADE, edges={GG: replace(nearest, aliases=()), GR: OTHER}), registry
    )
    assert problem.code == "missing_plugin"
    other = replace(nearest, revision=2)
    (problem,) = differences(MADE, replace(MADE, edges={GG: other, GR: OTHER}), registry)
    assert problem.code == "other_revision"
    other = replace(nearest, distribution="your-lab")
    (problem,) = differences(MADE, replace(MADE, edges={GG: other, GR: OTHER}), registry)
    assert problem.message == (
        "the checkpoint has edge kind 'near' (my-lab 1.2, revision 1), this module has one that was called 'near' before, from "
        "another distribution, 'nearest' (your-lab 2.0, revision 1); pip install my-lab==1.2, and uninstall or switch off "
        "your-lab"
    )


CHANGES = {
    "revision": (
        {"edges": {GG: replace(NEAR, version="2.0", revision=2), GR: OTHER}},
        (
            "(gene, near, gene)",
            "other_revision",
            "the checkpoint has edge kind 'near' (my-lab 1.2, revision 1), this module has 'near' (my-lab 2.0, revision 2); "
            "with another revision the same parameters give other numbers: pip install my-lab==1.2, or train anew",
        ),
    ),
    "missing plugin": (
        {"edges": {GG: OTHER, GR: OTHER}},
        (
            "(gene, near, gene)",
            "missing_plugin",
            "the checkpoint has edge kind 'near' (my-lab 1.2, revision 1), which is not installed; this module has "
            "'adjacency_mask' (pyg-nsa 0.1.0, revision 1); pip install my-lab==1.2, and build the module with edge kind 'near'",
        ),
    ),
    "another kind": (
        {"edges": {GG: NEAR, GR: replace(OTHER, name="incidence_mask")}},
        (
            "(gene, gpr, reaction)",
            "other_kind",
            "the checkpoint has edge kind 'adjacency_mask' (pyg-nsa 0.1.0, revision 1); this module has 'incidence_mask' "
            "(pyg-nsa 0.1.0, revision 1); build the module with edge kind 'adjacency_mask'",
        ),
    ),
    "another plugin": (
        {"edges": {GG: replace(NEAR, distribution="your-lab"), GR: OTHER}},
        (
            "(gene, near, gene)",
            "other_plugin",
            "the checkpoint has edge kind 'near' (my-lab 1.2, revision 1), this module has one of the same name from another "
            "distribution, 'near' (your-lab 1.2, revision 1); pip install my-lab==1.2, and uninstall or switch off your-lab",
        ),
    ),
    "an edge type less": (
        {"edges": {GR: OTHER}},
        (
            "(gene, near, gene)",
            "other_edge_types",
            "the checkpoint has edge kind 'near' (my-lab 1.2, revision 1) for this edge type, which this module does not have; "
            "declare it, or train anew",
        ),
    ),
    "an edge type more": (
        {"edges": {GG: NEAR, GR: OTHER, ("a", "r", "b"): OTHER}},
        (
            "(a, r, b)",
            "other_edge_types",
            "this module has edge kind 'adjacency_mask' (pyg-nsa 0.1.0, revision 1) for this edge type, which the checkpoint "
            "does not have; remove the edge type, or train anew",
        ),
    ),
    "another operator": (
        {"operator": replace(OPERATOR, name="hgt")},
        (
            "operator",
            "other_kind",
            "the checkpoint has operator 'hetero_nsa' (pyg-nsa 0.1.0, revision 1); this module has 'hgt' (pyg-nsa 0.1.0, "
            "revision 1); build the module with operator 'hetero_nsa'",
        ),
    ),
    "heads": (
        {"heads": 8},
        (
            "heads",
            "other_heads",
            "the checkpoint has heads=4, this module has heads=8; the parameters have the same shapes and would mean something "
            "else: build the module with heads=4",
        ),
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_differences(case, registry):
    change, expected = CHANGES[case]
    assert texts(differences(MADE, replace(MADE, **change), registry)) == [expected]


def test_options_that_one_side_does_not_know_are_no_change():
    before = replace(MADE, options={GG: {"k": 8, "gone": 1}, GR: {"clip": 2.0}}, aggr="sum")
    now = replace(MADE, options={GG: {"k": 9, "new": 1}}, aggr="sum")
    assert changed_options(before, now) == [
        "(gene, near, gene): the checkpoint has k=8, this module has k=9"
    ]
    assert changed_options(MADE, now) == changed_options(now, MADE) == []
    assert changed_options(now, now) == []


def test_a_renamed_edge_type_is_suggested(registry):
    renamed = replace(MADE, edges={("gene", "nearby", "gene"): NEAR, GR: OTHER})
    gone, new = differences(MADE, renamed, registry)
    assert gone.suggestion == "(gene, nearby, gene)"
    assert new.path == "(gene, nearby, gene)"


def test_modules_and_kinds_are_not_compared(registry):
    modules = replace(MADE, edges={GG: None, GR: None}, operator=None, heads=None)
    assert differences(MADE, modules, registry) == []
    assert differences(modules, MADE, registry) == []


# --- what is installed ----------------------------------------------------------------------------


def test_what_is_not_installed(registry):
    assert texts(not_installed(MADE, registry)) == [
        (
            "(gene, near, gene)",
            "missing_plugin",
            "the checkpoint needs edge kind 'near' (my-lab 1.2, revision 1), which is not installed; pip install my-lab==1.2",
        )
    ]
    by_hand = MadeOf(edges={GG: Part(name="near", revision=2)})
    (problem,) = not_installed(by_hand, registry)
    assert problem.message == (
        "the checkpoint needs edge kind 'near' (registered by hand, revision 2), which is not registered; register 'near' of "
        "revision 2 first (pyg_nsa.register)"
    )


def test_what_is_installed_in_another_state(install):
    install("my-lab", {"near": "near_mod"}, {"near_mod": kind_module("near", "revision=3")}, "3.0")
    (problem,) = not_installed(MADE, Registry(allow=["pyg-nsa", "my-lab"]))
    assert problem.code == "other_revision"
    assert problem.message.startswith(
        "the checkpoint has edge kind 'near' (my-lab 1.2, revision 1), this machine has 'near' (my-lab 3.0, revision 3); with"
    )
    (problem,) = not_installed(MADE, Registry(disable=["near"]))
    assert "which is disabled here (switched off by Registry(disable=…), which lists 'near')" in (
        problem.message
    )
    (problem,) = differences(
        MADE, replace(MADE, edges={GG: OTHER, GR: OTHER}), Registry(disable=["near"])
    )
    assert "which is disabled here" in problem.message


def test_what_is_installed_under_another_name(install):
    source = kind_module("nearest", "aliases=('near',)")
    install("my-lab", dict.fromkeys(("nearest", "near"), "near_mod"), {"near_mod": source}, "3.0")
    registry = Registry(allow=["pyg-nsa", "my-lab"])
    assert not_installed(MADE, registry) == []
    part = Part.of(registry.edge_kind("near"), registry)
    assert (part.name, part.aliases) == ("nearest", ("near",))
    renamed = replace(MADE, edges={GG: part})
    (read,) = MadeOf.from_json(renamed.to_json()).edges.values()
    assert read.aliases == ("near",)


def test_a_broken_plugin_is_told_as_one(install):
    install("my-lab", {"near": "near_mod"}, {"near_mod": "1/0"}, "1.2")
    registry = Registry(allow=["pyg-nsa", "my-lab"])
    (problem,) = not_installed(MADE, registry)
    assert problem.code == "missing_plugin"
    assert "which is broken here (ZeroDivisionError: division by zero)" in problem.message


# --- writing and reading --------------------------------------------------------------------------


def test_json_and_back():
    assert MadeOf.from_json(MADE.to_json()) == MADE
    assert MadeOf.from_json(MADE.to_json().encode()) == MADE
    odd = MadeOf(edges={("gène", "é→", "ü"): None}, heads=1)
    assert MadeOf.from_json(odd.to_json()) == odd
    told = replace(MADE, options={GG: {"k": 8}, GR: {}}, aggr="max")
    assert MadeOf.from_json(told.to_json()) == told
    assert MADE.parts == [OPERATOR, NEAR, OTHER]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"cannot be read \(KeyError: 'format'\); the file is damaged"),
        ("[1]", r"cannot be read \(TypeError"),
        ("{", r"cannot be read \(JSONDecodeError"),
        (
            '{"format": 2, "pyg_nsa": "7.0"}',
            r"written by pyg-nsa 7.0, whose description of it is newer .* pip install -U pyg-nsa",
        ),
    ],
)
def test_damaged_and_newer_entries(text, message):
    with pytest.raises(CheckpointMismatchError, match=message):
        MadeOf.from_json(text)


def test_relations_are_described_by_their_plugins(install):
    install("my-lab", {"near": "near_mod"}, {"near_mod": kind_module("near", "revision=3")}, "3.0")
    registry = Registry(allow=["my-lab"])
    registry.register(EdgeKind(name="mine", build=lambda c, o: None, summary="Mine."))
    context = {"registry": registry}
    specs = [
        EdgeSpec.model_validate({"edge_type": GG, "kind": "near"}, context=context),
        EdgeSpec.model_validate({"edge_type": GR, "kind": "mine"}, context=context),
    ]
    made = made_of(specs, registry, 2)
    assert made.options == {GG: {"k": 8}, GR: {}}
    assert made.edges == {
        GG: Part(name="near", distribution="my-lab", version="3.0", revision=3),
        GR: Part(name="mine"),
    }
    config = HeteroNSAConfig.model_validate(
        {"edges": specs, "heads": 2}, context={"registry": registry}
    )
    assert with_config(made, config, registry).operator is None  # not in this registry
    registry.register(Operator(name="hetero_nsa", build=lambda c, o: None, summary="It."))
    described = with_config(made, config, registry)
    assert described.operator == Part(name="hetero_nsa")
    assert described.config["edges"][0] == {
        "edge_type": list(GG),
        "kind": "near",
        "options": {"k": 8},
    }


def test_describe_checkpoint_finds_every_module(tmp_path):
    state = {ENTRY: entry(MADE), f"convs.0.{ENTRY}": entry(MADE), "lin.weight": torch.zeros(2)}
    assert describe_checkpoint(state) == {"": MADE, "convs.0": MADE}
    assert describe_checkpoint({"state_dict": state, "epoch": 3}) == {"": MADE, "convs.0": MADE}
    torch.save({"model": state}, tmp_path / "model.pt")
    assert describe_checkpoint(tmp_path / "model.pt") == {"": MADE, "convs.0": MADE}
    assert describe_checkpoint({"lin.weight": torch.zeros(2)}) == {}
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    assert describe_checkpoint(tmp_path / "tensor.pt") == {}


def test_an_entry_that_is_no_tensor():
    with pytest.raises(CheckpointMismatchError, match="is a str, not a tensor of bytes"):
        describe_checkpoint({ENTRY: "?"})
    with pytest.raises(CheckpointMismatchError, match="not a tensor of bytes"):
        describe_checkpoint({ENTRY: torch.zeros(3)})

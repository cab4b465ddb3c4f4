"""The kit's own promises: results, expected failures, options, fields, operators, and that it cannot pass without running."""

import ast
import dataclasses
import re
from pathlib import Path

import faulty_kinds as faulty
import pytest
import torch

import pyg_nsa.testing
from pyg_nsa import Operator, Registry, default_registry
from pyg_nsa.errors import UnknownEdgeKindError, UnknownOperatorError
from pyg_nsa.testing import (
    CheckResult,
    assert_edge_kind_conforms,
    assert_operator_conforms,
    check_edge_kind,
    check_operator,
)
from pyg_nsa.testing.edge_kinds import EDGE_KIND_CHECKS, edge_kind_suite
from pyg_nsa.testing.graphs import make_graph
from pyg_nsa.testing.operators import OPERATOR_CHECKS, operator_suite
from pyg_nsa.testing.results import Check, NotApplicable, Tally
from pyg_nsa.testing.suite import Suite

QUICK = [check for check in EDGE_KIND_CHECKS if not check.name.startswith("compiles")]


def by_name(results):
    return {result.check: result for result in results}


# ---- results -------------------------------------------------------------------------------------------------------------


def test_there_is_one_frozen_result_for_each_check():
    results = check_edge_kind(faulty.kind(faulty.OneColumn))
    assert [r.check for r in results] == [*(c.name for c in EDGE_KIND_CHECKS), "coverage"]
    assert {r.status for r in results} == {"passed", "failed", "not_applicable"}
    for result in results:
        assert bool(result.message) == (result.status != "not_applicable")
        assert result.reason or result.status != "not_applicable"
    with pytest.raises(dataclasses.FrozenInstanceError):
        results[0].status = "passed"
    last = by_name(results)["coverage"]
    assert re.fullmatch(r"\d+ of \d+ checks ran, \d+ of them on a built module", last.message)


def test_a_message_names_options_edge_type_and_line():
    sets = [{}, {"self_loops": True}]
    kind = faulty.kind(faulty.CrashesWhenEmpty)
    results = edge_kind_suite(kind, options=sets, checks=QUICK).results()
    message = by_name(results)["empty_relation"].message
    assert message.startswith(
        "default options, edge type (node, joins, node): raised IndexError at "
    )
    assert re.search(r"faulty_kinds\.py:\d+ in bias: amin\(\)", message)
    assert "self_loops" not in message  # with loops no relation is empty


def test_an_assertion_names_all_failed_checks_one_a_line():
    with pytest.raises(AssertionError) as caught:
        assert_edge_kind_conforms(faulty.kind(faulty.OneColumn, options=faulty.UndescribedOptions))
    first, *lines = str(caught.value).splitlines()
    assert first == f"edge kind 'weighted' fails 2 of {len(EDGE_KIND_CHECKS) + 1} checks:"
    assert [line.split(":")[0].strip() for line in lines] == ["options_described", "produces"]


def test_names_are_looked_up():
    registry = Registry(discover=False)
    registry.register(faulty.kind(faulty.Reversed, "mine"))
    found = by_name(check_edge_kind("mine", registry=registry))
    assert found["direction"].status == "failed"
    with pytest.raises(UnknownEdgeKindError, match="did you mean 'mine'"):
        check_edge_kind("mime", registry=registry)
    with pytest.raises(UnknownEdgeKindError, match="did you mean 'adjacency_mask'"):
        check_edge_kind("adjacency_mas")
    with pytest.raises(UnknownOperatorError, match="did you mean 'hetero_nsa'"):
        check_operator("hetero_nas")


# ---- expected failures ---------------------------------------------------------------------------------------------------


def test_expected_failures():
    reason = "it looks at edges from their end"
    suite = edge_kind_suite(faulty.kind(faulty.Reversed), {"direction": reason}, checks=QUICK)
    found = by_name(suite.results())
    assert found["direction"].status == "expected_failure"
    assert found["direction"].reason == reason
    assert "sources and targets are mixed up" in found["direction"].message
    # What is known does not keep the others from running.
    assert found["gradients"].status == "passed"


def test_an_expected_failure_that_passes_is_a_failure():
    suite = edge_kind_suite(faulty.kind(), {"direction": "once upon a time"}, checks=QUICK)
    result = by_name(suite.results())["direction"]
    assert result.status == "failed"
    assert result.message == (
        "expected to fail (once upon a time), but it passes; remove it from expected_failures"
    )


def test_an_expected_failure_that_does_not_apply_is_not_applicable():
    reason = {"cpu_equals_gpu": "the kernel rounds", "copies": "never tried"}
    found = by_name(edge_kind_suite(faulty.message_kind(), reason, checks=QUICK).results())
    assert found["copies"].status == "not_applicable"


def test_wrong_expected_failures():
    with pytest.raises(
        ValueError, match="'directon', which is no check; did you mean 'direction'\\?"
    ) as caught:
        check_edge_kind(faulty.kind(), expected_failures={"directon": "x"})
    assert all(check.name in str(caught.value) for check in EDGE_KIND_CHECKS)
    with pytest.raises(ValueError, match="say in a sentence why 'direction' fails, got ''"):
        check_edge_kind(faulty.kind(), expected_failures={"direction": ""})
    with pytest.raises(ValueError, match="names 'coverage', which is no check"):
        check_edge_kind(faulty.kind(), expected_failures={"coverage": "x"})


# ---- nothing passes without having run ------------------------------------------------------------------------------------


def suite_of(*checks, targets=lambda scope: [("one", 1), ("two", 2)]):
    return Suite("mine", checks, targets, frozenset({"module"}))


def nothing(target, tally):
    """Compares nothing."""


def empty(target, tally):
    """Compares no numbers."""
    tally.close(torch.empty(0), torch.empty(0), "differs")


def left(target, tally):
    """Does not apply."""
    raise NotApplicable("nothing here")


def half(target, tally):
    """Applies to the first."""
    if target == 2:
        raise NotApplicable("not to the second")
    tally.expect(True, "")


@pytest.mark.parametrize("check", [nothing, empty])
def test_a_check_that_compared_nothing_fails(check):
    result = suite_of(Check(check, "module")).outcome(check.__name__).result
    assert result.status == "failed"
    assert result.message == ("one: the check compared nothing\ntwo: the check compared nothing")


def test_a_suite_that_ran_nothing_fails():
    suite = suite_of(Check(left, "module"), Check(half, "declaration"))
    found = by_name(suite.results())
    assert found["left"] == CheckResult("left", "not_applicable", reason="nothing here")
    assert (
        found["half"].status == "passed"
        and found["half"].reason == "not for two: not to the second"
    )
    assert found["coverage"].status == "failed"
    assert found["coverage"].message == (
        "1 of 2 checks ran, 0 of them on a built module, so nothing is known about it: nothing applied to it"
    )
    nobody = suite_of(Check(half, "module"), targets=lambda scope: [])
    assert by_name(nobody.results())["half"].status == "not_applicable"
    assert by_name(nobody.results())["coverage"].status == "failed"


def test_a_check_waits_for_those_that_it_needs_and_for_theirs():
    def fails(target, tally):
        tally.expect(False, "no")

    def second(target, tally):
        tally.expect(True, "")

    def third(target, tally):
        tally.expect(True, "")

    suite = suite_of(
        Check(fails, "module"),
        Check(second, "module", ("fails",)),
        Check(third, "module", ("second",)),
    )
    found = by_name(suite.results())
    assert [found[n].reason for n in ("second", "third")] == ["waits for 'fails', which failed"] * 2


def test_numbers_that_differ_are_shown():
    tally = Tally()
    tally.close(torch.ones(3), torch.ones(3).double(), "differ")
    assert tally.count == 3
    with pytest.raises(
        AssertionError, match=r"they differ\nTensor-likes are not close!(.|\n)*at index \(2,\)"
    ):
        tally.close(torch.ones(3), torch.tensor([1.0, 1.0, 2.0]), "they differ")
    with pytest.raises(
        AssertionError, match="they differ\nThe values for attribute 'shape' do not match"
    ):
        tally.close(torch.ones(3), torch.ones(2), "they differ")


@pytest.mark.parametrize("check", [*EDGE_KIND_CHECKS, *OPERATOR_CHECKS], ids=lambda c: c.name)
def test_every_check_says_what_it_demands(check):
    assert check.summary.endswith(".") and len(check.summary) > 20
    table = OPERATOR_CHECKS if check in OPERATOR_CHECKS else EDGE_KIND_CHECKS
    names = [c.name for c in table]
    assert len(set(names)) == len(names)
    assert set(check.needs) <= set(names[: names.index(check.name)])


# ---- options and fields ------------------------------------------------------------------------------------------------------


def test_option_sets():
    kind = faulty.kind()
    for wrong in ([], {"symmetrize": True}):
        with pytest.raises(ValueError, match="must be a list with at least one set of options"):
            check_edge_kind(kind, options=wrong)
    with pytest.raises(ValueError, match="symetrize"):
        check_edge_kind(kind, options=[{"symetrize": True}])
    sets = [{"symmetrize": True}, {"edge_attr": "stoichiometry"}]
    found = by_name(edge_kind_suite(kind, options=sets, checks=QUICK).results())
    assert [r for r in found.values() if r.status == "failed"] == []
    # Between two node types symmetrize is refused; within one the reversed edges give the same pairs.
    assert (
        "symmetrize" in found["direction"].reason and "reversed edges" in found["direction"].reason
    )


def test_options_without_defaults():
    kind = faulty.kind(options=faulty.NoDefaultOptions)
    known = {"default_options": "k has to be chosen"}
    found = by_name(edge_kind_suite(kind, known, options=[{"k": 2}], checks=QUICK).results())
    assert found["default_options"].status == "expected_failure"
    assert [r for r in found.values() if r.status == "failed"] == []
    # Known or not: without a set of options nothing can be built.
    found = by_name(edge_kind_suite(kind, known, checks=QUICK).results())
    assert found["builds"].status == found["coverage"].status == "failed"


def test_an_attribute_of_edges_under_the_name_of_a_mask_is_told():
    def make(options, edge_index, num_nodes):
        return {"train_mask": torch.ones(edge_index.size(1), dtype=torch.bool)}

    with pytest.raises(ValueError, match=r"'train_mask' of shape \[\d+\], but a name that ends in"):
        make_graph(("node", "joins", "node"), ("edge_index",), faulty.NoOptions(), make)


def test_fields_of_a_graph():
    names = ("hyperedge_index", "adj_mask", "stoichiometry", "edge_attr", "edge_type", "cost")
    graph = make_graph(("node", "joins", "node"), names, faulty.NoOptions())
    store = graph.data()["node", "joins", "node"]
    index, mask = store.hyperedge_index, store.adj_mask
    assert torch.equal(mask.nonzero().t(), index) and mask.dtype == torch.bool
    edges = index.size(1)
    assert edges > max(graph.num_nodes)  # else rows of nodes could be taken for rows of edges
    assert set(index[0].tolist()) == set(index[1].tolist()) == set(range(7))
    assert store.stoichiometry.shape == (edges,) and store.stoichiometry.min() < 0
    assert bool((store.stoichiometry == store.stoichiometry.round()).all())
    assert store.edge_attr.shape == (edges, 2)
    assert store.edge_type.dtype == torch.int64
    assert store.cost.shape == (edges,) and store.cost.min() > 0
    assert set(graph.attributes()) == set(names[2:])
    for sizes in ((9, 4), (4, 9)):
        between = make_graph(
            ("source", "to", "target"), names[:1], faulty.NoOptions(), num_nodes=sizes
        )
        assert [set(ends.tolist()) for ends in between.index] == [set(range(n)) for n in sizes]


def test_chosen_edges_keep_their_attributes():
    graph = make_graph(
        ("node", "joins", "node"),
        ("edge_index",),
        faulty.NoOptions(),
        lambda options, index, sizes: {
            "weight": torch.arange(float(index.size(1))),
            "other_index": index + 1,
            "fixed": torch.ones(3),
        },
    )
    chosen = torch.tensor([4, 0, 4])
    part = graph.choose(chosen)
    assert torch.equal(part.index, graph.index[:, chosen])
    assert part.fields["weight"].tolist() == [4, 0, 4]
    assert torch.equal(part.fields["other_index"], part.index + 1)
    assert part.fields["fixed"].tolist() == [1, 1, 1]
    dead = torch.arange(7) == 2
    rest = graph.without_nodes((dead, dead))
    old = torch.tensor([0, 1, 3, 4, 5, 6])
    kept = ~(graph.index == 2).any(0)
    assert torch.equal(old[rest.index], graph.index[:, kept])
    assert rest.fields["weight"].tolist() == torch.arange(12.0)[kept].tolist()
    assert torch.equal(rest.x[0], graph.x[0][~dead])


class TwoColumns(faulty.SoundTerm):
    def weight(self, inputs, edges):
        columns = super().weight(inputs, edges)
        assert columns.size(1) == 2
        return columns.sum(1, keepdim=True)


def test_make_fields():
    seen = []

    def make_fields(options, edge_index, num_nodes):
        assert options.edge_attr == "weight"
        assert edge_index.shape[0] == 2 and edge_index.dtype == torch.int64
        seen.append(num_nodes)
        return {"weight": torch.randn(edge_index.size(1), 2)}

    kind = faulty.kind(TwoColumns)
    results = edge_kind_suite(kind, make_fields=make_fields, checks=QUICK).results()
    assert [r for r in results if r.status == "failed"] == []
    assert {(7, 7), (9, 4), (4, 9)} <= set(seen)
    # An assertion of the plugin's own is told with its line, as any other exception.
    result = by_name(edge_kind_suite(kind, checks=QUICK).results())["produces"]
    assert re.search(r"raised AssertionError at \S+test_kit.py:\d+ in weight", result.message)


def test_checking_draws_no_random_numbers_and_changes_no_registry():
    registry = default_registry()
    before, names = torch.random.get_rng_state(), registry.names()
    edge_kind_suite("stoichiometry_bias", checks=QUICK).results()
    check_operator("hgt")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert registry.names() == names


# ---- operators ---------------------------------------------------------------------------------------------------------------


def changed(change):
    """`hetero_nsa` whose module goes through `change(module)`."""

    def build(context, options):
        from pyg_nsa import HeteroNSAConv

        config = context.config.model_copy(update={"operator": "hetero_nsa"})
        return change(HeteroNSAConv.from_config(config, registry=context.registry))

    return Operator(name="changed", build=build, summary="With a mistake.", api=(1, 0))


def wrapped(forward=None, **members):
    """A change of the module's forward, `forward(old, x_dict, edge_index_dict, **named)`."""

    def change(module):
        old = type(module).forward

        def new(self, x_dict, edge_index_dict, **named):
            if forward is None:
                return old(self, x_dict, edge_index_dict, **named)
            return forward(lambda *a, **k: old(self, *a, **k), x_dict, edge_index_dict, **named)

        module.__class__ = type("Changed", (type(module),), {"forward": new, **members})
        return module

    return changed(change)


def trained(forward):
    """A change of the module's forward in training mode."""

    def change(module):
        old = type(module).forward

        def new(self, *args, **named):
            if not self.training:
                return old(self, *args, **named)
            return forward(lambda *a, **k: old(self, *a, **k), *args, **named)

        module.__class__ = type("Changed", (type(module),), {"forward": new})
        return module

    return changed(change)


def with_lambda(module):
    module.twice = lambda x: 2 * x
    return module


def writing(old, x_dict, *args, **named):
    with torch.no_grad():
        x_dict["u"].mul_(2)
    return old(x_dict, *args, **named)


def flipped(old, x_dict, index, **named):
    return old(x_dict, {t: i.flip(0) if t[0] == t[2] else i for t, i in index.items()}, **named)


def noisy(old, *args, **named):
    return {t: x + torch.rand(()) for t, x in old(*args, **named).items()}


def seeding(old, *args, **named):
    torch.manual_seed(0)
    return old(*args, **named)


FACTOR = torch.ones((), requires_grad=True)


def unregistered(old, *args, **named):
    return {t: x * FACTOR.to(x.dtype) for t, x in old(*args, **named).items()}


def mixed(old, *args, **named):
    return {t: x + x.mean(0) for t, x in old(*args, **named).items()}


def strict(old, x_dict, index, mask_dict=None, pert_mask_dict=None, ptr_dict=None, batch_dict=None):
    kept = {"pert_mask_dict": pert_mask_dict, "ptr_dict": ptr_dict, "batch_dict": batch_dict}
    return old(x_dict, index, **{n: v for n, v in kept.items() if v is not None})


def overflowing(old, *args, **named):
    factor = 1e39 if torch.is_autocast_enabled("cpu") else 1.0
    return {t: x * factor for t, x in old(*args, **named).items()}


def undead(old, *args, pert_mask_dict=None, **named):
    return old(*args, **named)


def steep(old, *args, **named):
    return {t: 2 * x - x.detach() for t, x in old(*args, **named).items()}


def narrow(old, *args, **named):
    return {t: x[:, 1:] for t, x in old(*args, **named).items()}


def first_only(old, x_dict, index, **named):
    return old(x_dict, {t: i[:, : i.size(1) // 2] for t, i in index.items()}, **named)


OPERATOR_MISTAKES = {
    "no module": (changed(lambda module: 3), "builds"),
    "no collect": (wrapped(collect=None), "builds"),
    "narrow rows": (wrapped(narrow), "rows"),
    "random rows": (wrapped(noisy), "deterministic"),
    "a seed in the call": (wrapped(seeding), "global_state"),
    "a tensor with a gradient": (wrapped(unregistered), "parameters"),
    "unknown keywords refused": (wrapped(strict), "unread_fields"),
    "half of the edges, by their order": (wrapped(first_only), "direction"),
    "reversed edges": (wrapped(flipped), "direction"),
    "a mean over a batch": (wrapped(mixed), "batch"),
    "deleted nodes alive": (wrapped(undead), "deleted_nodes"),
    "a wrong gradient": (wrapped(steep), "gradients"),
    "inputs written to in training": (trained(writing), "training_inputs"),
    "a wrong gradient in training": (trained(steep), "training_gradients"),
    "a mean over a batch in training": (trained(mixed), "training_batch"),
    "infinite under autocast": (wrapped(overflowing), "autocast"),
    "a lambda in the module": (changed(with_lambda), "pickled"),
    "a reset that does nothing": (
        wrapped(reset_parameters=lambda self: None),
        "reset_parameters",
    ),
}


@pytest.mark.parametrize("mistake", OPERATOR_MISTAKES)
def test_mistakes_of_operators(mistake):
    operator, name = OPERATOR_MISTAKES[mistake]
    # As far as the check that finds it: those after it may well fail too.
    place = [check.name for check in OPERATOR_CHECKS].index(name)
    results = operator_suite(operator, checks=OPERATOR_CHECKS[: place + 1]).results()
    failed = {r.check: r.message for r in results if r.status == "failed" and r.check != "coverage"}
    assert list(failed) == [name], failed


def test_an_assertion_about_an_operator():
    with pytest.raises(
        AssertionError, match="operator 'changed' fails 1 of .*\n  rows: default opt"
    ):
        assert_operator_conforms(wrapped(narrow))


def test_a_sound_operator_passes():
    results = assert_operator_conforms(changed(lambda module: module))
    assert sum(r.status == "passed" for r in results) >= len(OPERATOR_CHECKS) - 2


# ---- what it imports ---------------------------------------------------------------------------------------------------------


def test_the_kit_imports_pytest_only_inside_of_functions():
    for path in Path(pyg_nsa.testing.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in tree.body:  # what stands in `if TYPE_CHECKING:` or in a function is not run
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                assert "pytest" not in names, path

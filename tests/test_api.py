from __future__ import annotations

import subprocess
import sys

import pydantic
import pytest

from pyg_nsa.api import PLUGIN_API, BuildContext, EdgeKind, Operator, Options, PairOptions, speaks


def build(context, options):
    return None


def kind(**changes) -> EdgeKind:
    return EdgeKind(**{"name": "nearest", "build": build, "summary": "The nearest.", **changes})


@pytest.mark.parametrize("module", ["api", "errors", "registry", "config", "load"])
def test_no_module_of_the_registry_imports_torch(module):
    code = (
        f"import sys, pyg_nsa.{module}\n"
        "print(sorted({'torch', 'torch_geometric', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_a_kind_has_useful_defaults():
    found = kind()
    assert found.options is Options
    assert found.produces == {"mask"}
    assert found.requires == ()
    assert found.api == PLUGIN_API
    assert found.revision == 1
    assert found.aliases == ()
    assert found.deprecated is None


def test_a_kind_is_frozen():
    with pytest.raises(AttributeError):
        kind().name = "other"


@pytest.mark.parametrize("name", ["nearest", "k2", "my_lab.nearest", "a_b.c_d"])
def test_good_names(name):
    assert kind(name=name).name == name


@pytest.mark.parametrize("name", ["", "Nearest", "2k", "a-b", "a.b.c", ".a", "a.", "a b", 3, None])
def test_bad_names(name):
    with pytest.raises(ValueError, match="a name is lower case letters, digits and '_'"):
        kind(name=name)
    with pytest.raises(ValueError, match=r"^operator .* a name is lower case letters"):
        Operator(name=name, build=build, summary="An operator.")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"summary": " "}, ValueError, "edge kind 'nearest': summary is empty; write one sentence"),
        ({"options": dict}, TypeError, "must be a class derived from pyg_nsa.api.Options"),
        ({"options": pydantic.BaseModel}, TypeError, "derived from pyg_nsa.api.Options"),
        ({"options": Options()}, TypeError, "derived from pyg_nsa.api.Options"),
        ({"build": None}, TypeError, "build must be a function, got None"),
        ({"produces": frozenset()}, ValueError, "produces must be a non-empty set of 'mask' and"),
        ({"produces": {"mask", "logits"}}, ValueError, "non-empty set of 'mask' and 'bias'"),
        ({"produces": "mask"}, ValueError, "non-empty set of 'mask' and 'bias'"),
        ({"requires": "edge_index"}, TypeError, r"a tuple of one needs its comma: \('edge_index',"),
        ({"requires": ("edge_index", ())}, TypeError, "requires must be a tuple of field names"),
        ({"inputs": ("a",)}, TypeError, "inputs must be a function from the options"),
        ({"aliases": "old"}, ValueError, "aliases must be a tuple of names"),
        ({"aliases": ("Old",)}, ValueError, "aliases must be a tuple of names"),
        ({"api": "1.0"}, TypeError, r"api must be two whole numbers such as \(1, 0\), got '1.0'"),
        ({"revision": 0}, ValueError, "revision must be a whole number from 1 on, got 0"),
    ],
)
def test_a_bad_declaration_says_what_is_wrong(changes, error, text):
    with pytest.raises(error, match=text):
        kind(**changes)


def test_a_declaration_for_another_api_is_not_judged_by_ours():
    later = kind(api=(PLUGIN_API[0] + 1, 0), produces=frozenset({"something new"}))
    assert not speaks(later.api)


@pytest.mark.parametrize("declare", [EdgeKind, Operator])
def test_a_declaration_for_another_api_may_have_other_fields(declare):
    later = (PLUGIN_API[0], PLUGIN_API[1] + 1)
    known = {"name": "nearest", "build": print, "summary": "It."}
    assert declare(**known, api=later, priority=3).api == later
    assert declare(name="nearest", builder=print, api=(0, 9)).name == "nearest"
    # For an API that is spoken, a field that nobody knows is a mistake, and so are an api of no sense and no name.
    for api in ({}, {"api": PLUGIN_API}, {"api": "1.7"}):
        with pytest.raises(TypeError, match="priority"):
            declare(**known, **api, priority=3)
    with pytest.raises(TypeError, match="name"):
        declare(build=print, summary="It.", api=later)
    with pytest.raises(TypeError, match="build"):
        declare(name="nearest", summary="It.")


def test_which_apis_this_one_speaks():
    major, minor = PLUGIN_API
    assert speaks((major, minor))
    assert speaks((major, 0))
    assert not speaks((major, minor + 1))
    assert not speaks((major + 1, 0))
    assert not speaks((major - 1, 0))


def test_fields_come_from_requires_unless_inputs_says_more():
    class Attr(Options):
        edge_attr: str = "weight"

    plain = kind(requires=(("edge_index", "adj_mask"), "distance", "edge_index"))
    assert plain.fields(Options()) == ("edge_index", "adj_mask", "distance")
    named = kind(
        options=Attr,
        requires=(("edge_index", "adj_mask"),),
        inputs=lambda options: ("edge_index", "adj_mask", options.edge_attr),
    )
    assert named.fields(Attr(edge_attr="cost")) == ("edge_index", "adj_mask", "cost")
    assert named.missing(Attr(edge_attr="cost"), {"adj_mask"}) == [("cost",)]
    assert named.missing(Attr(edge_attr="cost"), {"cost"}) == [("edge_index", "adj_mask")]
    assert named.missing(Attr(edge_attr="cost"), {"edge_index", "cost"}) == []


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        ("distance", r"'distance'; a tuple of one needs its comma: \('distance',\)$"),
        ("", r"''; a tuple of one needs its comma: \('edge_index',\)$"),
        (b"distance", r"b'distance'; a tuple"),
        (None, "None; a tuple"),
        (3, "3; a tuple"),
        (("edge_index", 3), r"\('edge_index', 3\); a tuple"),
        (("edge_index", ""), r"\('edge_index', ''\); a tuple"),
        (("edge_index", ("distance",)), ".*; a tuple"),
    ],
)
def test_inputs_must_return_names(returned, got):
    one = kind(requires=("edge_index",), inputs=lambda options: returned)
    text = rf"^edge kind 'nearest': inputs\(options\) must return a tuple of field names, got {got}"
    with pytest.raises(TypeError, match=text):
        one.fields(Options())
    with pytest.raises(TypeError, match=text):
        one.missing(Options(), ())


def test_inputs_may_return_names_in_any_order_of_things():
    for names in (["b", "a", "b"], iter(("b", "a")), {"b": 1, "a": 2}):
        assert kind(inputs=lambda options, names=names: names).fields(Options()) == ("b", "a")


def test_options_refuse_unknown_keys_infinities_and_bad_defaults():
    class Clip(Options):
        clip: float = 8.0
        "Largest value."

    with pytest.raises(pydantic.ValidationError, match="Extra inputs are not permitted"):
        Clip(clop=1)
    with pytest.raises(pydantic.ValidationError, match="finite number"):
        Clip(clip=float("inf"))
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Clip().clip = 3.0

    class Bad(Options):
        clip: float = "eight"

    with pytest.raises(pydantic.ValidationError, match="valid number"):
        Bad()


def test_every_shared_option_is_described():
    assert set(PairOptions.model_fields) == {"symmetrize", "self_loops", "edge_dropout"}
    assert all(field.description for field in PairOptions.model_fields.values())
    assert PairOptions() == PairOptions(symmetrize=False, self_loops=False, edge_dropout=0.0)
    with pytest.raises(pydantic.ValidationError):
        PairOptions(edge_dropout=1.0)


def test_the_build_context_infers_the_attribute_width_by_default():
    assert BuildContext(edge_type=("a", "r", "b"), heads=2).edge_attr_dim == -1

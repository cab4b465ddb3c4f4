"""`pyg-nsa plugins`: list, show, doctor, new."""

from __future__ import annotations

import ast
import json
import keyword
import textwrap
import tomllib

import pytest
from click.testing import CliRunner
from fake_distributions import kind_module, operator_module
from ruamel.yaml import YAML

import pyg_nsa
from pyg_nsa import EdgeSpec, Registry, load_config
from pyg_nsa.cli import main
from pyg_nsa.errors import ConfigError
from pyg_nsa.scaffold import project


def call(*arguments, status=0):
    result = CliRunner().invoke(main, ["plugins", *arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def as_json(*arguments, status=0):
    return json.loads(call(*arguments, "--json", status=status).stdout)


def words(text):
    return " ".join(text.split())


# --- list ------------------------------------------------------------------------------------------------------------------------


def test_list_says_what_each_is_once_loaded(install):
    install(
        "kinds",
        {"near": "near_kind", "nearby": "near_kind"},
        {"near_kind": kind_module("near", "aliases=('nearby',)")},
    )
    install(
        "ops", {"other_op": "other_op_module"}, {"other_op_module": operator_module("other_op")}
    )
    install("bad", {"bad_kind": "bad_module"}, {"bad_module": "import no_such_module"})

    rows = {row["name"]: row for row in as_json("list")}
    assert rows["near"]["status"] == rows["bad_kind"]["status"] == "available"
    assert rows["near"]["what"] is None
    assert (rows["near"]["dist"], rows["near"]["version"]) == ("kinds", "1.0")

    rows = {row["name"]: row for row in as_json("list", "--load")}
    assert rows["near"]["what"] == "edge kind"
    assert rows["nearby"]["what"] == "alias of near"
    assert rows["other_op"]["what"] == "operator"
    assert (rows["bad_kind"]["what"], rows["bad_kind"]["status"]) == (None, "broken")
    assert "no_such_module" in rows["bad_kind"]["reason"]

    table = call("list", "--load")
    assert "near edge kind loaded kinds 1.0 A kind." in words(table.stdout)
    assert "bad_kind broken bad 1.0 ModuleNotFoundError: No module named 'no_such_module'" in words(
        table.stdout
    )
    assert not table.stderr  # The table says it; no warning repeats it.
    assert "bad_kind available bad 1.0 bad_module" in words(call("list").stdout)


def test_a_strict_environment_does_not_stop_a_listing(install, monkeypatch):
    monkeypatch.setenv("PYG_NSA_STRICT_PLUGINS", "1")
    install("bad", {"bad_kind": "bad_module"}, {"bad_module": "1 / 0"})
    rows = {row["name"]: row["status"] for row in as_json("list", "--load")}
    assert rows["bad_kind"] == "broken"
    assert rows["adjacency_mask"] == "loaded"


# --- show ------------------------------------------------------------------------------------------------------------------------

RICH = """
from enum import Enum
from typing import Annotated, Literal
from pydantic import Field
from pyg_nsa.api import EdgeKind, Options, hookimpl

class Inner(Options):
    depth: int = Field(default=1, le=9)
    "How [deep] it goes."

class RichOptions(Options):
    field: str
    "The field to read."
    sign: Literal["keep", "abs"] = "keep"
    "What to do
    with the sign."
    rate: float = Field(gt=0, lt=1)
    "A rate."
    size: int | None = Field(default=None, ge=2)
    "A size."
    names: tuple[str, ...] = Field(default_factory=lambda: ("a",), max_length=3)
    "Names."
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    "Weights."
    inner: Inner = Inner()
    "Nested."

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(
        name="my_lab.rich", options=RichOptions, build=lambda context, options: None, summary="Reads a lot.",
        produces={"mask", "bias"}, requires=(("edge_index", "adj_mask"),),
        inputs=lambda options: ("edge_index", "adj_mask", options.field),
        api=(1, 0), revision=3, aliases=("rich",), deprecated="Use another one.",
    )]
""".replace('"What to do\n    with the sign."', '"""What to do\n    with the sign."""')


def install_rich(install):
    points = {"my_lab.rich": "rich_module", "rich": "rich_module"}
    return install("my-lab", points, {"rich_module": RICH}, version="2.1")


def test_show_tells_all(install):
    folder = install_rich(install)
    shown = as_json("show", "my_lab.rich")
    options = {row.pop("name"): row for row in shown.pop("options")}
    example = shown.pop("example")
    assert shown == {
        "name": "my_lab.rich",
        "what": "edge kind",
        "summary": "Reads a lot.",
        "distribution": "my-lab",
        "version": "2.1",
        "entry_point": "my_lab.rich = rich_module",
        "file": str(folder / "rich_module.py"),
        "api": [1, 0],
        "revision": 3,
        "produces": ["bias", "mask"],
        "requires": [["edge_index", "adj_mask"], ["field"]],
        "within_one_type": False,
        "aliases": ["rich"],
        "deprecated": "Use another one.",
    }
    rows = {name: (row["type"], row["default"], row["limits"]) for name, row in options.items()}
    assert rows == {
        "field": ("string", None, ""),
        "sign": ('"keep" | "abs"', "keep", ""),
        "rate": ("number", None, "> 0, < 1"),
        "size": ("integer | null", None, ">= 2"),
        "names": ("list of string", ["a"], "at most 3 items"),
        "weights": ("mapping to number", {}, "each >= 0"),
        "inner": ("mapping", {"depth": 1}, ""),
        "inner.depth": ("integer", 1, "<= 9"),
    }
    assert [name for name, row in options.items() if row["required"]] == ["field", "rate"]
    assert options["sign"]["description"] == "What to do with the sign."

    (spec,) = YAML(typ="safe").load(example)["edges"]
    registry = Registry()
    with pytest.warns(FutureWarning, match="deprecated"):
        valid = EdgeSpec.model_validate(spec, context={"registry": registry})
    assert valid.options.rate == 0.5
    assert valid.options.names == ("a",)

    text = words(call("show", "rich").stdout)  # by the alias
    for part in (
        "my_lab.rich (edge kind) Reads a lot.",
        "from my-lab 2.1",
        "entry point rich = rich_module",
        "produces bias, mask",
        "requires edge_index or adj_mask; field",
        "deprecated Use another one.",
        "field string (required) The field to read.",
        'sign "keep" | "abs" "keep" What to do with the sign.',
        "inner.depth integer 1 <= 9 How [deep] it goes.",
        "In a configuration: edges: - edge_type: [node, edge, node] kind: my_lab.rich",
    ):
        assert part in text


def test_a_deprecated_option_is_marked(install):
    code = RICH.replace(
        "    weights: dict",
        '    old: int = Field(default=1, ge=0, deprecated="use size")\n    "Old."\n    weights: dict',
    )
    install("my-lab", {"my_lab.rich": "rich_module", "rich": "rich_module"}, {"rich_module": code})
    options = {row["name"]: row for row in as_json("show", "my_lab.rich")["options"]}
    assert options["old"]["limits"] == "deprecated, >= 0"
    assert [n for n, row in options.items() if "deprecated" in row["limits"]] == ["old"]


def test_each_installed_plugin_is_shown_with_an_example_that_validates(tmp_path):
    names = Registry().names()
    assert names
    for name in names:
        shown = as_json("show", name)
        assert shown["summary"]
        assert all(row["description"] and row["type"] for row in shown["options"]), name
        file = tmp_path / "nsa.yaml"
        spec = "edges: [{edge_type: [node, edge, node], kind: adjacency_mask}]\n"
        file.write_text(shown["example"] + (spec if shown["what"] == "operator" else ""))
        config = load_config(file)
        used = config.operator if shown["what"] == "operator" else config.edges[0].kind
        assert used == name


def test_show_loads_only_the_one_that_is_asked_for(install):
    install_rich(install)
    install("bad", {"bad_kind": "bad_module"}, {"bad_module": "raise SystemExit('imported')"})
    assert not [
        line for line in call("show", "my_lab.rich").stderr.splitlines() if "deprecated" not in line
    ]
    result = call("show", "bad_kind", status=1)
    assert "plugin 'bad_kind' of bad 1.0 (bad_module) is broken" in result.stderr
    assert "`pyg-nsa plugins doctor` says more" in result.stderr


def test_an_unknown_name_gets_a_suggestion():
    result = call("show", "edge_atr_bias", status=1)
    assert result.stderr.startswith(
        "Error: unknown plugin 'edge_atr_bias', did you mean 'edge_attr_bias'? Available: adjacency_mask,"
    )
    assert "doctor" not in result.stderr


def test_options_that_only_the_user_knows_or_json_does_not(install):
    source = """
        from pathlib import PurePath
        from pydantic import field_validator
        from pyg_nsa.api import EdgeKind, Options, hookimpl

        class Odd:
            def __repr__(self): return "Odd()"

        class OddOptions(Options, arbitrary_types_allowed=True):
            odd: Odd = Odd()
            "An odd thing."
            code: str
            "A code."
            @field_validator("code")
            def check(cls, code):
                raise ValueError("no")

        @hookimpl
        def pyg_nsa_edge_kinds():
            return [EdgeKind(name="odd", options=OddOptions, build=print, summary="Odd.", requires=("edge_index",))]
    """
    install("odd-kinds", {"odd": "odd_module"}, {"odd_module": textwrap.dedent(source)})
    shown = as_json("show", "odd")
    assert [(row["name"], row["default"]) for row in shown["options"]] == [
        ("odd", "Odd()"),
        ("code", None),
    ]
    assert shown["requires"] == [["edge_index"]]
    assert shown["example"] is None
    assert "An example would need values that only you know: code." in call("show", "odd").stdout


# --- doctor ----------------------------------------------------------------------------------------------------------------------

DEEP = """
import json
def parse():
    return json.loads("{")
parse()
"""

# distribution, entry points, modules, then what the doctor says: status, name, what, mend, place
CASES = {
    "missing package": (
        {"sick": "sick_module"},
        {"sick_module": "\n\nimport no_such_module"},
        ("broken", "sick", "No module named 'no_such_module'", "install what brings the module 'no_such_module'", "sick_module.py:3"),
    ),
    "missing module": (
        {"sick": "nowhere.hooks"},
        {},
        ("broken", "sick", "No module named 'nowhere'", "has no module 'nowhere': if it is yours, correct the entry point", None),
    ),
    "error in a library": (
        {"sick": "sick_module"},
        {"sick_module": DEEP},
        ("broken", "sick", "JSONDecodeError", "correct it if dist-a is yours", "sick_module.py:4"),
    ),
    "syntax error": (
        {"sick": "sick_module"},
        {"sick_module": "x = 1\ny = = 2"},
        ("broken", "sick", "SyntaxError", "correct it if dist-a is yours", "sick_module.py:2"),
    ),
    "exit at import": (
        {"sick": "sick_module"},
        {"sick_module": "raise SystemExit(3)"},
        ("broken", "sick", "it called sys.exit(3) at import", "correct it", "sick_module.py:1"),
    ),
    "entry point unlike its kind": (
        {"sick": "sick_module"},
        {"sick_module": kind_module("healthy")},
        ("broken", "sick", "named 'sick' but leads to 'healthy'", "if dist-a is yours, do what it says", "sick_module.py"),
    ),
    "alias without entry point": (
        {"sick": "sick_module"},
        {"sick_module": kind_module("sick", "aliases=('ill',)")},
        ("broken", "sick", "provides 'ill' without an entry point", 'do what it says and install it again', "sick_module.py"),
    ),
    "newer api": (
        {"sick": "sick_module"},
        {"sick_module": kind_module("sick", "api=(1, 99)")},
        ("incompatible", "sick", "written for plugin API 1.99, and this pyg_nsa speaks 1.0 to 1.0", "pip install -U pyg-nsa dist-a", "sick_module.py"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_doctor_explains(case, install):
    points, modules, (status, name, what, mend, place) = case
    folder = install("dist-a", points, modules)
    report = as_json("doctor", status=1)
    assert report["ok"] is False
    assert "adjacency_mask" in report["loaded"]
    (finding,) = report["findings"]
    assert (finding["status"], finding["name"]) == (status, name)
    assert finding["providers"] == ["dist-a 1.0"]
    assert what in finding["what"]
    assert mend in finding["mend"]
    assert finding["places"] == ([] if place is None else [str(folder / place)])
    text = words(call("doctor", status=1).stdout)
    assert f"{status}: {name} " in text
    assert words(f"from: dist-a 1.0 {f'in: {folder / place}' if place else ''} mend:") in text
    assert "1 problem" in text


UNBUILDABLE = """
from pyg_nsa.api import EdgeKind, Operator, Options, hookimpl

class NeedyOptions(Options):
    radius: float
    "No default."

def kind(context, options):
    import no_such_module

def operator(context, options):
    raise ValueError("this operator is not for you")

@hookimpl
def pyg_nsa_edge_kinds():
    return [
        EdgeKind(name="sick", build=kind, summary="Sick."),
        EdgeKind(name="needy", options=NeedyOptions, build=kind, summary="Only a user knows."),
    ]

@hookimpl
def pyg_nsa_operators():
    return [Operator(name="ill", build=operator, summary="Ill.")]
"""


def test_the_doctor_builds_each_plugin(install):
    points = dict.fromkeys(("sick", "needy", "ill"), "sick_module")
    folder = install("dist-a", points, {"sick_module": UNBUILDABLE})
    report = as_json("doctor", status=1)
    assert {"needy", "adjacency_mask"} <= set(report["loaded"])
    assert not {"sick", "ill"} & set(report["loaded"])
    ill, needy, sick = sorted(report["findings"], key=lambda finding: finding["name"])
    assert (sick["status"], sick["name"], sick["providers"]) == ("broken", "sick", ["dist-a 1.0"])
    assert sick["what"] == (
        "it loads, but build(context, options) with default options raises ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert sick["mend"] == (
        "correct it if dist-a is yours; else upgrade it (pip install -U dist-a) or do without it: PYG_NSA_DISABLE_PLUGINS=sick"
    )
    assert sick["places"] == [f"{folder / 'sick_module.py'}:9"]
    assert ill["what"].endswith("raises ValueError: this operator is not for you")
    assert (needy["status"], needy["is_problem"]) == ("not built", False)
    assert needy["what"] == "it was loaded but not built: its option 'radius' has no default"
    assert needy["mend"] == "nothing; only a configuration can build it: pyg-nsa check FILE --build"
    text = call("doctor", "--traceback", status=1).stdout
    assert f"{len(report['loaded']) - 1} plugins work, 1 loaded but not built, 2 problems" in text
    assert "    | ModuleNotFoundError" in text


RETURNS = """
from pyg_nsa.api import EdgeKind, Operator, hookimpl

def build(context, options):
    {body}

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(name="sick", build=build, summary="Sick.", aliases=("unwell",), produces=frozenset({{{produces!r}}}))]

@hookimpl
def pyg_nsa_operators():
    return [Operator(name="ill", build=build, summary="Ill.")]
"""


@pytest.mark.parametrize(
    ("body", "produces", "got", "wanted", "hint"),
    [
        ("pass", "mask", "NoneType", "pyg_nsa.EdgeTerm", "; is its return missing?"),
        ("pass", "message", "NoneType", "torch.nn.Module", "; is its return missing?"),
        ("return 3", "message", "int", "torch.nn.Module", ""),
        ("return 'x'", "mask", "str", "pyg_nsa.EdgeTerm", ""),
    ],
)
def test_the_doctor_looks_at_what_was_built(install, body, produces, got, wanted, hint):
    points = dict.fromkeys(("sick", "unwell", "ill"), "sick_module")
    source = RETURNS.format(body=body, produces=produces)
    folder = install("dist-a", points, {"sick_module": source})
    report = as_json("doctor", status=1)
    assert not {"sick", "unwell", "ill"} & set(report["loaded"])
    ill, sick = sorted(report["findings"], key=lambda finding: finding["name"])
    returns = "build(context, options) must return a"
    assert sick["what"] == (
        f"it loads, but edge kind 'sick' built a {got} for edge type ('node', 'to', 'node'); {returns} {wanted}{hint}"
    )
    assert ill["what"] == (
        f"it loads, but operator 'ill' of dist-a 1.0 built a {got}; {returns} torch.nn.Module{hint}"
    )
    assert sick["places"] == [str(folder / "sick_module.py")]
    assert sick["mend"].startswith("correct it if dist-a is yours")


LETTERS = """
from pyg_nsa.api import EdgeKind, Options, hookimpl

class LetterOptions(Options):
    field: str = "distance"
    "The field to read."

def build(context, options):
    from pyg_nsa import EdgeTerm
    return EdgeTerm()

def inputs(options):
    return options.field

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(name="sick", build=build, summary="Sick.", options=LetterOptions, inputs=inputs)]
"""


def test_the_doctor_sees_that_inputs_are_letters(install):
    install("dist-a", {"sick": "sick_module"}, {"sick_module": LETTERS})
    report = as_json("doctor", status=1)
    assert "sick" not in report["loaded"]
    (finding,) = report["findings"]
    assert finding["what"] == (
        "it loads, but edge kind 'sick': inputs(options) must return a tuple of field names, got 'distance'; a tuple of one needs its comma: ('distance',)"
    )


def test_a_configuration_with_such_a_kind_is_refused_at_its_line(install, tmp_path):
    install("dist-a", {"sick": "sick_module"}, {"sick_module": LETTERS})
    file = tmp_path / "nsa.yaml"
    file.write_text("edges:\n  - {edge_type: [a, r, b], kind: sick, options: {field: cost}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file, registry=Registry())
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("edges[0].kind", 2)
    assert (
        "edge kind 'sick' cannot say which fields it reads: its plugin, dist-a 1.0, raised"
        in problem.message
    )
    assert problem.message.endswith("got 'cost'; a tuple of one needs its comma: ('cost',)")


DEMANDING = """
from pydantic import model_validator
from pyg_nsa.api import EdgeKind, Operator, Options, hookimpl

class Two(Options):
    near: float
    "No default."
    far: float
    "No default."

class One(Options):
    near: float | None = None
    "One of the two."
    far: float | None = None
    "One of the two."
    @model_validator(mode="after")
    def check(self):
        if self.near is None and self.far is None:
            raise ValueError("give near or far")
        return self

@hookimpl
def pyg_nsa_edge_kinds():
    return [EdgeKind(name="two", build=print, summary="Two.", options=Two)]

@hookimpl
def pyg_nsa_operators():
    return [Operator(name="one", build=print, summary="One.", options=One), Operator(name="none", build=print, summary="No.")]
"""


def test_the_doctor_says_why_it_built_nothing(install, monkeypatch):
    monkeypatch.setenv("PYG_NSA_PLUGINS", "dist-a")
    points = dict.fromkeys(("two", "one", "none"), "demanding_module")
    install("dist-a", points, {"demanding_module": DEMANDING})
    report = as_json("doctor")
    unbuilt = [one for one in report["findings"] if one["status"] == "not built"]
    assert {one["name"]: one["what"].partition(": ")[2] for one in unbuilt} == {
        "two": "its options 'near', 'far' have no defaults",
        "one": "its default options are refused: Value error, give near or far",
        "none": "no edge kind that makes pairs could be built to try it with",
    }
    assert "0 plugins work, 3 loaded but not built, no problems" in call("doctor").stdout


def test_the_doctor_shows_tracebacks_when_asked(install):
    install("dist-a", {"sick": "sick_module"}, {"sick_module": DEEP})
    assert "Traceback" not in call("doctor", status=1).stdout
    text = call("doctor", "--traceback", status=1).stdout
    assert "    | Traceback (most recent call last):" in text
    assert "JSONDecodeError" in text


def test_the_doctor_names_all_sides_of_a_conflict(install):
    one = install("dup-one", {"walk": "walk_one"}, {"walk_one": kind_module("walk")})
    two = install("dup-two", {"walk": "walk_two"}, {"walk_two": kind_module("walk")})
    (finding,) = as_json("doctor", status=1)["findings"]
    assert (finding["status"], finding["name"]) == ("conflict", "walk")
    assert finding["providers"] == ["dup-one 1.0", "dup-two 1.0"]
    assert finding["places"] == [str(one / "walk_one.py"), str(two / "walk_two.py")]
    assert "PYG_NSA_DISABLE_PLUGINS=walk@dup-two" in finding["mend"]


def test_following_the_doctor_ends_a_conflict(install, monkeypatch):
    install("dup-one", {"walk": "walk_one"}, {"walk_one": kind_module("walk")})
    install("dup-two", {"walk": "walk_two"}, {"walk_two": kind_module("walk")})
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", "walk@dup-two")
    report = as_json("doctor")
    assert report["ok"] and "walk" in report["loaded"]
    (finding,) = report["findings"]
    assert finding["status"] == "disabled" and not finding["is_problem"]
    assert "PYG_NSA_DISABLE_PLUGINS, which lists 'walk@dup-two'" in finding["what"]
    assert report["environment"]["PYG_NSA_DISABLE_PLUGINS"] == "walk@dup-two"


def test_the_doctor_sees_names_that_mean_nothing(monkeypatch):
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", "adjacency_masks, qqq")
    found = [(f["what"], f["mend"], f["is_problem"]) for f in as_json("doctor")["findings"]]
    text = "PYG_NSA_DISABLE_PLUGINS lists '{}', and nothing that is installed has that name"
    assert found == [
        (text.format("adjacency_masks"), "did you mean 'adjacency_mask'?", False),
        (text.format("qqq"), "remove it, or install what it means", False),
    ]


def test_the_doctor_reports_entry_points_that_cannot_be_read(install):
    folder = install("dist-a", {"sick": "sick_module"}, {})
    (file,) = folder.glob("*.dist-info/entry_points.txt")
    file.write_text("[pyg_nsa]\nsick\n  = [\n")
    (finding,) = as_json("doctor", status=1)["findings"]
    assert "the entry points of dist-a cannot be read" in finding["what"]


@pytest.mark.parametrize(
    "group",
    [
        "pyg-nsa",
        "pyg.nsa",
        "PyG_NSA",
        "pygnsa",
        "pyg_nsa_plugins",
        "pyg-nsa.plugin",
        "pyg_nsa.edge_kinds",
    ],
)
def test_the_doctor_sees_a_group_that_is_nearly_ours(install, group):
    source = {"near_module": kind_module("my_lab.near")}
    install("dist-a", {"my_lab.near": "near_module"}, source, group=group)
    report = as_json("doctor", status=1)
    assert "my_lab.near" not in report["loaded"]
    (finding,) = report["findings"]
    assert finding["what"] == (
        f"'my_lab.near' is an entry point in the group {group!r}, which is not read; the group of plugins is 'pyg_nsa'"
    )
    assert finding["mend"] == (
        "if dist-a is yours, write [project.entry-points.pyg_nsa] in its pyproject.toml and install it again; else upgrade it "
        "(pip install -U dist-a)"
    )
    assert finding["providers"] == ["dist-a 1.0"]


@pytest.mark.parametrize("group", ["pyg_nsa_data", "my.pyg_nsa", "pyg", "nsa", "console_scripts"])
def test_the_doctor_leaves_other_groups_alone(install, group):
    install("dist-a", {"near": "near_module"}, {"near_module": "1 / 0"}, group=group)
    assert not as_json("doctor")["findings"]


def test_a_plugin_in_both_groups_is_found(install):
    folder = install("dist-a", {"near": "near_module"}, {"near_module": kind_module("near")})
    (file,) = folder.glob("*.dist-info/entry_points.txt")
    file.write_text(file.read_text() + "\n[pyg-nsa]\nnear = near_module\n")
    report = as_json("doctor")
    assert "near" in report["loaded"] and not report["findings"]


def test_the_doctor_describes_the_environment(monkeypatch):
    monkeypatch.setenv("PYG_NSA_PLUGINS", "pyg-nsa")
    monkeypatch.setenv("PYG_NSA_STRICT_PLUGINS", "")
    report = as_json("doctor")
    assert report["ok"] and not report["findings"]
    found = report["environment"]
    assert found["pyg-nsa"] == pyg_nsa.__version__
    for name in ("Python", "torch", "torch-geometric", "pluggy", "pydantic"):
        assert found[name][0].isdigit()
    assert found["CUDA"]
    text = words(call("doctor").stdout)
    assert "no problems" in text
    for part in ("PYG_NSA_PLUGINS pyg-nsa", "STRICT_PLUGINS (empty)", "DISABLE_PLUGINS not set"):
        assert part in text


# --- new -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["my_lab.nearest", "nearest", "k2_.two__steps_", "lab.class", "hooks", "edge"]
)
def test_a_new_project_is_sound(name):
    made = project(name)
    meta = tomllib.loads(made.files["pyproject.toml"])
    assert meta["project"]["name"] == made.distribution
    ((point, target),) = meta["project"]["entry-points"]["pyg_nsa"].items()
    assert point == name
    assert target == f"{made.package}.hooks"
    sources = {path: text for path, text in made.files.items() if path.endswith(".py")}
    assert f"src/{made.package}/hooks.py" in sources
    assert len(sources) == 4
    assert not any(keyword.iskeyword(path.rpartition("/")[2][:-3]) for path in sources)
    defined = set()
    for text in sources.values():
        tree = ast.parse(text)
        imported = {
            n.name for i in ast.walk(tree) if isinstance(i, ast.ImportFrom) for n in i.names
        }
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        assert not classes & imported  # `edge` must not make a class EdgeTerm from EdgeTerm.
        defined |= classes
    assert len(defined) == 2
    assert not any("$" in text for path, text in made.files.items() if path != "README.md")


def test_new_writes_and_says_what_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = call("new", "my_lab.nearest").stdout
    folder = tmp_path / "pyg-nsa-my-lab-nearest"
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == [
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/pyg_nsa_my_lab_nearest/__init__.py",
        "src/pyg_nsa_my_lab_nearest/hooks.py",
        "src/pyg_nsa_my_lab_nearest/nearest.py",
        "tests/test_nearest.py",
    ]
    for file in written:
        assert f"  {file}\n" in text
    assert "cd pyg-nsa-my-lab-nearest\n" in text


def test_new_overwrites_nothing(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine, too")
    result = call("new", "nearest", "--dir", str(tmp_path), status=1)
    assert f"{tmp_path} has README.md already, and nothing is overwritten" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "notes.txt"}
    (tmp_path / "README.md").unlink()
    call("new", "nearest", "--dir", str(tmp_path))
    assert (tmp_path / "pyproject.toml").exists()
    result = call("new", "nearest", "--dir", str(tmp_path), status=1)
    assert "pyproject.toml, README.md, .gitignore and 4 more already" in result.stderr


@pytest.mark.parametrize("name", ["MyLab.nearest", "2fast", "a.b.c", "near-est", ".nearest", ""])
def test_new_says_the_rule_for_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = words(call("new", name, status=2).stderr)
    assert (
        f"edge kind {name!r}: a name is lower case letters, digits and '_', from a letter on"
        in text
    )
    assert "'nearest', 'my_lab.nearest'" in text
    assert not any(tmp_path.iterdir())


def test_new_refuses_names_that_are_taken(tmp_path, monkeypatch, install):
    install("my-lab", {"my_lab.near": "near_module"}, {"near_module": "1 / 0"})
    monkeypatch.chdir(tmp_path)
    text = call("new", "adjacency_mask", status=1).stderr
    assert f"'adjacency_mask' is provided by pyg-nsa {pyg_nsa.__version__} already" in text
    assert "such as 'my_lab.adjacency_mask'" in text
    text = call("new", "my_lab.near", status=1).stderr
    assert "'my_lab.near' is provided by my-lab 1.0 already" in text
    assert "put yourself in front" not in text
    text = call("new", "plugins", status=1).stderr
    assert "a package 'pyg_nsa_plugins' is installed already" in text
    assert {path.name for path in tmp_path.iterdir()} <= {"site"}

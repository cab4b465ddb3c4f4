from __future__ import annotations

import importlib.metadata
import pickle
import sys
import threading
import types
import warnings

import pytest
from fake_distributions import kind_module, operator_module

from pyg_nsa.api import EdgeKind, Operator, hookimpl
from pyg_nsa.registry import (
    BrokenPluginError,
    DisabledPluginError,
    IncompatiblePluginError,
    PluginConflictError,
    PluginWarning,
    Registry,
    RegistryError,
    UnknownEdgeKindError,
    UnknownOperatorError,
    default_registry,
    register,
    use_registry,
)


def build(context, options):
    return None


def kind(name: str, **more) -> EdgeKind:
    return EdgeKind(name=name, build=build, summary="A kind.", **more)


def statuses(registry: Registry, name: str) -> list[str]:
    return [record.status for record in registry.records() if record.name == name]


def record(registry: Registry, name: str):
    (found,) = [record for record in registry.records() if record.name == name]
    return found


# --- finding and loading --------------------------------------------------------------------------


def test_a_name_imports_its_plugin_and_no_other(install):
    install(
        "fake-kinds",
        {"fake_one": "fake_one_mod", "fake_two": "fake_two_mod"},
        {"fake_one_mod": kind_module("fake_one"), "fake_two_mod": "raise SystemExit('imported')"},
    )
    registry = Registry()
    assert {"fake_one", "fake_two"} <= set(registry.names())
    assert registry.provider("fake_two") == "fake-kinds 1.0"
    assert statuses(registry, "fake_one") == ["available"]
    assert not {"fake_one_mod", "fake_two_mod"} & set(sys.modules)

    assert registry.edge_kind("fake_one").name == "fake_one"

    assert "fake_one_mod" in sys.modules
    assert "fake_two_mod" not in sys.modules
    loaded = record(registry, "fake_one")
    assert (loaded.status, loaded.dist, loaded.version) == ("loaded", "fake-kinds", "1.0")
    assert loaded.module == "fake_one_mod"
    assert loaded.declaration is registry.edge_kind("fake_one")
    assert statuses(registry, "fake_two") == ["available"]


def test_an_unknown_name_is_reported_without_an_import(install):
    install("fake-kinds", {"fake_one": "fake_one_mod"}, {"fake_one_mod": kind_module("fake_one")})
    registry = Registry(allow=["fake-kinds"])
    with pytest.raises(UnknownEdgeKindError) as caught:
        registry.edge_kind("Fake-Won")
    assert str(caught.value) == (
        "unknown edge kind 'Fake-Won', did you mean 'fake_one'? Available: fake_one."
    )
    assert caught.value.available == ("fake_one",)
    assert caught.value.suggestion == "fake_one"
    assert isinstance(caught.value, KeyError)
    assert "fake_one_mod" not in sys.modules
    with pytest.raises(UnknownEdgeKindError) as caught:
        registry.edge_kind("zzz")
    assert str(caught.value) == "unknown edge kind 'zzz'. Available: fake_one."


def test_an_unknown_name_where_nothing_is_installed():
    with pytest.raises(UnknownEdgeKindError, match="pip install pyg-nsa"):
        Registry(allow=[]).edge_kind("nearest")
    with pytest.raises(UnknownEdgeKindError, match=r"This registry is empty .* register\(\) one"):
        Registry(discover=False).edge_kind("nearest")
    with pytest.raises(UnknownOperatorError, match="unknown operator 'nsa'"):
        Registry(discover=False).operator("nsa")


def test_operators_and_edge_kinds_are_told_apart(install):
    install(
        "fake-kinds",
        {"fake_one": "fake_one_mod", "fake_conv": "fake_conv_mod"},
        {"fake_one_mod": kind_module("fake_one"), "fake_conv_mod": operator_module("fake_conv")},
    )
    registry = Registry(allow=["fake-kinds"])
    assert isinstance(registry.operator("fake_conv"), Operator)
    with pytest.raises(UnknownEdgeKindError) as caught:
        registry.edge_kind("fake_conv")
    assert str(caught.value) == "'fake_conv' is an operator, not an edge kind. Available: fake_one."
    with pytest.raises(UnknownOperatorError) as caught:
        registry.operator("fake_one")
    assert str(caught.value) == (
        "'fake_one' is an edge kind, not an operator. Available: fake_conv."
    )


def test_two_kinds_of_one_module(install):
    source = kind_module("fake_one") + kind_module("fake_two").replace(
        "return [", "return [FIRST, "
    ).replace("@hookimpl", "FIRST = pyg_nsa_edge_kinds()[0]\n@hookimpl")
    install("fake-kinds", {"fake_one": "fake_mod", "fake_two": "fake_mod"}, {"fake_mod": source})
    registry = Registry()
    assert registry.edge_kind("fake_one").name == "fake_one"
    assert registry.edge_kind("fake_two").name == "fake_two"


def test_a_class_is_a_plugin_too(install):
    source = kind_module("fake_one").replace("@hookimpl", "class Plugin:\n  @hookimpl")
    source = source.replace("def pyg_nsa_edge_kinds():\n", "  def pyg_nsa_edge_kinds(self):\n")
    install("fake-kinds", {"fake_one": "fake_mod:Plugin"}, {"fake_mod": source})
    assert Registry().edge_kind("fake_one").name == "fake_one"


def test_an_alias_is_an_entry_point_and_leads_to_the_kind(install):
    install(
        "fake-kinds",
        {"fake_one": "fake_mod", "fake_old": "fake_mod"},
        {"fake_mod": kind_module("fake_one", "aliases=('fake_old',)")},
    )
    assert Registry().edge_kind("fake_old").name == "fake_one"


def test_a_deprecated_kind_says_what_to_use(install):
    install(
        "fake-kinds",
        {"fake_one": "fake_mod"},
        {"fake_mod": kind_module("fake_one", "deprecated='use fake_two'")},
    )
    registry = Registry()
    with pytest.warns(FutureWarning, match="edge kind 'fake_one' is deprecated: use fake_two"):
        registry.edge_kind("fake_one")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.edge_kind("fake_one")  # Once is enough.


def test_two_threads_load_once(install):
    # Slow at import and in the hook: the import has a lock of its own, the rest has only the registry's.
    slow = "def pyg_nsa_edge_kinds():\n    CALLS.append(1)\n    time.sleep(0.1)\n"
    source = "import time\nCALLS = []\ntime.sleep(0.1)\n" + kind_module("fake_one").replace(
        "def pyg_nsa_edge_kinds():\n", slow
    )
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": source})
    registry = Registry()
    found: list[EdgeKind] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(registry.edge_kind("fake_one"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(one is found[0] for one in found)
    assert len(sys.modules["fake_mod"].CALLS) == 1


def test_registries_do_not_know_each_other(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    one, other = Registry(), Registry()
    one.edge_kind("fake_one")
    one.register(kind("nearest"))
    assert statuses(other, "fake_one") == ["available"]
    assert "nearest" not in other.names()


def test_discovery_is_bothered_by_no_damaged_distribution(install):
    path = install("fake-bad", {}, {})
    (path / "fake_bad-1.0.dist-info" / "entry_points.txt").write_text("[pyg_nsa]\nno equals\n")
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    with pytest.warns(PluginWarning, match="the entry points of fake-bad cannot be read"):
        names = Registry().names()
    assert "fake_one" in names


# --- broken ---------------------------------------------------------------------------------------


BROKEN = {
    "missing import": (
        "import cobrapy_not_installed",
        "ModuleNotFoundError: No module named 'cobrapy_not_installed'",
    ),
    "exit": ("import sys\nsys.exit(3)", "it called sys.exit(3) at import"),
    "misspelt hook": (
        kind_module("fake_one").replace("pyg_nsa_edge_kinds", "pyg_nsa_edge_kind"),
        "unknown hook 'pyg_nsa_edge_kind' in plugin <module 'fake_mod'",
    ),
    "unknown argument": (
        kind_module("fake_one").replace("kinds():", "kinds(graph):"),
        "Argument(s) {'graph'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "no decorator": (
        kind_module("fake_one").replace("@hookimpl", ""),
        "it declares nothing: pyg_nsa_edge_kinds or pyg_nsa_operators must return at least one "
        "declaration; is @hookimpl missing on pyg_nsa_edge_kinds?",
    ),
    "hook in place of its module": (
        kind_module("fake_one"),
        "it declares nothing: pyg_nsa_edge_kinds or pyg_nsa_operators must return at least one declaration; this is the "
        "function pyg_nsa_edge_kinds: name its module in its place, 'fake_mod' without ':pyg_nsa_edge_kinds'",
        "fake_mod:pyg_nsa_edge_kinds",
    ),
    "list of declarations": (
        kind_module("fake_one") + "\nKINDS = pyg_nsa_edge_kinds()",
        "; this is a list: name the module with the hooks, or one declaration",
        "fake_mod:KINDS",
    ),
    "class of the module": (
        "class Term:\n    def __init__(self, heads):\n        pass\n",
        "; this is the class Term: pass a declaration that builds it, EdgeKind(name='my_lab.…', build=lambda context, options: "
        "Term(…), summary='…', …)",
        "fake_mod:Term",
    ),
    "class with a misspelt hook": (
        "class Hooks:\n    def pyg_nsa_edge_kind(self):\n        return []\n"
        "    pyg_nsa_edge_kind.pyg_nsa_impl = {}\n",
        "unknown hook 'pyg_nsa_edge_kind'",
        "fake_mod:Hooks",
    ),
    "no kinds": ("", "it declares nothing: pyg_nsa_edge_kinds or pyg_nsa_operators must return"),
    "not a list": (
        kind_module("fake_one").replace("return [", "return 3 # [").split("        EdgeKind")[0],
        "pyg_nsa_edge_kinds must return a list of EdgeKind, got int 3",
    ),
    "not kinds": (
        kind_module("fake_one").replace("return [", "return ['fake_one'] + ["),
        "pyg_nsa_edge_kinds must return a list of EdgeKind, got one that holds str 'fake_one'",
    ),
    "twice": (
        kind_module("fake_one").replace("    ]", "    ] * 2"),
        "it declares 'fake_one' twice",
    ),
    "another name": (
        kind_module("fake_uno"),
        "the entry point is named 'fake_one' but leads to 'fake_uno'; an entry point is named after "
        'what it provides: "fake_uno" = "fake_mod"',
    ),
    "alias without entry point": (
        kind_module("fake_one", "aliases=('fake_old',)"),
        "it provides 'fake_old' without an entry point of that name, so nobody could find it; add "
        '"fake_old" = "fake_mod"',
    ),
    "bad declaration": (
        kind_module("fake_one").replace("'fake_one'", "'Fake One'"),
        "ValueError: edge kind 'Fake One': a name is lower case letters, digits and '_'",
    ),
    "syntax": ("def (", "SyntaxError: invalid syntax"),
    "class that cannot be made": (
        "class Plugin:\n    def __init__(self):\n        raise OSError('no licence file')",
        "OSError: no licence file",
        "fake_mod:Plugin",
    ),
    "no such class": (
        "",
        "AttributeError: module 'fake_mod' has no attribute 'Plugin'",
        "fake_mod:Plugin",
    ),
    "breaks while it is registered": (
        "class Plugin:\n    def __dir__(self):\n        raise RuntimeError('not now')",
        "RuntimeError: not now",
        "fake_mod:Plugin",
    ),
    "error without text": ("raise ValueError", "is broken: ValueError. Mend it"),
    "hook raises": (
        kind_module("fake_one").replace("return [", "raise KeyError('data')\n    return ["),
        "KeyError: 'data'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_warns_at_load_and_raises_in_use(install, case):
    source, reason, target = (*BROKEN[case], "fake_mod")[:3]
    install(
        "fake-kinds",
        {"fake_one": target, "fake_two": "fake_two_mod"},
        {"fake_mod": source, "fake_two_mod": kind_module("fake_two")},
        version="2.1",
    )
    registry = Registry(allow=["fake-kinds"])
    with pytest.warns(PluginWarning) as warned:
        registry.load_all()
    assert len(warned) == 1
    assert reason in str(warned[0].message)
    assert "fake_one" not in registry.names()
    assert registry.edge_kind("fake_two").name == "fake_two"

    with pytest.raises(BrokenPluginError) as caught:
        registry.edge_kind("fake_one")
    text = str(caught.value)
    assert text.startswith(f"plugin 'fake_one' of fake-kinds 2.1 ({target}) is broken: ")
    assert reason in text
    assert text.endswith("Mend it, upgrade it (pip install -U fake-kinds), or do without it.")
    assert "?." not in text and ".. " not in text
    assert caught.value.name == "fake_one"
    assert caught.value.provider == "fake-kinds 2.1"
    assert caught.value.__cause__ is not None
    broken = record(registry, "fake_one")
    assert broken.status == "broken"
    assert broken.error is caught.value.__cause__
    assert broken.error.__traceback__ is not None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.load_all()  # Once is enough.


def test_use_raises_without_a_load_before(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": "1/0"})
    with pytest.raises(BrokenPluginError, match="ZeroDivisionError: division by zero"):
        Registry().edge_kind("fake_one")


def test_ctrl_c_is_no_broken_plugin(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        Registry().load_all()


def test_strict_raises_at_load(install, monkeypatch):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": "import nowhere_to_be_found"})
    with pytest.raises(BrokenPluginError, match="nowhere_to_be_found"):
        Registry(strict=True, allow=["fake-kinds"]).load_all()
    monkeypatch.setenv("PYG_NSA_STRICT_PLUGINS", "1")
    with pytest.raises(BrokenPluginError, match="nowhere_to_be_found"):
        Registry(allow=["fake-kinds"]).load_all()
    monkeypatch.setenv("PYG_NSA_STRICT_PLUGINS", "0")
    with pytest.warns(PluginWarning):
        Registry(allow=["fake-kinds"]).load_all()


def test_warnings_as_errors_do_not_stop_the_other_plugins(install):
    install(
        "fake-kinds",
        {"fake_one": "fake_mod", "fake_two": "fake_two_mod"},
        {"fake_mod": "1/0", "fake_two_mod": kind_module("fake_two")},
    )
    registry = Registry(allow=["fake-kinds"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.load_all()
    assert statuses(registry, "fake_one") == ["broken"]
    assert statuses(registry, "fake_two") == ["loaded"]


@pytest.mark.parametrize(
    ("api", "text"),
    [
        ("(2, 0)", "written for plugin API 2.0, and this pyg_nsa speaks 1.0 to 1.0; upgrade pyg"),
        ("(1, 7)", "written for plugin API 1.7, and this pyg_nsa speaks 1.0 to 1.0; upgrade pyg"),
        ("(0, 9)", "API 0.9, and this pyg_nsa speaks 1.0 to 1.0; upgrade the plugin"),
    ],
)
@pytest.mark.parametrize("more", ["produces={'novelty'}", "priority=3"])
def test_another_api_is_incompatible(install, api, text, more):
    install(
        "fake-kinds",
        {"fake_one": "fake_mod"},
        {"fake_mod": kind_module("fake_one", f"api={api}, {more}")},
    )
    registry = Registry(allow=["fake-kinds"])
    with pytest.warns(PluginWarning, match="is incompatible"):
        registry.load_all()
    assert statuses(registry, "fake_one") == ["incompatible"]
    with pytest.raises(IncompatiblePluginError) as caught:
        registry.edge_kind("fake_one")
    assert str(caught.value).startswith("plugin 'fake_one' of fake-kinds 1.0 is incompatible: it")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("lo=3", "S: lo: Extra inputs are not permitted."),
        ("lo=3, low='x'", "S: low: Input should be a valid number (and 1 more)."),
    ],
)
def test_invalid_options_in_a_plugins_module_are_told_with_their_place(install, options, text):
    source = (
        f"from pyg_nsa.api import Options\nclass S(Options):\n    low: float = 0\nS({options})\n"
    )
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": source})
    with pytest.raises(BrokenPluginError) as caught:
        Registry(allow=["fake-kinds"]).edge_kind("fake_one")
    assert f"is broken: ValidationError: {text} Mend it" in str(caught.value)


def test_a_hook_with_an_unknown_argument_is_told_with_its_module(install):
    source = kind_module("fake_one").replace("edge_kinds()", "edge_kinds(registry)")
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": source})
    with pytest.raises(BrokenPluginError) as caught:
        Registry(allow=["fake-kinds"]).edge_kind("fake_one")
    assert "Plugin 'fake_mod' for hook 'pyg_nsa_edge_kinds'" in str(caught.value)


# --- conflicts ------------------------------------------------------------------------------------


def test_two_distributions_with_one_name_conflict_and_neither_is_imported(install):
    install("dup-one", {"fake_one": "dup_one_mod"}, {"dup_one_mod": kind_module("fake_one")})
    install("dup-two", {"fake_one": "dup_two_mod"}, {"dup_two_mod": kind_module("fake_one")}, "2")
    registry = Registry(allow=["dup-one", "dup-two"])
    assert statuses(registry, "fake_one") == ["conflict", "conflict"]
    assert registry.names() == []
    for ask in (registry.edge_kind, registry.provider):
        with pytest.raises(PluginConflictError) as caught:
            ask("fake_one")
        assert str(caught.value) == (
            "plugin 'fake_one' is provided more than once: by dup-one 1.0, dup-two 2. Uninstall all "
            "but one, or switch the others off, for example with "
            "PYG_NSA_DISABLE_PLUGINS=fake_one@dup-two."
        )
    with pytest.warns(PluginWarning, match="provided more than once") as warned:
        registry.load_all()
    assert len(warned) == 1
    assert not {"dup_one_mod", "dup_two_mod"} & set(sys.modules)


@pytest.mark.parametrize("way", ["dup-two", "Dup_Two", "fake_one@dup-two"])
def test_the_way_out_of_a_conflict(install, monkeypatch, way):
    install("dup-one", {"fake_one": "dup_one_mod"}, {"dup_one_mod": kind_module("fake_one")})
    install("dup-two", {"fake_one": "dup_two_mod"}, {"dup_two_mod": kind_module("fake_one")})
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", way)
    registry = Registry()
    assert registry.edge_kind("fake_one").name == "fake_one"
    assert registry.provider("fake_one") == "dup-one 1.0"
    assert sorted(statuses(registry, "fake_one")) == ["disabled", "loaded"]
    assert "dup_two_mod" not in sys.modules


def test_one_distribution_twice_on_the_path_counts_once(install):
    for folder, version in (("old", "1.0"), ("new", "2.0")):
        install(
            "fake-kinds",
            {"fake_one": "fake_mod"},
            {"fake_mod": kind_module("fake_one")},
            version=version,
            folder=folder,
        )
    registry = Registry()
    assert statuses(registry, "fake_one") == ["available"]
    # The later call put its folder in front, and the front is what Python imports.
    assert registry.provider("fake_one") == "fake-kinds 2.0"


def test_a_hidden_old_copy_lends_no_plugins_to_the_new_one(install):
    install(
        "fake-kinds",
        {"fake_one": "fake_mod"},
        {"fake_mod": kind_module("fake_one")},
        folder="old",
    )
    path = install("fake-kinds", {}, {}, version="2.0", folder="new")
    (path / "fake_kinds-2.0.dist-info" / "entry_points.txt").unlink()
    assert "fake_one" not in Registry().names()


# --- switching off --------------------------------------------------------------------------------


def test_disabled_before_import(install, monkeypatch):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": "1/0"})
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", "other, fake_one")
    registry = Registry()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.load_all()
    assert "fake_one" not in registry.names()
    assert statuses(registry, "fake_one") == ["disabled"]
    with pytest.raises(DisabledPluginError) as caught:
        registry.edge_kind("fake_one")
    assert str(caught.value) == (
        "plugin 'fake_one' of fake-kinds 1.0 is disabled: switched off by PYG_NSA_DISABLE_PLUGINS, "
        "which lists 'fake_one'."
    )
    assert "fake_mod" not in sys.modules


def test_the_allow_list(install, monkeypatch):
    install(
        "fake-kinds",
        {"fake_one": "fake_mod", "fake_two": "fake_two_mod"},
        {"fake_mod": kind_module("fake_one"), "fake_two_mod": kind_module("fake_two")},
    )
    monkeypatch.setenv("PYG_NSA_PLUGINS", "fake_two")
    registry = Registry()
    assert registry.names() == ["fake_two"]
    with pytest.raises(DisabledPluginError, match="allow-list of PYG_NSA_PLUGINS, which is fake_t"):
        registry.edge_kind("fake_one")
    monkeypatch.setenv("PYG_NSA_PLUGINS", "")
    registry = Registry()
    assert registry.names() == []
    with pytest.raises(DisabledPluginError, match="which is empty"):
        registry.edge_kind("fake_one")


def test_arguments_go_before_the_environment(install, monkeypatch):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", "fake_one")
    monkeypatch.setenv("PYG_NSA_PLUGINS", "")
    assert Registry(disable=[], allow=["fake_one"]).names() == ["fake_one"]


def test_a_string_is_no_list_of_names():
    with pytest.raises(TypeError, match="disable must be a list of names, and 2 is none"):
        Registry(disable=["a", 2])
    with pytest.raises(TypeError, match=r"disable must be a list of names, got 'a'; write \['a'\]"):
        Registry(disable="a")


def test_without_makes_another_registry(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    registry = Registry(allow=["fake-kinds"])
    registry.register(kind("nearest"))
    registry.register(kind("farthest"))
    less = registry.without(["fake_one", "nearest"], by="the test")
    assert less.names() == ["farthest"]
    assert less.edge_kind("farthest") is registry.edge_kind("farthest")
    for name in ("fake_one", "nearest"):
        with pytest.raises(DisabledPluginError, match="switched off by the test, which lists"):
            less.edge_kind(name)
    assert registry.names() == ["fake_one", "farthest", "nearest"]
    assert registry.without([]) is registry


# --- registering by hand --------------------------------------------------------------------------


def test_ten_lines_in_a_notebook():
    registry = Registry(discover=False)
    assert registry.register(kind("nearest")) == ("nearest",)
    assert registry.edge_kind("nearest").summary == "A kind."
    assert registry.names() == ["nearest"]
    assert registry.provider("nearest") == f"{__name__} (registered by hand)"
    assert record(registry, "nearest").status == "loaded"
    registry.unregister("nearest")
    assert registry.names() == []


def test_an_operator_by_hand():
    registry = Registry(discover=False)
    operator = Operator(name="conv", build=build, summary="An operator.")
    registry.register(operator)
    assert registry.operator("conv") is operator


def plugin(*kinds: EdgeKind) -> types.SimpleNamespace:
    @hookimpl
    def pyg_nsa_edge_kinds():
        return list(kinds)

    return types.SimpleNamespace(pyg_nsa_edge_kinds=pyg_nsa_edge_kinds)


def as_module(*kinds: EdgeKind) -> types.ModuleType:
    module = types.ModuleType("handmade")
    module.pyg_nsa_edge_kinds = plugin(*kinds).pyg_nsa_edge_kinds
    return module


class ClassPlugin:
    @hookimpl
    def pyg_nsa_edge_kinds(self):
        return [kind("nearest"), kind("farthest")]


@pytest.mark.parametrize(
    "source",
    [
        plugin(kind("nearest"), kind("farthest")),
        as_module(kind("nearest"), kind("farthest")),
        ClassPlugin,
        ClassPlugin(),
    ],
    ids=["namespace", "module", "class", "object"],
)
def test_anything_with_hooks_by_hand(source):
    registry = Registry(discover=False)
    assert registry.register(source) == ("nearest", "farthest")
    assert registry.names() == ["farthest", "nearest"]
    registry.unregister("nearest")
    assert registry.names() == ["farthest"]
    registry.unregister("farthest")
    assert registry.register(source) == ("nearest", "farthest")


def test_a_taken_name_needs_replace():
    registry = Registry(discover=False)
    first, second = kind("nearest"), kind("nearest", revision=2)
    registry.register(first)
    with pytest.raises(PluginConflictError) as caught:
        registry.register(second)
    assert str(caught.value) == (
        f"'nearest' is already provided by {__name__} (registered by hand). Pass replace=True to put "
        "the new one in its place in this registry, or give the new one another name."
    )
    assert registry.edge_kind("nearest") is first
    registry.register(second, replace=True)
    assert registry.edge_kind("nearest") is second
    registry.unregister("nearest")
    assert registry.names() == []


def test_a_refused_plugin_leaves_nothing_behind():
    registry = Registry(discover=False)
    registry.register(kind("nearest"))
    both = plugin(kind("farthest"), kind("nearest"))
    with pytest.raises(PluginConflictError):
        registry.register(both)
    assert registry.names() == ["nearest"]
    assert registry.register(both, replace=True) == ("farthest", "nearest")


def test_replacing_an_installed_plugin_and_getting_it_back(install):
    install("fake-kinds", {"fake_one": "fake_mod"}, {"fake_mod": kind_module("fake_one")})
    registry = Registry(allow=["fake-kinds"])
    mine = kind("fake_one")
    with pytest.raises(PluginConflictError, match=r"already provided by fake-kinds 1\.0"):
        registry.register(mine)
    assert "fake_mod" not in sys.modules
    registry.register(mine, replace=True)
    assert registry.edge_kind("fake_one") is mine
    assert sorted(statuses(registry, "fake_one")) == ["disabled", "loaded"]
    registry.load_all()
    assert "fake_mod" not in sys.modules
    registry.unregister("fake_one")
    with pytest.raises(RegistryError, match="was not registered by hand, it is installed"):
        registry.unregister("fake_one")
    assert registry.edge_kind("fake_one").options.__name__ == "FakeOne"


def test_aliases_by_hand():
    registry = Registry(discover=False)
    registry.register(kind("nearest", aliases=("knn",)))
    assert registry.edge_kind("knn").name == "nearest"
    with pytest.raises(PluginConflictError, match="'knn' is already provided"):
        registry.register(kind("knn"))


def test_mistakes_by_hand_are_told_at_once():
    registry = Registry(discover=False)

    @hookimpl
    def pyg_nsa_edge_knids():
        return []

    with pytest.raises(BrokenPluginError, match="unknown hook 'pyg_nsa_edge_knids'"):
        registry.register(types.SimpleNamespace(pyg_nsa_edge_knids=pyg_nsa_edge_knids))
    with pytest.raises(BrokenPluginError, match="it declares nothing"):
        registry.register(types.SimpleNamespace())

    class Term:
        def __init__(self, heads):
            pass

    with pytest.raises(BrokenPluginError, match="this is the class Term: pass a declaration"):
        registry.register(Term)
    with pytest.raises(IncompatiblePluginError, match="upgrade pyg-nsa"):
        registry.register(kind("nearest", api=(9, 0)))
    registry.register(kind("nearest"))  # What failed is not in the way.


def test_unregister_of_an_unknown_name():
    with pytest.raises(RegistryError, match="unknown plugin 'nearest'"):
        Registry(discover=False).unregister("nearest")


def test_an_application_without_metadata(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(()))
    registry = Registry()
    registry.register(kind("nearest"))
    assert registry.names() == ["nearest"]


# --- the default registry, and errors on their way ------------------------------------------------


def test_the_default_registry_is_made_once_and_can_be_replaced_in_a_block(monkeypatch):
    monkeypatch.setattr("pyg_nsa.registry.registry._default", None)
    default = default_registry()
    assert default_registry() is default
    mine = Registry(discover=False)
    with use_registry(mine) as used:
        assert used is mine
        assert default_registry() is mine
        register(kind("nearest"))
        seen: list[Registry] = []
        thread = threading.Thread(target=lambda: seen.append(default_registry()))
        thread.start()
        thread.join()
        assert seen == [default]
    assert default_registry() is default
    assert mine.names() == ["nearest"]
    assert "nearest" not in default.names()


def test_errors_pass_a_process_border():
    with pytest.raises(UnknownEdgeKindError) as caught:
        Registry(discover=False).edge_kind("nearest")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.name == "nearest"
    assert copy.available == ()


def test_a_misspelt_name_in_the_environment_is_noted(monkeypatch):
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", "adjacency_masks,qqq")
    with pytest.warns(UserWarning, match="adjacency_masks") as warned:
        Registry().names()
    assert {str(one.message) for one in warned} == {
        "PYG_NSA_DISABLE_PLUGINS lists 'adjacency_masks', and nothing that is installed has that name; did you mean "
        "'adjacency_mask'?"
    }
    monkeypatch.setenv("PYG_NSA_DISABLE_PLUGINS", "adjacency_mask,qqq,Pyg_NSA")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Registry().names()

"""Loading under odd circumstances: threads, warnings as errors, many distributions, a fresh process."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import pytest
from fake_distributions import kind_module, operator_module, write_distribution

from pyg_nsa.registry import BrokenPluginError, PluginWarning, Registry

PATIENCE = 60
"""Seconds after which threads that wait for each other are taken for a deadlock; they are over in a moment otherwise."""


def run_together(tasks):
    """Starts all at once and waits for all; what they raised is returned."""
    barrier, raised = threading.Barrier(len(tasks)), []

    def run(task):
        barrier.wait()
        try:
            task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    return raised


def many(number, prefix="many"):
    names = [f"{prefix}_{index}" for index in range(number)]
    modules = {f"{name}_mod": kind_module(name) for name in names}
    return names, {name: f"{name}_mod" for name in names}, modules


def test_many_threads_load_many_plugins(install):
    names, entry_points, modules = many(12)
    modules["many_3_mod"] = "1/0"
    # A plugin that uses the registry while it is imported, and one while it is asked.
    modules["many_shared"] = "registries = []"
    asking = "from many_shared import registries\n{indent}registries[0].names()\n"
    modules["many_4_mod"] = asking.format(indent="") + modules["many_4_mod"]
    modules["many_5_mod"] = modules["many_5_mod"].replace(
        "    return [", "    " + asking.format(indent="    ") + "    return ["
    )
    install("many-kinds", entry_points, modules)
    registry = Registry(allow=["many-kinds"])
    importlib.import_module("many_shared").registries.append(registry)
    found: dict[str, set[int]] = {name: set() for name in names}

    def ask_all(offset):
        for name in (*names[offset:], *names[:offset]):
            expected = pytest.raises(BrokenPluginError) if name == "many_3" else nullcontext()
            with expected:
                found[name].add(id(registry.edge_kind(name)))

    tasks = [lambda offset=offset: ask_all(offset % 12) for offset in range(16)]
    tasks += [registry.load_all, registry.records, registry.names] * 2
    with pytest.warns(PluginWarning, match="'many_3' of many-kinds 1.0"):
        assert run_together(tasks) == []
    assert {name: len(ids) for name, ids in found.items()} == {
        name: 0 if name == "many_3" else 1 for name in names
    }


def test_a_plugin_that_is_imported_elsewhere_meanwhile(install, monkeypatch):
    """One thread imports the plugin's module, which asks the registry; the other asks the registry, which imports the module."""
    events = "import threading\nimporting, loading, registries = threading.Event(), threading.Event(), []"
    source = f"""
import crossing_events
crossing_events.importing.set()
assert crossing_events.loading.wait({PATIENCE})
crossing_events.registries[0].names()
"""
    install(
        "crossing",
        {"crossing": "crossing_mod"},
        {"crossing_mod": source + kind_module("crossing"), "crossing_events": events},
    )
    shared = importlib.import_module("crossing_events")
    registry = Registry(allow=["crossing"])
    shared.registries.append(registry)
    load = importlib.metadata.EntryPoint.load

    def announced(self):
        shared.loading.set()
        return load(self)

    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", announced)

    def ask():
        assert shared.importing.wait(PATIENCE)
        assert registry.edge_kind("crossing").name == "crossing"

    assert run_together([lambda: importlib.import_module("crossing_mod"), ask]) == []


def test_a_hundred_distributions(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    names, _, modules = many(100, "hundred")
    for name in names:
        module = f"{name}_mod"
        write_distribution(
            folder, name.replace("_", "-"), "1.0", {name: module}, {module: modules[module]}
        )
    # And as many that have nothing for us.
    for index in range(100):
        write_distribution(folder, f"other-{index}", "1.0", {}, {})
        (folder / f"other_{index}-1.0.dist-info" / "entry_points.txt").unlink()
    monkeypatch.syspath_prepend(str(folder))
    started = time.perf_counter()
    registry = Registry()
    assert set(names) <= set(registry.names())
    listed = time.perf_counter()
    assert not any(f"{name}_mod" in sys.modules for name in names)
    assert registry.edge_kind("hundred_42").name == "hundred_42"
    asked = time.perf_counter()
    assert [name for name in names if f"{name}_mod" in sys.modules] == ["hundred_42"]
    try:
        statuses = {r.name: r.status for r in registry.load_all() if r.name in names}
        loaded = time.perf_counter()
    finally:
        for name in names:
            sys.modules.pop(f"{name}_mod", None)
    assert set(statuses.values()) == {"loaded"}
    print(
        f"100 distributions with plugins among {len(list(importlib.metadata.distributions()))}: names {listed - started:.3f} s, "
        f"one kind {asked - listed:.3f} s, all {loaded - asked:.3f} s"
    )


PROBE = """
import warnings
from pyg_nsa.registry import Registry, RegistryError
registry = Registry()
registry.load_all()
print(*(f"{r.name}={r.status}" for r in registry.records() if r.dist.startswith("fresh")))
try:
    registry.edge_kind("fresh_bad")
except RegistryError as error:
    print(error)
from pyg_nsa import load_config
print(load_config({"edges": [{"edge_type": ["a", "r", "b"], "kind": "fresh_good"}]}).edges[0].kind)
"""


def fresh(tmp_path, **environment):
    """Runs the probe in a process of its own, with two fake distributions."""
    folder = tmp_path / "site"
    if not folder.exists():
        modules = {
            "fresh_good_mod": kind_module("fresh_good"),
            "fresh_conv_mod": operator_module("fresh_conv"),
        }
        entry_points = {"fresh_good": "fresh_good_mod", "fresh_conv": "fresh_conv_mod"}
        write_distribution(folder, "fresh-lab", "1.0", entry_points, modules)
        write_distribution(
            folder,
            "fresh-bad",
            "2.0",
            {"fresh_bad": "fresh_bad_mod"},
            {"fresh_bad_mod": "import sys; sys.exit('no')"},
        )
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


WHY = (
    "plugin 'fresh_bad' of fresh-bad 2.0 (fresh_bad_mod) is broken: it called sys.exit('no') at import. Mend it, upgrade it "
    "(pip install -U fresh-bad), or do without it."
)


def test_warnings_as_errors_from_the_environment(tmp_path):
    done = fresh(tmp_path, PYTHONWARNINGS="error")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "fresh_bad=broken fresh_conv=loaded fresh_good=loaded",
        WHY,
        "fresh_good",
    ]
    assert done.returncode == 0


def test_a_warning_in_a_fresh_process(tmp_path):
    done = fresh(tmp_path)
    assert f"PluginWarning: {WHY}" in done.stderr
    assert done.returncode == 0


def test_strict_plugins_from_the_environment(tmp_path):
    done = fresh(tmp_path, PYG_NSA_STRICT_PLUGINS="1")
    assert done.returncode == 1
    assert f"BrokenPluginError: {WHY}" in done.stderr


@pytest.mark.parametrize("item", ["fresh_bad", "fresh-bad", "Fresh_Bad", "fresh_bad@fresh-bad"])
def test_switched_off_from_the_environment_before_any_import(tmp_path, item):
    done = fresh(tmp_path, PYG_NSA_DISABLE_PLUGINS=item, PYG_NSA_STRICT_PLUGINS="1")
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == (
        "plugin 'fresh_bad' of fresh-bad 2.0 is disabled: switched off by PYG_NSA_DISABLE_PLUGINS, which lists "
        f"{item!r}."
    )


def test_an_allow_list_from_the_environment(tmp_path):
    done = fresh(tmp_path, PYG_NSA_PLUGINS="fresh_good,pyg-nsa", PYG_NSA_STRICT_PLUGINS="1")
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "fresh_bad=disabled fresh_conv=disabled fresh_good=loaded"

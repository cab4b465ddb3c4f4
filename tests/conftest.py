"""Fixtures of the registry and configuration tests, and how torch's threads wait in all tests."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fake_distributions import write_distribution
from fresh_environment import ROOT, FreshEnvironment

# Before torch is imported: spinning threads slow each other down many times over on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Install = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would begin with the files that have the most tests, and end with those of one long test each, on one core.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first, then those with many."""
    number = Counter(item.path for item in items)
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: (item.path not in long, -number[item.path]))


@pytest.fixture(autouse=True)
def forgotten_compilations() -> None:
    """torch passes over functions that other tests had compiled too often, and compiles what they call by itself."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has set for plugins must not decide about tests."""
    for name in ("PYG_NSA_DISABLE_PLUGINS", "PYG_NSA_PLUGINS", "PYG_NSA_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a fake distribution for one test: `install("dist", {"entry": "module"}, {"module": "source"})`."""
    before = set(sys.modules)
    written: set[str] = set()

    def install(
        name: str,
        entry_points: Mapping[str, str],
        modules: Mapping[str, str],
        version: str = "1.0",
        folder: str | None = None,
        group: str = "pyg_nsa",
    ) -> Path:
        path = tmp_path / "site" / (folder or f"{name}-{version}")
        write_distribution(path, name, version, entry_points, modules, group)
        monkeypatch.syspath_prepend(str(path))
        written.update(modules)
        return path

    yield install
    for module in written - before:
        sys.modules.pop(module, None)


@pytest.fixture(scope="session")
def fresh_environment(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """A virtual environment with the wheel of pyg_nsa, made once for all tests that ask for it."""
    environment = FreshEnvironment(tmp_path_factory.mktemp("fresh"))
    environment.install(ROOT)
    return environment

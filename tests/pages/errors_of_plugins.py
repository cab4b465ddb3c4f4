"""What a registry raises and warns of."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from fake_distributions import kind_module, write_distribution

from pages.error_case import Case, raised
from pyg_nsa import load_config
from pyg_nsa.load.migrations import MIGRATIONS, Migration
from pyg_nsa.registry import Registry

__all__ = ["PLUGINS"]


def installed(
    distributions: Mapping[str, str], ask: Callable[[Registry], object], **options: object
) -> Callable[[Path], BaseException]:
    """Asks a registry where each distribution provides the kind `near` with a module of that source."""

    def provoke(folder: Path) -> BaseException:
        modules = []
        for dist, source in distributions.items():
            module = f"{dist.replace('-', '_')}_plugin"
            modules.append(module)
            write_distribution(folder / "site", dist, "1.2", {"near": module}, {module: source})
        sys.path.insert(0, str(folder / "site"))
        importlib.invalidate_caches()
        try:
            return raised(lambda: ask(Registry(allow=list(distributions), **options)))  # type: ignore[arg-type]
        finally:
            sys.path.remove(str(folder / "site"))
            for module in modules:
                sys.modules.pop(module, None)

    return provoke


def near(registry: Registry) -> object:
    return registry.edge_kind("near")


def warned(registry: Registry) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.load_all()
    raise caught[0].message  # type: ignore[misc]


def old_format(folder: Path) -> BaseException:
    Path("nsa.yaml").write_text(
        "version: 0\nwidth: 8\nedges: [{edge_type: [a, r, b], kind: adjacency_mask}]\n"
    )

    def rename(raw: dict[str, object]) -> dict[str, object]:
        raw["hidden_channels"] = raw.pop("width")
        return raw

    MIGRATIONS[0] = Migration("'width' is called 'hidden_channels' now", rename)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_config("nsa.yaml")
    finally:
        del MIGRATIONS[0]
    message: BaseException = caught[0].message  # type: ignore[assignment]
    return message


GOOD = kind_module("near")
BROKEN = "import a_package_that_is_not_there"

PLUGINS = [
    Case(
        "UnknownEdgeKindError",
        "No plugin provides an edge kind of this name; nothing was imported to find out.",
        lambda f: raised(
            lambda: Registry(allow=["pyg-nsa"], disable=()).edge_kind("adjacency-mas")
        ),
        "correct the name, or install its plugin: `pyg-nsa plugins list` shows what there is.",
    ),
    Case(
        "UnknownOperatorError",
        "The same for operators.",
        lambda f: raised(
            lambda: Registry(allow=["pyg-nsa"], disable=()).operator("adjacency_mask")
        ),
        "take one that is available.",
    ),
    Case(
        "BrokenPluginError",
        "The plugin fails at import, or breaks the contract. Other plugins are not concerned.",
        installed({"my-lab": BROKEN}, near),
        "install what is missing, upgrade it, or switch it off; `pyg-nsa plugins doctor` shows the place and the traceback.",
    ),
    Case(
        "IncompatiblePluginError",
        "The plugin was written for another version of the plugin API.",
        installed({"my-lab": kind_module("near", "api=(2, 0)")}, near),
        "upgrade the one that the text names.",
    ),
    Case(
        "PluginConflictError",
        "Two distributions provide one name; none of them is used.",
        installed({"my-lab": GOOD, "your-lab": GOOD}, near),
        "uninstall one, or switch one off with the line in the text; in one configuration `plugins: {disable: [your-lab]}` does it.",
    ),
    Case(
        "DisabledPluginError",
        "The plugin is there, but switched off.",
        installed({"my-lab": GOOD}, near, disable=["near"]),
        "take it off the list that the text names.",
    ),
    Case(
        "PluginWarning",
        "At loading everything (listings, the JSON Schema) a plugin had to be left out. With `PYG_NSA_STRICT_PLUGINS=1` it is an error.",
        installed({"my-lab": BROKEN}, warned),
        "as above; whoever asks for it by name gets the error.",
    ),
    Case(
        "MigrationWarning",
        "A configuration of an earlier version of the format was read. (Shown with an invented change: there is one version so far.)",
        old_format,
        "write the file anew with the command in the text.",
    ),
]

"""Writes distributions with plugins into a folder, as pip would install them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

KIND = """
from pyg_nsa.api import EdgeKind, Options, PLUGIN_API, hookimpl

class {cls}(Options):
    k: int = 8
    "How many."

def build(context, options):
    from pyg_nsa import EdgeTerm
    return EdgeTerm()

@hookimpl
def pyg_nsa_edge_kinds():
    return [
        EdgeKind(
            name={name!r}, options={cls}, build=build, summary="A kind.", {more}
        )
    ]
"""

OPERATOR = """
from pyg_nsa.api import Operator, hookimpl

@hookimpl
def pyg_nsa_operators():
    return [Operator(name={name!r}, build=lambda config: None, summary="An operator.")]
"""


def kind_module(name: str, more: str = "") -> str:
    """The source of a plugin module with one edge kind; `more` are further arguments of `EdgeKind`."""
    return KIND.format(name=name, cls=name.title().replace("_", "").replace(".", ""), more=more)


def operator_module(name: str) -> str:
    return OPERATOR.format(name=name)


def write_distribution(
    folder: Path,
    name: str,
    version: str,
    entry_points: Mapping[str, str],
    modules: Mapping[str, str],
    group: str = "pyg_nsa",
) -> Path:
    """Writes a distribution into `folder`, which then belongs on sys.path."""
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{entry} = {target}" for entry, target in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    return folder

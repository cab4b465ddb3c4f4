"""Writes the project of a new plugin: a small edge kind that works, with its tests, to start from.

The files are templates beside this module (`string.Template`), so what they say can be read, and tested, as it is.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template

from packaging.utils import canonicalize_name

import pyg_nsa
from pyg_nsa.api import PLUGIN_API, EdgeKind
from pyg_nsa.errors import UnknownNameError
from pyg_nsa.registry import Registry

__all__ = ["Project", "ScaffoldError", "project", "write"]

_FILES = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "README.md.template",
    ".gitignore": "gitignore.template",
    "src/$package/__init__.py": "init.py.template",
    "src/$package/hooks.py": "hooks.py.template",
    "src/$package/$module.py": "kind.py.template",
    "tests/test_$module.py": "test_kind.py.template",
}
"""Where each template goes."""


class ScaffoldError(ValueError):
    """A project that cannot be written; the message says why and what to do."""


@dataclass(frozen=True)
class Project:
    """A project that could be written.

    Attributes:
        name: The name of the edge kind.
        distribution: The name of the distribution, which is what pip installs.
        package: The name of the import package.
        files: The text of each file by its path in the project, `/` between folders.
    """

    name: str
    distribution: str
    package: str
    files: dict[str, str]


def project(name: str, registry: Registry | None = None) -> Project:
    """Makes the files of a plugin with one edge kind, and writes nothing.

    Args:
        name: The name of the edge kind, such as `nearest` or `my_lab.nearest`.
        registry: Where the name must be free; by default all that is installed.

    Raises:
        ScaffoldError: The name cannot be that of an edge kind.
        FileExistsError: The name, or the package that would be made for it, is there already.

    Example:
        >>> made = project("my_lab.nearest")
        >>> made.distribution, made.package
        ('pyg-nsa-my-lab-nearest', 'pyg_nsa_my_lab_nearest')
    """
    try:
        EdgeKind(name=name, build=lambda context, options: None, summary="New.")  # type: ignore[arg-type,return-value]
    except ValueError as error:
        raise ScaffoldError(str(error)) from None
    _check_free(name, registry or Registry(strict=False))
    words = [word for word in name.replace(".", "_").split("_") if word]
    package = "_".join(["pyg_nsa", *words])
    if importlib.util.find_spec(package) is not None:
        raise FileExistsError(
            f"a package {package!r} is installed already, and the new one would be called so too; take another name"
        )
    last = name.rpartition(".")[2].rstrip("_")
    # `class.py` could not be imported, `hooks.py` is the other file, and `EdgeTerm` the base class.
    module = f"{last}_term" if keyword.iskeyword(last) or last in ("hooks", "edge") else last
    values = {
        "name": name,
        "distribution": canonicalize_name(package),
        "package": package,
        "module": module,
        "klass": "".join(word.capitalize() for word in module.split("_")),
        "api": repr(PLUGIN_API),
        "pyg_nsa_version": pyg_nsa.__version__,
    }
    folder = files("pyg_nsa.scaffold") / "templates"
    made = {
        Template(path).substitute(values): Template(
            (folder / template).read_text(encoding="utf-8")
        ).substitute(values)
        for path, template in _FILES.items()
    }
    return Project(name, values["distribution"], package, made)


def write(made: Project, folder: Path) -> list[Path]:
    """Writes a project into a folder, which is made if it is not there; returns the files.

    Raises:
        FileExistsError: A file of the project is there already; then nothing is written.
    """
    paths = {folder / PurePosixPath(path): text for path, text in made.files.items()}
    there = [name for name in made.files if os.path.lexists(folder / PurePosixPath(name))]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise FileExistsError(
            f"{folder} has {', '.join(there[:3])}{more} already, and nothing is overwritten; name another folder with --dir"
        )
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return list(paths)


def _check_free(name: str, registry: Registry) -> None:
    try:
        provider = registry.provider(name)
    except UnknownNameError:
        return
    vendor = "" if "." in name else f"; put yourself in front, such as 'my_lab.{name}', or"
    raise FileExistsError(
        f"{name!r} is provided by {provider} already, and two providers of one name are a conflict{vendor or ';'} take "
        "another name"
    )

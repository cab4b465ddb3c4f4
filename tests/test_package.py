"""What is installed, and what importing it costs."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pyg_nsa.cell

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_two_top_level_names(tmp_path):
    # Without isolation: the build back end is installed, and the test needs no network.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {n.split("/")[0] for n in names} - {n.split("/")[0] for n in names if ".dist-info/" in n}
    assert top == {"pyg_nsa", "pyg_nsa_plugins"}
    for wanted in (
        "pyg_nsa/py.typed",
        "pyg_nsa/cell/demo.yaml",
        "pyg_nsa_plugins/adjacency_mask.py",
    ):
        assert wanted in names
    entry_points = next(n for n in names if n.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "[pyg_nsa]" in text
    assert "stoichiometry_bias = pyg_nsa_plugins.stoichiometry_bias" in text


def test_the_oldest_versions_are_those_that_the_project_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(one for extra in extras for one in extra)]
    lowest = {}
    for requirement in map(Requirement, asked):
        for one in requirement.specifier:
            lowest[canonicalize_name(requirement.name)] = Version(one.version)
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    pinned = {
        canonicalize_name(name): Version(version)
        for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)$", lines)
    }
    # These two only judge the sources, and only the newest rules count.
    unpinned = {"ruff", "mypy", "build"}
    assert pinned == {name: v for name, v in lowest.items() if name not in unpinned}


@pytest.mark.parametrize("package", [pyg_nsa, pyg_nsa.cell])
def test_every_public_name_exists(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    listed = {n for names in package._HOMES.values() for n in names}
    assert listed == set(package.__all__) - {"__version__"}
    with pytest.raises(
        AttributeError, match=f"module '{package.__name__}' has no attribute 'nope'"
    ):
        package.nope  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import pyg_nsa",
        "import pyg_nsa.cli",
        "from pyg_nsa import load_config, EdgeKind, Registry",
        "from pyg_nsa.cell.config import CellConfig",
    ],
)
def test_light_imports_stay_light(statement):
    code = f"{statement}\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_stops_an_import_is_said(tmp_path):
    (tmp_path / "torch.py").write_text("import math\nmath.no_such_function\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom pyg_nsa import NSAConv"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "ImportError: pyg_nsa.NSAConv cannot be imported: AttributeError: module 'math' has no attribute 'no_such_function'"
        in run.stderr
    )


def test_importing_everything_compiles_nothing_and_loads_no_plugin():
    code = (
        "import sys, pyg_nsa\nfor n in pyg_nsa.__all__: getattr(pyg_nsa, n)\n"
        "assert 'pyg_nsa_plugins' not in sys.modules\n"
        "assert 'pyg_nsa.attention.flex' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_imports_go_one_way():
    def sources(folder):
        return {p: p.read_text() for p in (ROOT / folder).rglob("*.py")}

    for path, text in sources("pyg_nsa").items():
        assert "pyg_nsa_plugins" not in text, path
    for path, text in sources("pyg_nsa/attention").items():
        assert "torch_geometric" not in text, path
        assert "pyg_nsa.nn" not in text, path
        assert "pyg_nsa.registry" not in text, path
    for path, text in sources("pyg_nsa/compiled").items():
        assert "torch_geometric" not in text, path
        for other in ("attention", "nn", "registry", "cell"):
            assert f"pyg_nsa.{other}" not in text, path
    for path, text in sources("pyg_nsa/nn").items():
        assert "pyg_nsa.cell" not in text, path
    attention = ROOT / "pyg_nsa" / "attention"
    assert "flex" not in (attention / "sparse.py").read_text().replace("FlexAttention", "")
    assert "sparse" not in [
        line.split()[-1]
        for line in (attention / "flex.py").read_text().splitlines()
        if "import" in line
    ]

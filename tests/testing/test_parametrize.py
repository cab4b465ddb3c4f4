"""The kit as tests of pytest."""

import subprocess
import sys
from pathlib import Path

import faulty_kinds as faulty
import pytest

from pyg_nsa import Registry
from pyg_nsa.errors import UnknownEdgeKindError
from pyg_nsa.testing import check_edge_kind, parametrize_with_checks
from pyg_nsa.testing.edge_kinds import EDGE_KIND_CHECKS

NAMES = [*(check.name for check in EDGE_KIND_CHECKS), "coverage"]


def cases(*args, **kwargs):
    mark = parametrize_with_checks(*args, **kwargs)
    assert mark.name == "parametrize" and mark.args[0] == "check"
    return {case.id: case for case in mark.args[1]}


def test_one_test_for_each_kind_and_check():
    found = cases([faulty.kind(), faulty.message_kind(), "adjacency_mask", "hgt"])
    assert [i for i in found if i.startswith("weighted-")] == [f"weighted-{n}" for n in NAMES]
    assert "mean_conv-direction" in found and "adjacency_mask-direction" in found
    assert "hgt-call_forms" in found
    assert repr(found["adjacency_mask-batch"].values[0]) == "adjacency_mask-batch"


def test_expected_failures_are_strict():
    reason = {"direction": "from behind"}
    for known in (reason, {"weighted": reason}):
        found = cases([faulty.kind(faulty.Reversed)], known)
        (mark,) = found["weighted-direction"].marks
        assert mark.name == "xfail"
        assert mark.kwargs == {"reason": "from behind", "strict": True, "raises": AssertionError}
        assert all(not case.marks for name, case in found.items() if "direction" not in name)
        with pytest.raises(AssertionError, match="weighted, direction: .*mixed up"):
            found["weighted-direction"].values[0]()
    # One that passes returns, and pytest's strict xfail makes a failure of it.
    cases([faulty.kind()], reason)["weighted-direction"].values[0]()


def test_what_does_not_apply_is_skipped_with_its_reason():
    found = cases([faulty.message_kind()])
    with pytest.raises(
        pytest.skip.Exception, match="copies does not apply: the kind produces mess"
    ):
        found["mean_conv-copies"].values[0]()


def test_a_crash_keeps_its_cause():
    found = cases([faulty.kind(faulty.CrashesWhenEmpty)])
    with pytest.raises(AssertionError, match="empty_relation") as caught:
        found["weighted-empty_relation"].values[0]()
    assert isinstance(caught.value.__cause__, IndexError)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"kinds must be a list, such as \['adjacency_mask'\]"):
        parametrize_with_checks("adjacency_mask")
    with pytest.raises(ValueError, match="kinds is empty, so nothing would be tested"):
        parametrize_with_checks([])
    with pytest.raises(UnknownEdgeKindError, match="did you mean 'adjacency_mask'"):
        parametrize_with_checks(["adjacency_msk"])
    with pytest.raises(UnknownEdgeKindError, match="This registry is empty"):
        parametrize_with_checks(["hgt"], registry=Registry(discover=False))
    with pytest.raises(ValueError, match="which is no check; did you mean 'batch'"):
        parametrize_with_checks(["adjacency_mask"], {"bacth": "x"})
    for argument in ("expected_failures", "options", "make_fields"):
        with pytest.raises(ValueError, match=f"{argument} names 'other', which is not among the"):
            parametrize_with_checks(["adjacency_mask"], **{argument: {"other": {}}})
    with pytest.raises(ValueError, match="make_fields names 'hgt', which is an operator"):
        parametrize_with_checks(["hgt"], make_fields={"hgt": lambda *args: {}})


def test_without_pytest(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ImportError, match="pytest, which is not installed: pip install pytest"):
        parametrize_with_checks(["adjacency_mask"])
    assert check_edge_kind(faulty.kind(faulty.OneColumn))[-1].status == "passed"


FILE = """
import faulty_kinds as faulty
from pyg_nsa.testing import parametrize_with_checks

@parametrize_with_checks(
    [faulty.kind(faulty.OneColumn), faulty.kind(faulty.OneColumn, "known"), faulty.kind(name="sound")],
    {"known": {"produces": "one column is enough"}, "sound": {"produces": "it was once broken"}},
)
def test_conformance(check):
    check()
"""


def test_a_run_of_pytest(tmp_path):
    (tmp_path / "test_it.py").write_text(FILE)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {Path(faulty.__file__).parent}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rxsfp", "-p", "no:cacheprovider"]
    selected = "produces or builds or weighted-copies"
    done = subprocess.run([*command, "-k", selected], capture_output=True, text=True, cwd=tmp_path)
    text = done.stdout
    assert done.returncode == 1, text + done.stderr
    assert "FAILED test_it.py::test_conformance[weighted-produces]" in text
    assert (
        "weighted, produces: default options, edge type (node, joins, node): bias() must be" in text
    )
    assert "weighted, copies does not apply: waits for 'produces', which failed" in text
    assert "XFAIL test_it.py::test_conformance[known-produces] - one column is enough" in text
    assert "FAILED test_it.py::test_conformance[sound-produces]" in text
    assert "[XPASS(strict)] it was once broken" in text
    assert "PASSED test_it.py::test_conformance[sound-builds]" in text
    assert "2 failed, 3 passed, 1 skipped" in text and "1 xfailed" in text

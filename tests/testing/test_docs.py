"""docs/testing_plugins.md: its tables are complete, and its examples run."""

import re
from pathlib import Path

import pytest

from pyg_nsa.testing import checks_table
from pyg_nsa.testing.edge_kinds import EDGE_KIND_CHECKS
from pyg_nsa.testing.operators import OPERATOR_CHECKS
from pyg_nsa.testing.table import all_tables

PAGE = (Path(__file__).parents[2] / "docs" / "testing_plugins.md").read_text()
MARK = "<!-- The rest of this page is written by pyg_nsa.testing.table.all_tables() -->\n\n"


def test_the_tables_are_those_of_the_docstrings():
    text, written = PAGE.split(MARK)
    assert written == all_tables(), "write it anew from python -m pyg_nsa.testing.table"
    for checks in (EDGE_KIND_CHECKS, OPERATOR_CHECKS):
        for check in checks:
            assert f"| `{check.name}` | {check.summary} |\n" in written
    assert checks_table() in written


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, flags=re.S))
def test_the_examples_run(example, capsys):
    namespace = {}
    exec(example, namespace)
    if "test_conformance" not in namespace:
        assert "direction passed compared" in capsys.readouterr().out
        return
    (mark,) = namespace["test_conformance"].pytestmark
    by_id = {case.id: case for case in mark.args[1]}
    for name, case in by_id.items():
        if name.endswith("-direction"):
            namespace["test_conformance"](*case.values)
    assert len(by_id) > 25

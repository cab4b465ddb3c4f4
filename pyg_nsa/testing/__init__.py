"""Conformance kit for plugin authors: whether an edge kind or an operator does what every user of it relies on.

In a test file of your plugin:

```python
from pyg_nsa.testing import parametrize_with_checks

@parametrize_with_checks(["my_lab.nearest"])
def test_conformance(check):
    check()
```

Without pytest, `check_edge_kind("my_lab.nearest")` returns the results and `assert_edge_kind_conforms` raises them. The checks are
listed in docs/testing_plugins.md.
"""

from __future__ import annotations

from pyg_nsa.testing.asserting import assert_edge_kind_conforms, assert_operator_conforms
from pyg_nsa.testing.edge_kinds import check_edge_kind
from pyg_nsa.testing.operators import check_operator
from pyg_nsa.testing.parametrize import parametrize_with_checks
from pyg_nsa.testing.results import CheckResult
from pyg_nsa.testing.table import checks_table

__all__ = [
    "CheckResult",
    "assert_edge_kind_conforms",
    "assert_operator_conforms",
    "check_edge_kind",
    "check_operator",
    "checks_table",
    "parametrize_with_checks",
]

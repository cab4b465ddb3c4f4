"""The tables of all checks for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from pyg_nsa.testing.edge_kinds import EDGE_KIND_CHECKS
from pyg_nsa.testing.operators import OPERATOR_CHECKS
from pyg_nsa.testing.results import Check
from pyg_nsa.testing.suite import COVERAGE

__all__ = ["all_tables", "checks_table"]


def checks_table(checks: Sequence[Check] = EDGE_KIND_CHECKS) -> str:
    """Returns the Markdown table of checks, written from their docstrings.

    Args:
        checks: Those of edge kinds, or `OPERATOR_CHECKS`.
    """
    rows = [(check.name, check.summary) for check in checks]
    rows.append((COVERAGE, "At least one check ran a module that the plugin built."))
    lines = ["| check | what it demands |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {summary} |" for name, summary in rows)]) + "\n"


def all_tables() -> str:
    """Returns what stands between the marks of docs/testing_plugins.md."""
    return (
        f"## Checks of edge kinds\n\n{checks_table()}\n"
        f"## Checks of operators\n\n{checks_table(OPERATOR_CHECKS)}"
    )


if __name__ == "__main__":
    import sys

    sys.stdout.write(all_tables())

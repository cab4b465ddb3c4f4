"""docs/plugins.md: every first-party edge kind and operator, from its declaration and its option model."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

from click.testing import CliRunner

from pyg_nsa.cli import main
from pyg_nsa.registry import PluginRecord, Registry

HEAD = """# Plugin reference

<!-- Written by `python tests/pages --write` from the plugins themselves; a test fails where it is out of date. -->

The edge kinds and operators that come with pyg_nsa. `pyg-nsa plugins list` shows what is installed with you, third parties included,
and `pyg-nsa plugins show NAME` shows one of them as below. How a configuration is written is in [configuration.md](configuration.md),
how a plugin is in [write_a_plugin.md](write_a_plugin.md).

An edge type `(A, relation, B)` is attention of the nodes of B (targets, queries) to those of A (sources, keys). "Reads" names the fields
of the edge type in a `HeteroData`: of those joined by "or" the first one that is there.
"""


def plugin_page() -> str:
    """The text of the page."""
    records = Registry(allow=["pyg-nsa"], disable=(), strict=True).load_all()
    records = [r for r in records if r.dist == "pyg-nsa"]
    facts = {record.name: facts_of(record.name) for record in records}
    kinds = [r for r in records if facts[r.name]["what"] == "edge kind"]
    operators = [r for r in records if r not in kinds]
    lines = [HEAD, "## Edge kinds\n", "| kind | produces | reads | |\n|---|---|---|---|"]
    for record in kinds:
        of = facts[record.name]
        link = f"[`{record.name}`](#{record.name})"
        lines.append(f"| {link} | {', '.join(of['produces'])} | {reads(of)} | {of['summary']} |")
    lines.append("")
    for record in kinds:
        lines += section(record, facts[record.name])
    lines += ["## Operators\n", "| operator | |\n|---|---|"]
    for record in operators:
        lines.append(f"| [`{record.name}`](#{record.name}) | {facts[record.name]['summary']} |")
    lines.append("")
    for record in operators:
        lines += section(record, facts[record.name])
    return "\n".join(lines).rstrip() + "\n"


def facts_of(name: str) -> dict[str, Any]:
    """What `pyg-nsa plugins show` says."""
    result = CliRunner().invoke(main, ["plugins", "show", name, "--json"], catch_exceptions=False)
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def reads(facts: dict[str, Any]) -> str:
    """The required fields."""
    return "; ".join(" or ".join(f"`{name}`" for name in names) for names in facts["requires"])


def section(record: PluginRecord, facts: dict[str, Any]) -> Iterator[str]:
    """One plugin."""
    yield f"### {record.name}\n"
    yield f"{facts['summary']}\n"
    more = more_of(record)
    if more:
        yield f"{more}\n"
    if facts["what"] == "edge kind":
        where = " Within one node type only." if facts["within_one_type"] else ""
        yield f"Produces: {', '.join(facts['produces'])}. Reads: {reads(facts) or 'nothing of its own'}. Revision {facts['revision']}.{where}\n"
    else:
        yield f"Revision {facts['revision']}.\n"
    if facts["options"]:
        yield "| option | type | default | limits | description |\n|---|---|---|---|---|"
        for row in facts["options"]:
            default = "required" if row["required"] else code(json.dumps(row["default"]))
            cells = (f"`{row['name']}`", row["type"], default, row["limits"], row["description"])
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""
    else:
        yield "It has no options.\n"
    yield f"```yaml\n{facts['example'].strip()}\n```\n"


def code(text: str) -> str:
    """Text in back quotes."""
    return f"`{text}`"


def more_of(record: PluginRecord) -> str:
    """What the docstring of the plugin's module says beyond its first line."""
    doc = inspect.getdoc(sys.modules[str(record.module)]) or ""
    _, _, rest = doc.partition("\n\n")
    return rest.strip().replace("``", "`")

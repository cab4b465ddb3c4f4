"""The tables' places in docs/benchmarks.md: between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``."""

from __future__ import annotations

import re
from pathlib import Path

_PART = re.compile(r"<!-- bench:(\w+) -->\n.*?<!-- /bench:\1 -->", re.DOTALL)


def fill(page: Path, parts: dict[str, str]) -> list[str]:
    """Replaces what stands between the markers.

    Returns:
        Names of parts for which the page has no markers.
    """
    text = page.read_text()
    known = {match.group(1) for match in _PART.finditer(text)}

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in parts:
            return match.group(0)
        return f"<!-- bench:{name} -->\n\n{parts[name]}\n\n<!-- /bench:{name} -->"

    page.write_text(_PART.sub(replacement, text))
    return sorted(set(parts) - known)

"""docs/write_a_plugin.md, followed step by step: its files are written, its commands run, and what it shows must come out."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from fresh_environment import ROOT, FreshEnvironment

PAGE = ROOT / "docs" / "write_a_plugin.md"
BLOCK = re.compile(
    r'(?:<!-- exit status (?P<status>\d) -->\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)```\n',
    flags=re.S,
)


def test_the_page_works(fresh_environment: FreshEnvironment, tmp_path: Path) -> None:
    folder, commands = tmp_path, []
    page = PAGE.read_text()
    blocks = list(BLOCK.finditer(page))
    assert len(blocks) == page.count("```") // 2
    for block in blocks:
        if block["title"]:
            (folder / block["title"]).write_text(block["text"])
            continue
        assert block["language"] == "console", f"a block that nothing is done with:\n{block[0]}"
        before, *steps = re.split(r"^\$ (.*)\n", block["text"], flags=re.M)
        assert not before, f"output without a command:\n{block[0]}"
        for command, wanted in zip(steps[::2], steps[1::2], strict=True):
            if command.startswith("cd "):
                folder = folder / command.removeprefix("cd ")
                continue
            commands.append(command)
            # The exit status is that of a block's last command.
            status = int(block["status"] or 0) if wanted is steps[-1] else 0
            got = fresh_environment.run("bash", "-c", command, cwd=folder, status=status)
            assert matches(wanted, got), f"$ {command}\nThe page says:\n{wanted}\nand it is:\n{got}"
    for part in (
        "plugins new",
        "pip install",
        "pytest",
        "check",
        "train.py",
        "doctor",
        "pip wheel",
    ):
        assert any(part in command for command in commands), part


def matches(wanted: str, got: str) -> bool:
    """Whether the output is as shown; `...` is anything, and a command without output shown may print nothing."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(wanted, got, flags)

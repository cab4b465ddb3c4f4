"""Pages of docs/ that are followed step by step: files are written, commands run, and what a page shows must come out.

A block with a title is a file. A ``console`` block holds commands, each after ``$``, and what they print; ``...`` is anything. An
exit status other than 0 of a block's last command stands in a comment before it. Any other block is an error: nothing would be
done with it.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(
    r'(?:<!-- exit status (?P<status>\d+) -->\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)```\n',
    flags=re.S,
)

Run = Callable[[str, Path, int], str]
"""Runs a command in a folder, makes sure of its exit status, and gives what it printed."""


@dataclass
class Followed:
    """What was done: files written, by their titles, and commands run."""

    files: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def follow(page: Path, folder: Path, run: Run) -> Followed:
    """Does what a page says, beginning in an empty folder.

    Raises:
        AssertionError: Something other than what the page shows came out.
    """
    text = page.read_text(encoding="utf-8")
    blocks = list(_BLOCK.finditer(text))
    assert len(blocks) == text.count("```") // 2, "a block that is written in another way"
    done = Followed()
    for block in blocks:
        if title := block["title"]:
            (folder / title).write_text(block["text"], encoding="utf-8")
            done.files.append(title)
            continue
        assert block["language"] == "console", f"a block that nothing is done with:\n{block[0]}"
        before, *steps = re.split(r"^\$ (.*)\n", block["text"], flags=re.M)
        assert not before, f"output without a command:\n{block[0]}"
        commands, shown = steps[::2], steps[1::2]
        for number, (command, wanted) in enumerate(zip(commands, shown, strict=True), start=1):
            if command.startswith("cd "):
                folder = folder / command.removeprefix("cd ")
                continue
            status = int(block["status"] or 0) if number == len(commands) else 0
            got = run(command, folder, status)
            assert _matches(wanted, got), (
                f"$ {command}\nThe page says:\n{wanted}\nbut it is:\n{got}"
            )
            done.commands.append(command)
    return done


def _matches(wanted: str, got: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(wanted, got, flags)

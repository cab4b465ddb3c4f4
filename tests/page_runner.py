"""Pages of docs/ that are followed step by step: files are written, commands run, and what a page shows must come out.

A block with a title is a file. A ``console`` block holds commands, each after ``$``, and what they print: ``...`` is anything,
and where no output is shown a command may print nothing or anything. An exit status other than 0 of a block's last command
stands in a comment before it. Any other block is an error: nothing would be done with it.
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

Run = Callable[[str, Path, int], tuple[str, Path]]
"""Runs a command in a folder, expecting an exit status; gives what it printed, and the folder where it left the shell."""


@dataclass
class Followed:
    """What was done.

    Attributes:
        folder: Where the shell stands at the end.
        files: Files written, by their titles.
        commands: Commands run.
    """

    folder: Path
    files: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def follow(
    page: Path, folder: Path, run: Run, *, rewritten: Callable[[str], bool] = lambda title: False
) -> Followed:
    """Does what a page says, beginning in ``folder``.

    Args:
        page: The page.
        folder: An empty folder.
        run: Runs its commands.
        rewritten: Whether a file, by its title, must be there already when the page shows it.

    Raises:
        AssertionError: Something other than what the page shows came out.
    """
    text = page.read_text(encoding="utf-8")
    blocks = list(_BLOCK.finditer(text))
    assert len(blocks) == text.count("```") // 2, "a block that is written in another way"
    done = Followed(folder)
    for block in blocks:
        if title := block["title"]:
            file = done.folder / title
            assert file.exists() or not rewritten(title), f"{title}: there is no such file yet"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"], encoding="utf-8")
            done.files.append(title)
        else:
            wrong = f"a block that nothing is done with:\n{block[0]}"
            assert block["language"] == "console", wrong
            _run_block(block["text"], int(block["status"] or 0), done, run)
    return done


def _run_block(text: str, status: int, done: Followed, run: Run) -> None:
    before, *steps = re.split(r"^\$ (.*)\n", text, flags=re.M)
    assert not before, f"a console block that does not begin with a command:\n{text}"
    commands, shown = steps[::2], steps[1::2]
    for number, (command, wanted) in enumerate(zip(commands, shown, strict=True), start=1):
        got, done.folder = run(command, done.folder, status if number == len(commands) else 0)
        assert _matches(wanted, got), f"$ {command}\nThe page says:\n{wanted}\nbut it is:\n{got}"
        done.commands.append(command)


def _matches(wanted: str, got: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return not wanted.strip() or doctest.OutputChecker().check_output(wanted, got, flags)

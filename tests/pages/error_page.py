"""docs/errors.md: each problem that a user can meet, with the text that really comes."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pages.error_case import Case
from pages.errors_of_calls import CALLS
from pages.errors_of_configurations import CONFIGURATIONS
from pages.errors_of_models import MODELS
from pages.errors_of_plugins import PLUGINS
from pyg_nsa.registry import Registry, use_registry

HEAD = """# Error catalogue

<!-- Written by `python tests/pages --write`, which provokes each of them; a test fails where it is out of date. -->

What can go wrong in configurations, plugins, data, swaps, checkpoints and calls; each text below was really provoked. The name in the title
is what programs go by: the `code` of a problem (`ConfigError.problems`, `SwapError.problems`, `CheckpointMismatchError.problems`, and
`pyg-nsa check --json`), or the class of an exception. Calls raise Python's own `ValueError` and `TypeError`; there the title is what they are
about.

A configuration's problems come all at once, each with its file, line and path. Codes that are not listed are pydantic's own
(`greater_than_equal`, `string_type`, `list_type` …) or those of a plugin's options; their texts say what was expected and what came.
"""

SECTIONS = {
    "Configurations": CONFIGURATIONS,
    "Plugins": PLUGINS,
    "Swap and checkpoints": MODELS,
    "Calls": CALLS,
}


def error_page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for title, cases in SECTIONS.items():
        parts.append(f"## {title}\n")
        for case in cases:
            text = text_of(case)
            parts.append(
                f"### `{case.name}`\n\n{case.what}\n\n```text\n{text}\n```\n\n**Mend:** {case.mend}\n"
            )
    return "\n".join(parts).rstrip() + "\n"


def text_of(case: Case) -> str:
    """The text of a case.

    Raises:
        AssertionError: It was another problem than the case is about.
    """
    with fresh_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = case.provoke(folder)
    names = {type(error).__name__, *(problem.code for problem in getattr(error, "problems", ()))}
    assert (case.error or case.name) in names, f"{case.name}: got {sorted(names)}: {error}"
    if not case.error:
        return str(error).rstrip()
    return "\n".join([f"{case.error}: {error}", *getattr(error, "__notes__", ())])


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """An empty working directory, and a registry of the first-party plugins."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with use_registry(Registry(allow=["pyg-nsa"], disable=(), strict=False)):
                yield Path(folder)
        finally:
            os.chdir(before)

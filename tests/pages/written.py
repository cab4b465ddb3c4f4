"""Which pages are written, and from what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pages.configuration_page import configuration_page
from pages.error_page import error_page
from pages.plugin_page import plugin_page
from pages.training_page import training_page

DOCS = Path(__file__).parents[2] / "docs"

PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "plugins.md": plugin_page,
    DOCS / "errors.md": error_page,
    DOCS / "configuration.md": configuration_page,
    DOCS / "training.md": training_page,
}


def text_of(page: Path) -> str:
    """The text that a page should have."""
    return PAGES[page]()

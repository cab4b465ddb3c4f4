"""The report in a real browser, where there is one: it must open without a word on the console."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed"
)


def browse(page, tmp_path, *options):
    """Opens a page without a network; what the page itself said on the console, and what the browser printed."""
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",  # a container's root user has none
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return re.findall(r"CONSOLE.*", done.stderr), done.stdout


@needs_browser
def test_it_opens_without_console_messages(tiny_run, tmp_path):
    console, dom = browse(tiny_run / "report.html", tmp_path, "--dump-dom")
    assert console == []
    assert dom.count("<img") == len(list((tiny_run / "figures").iterdir()))
    assert "How good the predictions are" in dom


@needs_browser
def test_the_console_is_heard(tmp_path):
    """Without this the test above could not fail."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>x</title><script>undefined_name</script>")
    console, _ = browse(page, tmp_path, "--dump-dom")
    assert "undefined_name is not defined" in " ".join(console)


@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
def test_it_fits_the_window(tiny_run, tmp_path, width):
    """Wide tables and drawings scroll in their own boxes; the page itself never does."""
    page = tmp_path / "measured.html"
    measure = (
        "<script>document.title = document.documentElement.scrollWidth - innerWidth</script></body>"
    )
    page.write_text((tiny_run / "report.html").read_text().replace("</body>", measure))
    picture = tmp_path / "picture.png"
    size = f"--window-size={width},2000"
    _, dom = browse(page, tmp_path, size, "--dump-dom")
    assert int(re.search(r"<title>(-?\d+)</title>", dom)[1]) <= 0
    browse(tiny_run / "report.html", tmp_path, size, f"--screenshot={picture}")
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (width, 2000)

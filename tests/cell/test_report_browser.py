"""The report in a real browser, where there is one: it must open without a word on the console.

Without one these tests skip; with ``PYG_NSA_BROWSER=required``, as in CI, they fail.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import struct
import subprocess

import pytest

REQUIRED = os.environ.get("PYG_NSA_BROWSER") == "required"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser(path=None, required=REQUIRED):
    """A browser of ``path`` (by default the environment's ``PATH``); skips the test without one, or fails it."""
    for name in NAMES:
        if found := shutil.which(name, path=path):
            return found
    missing = f"none of {', '.join(NAMES)} is installed"
    if required:
        pytest.fail(f"PYG_NSA_BROWSER=required, but {missing}")
    pytest.skip(missing)


def browse(page, tmp_path, *options):
    """Opens a page without a network; what the page itself said on the console, and what the browser printed."""
    done = subprocess.run(
        [
            find_browser(),
            "--headless",
            "--no-sandbox",  # a container's root user has none
            "--disable-dev-shm-usage",  # a container has little of it
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


def test_it_opens_without_console_messages(tiny_run, tmp_path):
    console, dom = browse(tiny_run / "report.html", tmp_path, "--dump-dom")
    assert console == []
    assert dom.count("<img") == len(list((tiny_run / "figures").iterdir()))
    assert "How good the predictions are" in dom


def test_the_console_is_heard(tmp_path):
    """Without this the test above could not fail."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>x</title><script>undefined_name</script>")
    console, _ = browse(page, tmp_path, "--dump-dom")
    assert "undefined_name is not defined" in " ".join(console)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_window(tiny_run, tmp_path, width):
    """Wide figures and tables scroll in their own boxes; the page itself never does."""
    # In a frame, for no window of Chromium is as narrow as a phone.
    report = html.escape((tiny_run / "report.html").read_text())
    measure = "document.title = this.contentDocument.documentElement.scrollWidth - this.clientWidth"
    frame = f'<iframe srcdoc="{report}" onload="{measure}" style="border: 0; width: {width}px">'
    page = tmp_path / "framed.html"
    page.write_text(f"<!doctype html>{frame}</iframe>")
    _, dom = browse(page, tmp_path, "--dump-dom")
    assert int(re.search(r"<title>(-?\d+)</title>", dom)[1]) == 0


def test_it_can_be_photographed(tiny_run, tmp_path):
    picture = tmp_path / "picture.png"
    browse(tiny_run / "report.html", tmp_path, "--window-size=1280,2000", f"--screenshot={picture}")
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1280, 2000)


def test_a_missing_browser_fails_where_one_is_required(tmp_path):
    with pytest.raises(pytest.fail.Exception, match="required, but none of chromium, chromium-b"):
        find_browser(str(tmp_path), required=True)
    with pytest.raises(pytest.skip.Exception, match="none of chromium, .* is installed"):
        find_browser(str(tmp_path), required=False)

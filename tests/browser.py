# SPDX-License-Identifier: Apache-2.0
"""Pages in headless Chromium: what a window of some width cuts off or covers (geometry.js)."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
SECONDS = 120
HEIGHT = 1000
SCRIPT = Path(__file__).with_name("geometry.js")


def find_browser() -> str | None:
    """Path of Chromium: CHROMIUM, else one on the PATH; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


needs_browser = pytest.mark.skipif(
    find_browser() is None,
    reason="needs Chromium: `apt-get install chromium`, or set CHROMIUM to its path",
)


def _framed(page: str, width: int, folder: Path) -> Path:
    """A file that shows a page in a frame of that width, which no least window width changes."""
    inside = page.replace("</body>", f"<script>{SCRIPT.read_text()}</script></body>")
    path = folder / f"framed_{width}.html"
    path.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0"><pre id="geometry"></pre>'
        f'<iframe style="border: 0; width: {width}px; height: {HEIGHT}px" '
        f'srcdoc="{html.escape(inside)}"></iframe></body>'
    )
    return path


def _run(folder: Path, width: int, *words: str) -> str:
    browser = find_browser()
    assert browser
    profile = f"--user-data-dir={folder / 'profile'}"
    size = f"--window-size={max(width, 500)},{HEIGHT}"
    done = subprocess.run(
        [browser, *FLAGS, profile, size, *words],
        capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    return done.stdout


def wrong_in(page: str, width: int, folder: Path) -> list[str]:
    """Sentences on what a window of `width` pixels cuts off or covers of a page's text."""
    path = _framed(page, width, folder)
    shown = _run(folder, width, "--virtual-time-budget=5000", "--dump-dom", path.as_uri())
    found = re.search(r'<pre id="geometry">(.*?)</pre>', shown, re.DOTALL)
    assert found and found[1], "the page must have run geometry.js"
    result = json.loads(html.unescape(found[1]))
    assert result["width"] == width
    wrong: list[str] = result["wrong"]
    return wrong

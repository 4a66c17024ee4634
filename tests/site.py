# SPDX-License-Identifier: Apache-2.0
"""`make docs`: the site of docs/ with mkdocs (mkdocs.yml), after every link has been checked.

`python -m tests.site` collects README (as index), docs/ and the pages beside README in
build/docs/pages, where links between them lead to each other, and builds build/docs/site.
"""

import os.path
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from nuq.formats.build import atomic_dir
from nuq.formats.errors import UserError, run_cli
from tests.checkout import ROOT

PAGES = Path("build") / "docs" / "pages"
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")  # pages that are not in docs/
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")
_OTHER = ("http://", "https://", "mailto:")


def sources(root: Path = ROOT) -> list[Path]:
    """The pages of a checkout."""
    return [root / name for name in BESIDE] + sorted((root / "docs").glob("*.md"))


def prose(text: str) -> list[str]:
    """The lines of a page that are no code."""
    lines, fenced = [], False
    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        if not fenced and not fence and not line.startswith("    "):
            lines.append(line)
        fenced ^= fence
    return lines


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub names it.

    >>> slug("Tables II to IV: what a layer reads"), slug("`make hls`, 2.1")
    ('tables-ii-to-iv-what-a-layer-reads', 'make-hls-21')
    """
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The anchors of a page; headings of one name are numbered."""
    found: set[str] = set()
    for line in prose(text):
        if title := re.match(r"#+ (.+)", line):
            name = first = slug(title[1])
            number = 0
            while name in found:
                number += 1
                name = f"{first}-{number}"
            found.add(name)
    return found


def broken(pages: list[Path]) -> list[str]:
    """A sentence for each link of some pages that leads to no file or no heading."""
    found = []
    for page in pages:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for _, target in _LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if not target.startswith(_OTHER) and (why := _wrong(page, target)):
                    found.append(f"{page}:{number}: {target} {why}")
    return found


def _wrong(page: Path, target: str) -> str:
    """What is wrong with a link; "" for nothing."""
    name, _, anchor = target.partition("#")
    path = Path(os.path.normpath(page.parent / name)) if name else page
    if not path.exists():
        return "leads to no file"
    if anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
        return f"leads to no heading of {path.name}"
    return ""


def collect(folder: Path, root: Path = ROOT) -> None:
    """Write all pages into one folder, with what they show, README as index.md."""
    with atomic_dir(folder) as into:
        for page in sources(root):
            name = "index.md" if page.name == "README.md" else page.name
            (into / name).write_text(site_text(page.read_text(encoding="utf-8")), encoding="utf-8")
        for other in (root / "docs").iterdir():
            if other.is_dir():
                shutil.copytree(other, into / other.name)


def site_text(text: str) -> str:
    """A page as the site has it: links within one folder, an empty line before each list.

    >>> site_text("See [a](docs/a.md#b) and [c](../README.md).\\nText:\\n- one\\n- two")
    'See [a](a.md#b) and [c](index.md).\\nText:\\n\\n- one\\n- two'
    """
    lines: list[str] = []
    listed = False
    for line in _LINK.sub(_relinked, text).splitlines():
        item = re.match(r"\s*(- |\d+\. )", line) is not None
        if item and not listed and lines and lines[-1].strip():
            lines.append("")
        listed = item or (listed and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines)


def _relinked(found: re.Match[str]) -> str:
    target = found[2]
    if not target.startswith(_OTHER):
        target = target.removeprefix("../").removeprefix("docs/").replace("README.md", "index.md")
    return f"{found[1]}({target})"


def main(_: list[str]) -> int:
    """Check, collect, build; the exit status."""
    wrong = broken(sources())
    for line in wrong:
        print(line)
    if wrong:
        return 1
    if find_spec("mkdocs") is None:
        raise UserError("make docs needs the package mkdocs; `.venv/bin/pip install mkdocs`")
    collect(ROOT / PAGES)
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if not status:
        print(f"written: {PAGES.parent / 'site' / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(run_cli(main))

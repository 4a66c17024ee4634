# SPDX-License-Identifier: Apache-2.0
"""Every link of README and docs/ leads somewhere; the site has every page."""

import re
import tomllib
from pathlib import Path

import pytest

from nuq.codegen import VERSION
from tests import site
from tests.checkout import ROOT, execute, needs_mkdocs
from tests.layout import outside, overlaps


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    assert site.broken(site.sources()) == []


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("b.md", ""),
        ("b.md#two-words", ""),
        ("b.md#two-words-1", ""),
        ("https://example.org/b.md#c", ""),
        ("c.md", "leads to no file"),
        ("b.md#in-code", "leads to no heading of b.md"),
        ("#nothing", "leads to no heading of a.md"),
    ],
)
def test_broken_links_are_found(tmp_path: Path, link: str, why: str) -> None:
    page = tmp_path / "a.md"
    page.write_text(f"# Title\n\ntext [with]({link}) and `[code](none.md)`\n")
    (tmp_path / "b.md").write_text("## Two words\n\n## Two words\n\n    # In code\n")
    assert site.broken([page]) == ([f"{page}:3: {link} {why}"] if why else [])


def test_the_site_has_every_page(tmp_path: Path) -> None:
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    site.collect(tmp_path / "pages")
    assert sorted(listed) == sorted(path.name for path in (tmp_path / "pages").glob("*.md"))
    assert site.broken(sorted((tmp_path / "pages").glob("*.md"))) == []


@needs_mkdocs
def test_the_site_is_built_without_a_warning() -> None:
    assert "written: build/docs/site/index.html" in execute("make", "docs", status=0).stdout


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == VERSION


def test_examples_quote_the_figures() -> None:
    """Each measured number of examples.md stands in the page that it is taken from."""
    text = (ROOT / "docs" / "examples.md").read_text()
    assert unquoted(text) == []
    assert unquoted("It has 12.345% top-1 ([figures](figures.md)).") == ["12.345%"]


def unquoted(text: str) -> list[str]:
    """Numbers of paragraphs and tables that link to another page and that it does not have."""
    found = []
    for part in re.split(r"\n\n|\n(?=\|)", text):
        pages = re.findall(r"\]\((\w+\.md)", part)
        quoted = "".join((ROOT / "docs" / page).read_text() for page in pages)
        plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", part)
        numbers = re.findall(r"[-+]?\d[\d,]*\.\d+%?|\d[\d,]*%", plain)
        found += [number for number in numbers if pages and number not in quoted]
    return found


def shown(name: str) -> str:
    """A picture of docs/, whose texts neither cover each other nor leave it."""
    svg = (ROOT / "docs" / "images" / name).read_text()
    assert overlaps(svg) == [] and outside(svg) == []
    return svg


def names_in(svg: str) -> list[str]:
    """The names of its boxes."""
    return re.findall(r'<text class="name"[^>]*>([^<]*)</text>', svg)


def test_the_picture_of_the_engine_has_its_processes() -> None:
    region = (ROOT / "hls_templates" / "engine" / "engine.hpp").read_text()
    processes = re.findall(r"PROCESS\((\w+)<C>", region)
    assert len(processes) > 10
    assert sorted(names_in(shown("engine.svg"))) == sorted([*processes, "DRAM", "A, B"])


def test_the_picture_of_the_architecture_has_its_nouns() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    svg = shown("architecture.svg")
    line = re.search(r"\*\*(files -> .*?) or (\w+)\*\*", text)
    assert line
    steps = [*line[1].split(" -> "), line[2]]
    packages = [f"nuq.{name}" for name in ("formats", "model_prep", "codegen")]
    assert sorted(names_in(svg)) == sorted([*packages, *steps[:-1], "nuq.board"])
    modules = re.search(r"in every bundle: ([^<]*)<", svg)
    assert modules
    for name in modules[1].split(" · "):
        assert (ROOT / "formats" / f"{name}.py").is_file()

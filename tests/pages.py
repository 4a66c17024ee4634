# SPDX-License-Identifier: Apache-2.0
"""HTML pages read back: what every page must be, and the words in it."""

from contextlib import nullcontext
from html.parser import HTMLParser
from unittest.mock import patch

import numpy as np

from nuq.codegen.design.search import explore
from nuq.codegen.emit import golden
from nuq.codegen.emit.board_design import describe
from nuq.codegen.emit.program_file import make_program
from nuq.codegen.emit.report import build_report
from nuq.codegen.emit.report_page import render_html
from nuq.formats.hardware import find_part
from tests.layout import figures, outside, overlaps
from tests.networks import full_size

VOID = ("meta", "br", "hr", "link", "img")
LINKS = ("href", "src", "xlink:href", "action")


class Page(HTMLParser):
    """Checks that tags are balanced; collects words, links, ids and the classes around tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, str]] = []
        self.around: list[list[str]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []  # cells of outermost tables, row by row
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "table":
            self.around.append(" ".join(classes for _, classes in self.stack).split())
            if self._depth == 0:
                self.tables.append([])
        if self._depth == 1 and tag == "tr":
            self.tables[-1].append([])
        if self._depth == 1 and tag in ("td", "th") and "colspan" not in values:
            self.tables[-1][-1].append("")
        self.links += [values[name] for name in LINKS if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.stack.append((tag, values.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._depth == 1 and self.stack[-1][0] not in ("tr", "table", "tbody", "thead"):
            rows = self.tables[-1]
            if rows and rows[-1] and self.stack[-1][0] != "caption":
                rows[-1][-1] += data

    @property
    def _depth(self) -> int:
        return sum(tag == "table" for tag, _ in self.stack)


def check_page(text: str) -> Page:
    """A page that stands alone, whose tables lie in boxes that scroll and the window limits."""
    page = Page(text)
    assert page.around and all("box" in names for names in page.around)
    style = text.partition("<style>")[2].partition("</style>")[0]
    rules = {}
    for part in style.replace("*/", "}").split("}"):
        name, _, rule = part.partition(" {")
        rules.setdefault(name.strip(), rule)
    assert "overflow-x: auto" in rules[".box"] and "max-width: 100%" in rules[".box"]
    assert "width" not in rules["body"] + rules["table"]
    assert "prefers-color-scheme: dark" in style
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "url(http" not in text and "@import" not in text and "<script" not in text
    for svg in figures(text):
        assert not overlaps(svg) and not outside(svg), (overlaps(svg), outside(svg))
    return page


def full_size_report(net: str) -> str:
    """report.html of a network of real size on a XC7Z020, whose codes are all 0."""
    network = full_size(net)
    design = explore(network, find_part("XC7Z020")).best
    checks = [0] * len(network.layers)
    stored = {layer.name: np.zeros((1, 1), np.uint16) for layer in network.layers}
    driver = describe(design, make_program(design, "0" * 8, checks), checks)
    with patch.object(golden, "open_vectors", lambda _: nullcontext(stored)):
        return render_html(build_report(design, driver, "0" * 64))

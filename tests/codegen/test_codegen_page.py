# SPDX-License-Identifier: Apache-2.0
"""The HTML pages: tables in boxes that scroll, text escaped; labels of figures do not overlap."""

from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from codegen.design.bounds import layer_times
from codegen.design.search import explore
from codegen.emit import explore_page, plots
from codegen.emit.page import Bad, Bar, Figure, Page, Section, Table, render
from formats.hardware import find_part
from tests.networks import full_size

VOID = ("meta", "br", "link", "img")
EVIL = '<img src="http://x" onerror=alert(1)>&'


class Reader(HTMLParser):
    """Checks that tags are balanced and collects classes around tables, rules and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, str]] = []
        self.around: list[list[str]] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "table":
            self.around.append(" ".join(name for _, name in self.stack).split())
        self.links += [values[name] or "" for name in ("href", "src") if name in values]
        if tag not in VOID:
            self.stack.append((tag, values.get("class") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag


def check_page(text: str) -> Reader:
    """A page of its own whose tables stand in boxes that scroll and that the window limits only."""
    reader = Reader(text)
    assert reader.around and all("box" in names for names in reader.around)
    style = text.partition("<style>")[2].partition("</style>")[0]
    rules = {}
    for part in style.replace("*/", "}").split("}"):
        name, _, rule = part.partition(" {")
        rules.setdefault(name.strip(), rule)
    assert "overflow-x: auto" in rules[".box"] and "max-width: 100%" in rules[".box"]
    assert "width" not in rules["body"] + rules["table"]
    assert all(link.startswith("#") for link in reader.links)
    assert "url(http" not in text and "@import" not in text and "<script" not in text
    return reader


def test_cells_and_text() -> None:
    cells = (EVIL, 1234567, 1.25, None, True, Bar(0.5), Bad(3))
    table = Table([EVIL], [cells], EVIL, EVIL)
    sections = [Section(EVIL, (EVIL, table, Figure("<svg></svg>", EVIL), Table([], [], fold=EVIL)))]
    text = render(Page(EVIL, EVIL, sections, EVIL, {EVIL: EVIL}, contents=True))
    check_page(text)
    assert "<img" not in text and text.count("&lt;img") == 15
    for shown in ("1,234,567", "1.25", "–", "yes", 'width="40.0"', '<span class="bad">3</span>'):
        assert f"<td>{shown}</td>" in text or shown in text


def test_report_of_a_build(generated: Callable[..., Path]) -> None:
    text = (generated() / "report.html").read_text()
    reader = check_page(text)
    assert len(reader.around) >= 4 and "multipliers busy" in text


def boxes(axis: Any, texts: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Boxes in pixels of texts that are drawn, without the lines of annotations."""
    from matplotlib.text import Text

    axis.figure.draw_without_rendering()
    renderer = axis.figure.canvas.get_renderer()
    for text in texts:
        if text.get_visible() and text.get_text():
            yield text.get_text(), Text.get_window_extent(text, renderer)


def no_overlaps(named: Sequence[tuple[str, Any]]) -> None:
    for (first, a), (second, b) in combinations(named, 2):
        assert not a.overlaps(b), (first, second)


@pytest.mark.parametrize("net", ["alexnet", "vgg16"])
def test_labels_of_the_roofline_do_not_intersect(net: str) -> None:
    plan = explore(full_size(net), find_part("XC7Z020")).best
    times = layer_times(plan)
    with plots.drawing("roofline", size=explore_page.ROOFLINE_SIZE) as (axes, _):
        explore_page.roofline(axes[0, 0], plan, times)
        named = list(boxes(axes[0, 0], axes[0, 0].texts))
        no_overlaps(named)
        assert {time.name for time in times} <= {name for name, _ in named}
        for _, box in named:
            assert axes[0, 0].figure.bbox.containsx(box.x0) and box.x1 <= axes[0, 0].figure.bbox.x1


@pytest.mark.parametrize("count", [5, 16, 40])
def test_names_stand_under_their_bars(count: int) -> None:
    names = [f"body_body_{n}_expand3_conv" if n % 2 else f"conv{n}" for n in range(count)]
    size = explore_page.bounds_size(count)
    with plots.drawing("bounds", size=size) as (axes, _):
        axis = axes[0, 0]
        plots.stacked(axis, names, [("a", "#111111", range(count)), ("b", "#222222", range(count))])
        named = list(boxes(axis, axis.get_xticklabels()))
        assert len(named) == count
        for place, (name, box) in enumerate(named):
            pixel = axis.transData.transform((place, 0))[0]
            end = box.x1 if axis.get_xticklabels()[place].get_rotation() else (box.x0 + box.x1) / 2
            assert abs(end - pixel) < 12, (name, end, pixel)
        legend = axis.get_legend().get_window_extent()
        assert legend.x0 >= axis.get_window_extent().x1
